"""A case library and a quiz of computed nodules, made on this computer: to search and to learn with on the first day.

No patient is in either. Both are made once for each version of the model and kept: what a user adds to them stays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from LesionLib.errors import OutputError
from LesionLib.geometry import CTVolume, LesionBox
from LesionLib.inference.messages import EmbeddingRequest, RunOptions, describing_request
from LesionLib.inference.runner import InferenceRunner
from LesionLib.io.private_files import private_folder
from LesionLib.model.folder import (
    DEFAULT_MODEL,
    class_names,
    find_bundle,
    segment_margin_mm,
    unchecked_manifest,
    user_data_folder,
)

from LesionRetrievalLib.library.cases import CaseEntry, ModelIdentity
from LesionRetrievalLib.library.phantoms import TOTAL, phantom_cases, write_phantom_library
from LesionRetrievalLib.library.pseudonyms import pseudonymisation_key
from LesionRetrievalLib.library.store import CaseLibrary
from LesionRetrievalLib.quiz.file import load_quiz
from LesionRetrievalLib.quiz.making import PHANTOM_NOTE, PhantomNodules, QuizPlan
from LesionRetrievalLib.quiz.requests import QuizRequest, quiz_of_request

LIBRARY_CASES, QUIZ_CASES = TOTAL, 12
_QUIZ_SEED = 14
_WINDOW_HU = (-1100.0, 700.0)  # wide enough for lung and calcium
_OPTIONS = RunOptions(precision="float32")  # as a library's vectors are

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class PracticeFiles:
    """Where practice is kept. ``answers``: the folder of the learners' answers to ``quiz``."""

    library: Path
    quiz: Path
    answers: Path
    model: str = DEFAULT_MODEL

    @property
    def total(self) -> int:
        """How many nodules the model still has to be asked about for the quiz."""
        return QUIZ_CASES + (0 if self.library.exists() else LIBRARY_CASES)


def practice_files(folder: Path | None = None, *, model: str = DEFAULT_MODEL) -> PracticeFiles:
    """In ``folder`` (default: the user's data folder), under the name of the model and its version."""
    folder = folder or user_data_folder() / "practice"
    name = f"{model}-{unchecked_manifest(find_bundle(model))['version']}"
    answers = folder / f"answers-{name}"
    return PracticeFiles(folder / f"practice-{name}.lesionlib", folder / f"practice-quiz-{name}.json", answers, model)


def make_practice_library(
    files: PracticeFiles, runner: InferenceRunner, *, key_path: Path | None = None, progress: Progress | None = None
) -> Path:
    """Make the library where it is not there yet; returns its path.

    ``progress(done, of)`` is told before each nodule and at the end; an exception that it raises stops here, and nothing is left.
    Runs in any thread. Raises `LesionLensError`.
    """
    if files.library.exists():
        CaseLibrary.open(files.library).close()  # says so where it is damaged
        return files.library
    key = pseudonymisation_key(key_path)

    def embed(volume: CTVolume, box: LesionBox) -> np.ndarray:
        return runner.run(EmbeddingRequest(files.model, volume, box, _OPTIONS, query_only=True)).vector

    model = ModelIdentity.of(runner.run(describing_request(files.model, _OPTIONS)).info)
    identity = replace(model, segment_margin_mm=segment_margin_mm(files.model))
    cases = _counted(phantom_cases(embed, key, with_patches=True), LIBRARY_CASES, progress)
    write_phantom_library(files.library, identity, cases, key=key)
    return files.library


def make_practice_quiz(
    files: PracticeFiles, runner: InferenceRunner, *, key_path: Path | None = None, progress: Progress | None = None
) -> Path:
    """Make the quiz where it is not there yet, with its similar cases out of the practice library; returns its path.

    ``progress`` and errors as for `make_practice_library`. The nodules of the quiz are others than those of the library.
    """
    if files.quiz.exists():
        load_quiz(files.quiz)
        return files.quiz
    total = files.total
    before = total - QUIZ_CASES

    def told(done: int, _of: int) -> None:
        if progress is not None:
            progress(done, total)

    make_practice_library(files, runner, key_path=key_path, progress=told)
    source = PhantomNodules(QUIZ_CASES, seed=_QUIZ_SEED, class_names=class_names(find_bundle(files.model)))
    plan = QuizPlan(
        title="Practice: calcified, solid or subsolid?",
        instructions=PHANTOM_NOTE,
        seed=_QUIZ_SEED,
        window_hu=_WINDOW_HU,
    )
    request = QuizRequest(
        out=files.quiz,
        plan=plan,
        model=files.model,
        library=files.library,
        lesions=tuple(source.load(index) for index in range(QUIZ_CASES)),
        options=_OPTIONS,
    )
    quiz_of_request(request, runner, progress=lambda done, of: told(before + done, of))
    try:
        private_folder(files.answers)
    except OSError as error:
        msg = f"{files.answers} cannot be made ({error.strerror}); choose another folder for the answers."
        raise OutputError(msg) from error
    return files.quiz


def _counted(cases: Iterator[CaseEntry], total: int, progress: Progress | None) -> Iterator[CaseEntry]:
    if progress is not None:
        progress(0, total)
    for done, case in enumerate(cases, start=1):
        yield case
        if progress is not None:
            progress(done, total)
