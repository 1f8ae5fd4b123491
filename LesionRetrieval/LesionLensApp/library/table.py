"""``lesionlens library add --table``: the lesions of many CTs into a case library, each row with what is said of its own.

The model is loaded once. A row that cannot be added does not stop the others: it is named in a table of those that failed. Each row
is committed by itself, so that a break leaves whole cases; the same command goes on, for lesions that are there already are passed.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from LesionLib.errors import OutputError
from LesionLib.geometry import require_overlap
from LesionLib.io.boxes import CaseTableError
from LesionLib.io.private_files import write_private
from LesionLib.io.volumes import read_ct, series_at
from LesionRetrievalLib.libraries import open_store
from LesionRetrievalLib.library.attributes import attributes_from
from LesionRetrievalLib.library.cases import CaseEntry, CaseStore, ModelIdentity, Scalar, indexed_as
from LesionRetrievalLib.library.duplicates import require_new, same_lesion
from LesionRetrievalLib.library.intake import (
    NewCase,
    Owner,
    checked_case,
    columns_never_kept,
    identifying_values,
    library_margin_mm,
    require_margin,
    require_no_burned_in_text,
)
from LesionRetrievalLib.library.ownership import UNKNOWN_KEY, key_of

from LesionLensApp.case_table import (
    CASE_FAILURES,
    BatchCase,
    Reading,
    failed_table,
    failure_text,
    lesions_of,
    read_batch,
)
from LesionLensApp.library.cases import case_entry_of, case_ids, is_burned_in, owner_of
from LesionLensApp.loaded_model import ModelSession
from LesionLensApp.output import Steps
from LesionLensApp.reading import frame_source, warnings_of_box

_ATTRIBUTES = "attributes"
_TEXTS = ("label", "label_source", "organ", "note")
_READ = (
    "name", "volume", "boxes", "segmentation", "mask", "series", "case_id", "patient", "patient_id", "study", "study_id",
    *_TEXTS, _ATTRIBUTES,
)  # fmt: skip


@dataclass(frozen=True)
class TableAdded:
    """``cases``: ids by row; ``there``: rows whose lesions the library held already; ``failed``: (name, where, error) of the others.

    ``left_out``: columns of the table that were not kept.
    """

    cases: dict[str, list[str]]
    there: tuple[str, ...]
    failed: tuple[tuple[str, str, str], ...]
    left_out: tuple[str, ...]


def add_table(options: argparse.Namespace, model: ModelSession, steps: Steps, *, by: str) -> TableAdded:
    """Add what the rows of ``options.table`` name, row by row; the rows that failed are written to `failed_path` as well.

    ``by``: the code of who adds them. Raises `LesionLensError` for a bad table, option or library; a bad row is one of
    `TableAdded.failed`. An interruption names how many rows are in.
    """
    failed: list[tuple[str, str, str]] = []
    rows = read_batch(options.table, failed=failed)
    if not rows and not failed:
        msg = f"{options.table} has no rows; give one for each CT."
        raise CaseTableError(msg)
    columns = [*rows[0].values] if rows else []
    _require_kept(columns, options.keep, options.table)
    added: dict[str, list[str]] = {}
    there: list[str] = []
    with open_store(options.library, writable=True) as library:
        sha256 = indexed_as(library, ModelIdentity.of_model(model.described))
        if options.margin_mm is not None:
            require_margin(library, model.described, options.margin_mm)
        try:
            for row in steps.each(rows, f"Adding the lesions of {len(rows)} rows to {options.library}"):
                try:
                    ids = _add_row(library, row, options, model, steps, sha256=sha256, by=by)
                except CASE_FAILURES as error:
                    failed.append((row.name, row.where, failure_text(error)))
                    continue
                if ids:
                    added[row.name] = ids
                else:
                    there.append(row.name)
        except KeyboardInterrupt as error:
            done = len(added) + len(there)
            msg = f"interrupted; {done} of {len(rows)} rows are in {options.library}, whole, and the same command goes on."
            raise type(error)(msg) from None
        finally:
            _write_failed(options, failed)
        if key_of(library) is None:
            steps.note(UNKNOWN_KEY)
    left_out = tuple(name for name in columns if name not in _READ and name not in options.keep)
    return TableAdded(added, tuple(there), tuple(sorted(failed, key=_line)), left_out)


def failed_path(options: argparse.Namespace) -> Path:
    """Where the rows that failed are named: ``--failed``, or beside the table."""
    return options.failed or options.table.with_name(f"{options.table.stem}.failed.csv")


def _write_failed(options: argparse.Namespace, failed: Sequence[tuple[str, str, str]]) -> None:
    path = failed_path(options)
    if not failed and not path.exists():
        return
    try:
        write_private(path, failed_table(sorted(failed, key=_line)))
    except OSError as error:
        msg = f"{path} cannot be written ({error.strerror}); choose another place for it by --failed."
        raise OutputError(msg) from error


def _line(failure: tuple[str, str, str]) -> int:
    return int(failure[1].rsplit(" ", 1)[1])


def _require_kept(columns: Sequence[str], keep: Sequence[str], table: Path) -> None:
    """Refuse columns that are to be kept and are not there, or tell whose a lesion is. Raises `CaseTableError`."""
    for name in keep:
        if columns and name not in columns:
            msg = f"{table.name}: there is no column {name!r} to keep; there are {', '.join(columns)}."
            raise CaseTableError(msg)
    never = [name for name in columns_never_kept(keep) if name not in _TEXTS]
    if never:
        msg = f"{table.name}: the column {never[0]!r} tells whose a lesion is, or belongs to an evaluation; it cannot be kept."
        raise CaseTableError(msg)


def _add_row(
    library: CaseStore,
    row: BatchCase,
    options: argparse.Namespace,
    model: ModelSession,
    steps: Steps,
    *,
    sha256: str,
    by: str,
) -> list[str]:
    """The ids of the row's new cases, all or none of its lesions; empty where the library holds them all. Raises `CASE_FAILURES`."""
    texts = {name: row.values.get(name) or getattr(options, name) for name in _TEXTS}
    for name in ("label", "label_source"):
        if not texts[name]:
            msg = f"{name} is empty; fill it in the table, or give one for all by --{name.replace('_', '-')}."
            raise CaseTableError(msg)
    attributes = _attributes(row, options)
    series = series_at(row.volume, row.series)
    if series is not None and (options.pictures or options.patches) and not options.allow_burned_in:
        require_no_burned_in_text(is_burned_in(series))
    patient = row.values.get("patient") or row.values.get("patient_id") or None
    study = row.values.get("study") or row.values.get("study_id") or None
    identity = argparse.Namespace(patient=patient, study=study, key=options.key)
    owner, properties = owner_of(identity, series, library, without="fill the column patient in")
    own = {**row.values, "name": ""} if row.values["name"] == row.values.get("case_id") else row.values
    owner = Owner(owner.patient_hash, owner.study_hash, (*owner.identifiers, *identifying_values(own)))
    volume = read_ct(row.volume, series=series or row.series, nifti_transform=options.nifti_transform)
    margin_mm = library_margin_mm(library, model.described) if options.margin_mm is None else options.margin_mm
    reading = Reading(options.margin_mm, options.split_parts, options.nifti_transform)
    boxes, odd = lesions_of(row, volume, series, reading, margin_mm)
    for box in boxes:
        require_overlap(volume, box)
    frame = frame_source(row.lesions if row.kind == "boxes" else None)
    noticed = [*volume.warnings, *odd, *(w for box in boxes for w in warnings_of_box(volume, box, frame=frame))]
    steps.warn(f"{row.where}: {warning}" for warning in dict.fromkeys(noticed))
    new = [
        NewCase(
            case_id=case_id,
            attributes=attributes,
            with_thumbnails=options.pictures,
            with_patch=options.patches,
            **texts,
        )
        for case_id in case_ids(row.values.get("case_id") or None, len(boxes))
    ]
    for each in new:
        checked_case(each, owner)  # before the first is embedded
    entries = [
        case_entry_of(volume, box, model, steps, new=each, owner=owner, where=f"{row.where}: ")
        for each, box in zip(new, boxes, strict=True)
    ]
    entries = entries if options.allow_duplicates else _not_there(library, entries, sha256)
    library.add_many(entries, model_sha256=sha256, by=by)
    for name, value in properties.items():
        library.set_property(name, value)
    return [entry.case.case_id for entry in entries]


def _not_there(library: CaseStore, entries: Sequence[CaseEntry], sha256: str) -> list[CaseEntry]:
    """The lesions that the library does not hold yet. Raises `CaseLibraryError` where it holds one with another answer."""
    missing = []
    for entry in entries:
        there = same_lesion(library, entry, model_sha256=sha256)
        if there is None:
            missing.append(entry)
        elif library.case(there).label != entry.case.label:
            require_new(library, [entry], model_sha256=sha256)
    require_new(library, missing, model_sha256=sha256)  # the same twice in a row of the table
    return missing


def _attributes(row: BatchCase, options: argparse.Namespace) -> dict[str, Scalar]:
    """Those of --attribute, then of the column ``attributes``, then of the columns kept; a later one counts."""
    own = attributes_from(re.split(r"[;\n]", row.values.get(_ATTRIBUTES, "")))
    kept = attributes_from([f"{name}={row.values[name]}" for name in options.keep if row.values.get(name)])
    return {**attributes_from(options.attribute), **own, **kept}
