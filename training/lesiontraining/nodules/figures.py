"""Figures of a nodule model's out-of-fold answers, as tables with intervals over patients and paired differences."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.stats import rankdata

from lesiontraining.evaluation.intervals import Difference, Estimate, PatientDraws, difference, interval
from lesiontraining.reporting.model_card import markdown_table, shown, signed

# The values of a method at some rows, and those rows -> a figure.
Metric = Callable[[np.ndarray, np.ndarray], float]
_BINS = 10


@dataclass(frozen=True, eq=False)
class Table:
    """``rows``: by method, by figure; ``differences``: the first method minus each other one, of the figure ``compared``.

    ``counts``: of the lesions some kinds, by name; ``unit``: what a row of the values is.
    """

    title: str
    lesions: int
    patients: int
    counts: Mapping[str, int]
    rows: Mapping[str, Mapping[str, Estimate]]
    compared: str
    differences: Mapping[str, Difference]
    note: str = ""
    unit: str = ""

    def as_markdown(self) -> str:
        """A headed table."""
        names = list(next(iter(self.rows.values())))
        lines = ([name, *(shown(of[f].value, of[f].low, of[f].high) for f in names)] for name, of in self.rows.items())
        counts = "".join(f"{count} {name}, " for name, count in self.counts.items())
        unit = f" {self.unit}" if self.unit else ""
        head = f"### {self.title}: n = {self.lesions}{unit}, {counts}{self.patients} patients"
        parts = [head, markdown_table(["", *names], lines)]
        if self.differences:
            found = "; ".join(f"minus {name} {signed(d)}" for name, d in self.differences.items())
            parts.append(f"{self.compared} of this model, paired: {found}.")
        if self.note:
            parts.append(self.note)
        return "\n\n".join(parts)

    def as_json(self) -> dict[str, Any]:
        """For a manifest."""
        return {
            "name": self.title.lower(),
            "lesions": self.lesions,
            "nodules": self.lesions,
            **self.counts,
            "patients": self.patients,
            "figures": {name: {f: _numbers(e) for f, e in of.items()} for name, of in self.rows.items()},
            f"{self.compared.lower()}_difference": {name: _numbers(d) for name, d in self.differences.items()},
        }


def _numbers(found: Estimate) -> dict[str, float | None]:
    values = found.as_json()
    return {name: values[name] for name in ("value", "low", "high")}


@dataclass(frozen=True, eq=False)
class Measuring:
    """On whom figures rest and how their intervals are drawn."""

    patients: np.ndarray
    draws: int = 2000
    seed: int = 0

    def table(
        self,
        title: str,
        rows: np.ndarray,
        methods: Mapping[str, np.ndarray],
        metrics: Mapping[str, Metric],
        *,
        counts: Mapping[str, np.ndarray] | None = None,
        against: tuple[str, ...] = (),
        note: str = "",
        unit: str = "",
    ) -> Table:
        """``rows``: bool (lesion,); ``counts``: bool (lesion,) by name; ``methods``: values of each lesion, (lesion, ...).

        The first metric of the first method is compared with that of ``against``.
        """
        index = np.flatnonzero(rows)
        drawn = PatientDraws(self.patients[index], draws=self.draws, seed=self.seed)

        def statistic(values: np.ndarray, metric: Metric) -> Callable[[np.ndarray], float]:
            return lambda chosen: metric(values[index[chosen]], index[chosen])

        first, compared = next(iter(methods)), next(iter(metrics))
        return Table(
            title,
            len(index),
            len(np.unique(self.patients[index])),
            {name: int((rows & of).sum()) for name, of in (counts or {}).items()},
            {
                name: {figure: interval(statistic(values, metric), drawn) for figure, metric in metrics.items()}
                for name, values in methods.items()
            },
            compared,
            {
                name: difference(
                    statistic(methods[first], metrics[compared]), statistic(methods[name], metrics[compared]), drawn
                )
                for name in against
            },
            note,
            unit,
        )


def spearman(first: np.ndarray, second: np.ndarray) -> float:
    """Rank correlation; NaN where one of them does not vary."""
    a, b = rankdata(first), rankdata(second)
    a, b = a - a.mean(), b - b.mean()
    length = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / length) if length > 0 else float("nan")


def balanced_calibration_error(probability: np.ndarray, truth: np.ndarray) -> float:
    """Expected calibration error of two classes that weigh the same, over ten equal bins of the probability."""
    y = np.asarray(truth, dtype=bool)
    weight = np.where(y, 0.5 / max(1, y.sum()), 0.5 / max(1, (~y).sum()))
    bins = np.minimum((probability * _BINS).astype(int), _BINS - 1)
    gaps = np.bincount(bins, weights=weight * (probability - y), minlength=_BINS)
    return float(np.abs(gaps).sum())


@dataclass(frozen=True)
class Steadiness:
    """How far probabilities move when the box is drawn otherwise: median and 95th percentile of |change|, and mean change."""

    median: float
    p95: float
    shift: float
    n: int

    @classmethod
    def of(cls, given: np.ndarray, other: np.ndarray) -> Steadiness:
        """``given``, ``other``: the probability of one class, (lesion,) each."""
        change = other - given
        size = np.abs(change)
        return cls(float(np.median(size)), float(np.percentile(size, 95)), float(change.mean()), len(change))

    def __str__(self) -> str:
        """In words."""
        return f"median {self.median:.3f}, 95th percentile {self.p95:.3f}, mean shift {self.shift:+.3f} (n = {self.n})"

    def as_json(self) -> dict[str, float | int]:
        """For a manifest."""
        return {"median": round(self.median, 4), "p95": round(self.p95, 4), "shift": round(self.shift, 4), "n": self.n}


@dataclass(frozen=True)
class Aim:
    """What a figure should reach: ``at_least`` or at most ``wanted``."""

    name: str
    wanted: float
    value: float
    at_least: bool = True

    @property
    def is_met(self) -> bool:
        """Whether it does."""
        return self.value >= self.wanted if self.at_least else self.value <= self.wanted

    def __str__(self) -> str:
        """``AUC, all nodules: 0.938, wanted at least 0.935: met``."""
        sign = "at least" if self.at_least else "at most"
        verdict = "met" if self.is_met else f"missed by {abs(self.value - self.wanted):.3f}"
        return f"{self.name}: {self.value:.3f}, wanted {sign} {self.wanted:.3f}: {verdict}"


@dataclass(frozen=True, eq=False)
class Figures:
    """All that the card prints of one model: tables, sentences by name, aims; and the same as plain JSON."""

    tables: tuple[Table, ...]
    sentences: Mapping[str, str] = field(default_factory=dict)
    aims: tuple[Aim, ...] = ()
    numbers: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """For a manifest."""
        return {
            "groups": [table.as_json() for table in self.tables],
            "aims": [
                {"name": a.name, "wanted": a.wanted, "value": round(a.value, 4), "met": a.is_met} for a in self.aims
            ],
            **self.numbers,
        }
