"""A table of CTs and their lesions, a row a CT, as every command takes it that works through many; and of those that failed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from LesionLib.errors import InputWarning, LesionLensError
from LesionLib.geometry import CTVolume, LesionBox
from LesionLib.io.boxes import CaseTableError, box_of_mask, read_boxes_csv, read_rows, segment_boxes
from LesionLib.io.tables import csv_text

from LesionLensApp.reading import read_masks

if TYPE_CHECKING:
    from LesionLib.io.volumes import DicomSeries

LESIONS = ("boxes", "segmentation", "mask")


@dataclass(frozen=True)
class BatchCase:
    """A row: a CT, and in ``kind`` how the file ``lesions`` says where its lesions are (one of `LESIONS`).

    ``values``: all of the row, by column.
    """

    name: str
    volume: Path
    kind: str
    lesions: Path
    series: str | None
    where: str
    values: Mapping[str, str] = field(default_factory=dict, hash=False, repr=False)


@dataclass(frozen=True)
class Reading:
    """How every case is read and asked; the same for all of a batch."""

    margin_mm: float | None
    split_parts: float | None
    nifti_transform: str
    box_jitter: int = 0
    answer_anyway: bool = False


def read_batch(table: Path, *, failed: list[tuple[str, str, str]] | None = None) -> list[BatchCase]:
    """The rows of a table with ``name``, ``volume`` and one of ``boxes``, ``segmentation``, ``mask`` filled in each row.

    Paths are relative to the table's folder; ``series`` may name a series of a DICOM folder. Whether the files are there shows
    when they are read. Raises `CaseTableError` naming line and problem; with ``failed`` rows that are bad by themselves go there, as
    (name, where, error), and the others are read.
    """
    if not table.is_file():
        msg = f"{table} is missing; give a CSV table with the columns name, volume and boxes, segmentation or mask."
        raise CaseTableError(msg)
    cases: dict[str, BatchCase] = {}
    for line, values in read_rows(table, columns=("name", "volume")):
        where = f"{table.name}, line {line}"
        problem = _problem_of_row(values, cases)
        if problem and failed is None:
            msg = f"{where}: {problem}"
            raise CaseTableError(msg)
        if problem:
            failed.append((values["name"], where, problem))
            continue
        kind = next(kind for kind in LESIONS if values.get(kind))
        cases[values["name"]] = BatchCase(
            values["name"], table.parent / values["volume"], kind, table.parent / values[kind],
            values.get("series") or None, where, values,
        )  # fmt: skip
    return list(cases.values())


def _problem_of_row(values: Mapping[str, str], earlier: Mapping[str, BatchCase]) -> str:
    """What is wrong with a row by itself; "" where nothing is."""
    given = [kind for kind in LESIONS if values.get(kind)]
    if not values["name"] or not values["volume"] or len(given) != 1:
        return (
            f"name, volume and exactly one of {', '.join(LESIONS)} are needed; filled in are "
            f"{', '.join(name for name in ('name', 'volume', *LESIONS) if values.get(name)) or 'none of them'}."
        )
    if values["name"] in earlier:
        return f"{values['name']!r} stands in {earlier[values['name']].where} already; give each case its own name."
    return ""


def lesions_of(
    case: BatchCase, volume: CTVolume, series: DicomSeries | None, reading: Reading, margin_mm: float
) -> tuple[list[LesionBox], tuple[InputWarning, ...]]:
    """The boxes of a case, and what is odd about the file they come from."""
    if case.kind == "mask":
        box, _ = box_of_mask(
            volume, case.lesions, where=case.where, margin_mm=margin_mm, nifti_transform=reading.nifti_transform
        )
        return [replace(box, name=case.name)], ()
    if case.kind == "segmentation":
        masks, odd = read_masks(
            case.lesions, series, split=reading.split_parts, nifti_transform=reading.nifti_transform
        )
        return segment_boxes(masks, margin_mm=margin_mm), odd
    if case.lesions.suffix.lower() == ".csv":
        return read_boxes_csv(case.lesions, ijkToRAS=volume.ijkToRAS), ()
    return _boxes_of_markups(case.lesions), ()


def _boxes_of_markups(path: Path) -> list[LesionBox]:
    from LesionClassifierLib.headless import startHeadlessSlicer
    from LesionClassifierLib.scene.lesions import lesionsFromNodes

    from LesionLensApp.classify import addBoxes

    scene = startHeadlessSlicer().scene
    scene.Clear(False)
    return lesionsFromNodes(addBoxes(scene, path))


# What one case of many may fail of without stopping the others.
CASE_FAILURES = (LesionLensError, OSError, MemoryError)


def failure_text(error: LesionLensError | OSError | MemoryError) -> str:
    """One line for a table of failed cases."""
    if isinstance(error, LesionLensError):
        return " ".join(str(error).split())
    return f"{type(error).__name__}: {getattr(error, 'strerror', None) or error or 'the memory does not suffice'}"


def failed_table(rows: Sequence[tuple[str, str, str]]) -> str:
    """The CSV of those that failed: name, where in the table, and why."""
    return csv_text([("name", "where", "error"), *rows])
