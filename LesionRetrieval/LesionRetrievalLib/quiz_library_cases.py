"""Quiz cases out of a case library: the HU patches that it keeps, so that no original CT is needed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from .library import Case, CaseLibrary
from .library_patch import HuPatch
from .quiz_schema import QuizError
from .quiz_sources import KnownLesion


class LibraryCases:
    """The library's cases that have an HU patch and an answer among ``class_names`` (None: any), as a `QuizCaseSource`.

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

    def load(self, place: int) -> KnownLesion:
        """See `QuizCaseSource`. Raises `QuizError` for a case whose patch is gone or too small for the model."""
        case = self.cases[place]
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
        return KnownLesion(
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
