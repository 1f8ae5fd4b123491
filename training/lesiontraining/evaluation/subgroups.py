"""The same figures for parts of the data: by tercile of size, by slice distance, by scanner, by any column.

A model that is good on the whole may owe it to the large lesions. Each row says on how many lesions and patients it
rests; a difference between two rows is a question, not a finding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lesiontraining.evaluation.intervals import Estimate, PatientDraws, Statistic, interval

NOT_GIVEN = "not given"


@dataclass(frozen=True, eq=False)
class Subgroup:
    """The lesions of one value or range of a column; ``rows``: their indices, (row,)."""

    column: str
    name: str
    rows: np.ndarray


@dataclass(frozen=True, eq=False)
class SubgroupRow:
    """One row of the table: the group's size and each figure with its interval."""

    column: str
    name: str
    lesions: int
    patients: int
    figures: dict[str, Estimate]

    def as_json(self) -> dict[str, object]:
        """For metrics.json."""
        figures = {name: figure.as_json() for name, figure in self.figures.items()}
        size = {"lesions": self.lesions, "patients": self.patients}
        return {"column": self.column, "group": self.name, **size, "figures": figures}


def by_tercile(column: str, values: np.ndarray, *, unit: str = "") -> list[Subgroup]:
    """Thirds of the lesions by a number, equal numbers staying together; missing ones (NaN) in a group of their own."""
    known = _numbers(column, values)
    known = np.sort(known[~np.isnan(known)])
    edges = [known[-(-len(known) * third // 3) - 1] for third in (1, 2)] if len(known) else []
    return by_edges(column, values, edges, unit=unit)


def by_edges(column: str, values: np.ndarray, edges: Sequence[float], *, unit: str = "") -> list[Subgroup]:
    """Groups up to and including each edge, and beyond the last; named by the range that occurs. Empty ones are left out.

    Edges fixed beforehand (5 and 12 mm, or the terciles of the training data) let tables of several data sets agree.
    """
    numbers = _numbers(column, values)
    missing = np.isnan(numbers)
    which = np.where(missing, -1, np.searchsorted(np.unique(np.asarray(edges, dtype=np.float64)), numbers, side="left"))
    groups = []
    for number in np.unique(which[~missing]):
        rows = np.flatnonzero(which == number)
        groups.append(Subgroup(column, _range_name(numbers[rows], unit), rows))
    return groups + _missing(column, missing)


def by_value(column: str, values: Sequence[object] | np.ndarray) -> list[Subgroup]:
    """One group for each value that occurs, e.g. scanner, sex or slice distance; missing ones (None, NaN, "") last."""
    texts = np.array([_text(value) for value in values], dtype=object)
    missing = np.array([text is None for text in texts], dtype=bool)
    present = {text: next(v for v, t in zip(values, texts, strict=True) if t == text) for text in set(texts[~missing])}
    in_order = sorted(present, key=lambda text: (isinstance(present[text], str), present[text]))
    return [Subgroup(column, t, np.flatnonzero(texts == t)) for t in in_order] + _missing(column, missing)


def subgroup_table(
    groups: Sequence[Subgroup],
    statistics: Mapping[str, Statistic],
    patients: np.ndarray,
    *,
    draws: int = 2000,
    seed: int = 0,
) -> list[SubgroupRow]:
    """Each statistic in each group with the interval of a bootstrap that draws the group's patients.

    ``statistics``: functions of rows of the whole table, as `intervals.over` makes them; ``patients``: (lesion,).
    """
    names = np.asarray(patients)
    table = []
    for group in groups:
        drawn = PatientDraws(names[group.rows], draws=draws, seed=seed)
        figures = {name: interval(_within(s, group.rows), drawn) for name, s in statistics.items()}
        table.append(SubgroupRow(group.column, group.name, drawn.lesions, drawn.patients, figures))
    return table


def _within(statistic: Statistic, rows: np.ndarray) -> Callable[[np.ndarray], float]:
    return lambda drawn: statistic(rows[drawn])


def _numbers(column: str, values: np.ndarray) -> np.ndarray:
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1:
        msg = f"column {column!r} must have shape (lesion,), not {numbers.shape}"
        raise ValueError(msg)
    return numbers


def _missing(column: str, missing: np.ndarray) -> list[Subgroup]:
    return [Subgroup(column, NOT_GIVEN, np.flatnonzero(missing))] if missing.any() else []


def _range_name(numbers: np.ndarray, unit: str) -> str:
    low, high = f"{numbers.min():.4g}", f"{numbers.max():.4g}"
    return f"{low if low == high else f'{low} to {high}'} {unit}".strip()


def _text(value: object) -> str | None:
    if value is None or value == "" or (isinstance(value, float | np.floating) and np.isnan(value)):
        return None
    return f"{value:.6g}" if isinstance(value, float | np.floating) else str(value)
