"""A table of lesions in memory: typed rows that know their line, and what is to be said of all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from .picture_set import UNKNOWN
from .sources import Source

_IDENTIFIER = 8  # characters from which on a study's name is taken for unique
SPLITS = ("train", "val", "test")


@dataclass(frozen=True, eq=False)
class LesionRow:
    """One lesion. ``label``: its class, "" where not known; ``split``: "train", "val", "test" or ""; ``fold``: as written.

    ``attributes`` are all other columns, as text.
    """

    line: int
    lesion_id: str
    patient: str
    source: Source
    label: str = ""
    study: str = ""
    series: str = ""
    split: str = ""
    fold: str = ""
    attributes: dict[str, str] = field(default_factory=dict)

    def column(self, name: str) -> str:
        """The value of any column but the label, "" where there is none."""
        if name in ("patient", "study", "series", "split", "fold"):
            return getattr(self, name)
        return self.attributes.get(name, "")


@dataclass(frozen=True, eq=False)
class LesionTable:
    """Lesions of one kind of source. ``name``: for messages; ``credit``: licence and source of the data, to be shown.

    ``warnings``: what a user should know before believing a figure, such as that patients are not known.
    """

    rows: tuple[LesionRow, ...]
    class_names: tuple[str, ...]
    name: str
    credit: str = ""
    warnings: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def labels(self) -> np.ndarray:
        """Class index of each lesion, `UNKNOWN` where there is none; int64."""
        index = {name: place for place, name in enumerate(self.class_names)}
        return np.array([index.get(row.label, UNKNOWN) for row in self.rows], dtype=np.int64)

    @property
    def patients(self) -> np.ndarray:
        """Patient of each lesion, text."""
        return np.array([row.patient for row in self.rows], dtype=str)

    @property
    def studies(self) -> np.ndarray:
        """Study of each lesion, text, unique to it; the patient where no study is given.

        A short one ("1", "2019-A") counts within its patient; a long one is an accession number or UID and stands as it is,
        so that one study under two patients is noticed.
        """
        return np.array([_study(row) for row in self.rows], dtype=str)

    @property
    def lesion_ids(self) -> np.ndarray:
        """Identifier of each lesion, text."""
        return np.array([row.lesion_id for row in self.rows], dtype=str)

    def column(self, name: str) -> np.ndarray:
        """Any column as text."""
        return np.array([row.column(name) for row in self.rows], dtype=str)

    def where(self, keep: Callable[[LesionRow], bool]) -> LesionTable:
        """The lesions for which ``keep`` is true."""
        return replace(self, rows=tuple(row for row in self.rows if keep(row)))


def _study(row: LesionRow) -> str:
    if len(row.study) >= _IDENTIFIER:
        return row.study
    return f"{row.patient}/{row.study}" if row.study else row.patient


def class_order(labels: Sequence[str], classes: Sequence[str] | None) -> tuple[str, ...]:
    """The classes as given, else those that occur in natural order ("2" before "10")."""
    if classes is not None:
        return tuple(classes)
    return tuple(sorted({label for label in labels if label}, key=natural))


def natural(text: str) -> tuple[int, float, str]:
    """A key that sorts numbers by value and before words."""
    try:
        number = float(text)
    except ValueError:
        return (1, 0.0, text)
    return (0, number, text) if number == number else (1, 0.0, text)  # noqa: PLR0124
