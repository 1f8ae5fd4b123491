"""What each LIDC reader said of the nodules of `lidc`: ratings, boxes, and diagnoses where the collection has them.

A folder with ``reader_ratings_train.csv`` (a row a reader) and ``nodule_summary_train.csv`` (a row a nodule). Only nodules whose
readers were matched beyond doubt are taken.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from LesionLib.geometry import LesionBox
from LesionLib.io.boxes import MmBox
from LesionLib.io.reader_ratings import RATINGS, kind_of_ratings

from lesiontraining.data.messages import one_problem

SUMMARY = "nodule_summary_train.csv"
ATTRIBUTES = ("spiculation", "lobulation", "margin", "sphericity", "subtlety", "texture", "calcification")
_SUSPICIOUS = 3
_AXES = ("x", "y", "z")
_BENIGN, _MALIGNANT = (1,), (2, 3)
_THINNEST_MM = 1.5  # an outline on one slice has no depth of its own


@dataclass(frozen=True, eq=False)
class NoduleReaders:
    """Of one nodule: ``ratings`` by name, one number a reader; ``boxes`` of the readers' outlines.

    ``diagnosis`` of the nodule itself, where it can be told: False benign, True malignant, None where it is not known.
    """

    ratings: Mapping[str, tuple[int, ...]]
    boxes: tuple[MmBox, ...]
    diagnosis: bool | None = None

    @property
    def share_suspicious(self) -> float:
        """Share of the readers who rated above 3 of 5 for malignancy."""
        return float(np.mean(np.array(self.ratings["malignancy"]) > _SUSPICIOUS))

    def mean(self, name: str) -> float:
        """Mean rating."""
        return float(np.mean(self.ratings[name]))

    @property
    def kind(self) -> str:
        """By majority, see `kind_of_ratings`."""
        return kind_of_ratings(self.ratings["texture"], self.ratings["calcification"])

    def drawn(self, box: LesionBox, rng: np.random.Generator) -> LesionBox:
        """The nodule's box as one of its readers drew it, along the axes of ``box``; ``box`` itself where no outline is known."""
        if not self.boxes:
            return box
        drawn = self.boxes[rng.integers(len(self.boxes))].box(np.eye(4), name=box.name)
        size = np.abs(box.axesRAS.T) @ drawn.sizeMm
        return LesionBox(drawn.centerRAS, np.maximum(size, _THINNEST_MM), box.axesRAS, box.name)


def read_ratings(folder: Path) -> dict[str, NoduleReaders]:
    """By file name of the nodule. Raises `TableError` where the tables are not there or not as they should be."""
    rows: dict[str, list[dict[str, str]]] = {}
    for row in _rows(Path(folder) / RATINGS):
        if row["match"] == "yes":
            rows.setdefault(row["file"], []).append(row)
    diagnoses = {row["file"]: _diagnosis(row.get("dx_nodule_unambiguous", "")) for row in _rows(Path(folder) / SUMMARY)}
    try:
        return {name: _readers(of, diagnoses.get(name)) for name, of in rows.items()}
    except (KeyError, ValueError) as error:
        raise one_problem(RATINGS, f"it is not a table of readers' ratings: {error}") from error


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8", newline="") as handle:
            return list(csv.DictReader(handle))
    except OSError as error:
        raise one_problem(path.name, f"it cannot be read in {path.parent} ({type(error).__name__})") from error


def _readers(rows: list[dict[str, str]], diagnosis: bool | None) -> NoduleReaders:
    names = ("malignancy", *ATTRIBUTES)
    ratings = {name: tuple(int(float(row[name])) for row in rows) for name in names}
    return NoduleReaders(ratings, tuple(box for row in rows if (box := _box(row)) is not None), diagnosis)


def _box(row: Mapping[str, str]) -> MmBox | None:
    if not all(row[f"lps_{axis}{end}"] for axis in _AXES for end in (0, 1)):
        return None
    low, high = (np.array([float(row[f"lps_{axis}{end}"]) for axis in _AXES]) for end in (0, 1))
    size = np.maximum(high - low, 0.1)
    return MmBox("LPS", tuple((low + high) / 2), tuple(size))


def _diagnosis(text: str) -> bool | None:
    code = int(float(text)) if text else 0
    return True if code in _MALIGNANT else False if code in _BENIGN else None
