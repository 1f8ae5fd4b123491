"""The whole way without any outside data: a chest CT phantom, its nodules, a library of phantom nodules."""

from __future__ import annotations

import tempfile
from pathlib import Path

from LesionClassifierLib.headless import startHeadlessSlicer
from LesionClassifierLib.scene.lesions import addRoiNode
from LesionClassifierLib.scene.volumes import addVolumeNode
from LesionLib.errors import InputWarning, WarningName
from LesionLib.inference.results import LesionResult
from LesionLib.phantom.chest import chest_phantom
from LesionRetrievalLib.library.cases import ModelIdentity
from LesionRetrievalLib.library.pseudonyms import Pseudonymiser
from LesionRetrievalLib.library.store import CaseLibrary, write_library

from LesionLensApp.classify import Job, run_job
from LesionLensApp.library.phantoms import BOX_MARGIN_MM, TOTAL, phantom_cases
from LesionLensApp.loaded_model import ModelSession
from LesionLensApp.output import Steps

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
    roiNodes = [addRoiNode(running.scene, nodule.box.grown(BOX_MARGIN_MM)) for nodule in phantom.nodules]
    with tempfile.TemporaryDirectory(prefix="lesionlens-") as folder:
        path = Path(folder) / "phantoms.lesionlib"
        key = Pseudonymiser.create(Path(folder) / "pseudonym.key")
        cases = steps.each(phantom_cases(model, key, seed=seed), f"Building a library of {TOTAL} phantoms", total=TOTAL)
        write_library(path, ModelIdentity.of_model(model.described), cases)
        with CaseLibrary.open(path) as library:
            job = Job(running, volumeNode, roiNodes, model, library=library, extraWarnings=(_NOTE,))
            return run_job(job, out, steps, overwrite=True)
