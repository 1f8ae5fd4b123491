"""Making a quiz as one request: which cases, what the teacher wants, which model; answered by a runner, with progress."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from LesionLib.bundle_folder import class_names, find_bundle, unchecked_manifest
from LesionLib.geometry import CTVolume, LesionBox
from LesionLib.results import LesionResult
from LesionLib.runner import InferenceRunner, RunnerCancelled
from LesionLib.runner_types import RunAnswer, RunOptions, RunRequest

from .library import CaseLibrary, ModelIdentity
from .quiz_file import require_place, save_quiz
from .quiz_library_cases import LibraryCases
from .quiz_making import QuizPlan, make_quiz, require_plan
from .quiz_model import Quiz, QuizClass
from .quiz_schema import QuizError
from .quiz_sources import KnownLesion

Progress = Callable[[int, int], None]
_FIRST = "case-01"


@dataclass(frozen=True, eq=False)
class QuizRequest:
    """What a teacher asks for. ``out``: the file to write. ``cases``: ids in ``library``; ``lesions``: from elsewhere.

    Similar cases are looked up in ``library``, if there is one. ``feedback``: case id -> what the learner is told.
    """

    out: Path
    plan: QuizPlan
    model: str
    library: Path | None = None
    cases: tuple[str, ...] = ()
    lesions: tuple[KnownLesion, ...] = ()
    feedback: Mapping[str, str] = field(default_factory=dict)
    options: RunOptions = field(default_factory=RunOptions)
    overwrite: bool = False


def answer_request(request: QuizRequest, runner: InferenceRunner, *, progress: Progress | None = None) -> Quiz:
    """Ask the model about every case, write the quiz and return it. Nothing is written where anything goes wrong.

    ``progress(done, of)`` is told before each case and at the end; an exception that it raises stops here. Runs in any
    thread. Raises `QuizError`, or what the library and the runner raise; `RunnerCancelled` where the runner was cancelled.
    """
    require_place(request.out, overwrite=request.overwrite)
    total = len(request.cases) + len(request.lesions)
    if not total:
        msg = "No case is chosen; choose some of the library, or take lesions of the scene."
        raise QuizError(msg)
    require_plan(request.plan)
    known = class_names(find_bundle(request.model))
    for lesion in request.lesions:
        _require_known(lesion, known)
    with ExitStack() as stack:
        library = stack.enter_context(CaseLibrary.open(request.library)) if request.library is not None else None
        lesions = _counted(_lesions(request, library, known), total, progress)
        asked = _AskedModel(request, runner)
        first = next(lesions)
        # Under the names that it will have: a warning may quote them.
        asked.ask(replace(first.volume, name=_FIRST), replace(first.box, name=_FIRST))
        quiz = make_quiz(
            _again(first, lesions),
            plan=request.plan,
            model=asked.identity,
            classes=asked.classes(),
            answer=asked.ask,
            library=library if request.plan.similar else None,
        )
    save_quiz(quiz, request.out, overwrite=request.overwrite)
    return quiz


class _AskedModel:
    """The model behind the runner. Who it is comes with its first answer, which is not asked for twice."""

    def __init__(self, request: QuizRequest, runner: InferenceRunner) -> None:
        self._request, self._runner = request, runner
        self._first: RunAnswer | None = None
        self._waiting: LesionResult | None = None

    @property
    def identity(self) -> ModelIdentity:
        return ModelIdentity.of(self._first.info)

    def classes(self) -> list[QuizClass]:
        listed = unchecked_manifest(find_bundle(self._request.model))["lesionlens"]["classes"]
        told = {one["name"]: one["description"] for one in listed}
        pairs = zip(self._first.class_names, self._first.class_colors, strict=True)
        return [QuizClass(name, told[name], color) for name, color in pairs]

    def ask(self, volume: CTVolume, box: LesionBox) -> LesionResult:
        if self._waiting is not None:
            result, self._waiting = self._waiting, None
            return replace(result, name=box.name, box=box)
        answer = self._runner.run(RunRequest(self._request.model, volume, [box], self._request.options))
        if self._first is None:
            self._first, self._waiting = answer, answer.results[0]
        return answer.results[0]


def _lesions(request: QuizRequest, library: CaseLibrary | None, known: list[str]) -> Iterator[KnownLesion]:
    if request.cases and library is None:
        msg = "Cases of a library are chosen, and no library is given; give it."
        raise QuizError(msg)
    if request.cases:
        source = LibraryCases(library, class_names=known, only=request.cases, feedback=request.feedback)
        yield from (source.load(place) for place in range(len(request.cases)))
    yield from request.lesions


def _require_known(lesion: KnownLesion, known: list[str]) -> None:
    if lesion.label not in known:
        msg = f"{lesion.box.name} is {lesion.label!r}, and the model knows {', '.join(known)}; correct the answer."
        raise QuizError(msg)


def _counted(lesions: Iterator[KnownLesion], total: int, progress: Progress | None) -> Iterator[KnownLesion]:
    for done, lesion in enumerate(lesions):
        if progress is not None:
            progress(done, total)
        yield lesion
    if progress is not None:
        progress(total, total)


def _again(first: KnownLesion, others: Iterator[KnownLesion]) -> Iterator[KnownLesion]:
    yield first
    yield from others


__all__ = ["QuizRequest", "RunnerCancelled", "answer_request"]
