"""A case library wherever it is, a file on this computer or an address of a server; and its way from one to the other."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
from LesionLib.errors import CaseLibraryError

from LesionRetrievalLib.library.cases import (
    Case,
    CaseEntry,
    CaseStore,
    Change,
    IndexedModel,
    ModelIdentity,
    require_same_margin,
)
from LesionRetrievalLib.library.ownership import KEY_PROPERTY, key_of
from LesionRetrievalLib.library.patches import HuPatch
from LesionRetrievalLib.server.connection import ServerUnreachableError, is_server_address


def library_location(text: str) -> Path | str:
    """What a user typed: an address stays text, for a path would lose one of its slashes."""
    return text if is_server_address(text) else Path(text)


def open_store(location: Path | str, *, writable: bool = False) -> CaseStore:
    """Open to read, or to change it too. Raises `CaseLibraryError`."""
    if is_server_address(str(location)):
        from LesionRetrievalLib.server.library import MilvusLibrary

        return MilvusLibrary.open(str(location))
    from LesionRetrievalLib.library.store import CaseLibrary

    return CaseLibrary.open(location, read_only=not writable)


CASES_AT_ONCE = 100
_FIRST_WAIT_S = 0.5
_LONGEST_WAIT_S = 8.0
_Result = TypeVar("_Result")


class Source(CaseStore, Protocol):
    """A library that cases are copied from: what they show is asked for many at once."""

    def thumbnails_of(self, case_ids: Sequence[str]) -> dict[str, dict[str, np.ndarray]]:
        """The pictures of several cases, by case id."""

    def patches_of(self, case_ids: Sequence[str]) -> dict[str, HuPatch | None]:
        """The CTs around the lesions of several cases, by case id."""


class Target(CaseStore, Protocol):
    """A library that cases of another one can be written to."""

    def add_vectors(self, vectors: dict[str, np.ndarray], *, model: ModelIdentity) -> None:
        """The vectors of cases that are there by one more model."""

    def prefer_model(self, sha256: str) -> None:
        """Make a model the one that the library goes by."""


@dataclass(frozen=True)
class TransferPlan:
    """What goes along besides cases and vectors; pictures and patches show the CT. ``patience_s``: how long a server that went
    away is waited for.
    """

    thumbnails: bool = False
    patches: bool = False
    patience_s: float = 60.0


@dataclass(frozen=True)
class Transferred:
    """``added`` cases; ``there``: those that the target held already, just the same."""

    added: int
    there: int


def transfer(
    source: Source,
    target: Target,
    plan: TransferPlan | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Transferred:
    """A case library from one place to another: to a server (push) or back into a file (pull), whole case by whole case.

    Copy every case that ``target`` lacks, with its date, what was done to it, and its vectors by all finished models.

    Nothing is written where a case of the same id is another one, or the target is of another model or of boxes that reach
    otherwise beyond their segments (`CaseLibraryError`). Broken off, the cases that were copied stay, each whole, and the next
    transfer does the rest.
    """
    plan = plan or TransferPlan()
    model = source.model
    require_same_margin(model, target.require_model(model.sha256))
    cases = {case.case_id: case for case in source.cases()}
    there = _same_cases(cases, source, target, model.sha256)
    key = _required_key(source, target, len(there))
    missing = [case for case in cases.values() if case.case_id not in there]
    created, history = source.created(), _history(source)
    if key is not None:
        target.set_property(KEY_PROPERTY, key)
    for start in range(0, len(missing), CASES_AT_ONCE):
        batch = missing[start : start + CASES_AT_ONCE]
        _add(source, target, batch, plan, model.sha256, created)
        _patiently(lambda ids=batch: target.note_changes(_of_cases(history, ids)), plan.patience_s)
        if progress is not None:
            progress(min(start + CASES_AT_ONCE, len(missing)), len(missing))
    others = [other for other in source.models() if other.identity.sha256 != model.sha256 and not other.unfinished]
    for other in others:
        _add_vectors(source, target, other, list(cases), plan)
    if others:
        target.prefer_model(model.sha256)
    return Transferred(len(missing), len(there))


def _history(source: CaseStore) -> dict[str, list[Change]]:
    """What was done to each case where it was."""
    found: dict[str, list[Change]] = {}
    for change in source.changes():
        found.setdefault(change.case_id, []).append(change)
    return found


def _of_cases(history: dict[str, list[Change]], cases: Sequence[Case]) -> list[Change]:
    return [change for case in cases for change in history.get(case.case_id, ())]


def _required_key(source: CaseStore, target: CaseStore, there: int) -> str | None:
    """The key's fingerprint that the target is to note, None where there is none; `CaseLibraryError` for two keys."""
    ours, theirs = key_of(source), key_of(target)
    if ours == theirs or not len(source):
        return None
    if theirs is None:
        # Only where nobody else's cases are: theirs may be hashed by any key.
        return ours if len(target) == there else None
    if ours is None:
        msg = (
            "The library that is copied does not say which key its patients were hashed by, the other one does; note it by "
            "lesionlens library key LIBRARY --set, then copy again. Nothing was written."
        )
        raise CaseLibraryError(msg)
    msg = (
        f"The two libraries were made with different keys ({ours[:8]}… and {theirs[:8]}…), so that the same patient would not "
        "be recognised; build one of them again with the other's key. Nothing was written."
    )
    raise CaseLibraryError(msg)


