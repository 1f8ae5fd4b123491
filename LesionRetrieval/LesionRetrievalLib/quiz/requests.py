"""Making a quiz as one request: which cases, what the teacher wants, which model; answered by a runner, with progress."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from LesionLib.geometry import CTVolume, LesionBox
from LesionLib.inference.messages import RunOptions, RunRequest, RunResponse
from LesionLib.inference.results import LesionResult
from LesionLib.inference.runner import InferenceRunner
from LesionLib.model.folder import class_names, find_bundle, same_embedding_as, unchecked_manifest
from LesionLib.model.scores import ScoreSpec

from LesionRetrievalLib.library.cases import Case, ModelIdentity
from LesionRetrievalLib.library.patches import HuPatch
from LesionRetrievalLib.library.store import CaseLibrary
from LesionRetrievalLib.quiz.file import require_free_path, save_quiz
from LesionRetrievalLib.quiz.making import LabelledLesion, QuizPlan, make_quiz, quiz_classes, require_plan
from LesionRetrievalLib.quiz.model import Quiz, QuizError


class LibraryCases:
    """Quiz cases out of a case library: the HU patches that it keeps, so that no original CT is needed.

    The library's cases that have an HU patch and an answer among ``class_names`` (None: any), as a `QuizCaseSource`.

    ``only``: case ids to keep to, in that order. ``feedback``: case id to what the learner is told at its end (a case's note in
    the library is its owner's and stays there). ``sees_beyond``: whether the model would look further than a patch reaches;
    such a case is refused when it is loaded, since the answer would not be that to the CT.
    Raises `QuizError` where no case is left or one of ``only`` cannot be used.
    """

    def __init__(
        self,
        library: CaseLibrary,
        *,
        class_names: Sequence[str] | None = None,
        only: Iterable[str] | None = None,
        feedback: Mapping[str, str] | None = None,
        sees_beyond: Callable[[HuPatch], bool] | None = None,
    ) -> None:
        self._library, self._feedback, self._sees_beyond = library, dict(feedback or {}), sees_beyond
        contents = library.contents()
        usable = {
            case.case_id: case
            for case in library.cases()
            if "patch" in contents[case.case_id] and (class_names is None or case.label in class_names)
        }
        self.cases = list(usable.values()) if only is None else [_one(usable, case_id, library) for case_id in only]
        if not self.cases:
            msg = (
                f"{library.path} holds no case with its CT and an answer that the model knows; build it with the CTs "
                "(--patches), or take another model."
            )
            raise QuizError(msg)

    def labels(self) -> Sequence[str]:
        return [case.label for case in self.cases]

    def patients(self) -> Sequence[str]:
        return [case.patient_hash for case in self.cases]

    def load(self, index: int) -> LabelledLesion:
        """See `QuizCaseSource`. Raises `QuizError` for a case whose patch is gone or too small for the model."""
        case = self.cases[index]
        patch = self._library.patch(case.case_id)
        if patch is None:
            msg = f"The library holds no CT of case {case.case_id} any more; choose the cases again."
            raise QuizError(msg)
        if self._sees_beyond is not None and self._sees_beyond(patch):
            msg = (
                f"The model looks further than the CT that the library keeps of case {case.case_id}; make the quiz from the "
                "original CTs."
            )
            raise QuizError(msg)
        return LabelledLesion(
            volume=patch.volume,
            box=patch.box,
            label=case.label,
            label_source=case.label_source,
            organ=case.organ,
            attributes=case.attributes,
            patient_hash=case.patient_hash,
            feedback=self._feedback.get(case.case_id, ""),
        )


def _one(usable: Mapping[str, Case], case_id: str, library: CaseLibrary) -> Case:
    if case_id not in usable:
        msg = f"Case {case_id!r} of {library.path.name} cannot be asked: it has no CT there, or no answer that the model knows."
        raise QuizError(msg)
    return usable[case_id]


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
    lesions: tuple[LabelledLesion, ...] = ()
    feedback: Mapping[str, str] = field(default_factory=dict)
    options: RunOptions = field(default_factory=RunOptions)
    overwrite: bool = False


def quiz_of_request(request: QuizRequest, runner: InferenceRunner, *, progress: Progress | None = None) -> Quiz:
    """Ask the model about every case, write the quiz and return it. Nothing is written where anything goes wrong.

    ``progress(done, of)`` is told before each case and at the end; an exception that it raises stops here. Runs in any
    thread. Raises `QuizError`, or what the library and the runner raise; `RunnerCancelled` where the runner was cancelled.
    """
    require_free_path(request.out, overwrite=request.overwrite)
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
            classes=quiz_classes(unchecked_manifest(find_bundle(request.model))),
            answer=asked.ask,
            library=library if request.plan.similar else None,
            scores=asked.scores,
        )
    save_quiz(quiz, request.out, overwrite=request.overwrite)
    return quiz


class _AskedModel:
    """The model behind the runner. Who it is comes with its first answer, which is not asked for twice."""

    def __init__(self, request: QuizRequest, runner: InferenceRunner) -> None:
        self._request, self._runner = request, runner
        self._first: RunResponse | None = None
        self._waiting: LesionResult | None = None

    @property
    def identity(self) -> ModelIdentity:
        same = same_embedding_as(unchecked_manifest(find_bundle(self._request.model)))
        return replace(ModelIdentity.of(self._first.info), same_embedding_as=same)

    @property
    def scores(self) -> tuple[ScoreSpec, ...]:
        """The scales on which it scores lesions."""
        return self._first.info.scores

    def ask(self, volume: CTVolume, box: LesionBox) -> LesionResult:
        if self._waiting is not None:
            result, self._waiting = self._waiting, None
            return replace(result, name=box.name, box=box)
        response = self._runner.run(RunRequest(self._request.model, volume, [box], self._request.options))
        if self._first is None:
            self._first, self._waiting = response, response.results[0]
        return response.results[0]


def _lesions(request: QuizRequest, library: CaseLibrary | None, known: list[str]) -> Iterator[LabelledLesion]:
    if request.cases and library is None:
        msg = "Cases of a library are chosen, and no library is given; give it."
        raise QuizError(msg)
    if request.cases:
        source = LibraryCases(library, class_names=known, only=request.cases, feedback=request.feedback)
        yield from (source.load(index) for index in range(len(request.cases)))
    yield from request.lesions


def _require_known(lesion: LabelledLesion, known: list[str]) -> None:
    if lesion.label not in known:
        msg = f"{lesion.box.name} is {lesion.label!r}, and the model knows {', '.join(known)}; correct the answer."
        raise QuizError(msg)


def _counted(lesions: Iterator[LabelledLesion], total: int, progress: Progress | None) -> Iterator[LabelledLesion]:
    for done, lesion in enumerate(lesions):
        if progress is not None:
            progress(done, total)
        yield lesion
    if progress is not None:
        progress(total, total)


def _again(first: LabelledLesion, others: Iterator[LabelledLesion]) -> Iterator[LabelledLesion]:
    yield first
    yield from others
