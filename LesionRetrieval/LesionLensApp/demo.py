"""The whole way without any outside data: a chest CT phantom, its nodules, a library of phantom nodules."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from LesionClassifierLib.headless import startHeadlessSlicer
from LesionClassifierLib.scene.lesions import addRoiNode
from LesionClassifierLib.scene.volumes import addVolumeNode
from LesionLib.errors import InputWarning, WarningName
from LesionLib.inference.results import LesionResult
from LesionLib.phantom.chest import chest_phantom
from LesionLib.phantom.nodules import KINDS, nodule_patch
from LesionRetrievalLib.library.cases import CaseEntry, ModelIdentity
from LesionRetrievalLib.library.intake import NewCase, Owner, case_entry
from LesionRetrievalLib.library.pseudonyms import Pseudonymiser
from LesionRetrievalLib.library.store import CaseLibrary, write_library

from LesionLensApp.classify import Job, run_job
from LesionLensApp.loaded_model import ModelSession
from LesionLensApp.output import Steps

_DIAMETERS_MM = (8.0, 11.0, 14.0, 17.0, 20.0)
_BOX_MARGIN_MM = 1.5
_NOTE = InputWarning(
    WarningName.PHANTOM,
    "This is a computed phantom: the model was trained on real nodules, so its answer here is an example, not evidence.",
)


def run_demo(out: Path, model: ModelSession, steps: Steps, *, seed: int = 0) -> list[LesionResult]:
    """Make the phantom, answer its boxes, and leave everything in ``out``; an earlier demo there is replaced."""
    steps.begin("Computing a chest CT phantom")
    phantom = chest_phantom(seed=seed)
    steps.begin("Loading it into a MRML scene")
    running = startHeadlessSlicer()
    running.scene.Clear(False)  # one process may run several commands
    volumeNode = addVolumeNode(running.scene, phantom.volume)
    roiNodes = [addRoiNode(running.scene, nodule.box.grown(_BOX_MARGIN_MM)) for nodule in phantom.nodules]
    with tempfile.TemporaryDirectory(prefix="lesionlens-") as folder:
        path = Path(folder) / "phantoms.lesionlib"
        total = len(KINDS) * len(_DIAMETERS_MM)
        key = Pseudonymiser.create(Path(folder) / "pseudonym.key")
        cases = steps.each(phantom_cases(model, key, seed=seed), f"Building a library of {total} phantoms", total=total)
        write_library(path, ModelIdentity.of_model(model.described), cases)
        with CaseLibrary.open(path) as library:
            job = Job(running, volumeNode, roiNodes, model, library=library, extraWarnings=(_NOTE,))
            return run_job(job, out, steps, overwrite=True)


def phantom_cases(model: ModelSession, key: Pseudonymiser, *, seed: int) -> Iterator[CaseEntry]:
    """One library case for every kind and size of nodule."""
    recipes = [(kind, diameter) for kind in KINDS for diameter in _DIAMETERS_MM]
    for number, (kind, diameter) in enumerate(recipes, start=1):
        volume, nodule = nodule_patch(kind=kind, diameter_mm=diameter, seed=1000 * seed + number)
        new = NewCase(
            case_id=f"phantom-{number:03d}",
            label=kind,
            label_source="how the phantom was made",
            organ="lung",
            attributes={"diameter_mm": diameter},
            with_thumbnails=True,
        )
        box = nodule.box.grown(_BOX_MARGIN_MM)
        owner = Owner(*key.hashes(f"phantom {number}"))
        yield case_entry(volume, box, model.embed(volume, box), new=new, owner=owner)