def _same_cases(cases: dict[str, Case], source: CaseStore, target: CaseStore, sha256: str) -> set[str]:
    """Ids that the target holds; a `CaseLibraryError` where one of them is another case."""
    there = {case.case_id: case for case in target.cases() if case.case_id in cases}
    ours, theirs = (store.vectors(list(there), model_sha256=sha256) for store in (source, target))
    for case_id, case in there.items():
        if case != cases[case_id] or not np.array_equal(ours.get(case_id), theirs.get(case_id)):
            msg = (
                f"Case {case_id!r} is another one there than here, and nothing was written; rename it in one of the libraries, "
                "or remove it where it is wrong."
            )
            raise CaseLibraryError(msg)
    return set(there)


def _add(
    source: Source, target: Target, batch: Sequence[Case], plan: TransferPlan, sha256: str, created: dict[str, str]
) -> None:
    ids = [case.case_id for case in batch]
    vectors = source.vectors(ids, model_sha256=sha256)
    thumbnails = source.thumbnails_of(ids) if plan.thumbnails else {}
    patches = source.patches_of(ids) if plan.patches else {}
    entries = [
        CaseEntry(case, vectors[i], thumbnails.get(i), patches.get(i)) for i, case in zip(ids, batch, strict=True)
    ]

    def write() -> None:
        # The batch may have arrived although the answer did not.
        arrived = {case.case_id for case in target.cases()} if write.tried else set()
        write.tried = True
        rest = [entry for entry in entries if entry.case.case_id not in arrived]
        dates = {entry.case.case_id: created[entry.case.case_id] for entry in rest}
        target.add_many(rest, model_sha256=sha256, created=dates, by=None)

    write.tried = False
    _patiently(write, plan.patience_s)


def _add_vectors(
    source: CaseStore, target: Target, model: IndexedModel, case_ids: list[str], plan: TransferPlan
) -> None:
    for start in range(0, len(case_ids), CASES_AT_ONCE):
        batch = case_ids[start : start + CASES_AT_ONCE]
        # Not every case need be embedded by every model.
        vectors = source.vectors(batch, model_sha256=model.identity.sha256)
        if vectors:
            _patiently(lambda v=vectors: target.add_vectors(v, model=model.identity), plan.patience_s)


def _patiently(step: Callable[[], _Result], patience_s: float) -> _Result:
    """Again and again while a server is away, with growing pauses, until patience ends."""
    end, wait = time.monotonic() + patience_s, _FIRST_WAIT_S
    while True:
        try:
            return step()
        except ServerUnreachableError as error:
            if time.monotonic() + wait > end:
                msg = f"{error} What was copied before is there; the same command goes on from it."
                raise ServerUnreachableError(msg) from error
            time.sleep(wait)
            wait = min(2 * wait, _LONGEST_WAIT_S)
