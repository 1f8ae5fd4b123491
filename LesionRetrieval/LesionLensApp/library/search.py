"""``lesionlens library search``: the cases most similar to one of the library, or to lesions on a CT."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from LesionLib.errors import CaseLibraryError, InputWarning
from LesionLib.inference.results import abstention_codes, abstention_sentence
from LesionLib.model.folder import find_bundle, unchecked_manifest
from LesionRetrievalLib.libraries import open_store
from LesionRetrievalLib.library.attributes import conditions_from
from LesionRetrievalLib.library.cases import (
    MAY_BE_THE_LESION,
    REINDEXED,
    CaseStore,
    Change,
    ModelIdentity,
    Neighbour,
    indexed_as,
)
from LesionRetrievalLib.library.pseudonyms import forms_of
from LesionRetrievalLib.library.search.filters import SearchFilter
from rich.console import Console
from rich.table import Table

from LesionLensApp.output import NOTICE, cell

if TYPE_CHECKING:
    from LesionLib.io.volumes import DicomSeries

    from LesionLensApp.loaded_model import ModelSession


@dataclass(frozen=True)
class ComparedBy:
    """The model whose vectors were compared. ``reindexed``: when the library was embedded by it after it was made, the last time;
    ``missing`` of its ``cases`` never were, and cannot be found.
    """

    model: ModelIdentity
    reindexed: Change | None
    missing: int
    cases: int

    @classmethod
    def of(cls, library: CaseStore, sha256: str) -> ComparedBy:
        """Raises `CaseLibraryError`."""
        indexed = next(model for model in library.models() if model.identity.sha256 == sha256)
        what, count = f"{REINDEXED}{indexed.identity}", len(library)
        found = [change for change in library.changes("") if change.what == what]
        return cls(indexed.identity, found[-1] if found else None, count - indexed.cases, count)

    def __str__(self) -> str:
        """One line or two, to be printed."""
        since = f"; the library was reindexed by it on {self.reindexed.when}" if self.reindexed else ""
        text = f"Compared by {self.model}{since}."
        if self.missing:
            text += f" {self.missing} of {self.cases} cases were never embedded by it and cannot be found: reindex the library."
        return text

    def as_json(self) -> dict[str, Any]:
        """Name, version and hash of the model; ``reindexed``: UTC, None where the library was made with it."""
        model = {name: getattr(self.model, name) for name in ("name", "version", "sha256")}
        when = self.reindexed.at if self.reindexed else None
        return {**model, "reindexed": when, "casesNotEmbedded": self.missing}


@dataclass(frozen=True)
class SearchResult:
    """The cases found for one lesion, best first. ``patient``: the hash of whose it is, where that is known.

    ``warnings``: what is unusual about the lesion, as that the model learned from it, or has no answer for it. ``note``: what has
    to be said where the patient's own cases could not be told from others.
    """

    lesion: str
    patient: str | None
    found: tuple[Neighbour, ...]
    compared: ComparedBy
    warnings: tuple[InputWarning, ...] = ()
    note: str = ""


def search_results(options: argparse.Namespace, load: Callable[[], ModelSession]) -> list[SearchResult]:
    """One answer for each lesion asked for; ``load`` is only called where a CT has to be embedded.

    Raises `LesionLensError` for bad input.
    """
    has_ct = options.volume is not None and (options.boxes or options.segmentation)
    if bool(options.case) == bool(has_ct) or (options.case and options.volume):
        msg = "Give either --case, or --volume with --boxes or --segmentation."
        raise CaseLibraryError(msg)
    wanted = {"label": options.label, "organ": options.organ, "attributes": conditions_from(options.attribute)}
    with open_store(options.library) as library:
        if options.case:
            return [_of_case(library, options, SearchFilter(**wanted))]
        return _of_ct(library, options, SearchFilter(**wanted), load)


def print_search_results(results: Sequence[SearchResult]) -> None:
    """One table a lesion."""
    console = Console(highlight=False)
    for result in results:
        table = Table(title=cell(f"Most similar to {result.lesion}"), caption=NOTICE)
        for heading in ("", "case", "answer", "similarity", "established by", "organ", "patient"):
            table.add_column(heading)
        for number, case in enumerate(result.found, start=1):
            very = f", {MAY_BE_THE_LESION}" if case.may_be_the_lesion else ""
            far = "" if case.distance is None else f" (distance {case.distance:.3f})"
            similarity, whose = f"{case.similarity:.3f}{far}{very}", _whose(case, result.patient)
            row = (str(number), case.case_id, case.label, similarity, case.label_source, case.organ, whose)
            table.add_row(*map(cell, row))
        console.print(table)
        reason = abstention_sentence(abstention_codes(result.warnings))
        for warning in ([reason] if reason else []) + list(result.warnings):
            console.print(cell(f"{result.lesion}: {warning}"), style="yellow")
    for compared in dict.fromkeys(str(result.compared) for result in results):
        console.print(cell(compared))
    for note in dict.fromkeys(result.note for result in results if result.note):
        console.print(cell(note), style="yellow")


def as_json_text(results: Sequence[SearchResult]) -> str:
    """All answers as a JSON list; without hashes, which are nobody's business outside the library."""
    return json.dumps(
        [
            {
                "lesion": a.lesion,
                "note": a.note,
                "model": a.compared.as_json(),
                "found": [
                    {**_shown(c), "patient": _whose(c, a.patient), "mayBeTheLesion": c.may_be_the_lesion}
                    for c in a.found
                ],
                "usable": not abstention_codes(a.warnings),
                "warnings": [str(warning) for warning in a.warnings],
                "warningNames": [str(getattr(warning, "name", "")) for warning in a.warnings],
            }
            for a in results
        ],
        indent=2,
        ensure_ascii=False,
    )


