"""A case library of computed nodules: something to search on the first day, without any data, each with its truth."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from LesionLib.phantom.nodules import KINDS, nodule_patch
from LesionRetrievalLib.library.cases import CREDIT_PROPERTY, CaseEntry, ModelIdentity
from LesionRetrievalLib.library.intake import NewCase, Owner, case_entry
from LesionRetrievalLib.library.ownership import KEY_PROPERTY
from LesionRetrievalLib.library.pseudonyms import Pseudonymiser, pseudonymisation_key
from LesionRetrievalLib.library.store import write_library

from LesionLensApp.library.cases import require_free
from LesionLensApp.loaded_model import ModelSession
from LesionLensApp.output import Steps

DIAMETERS_MM = (8.0, 11.0, 14.0, 17.0, 20.0)
BOX_MARGIN_MM = 1.5
TOTAL = len(KINDS) * len(DIAMETERS_MM)
_CREDIT = "Computed by LesionLens: no patient is in it."


def build_phantom_library(
    model: ModelSession, out: Path, *, key_path: Path, steps: Steps, seed: int = 0, overwrite: bool = False
) -> int:
    """``lesionlens library phantom``: one case for every kind and size of nodule, with its CT; how many.

    Raises `OutputError` where ``out`` is in the way.
    """
    require_free(out, overwrite=overwrite)
    key = pseudonymisation_key(key_path)
    cases = phantom_cases(model, key, seed=seed, with_patches=True)
    shown = steps.each(cases, f"Building a library of {TOTAL} phantoms", total=TOTAL)
    properties = {KEY_PROPERTY: key.fingerprint, CREDIT_PROPERTY: _CREDIT}
    return write_library(
        out, ModelIdentity.of_model(model.described), shown, properties=properties, overwrite=overwrite
    )


def phantom_cases(
    model: ModelSession, key: Pseudonymiser, *, seed: int, with_patches: bool = False
) -> Iterator[CaseEntry]:
    """One library case for every kind and size of nodule."""
    recipes = [(kind, diameter) for kind in KINDS for diameter in DIAMETERS_MM]
    for number, (kind, diameter) in enumerate(recipes, start=1):
        volume, nodule = nodule_patch(kind=kind, diameter_mm=diameter, seed=1000 * seed + number)
        new = NewCase(
            case_id=f"phantom-{number:03d}",
            label=kind,
            label_source="how the phantom was made",
            organ="lung",
            attributes={"diameter_mm": diameter},
            with_thumbnails=True,
            with_patch=with_patches,
        )
        box = nodule.box.grown(BOX_MARGIN_MM)
        owner = Owner(*key.hashes(f"phantom {number}"))
        yield case_entry(volume, box, model.embed(volume, box), new=new, owner=owner)
