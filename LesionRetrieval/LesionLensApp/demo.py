"""The whole way without any outside data: a chest CT phantom, its nodules, a library of phantom nodules.

Where LESIONLENS_DATA names a folder of real nodules, the same on some of them.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from LesionClassifierLib.headless import HeadlessSlicer, startHeadlessSlicer
from LesionClassifierLib.scene.lesions import addRoiNode
from LesionClassifierLib.scene.volumes import addVolumeNode
from LesionLib.errors import InputWarning, WarningName
from LesionLib.inference.results import LesionResult
from LesionLib.model.folder import segment_margin_of
from LesionLib.phantom.chest import chest_phantom
from LesionRetrievalLib.library.cases import CaseEntry, ModelIdentity
from LesionRetrievalLib.library.intake import NewCase, Owner, case_entry, write_library
from LesionRetrievalLib.library.phantoms import BOX_MARGIN_MM, TOTAL, phantom_cases
from LesionRetrievalLib.library.pseudonyms import Pseudonymiser
from LesionRetrievalLib.library.store import CaseLibrary
from LesionRetrievalLib.quiz.making import CaseFolder, choose_cases

from LesionLensApp.classify import Answered, Job, run_jobs
from LesionLensApp.loaded_model import ModelSession
from LesionLensApp.output import Steps

ALSO = ("lung-nodule-description", "lung-nodule-malignancy")
DATA, READERS = "LESIONLENS_DATA", "lidc_readers"
_KINDS = ("granuloma", "round", "spiculated", "part-solid", "ground-glass")
_ASKED, _SIMILAR = 6, 24  # of a folder of real nodules: how many are answered, and how many they are compared with
_NOTE = InputWarning(
    WarningName.PHANTOM,
    "This is a computed phantom: the model was trained on real nodules, so its answer here is an example, not evidence.",
)


def run_demo(
    out: Path, model: ModelSession, steps: Steps, *, also: Sequence[ModelSession] = (), seed: int = 0,
    answered: Answered = lambda _results: None,
) -> list[LesionResult]:  # fmt: skip
    """Answer the nodules of a phantom, or of the folder in LESIONLENS_DATA, and leave everything in ``out``; an earlier demo there
    is replaced. ``also``: models whose answers stand beside those of ``model``. ``answered`` is told the answers.

    Raises `LesionLensError`.
    """
    running = startHeadlessSlicer()
    running.scene.Clear(False)  # one process may run several commands
    if folder := os.environ.get(DATA):
        return _on_real_nodules(Path(folder), out, model, steps, running, also=also, seed=seed, answered=answered)
    steps.begin("Computing a chest CT phantom")
    phantom = chest_phantom(seed=seed, kinds=_KINDS)
    steps.begin("Loading it into a MRML scene")
    volumeNode = addVolumeNode(running.scene, phantom.volume)
    roiNodes = [addRoiNode(running.scene, nodule.box.grown(BOX_MARGIN_MM)) for nodule in phantom.nodules]
    with tempfile.TemporaryDirectory(prefix="lesionlens-") as temporary:
        key = Pseudonymiser.create(Path(temporary) / "pseudonym.key")
        cases = steps.each(
            phantom_cases(model.embed, key, seed=seed, with_patches=True),
            f"Building a library of {TOTAL} phantoms",
            total=TOTAL,
        )
        with _library(Path(temporary), model, cases) as library:
            job = Job(running, volumeNode, roiNodes, model, library=library, extraWarnings=(_NOTE,), also=also)
            return run_jobs([job], out, steps, overwrite=True, answered=answered)


def _library(folder: Path, model: ModelSession, cases: Iterator[CaseEntry]) -> CaseLibrary:
    path = folder / "demo.lesionlib"
    write_library(path, ModelIdentity.of_model(model.described), cases)
    return CaseLibrary.open(path)


def _on_real_nodules(
    folder: Path, out: Path, model: ModelSession, steps: Steps, running: HeadlessSlicer,
    *, also: Sequence[ModelSession], seed: int, answered: Answered,
) -> list[LesionResult]:  # fmt: skip
    """Nodules of each answer in turn, those of other patients to compare with."""
    steps.begin(f"Reading {folder.name}")
    readers = folder.parent / READERS
    source = CaseFolder(
        folder,
        class_names=model.described.class_names,
        organ="lung",
        margin_mm=segment_margin_of(model.described.manifest),
        readers=readers if readers.is_dir() else None,
    )
    count = len(source.labels())
    asked = choose_cases(source, min(_ASKED, count), seed=seed)
    patients = {source.patients()[index] for index in asked}
    compared = [
        index
        for index in choose_cases(source, min(_ASKED + _SIMILAR, count), seed=seed)
        if source.patients()[index] not in patients
    ]
    jobs = []
    with tempfile.TemporaryDirectory(prefix="lesionlens-") as temporary, ExitStack() as stack:
        library = None
        if compared:  # a small folder may have no other patients
            key = Pseudonymiser.create(Path(temporary) / "pseudonym.key")
            entries = _entries(source, compared, model, key)
            cases = steps.each(entries, f"Building a library of {len(compared)} nodules", total=len(compared))
            library = stack.enter_context(_library(Path(temporary), model, cases))
        for number, index in enumerate(asked, start=1):
            lesion = source.load(index)
            volumeNode = addVolumeNode(running.scene, lesion.volume)
            volumeNode.SetName(f"nodule {number}")
            roiNode = addRoiNode(running.scene, lesion.box)
            roiNode.SetName(f"N{number} {lesion.label}")
            jobs.append(Job(running, volumeNode, [roiNode], model, library=library, also=also))
        return run_jobs(
            jobs, out, steps, overwrite=True, name=f"{len(jobs)} nodules of {folder.name}", answered=answered
        )


def _entries(
    source: CaseFolder, indices: Sequence[int], model: ModelSession, key: Pseudonymiser
) -> Iterator[CaseEntry]:
    for number, index in enumerate(indices, start=1):
        lesion = source.load(index)
        new = NewCase(
            case_id=f"case-{number:03d}", label=lesion.label, label_source=lesion.label_source, organ=lesion.organ,
            with_thumbnails=True, with_patch=True,
        )  # fmt: skip
        owner = Owner(*key.hashes(source.patients()[index]))
        yield case_entry(lesion.volume, lesion.box, model.embed(lesion.volume, lesion.box), new=new, owner=owner)