def _of_case(library: CaseStore, options: argparse.Namespace, wanted: SearchFilter) -> SearchResult:
    case, model = library.case(options.case), _asked_model(library, options.model)
    hashes = (case.patient_hash, case.study_hash)
    filters = _filters(options, replace(wanted, exclude_case=case.case_id), hashes)
    vector = library.vector(case.case_id, model_sha256=model.sha256)
    found = library.search(vector, k=options.similar, model_sha256=model.sha256, **filters)
    return SearchResult(case.case_id, case.patient_hash, tuple(found), ComparedBy.of(library, model.sha256))


def _asked_model(library: CaseStore, asked: str | None) -> ModelIdentity:
    """The model whose vectors of a case are compared: the one that is named, of several of that name the last, else the library's
    own.
    """
    if asked is None:
        return library.model
    named = [m.identity for m in library.models() if m.identity.name == asked and not m.unfinished]
    if named:
        return named[-1]
    return library.require_model(str(unchecked_manifest(find_bundle(asked)).get("sha256")))


def _of_ct(
    library: CaseStore, options: argparse.Namespace, wanted: SearchFilter, load: Callable[[], ModelSession]
) -> list[SearchResult]:
    from LesionLib.io.volumes import series_at

    series = series_at(options.volume, options.series)
    hashes, note = _hashes_of_ct(library, options, series)
    filters = _filters(options, wanted, hashes)
    model = load()
    sha256 = indexed_as(library, ModelIdentity.of_model(model.described))
    from LesionLensApp.library.cases import read_lesions

    volume, boxes, odd = read_lesions(options, series, library, model.described)
    patient = hashes[0] if hashes else None
    compared = ComparedBy.of(library, sha256)
    results = []
    for box, noticed in zip(boxes, odd, strict=True):
        vector, warnings = model.embed_checked(volume, box)
        found = library.search(vector, k=options.similar, model_sha256=sha256, **filters)
        odd_about_it = tuple(dict.fromkeys((*noticed, *warnings)))
        results.append(SearchResult(box.name, patient, tuple(found), compared, odd_about_it, note))
    return results


def _hashes_of_ct(
    library: CaseStore, options: argparse.Namespace, series: DicomSeries | None
) -> tuple[tuple[str, str] | None, str]:
    """Patient and study, where both the identifier and the library's key are at hand; and what is to be said without."""
    from LesionRetrievalLib.library.ownership import KeyState, key_for_search, own_cases_note
    from LesionRetrievalLib.library.pseudonyms import default_key_path

    from LesionLensApp.library.cases import read_identity

    identity = read_identity(options, series)
    key, state = key_for_search(library, options.key)
    hashes = identity.hashes(key) if identity.is_known and key is not None else None
    if hashes is None and (options.scope != "all" or options.exclude_study):
        lacking = "the patient; give --patient"
        if identity.is_known and state is KeyState.FOREIGN:
            lacking = "the key that the library was made with; give --key"
        elif identity.is_known:
            lacking = f"the key {options.key or default_key_path()}"
        msg = f"To tell cases of this patient or study from others, the search needs {lacking}."
        raise CaseLibraryError(msg)
    return hashes, own_cases_note(library, state, hashes[0] if hashes else None)


def _filters(options: argparse.Namespace, wanted: SearchFilter, hashes: tuple[str, str] | None) -> dict[str, Any]:
    patient, study = hashes or (None, None)
    complete = replace(
        wanted, patient=patient, scope=options.scope, exclude_study=study if options.exclude_study else None
    )
    return dict(vars(complete))


def _whose(case: Neighbour, patient: str | None) -> str:
    if patient is None:
        return "not known"
    return "the same" if case.patient_hash in forms_of(patient) else "another"


def _shown(case: Neighbour) -> dict[str, Any]:
    names = ("case_id", "label", "similarity", "label_source", "organ", "attributes", "note")
    shown = {name: getattr(case, name) for name in names}
    return shown if case.distance is None else {**shown, "distance": case.distance}
