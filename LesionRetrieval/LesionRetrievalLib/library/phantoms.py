"""Computed nodules as library cases: something to search on the first day, without any data, each with its truth."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from LesionLib.geometry import CTVolume, LesionBox

from LesionRetrievalLib.library.cases import CREDIT_PROPERTY, CaseEntry, ModelIdentity
from LesionRetrievalLib.library.intake import NewCase, Owner, case_entry, write_library
from LesionRetrievalLib.library.ownership import KEY_PROPERTY
from LesionRetrievalLib.library.pseudonyms import Pseudonymiser

BOX_MARGIN_MM = 1.5
# The same sizes for every kind: size is not to tell the answer.
DIAMETERS_MM = (6.5, 7.0, 7.5, 8.0, 8.5, 9.0, 10.0, 11.0)
TOTAL = 3 * len(DIAMETERS_MM)
CREDIT = "Computed by LesionLens: no patient is in it."
_SOURCE = "how the phantom was made"

Embed = Callable[[CTVolume, LesionBox], np.ndarray]


def phantom_nodule(*, shape: str, diameter_mm: float, seed: int) -> tuple[CTVolume, LesionBox]:
    """A nodule in uneven lung with vessels, and the box that one would draw around it."""
    from LesionLib.phantom.nodules import nodule_patch  # needs scipy, which is not for Slicer's start

    volume, nodule = nodule_patch(
        kind=shape, diameter_mm=diameter_mm, seed=seed, size_mm=48.0, vessels=3, texture_hu=25.0, noise_hu=30.0
    )
    return volume, nodule.box.grown(BOX_MARGIN_MM)


def phantom_cases(
    embed: Embed, key: Pseudonymiser, *, seed: int = 0, with_patches: bool = False
) -> Iterator[CaseEntry]:
    """A case for each kind of nodule (calcified, solid, subsolid) and size, `TOTAL` in all; the shapes of a kind in turn."""
    from LesionLib.phantom.nodules import NATURES

    recipes = [
        (label, shapes[place % len(shapes)], diameter_mm)
        for label, shapes in NATURES.items()
        for place, diameter_mm in enumerate(DIAMETERS_MM)
    ]
    for number, (label, shape, diameter_mm) in enumerate(recipes, start=1):
        volume, box = phantom_nodule(shape=shape, diameter_mm=diameter_mm, seed=1000 * seed + number)
        new = NewCase(
            case_id=f"phantom-{number:03d}",
            label=label,
            label_source=_SOURCE,
            organ="lung",
            attributes={"shape": shape, "diameter_mm": diameter_mm},
            with_thumbnails=True,
            with_patch=with_patches,
        )
        owner = Owner(*key.hashes(f"phantom {number}"))
        yield case_entry(volume, box, embed(volume, box), new=new, owner=owner)


def write_phantom_library(
    out: Path, identity: ModelIdentity, cases: Iterator[CaseEntry], *, key: Pseudonymiser, overwrite: bool = False
) -> int:
    """A library of computed nodules with its key and credit; how many. Raises `CaseLibraryError`; the file is whole or not there."""
    properties = {KEY_PROPERTY: key.fingerprint, CREDIT_PROPERTY: CREDIT}
    return write_library(out, identity, cases, properties=properties, overwrite=overwrite)
