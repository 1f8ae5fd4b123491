"""Intervals by a bootstrap that draws patients, for any figure and for the difference of two models.

Lesions of a patient resemble each other; drawing lesions would make every interval too narrow. A *statistic* is a
function of rows, ``rows -> float``, so that one bootstrap serves classification, retrieval and calibration alike:
``over(balanced_accuracy, truth, predicted)`` makes one of a metric and its arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np

Statistic = Callable[[np.ndarray], float]


@dataclass(frozen=True)
class Estimate:
    """A figure with its percentile interval; NaN where there is none.

    ``draws`` were made, of which ``failed`` gave no number (a class was not drawn) and count for nothing; many of them
    mean that the data are too few for the figure. ``lesions`` and ``patients``: on how many it rests.
    """

    value: float
    low: float
    high: float
    lesions: int
    patients: int
    draws: int
    failed: int
    level: float = 0.95

    def __str__(self) -> str:
        """``0.912 (0.887-0.934)``, of the four digits that JSON keeps: as whoever reads those prints it."""
        value, low, high = (round(number, 4) for number in (self.value, self.low, self.high))
        return f"{value:.3f} ({low:.3f}-{high:.3f})"

    def as_json(self) -> dict[str, float | int | None]:
        """Rounded to four digits; None for what does not exist, since JSON has no NaN."""
        numbers = {"value": self.value, "low": self.low, "high": self.high}
        rounded = {name: round(x, 4) if isfinite(x) else None for name, x in numbers.items()}
        return rounded | {"lesions": self.lesions, "patients": self.patients, "failed_draws": self.failed}


@dataclass(frozen=True)
class Difference(Estimate):
    """First minus second on the same draws. ``p_value``: two-sided, from how often the draws lie beyond zero."""

    p_value: float = float("nan")

    def is_better(self) -> bool:
        """The whole interval lies above zero."""
        return self.low > 0

    def as_json(self) -> dict[str, float | int | None]:
        """The p-value beside the rest."""
        return super().as_json() | {"p_value": round(self.p_value, 4) if isfinite(self.p_value) else None}


class PatientDraws:
    """``draws`` bootstrap samples of patients as rows of lesions: the same ones whenever they are gone through."""

    def __init__(self, patients: Sequence[str] | np.ndarray, *, draws: int = 2000, seed: int = 0) -> None:
        names, patient_of = np.unique(np.asarray(patients), return_inverse=True)
        if draws < 1 or patient_of.ndim != 1:
            msg = f"give one patient a lesion and at least 1 draw, not shape {patient_of.shape} and {draws}"
            raise ValueError(msg)
        self.lesions, self.patients, self.draws, self.seed = len(patient_of), len(names), draws, seed
        by_patient = np.argsort(patient_of, kind="stable")
        self._lesions_of = np.split(by_patient, np.flatnonzero(np.diff(patient_of[by_patient])) + 1)

    def __len__(self) -> int:
        return self.draws

    def __iter__(self) -> Iterator[np.ndarray]:
        rng = np.random.default_rng(self.seed)
        for _ in range(self.draws):
            drawn = rng.integers(self.patients, size=self.patients)
            yield np.concatenate([self._lesions_of[patient] for patient in drawn])


def over(metric: Callable[..., float], *arrays: np.ndarray, **options: object) -> Statistic:
    """The statistic of a metric and the arrays it is given, one row a lesion each; ``options`` go to the metric."""
    columns = [np.asarray(array) for array in arrays]
    if len({len(column) for column in columns}) > 1:
        msg = f"the arrays have {[len(column) for column in columns]} rows; they must describe the same lesions"
        raise ValueError(msg)
    return lambda rows: metric(*(column[rows] for column in columns), **options)


def interval(
    statistics: Statistic | Sequence[Statistic], drawn: PatientDraws, *, level: float = 0.95, draw_seeds: bool = True
) -> Estimate:
    """The figure and its percentile interval; of several statistics, one for each training seed, the mean over seeds.

    ``draw_seeds``: the seeds are drawn with replacement in each draw before their mean is taken, so that the interval is
    that of a training with another seed too (a random effect). Without it, it holds for the mean of these seeds alone.
    """
    runs = _runs(statistics)
    values = np.array([_mean_over_seeds(runs, rows, s) for rows, s in _with_seeds(drawn, len(runs), draw_seeds)])
    point = _mean_over_seeds(runs, np.arange(drawn.lesions), np.arange(len(runs)))
    return Estimate(point, *_percentiles(values, level, drawn), **_sizes(values, level, drawn))


def difference(
    first: Statistic | Sequence[Statistic],
    second: Statistic | Sequence[Statistic],
    drawn: PatientDraws,
    *,
    level: float = 0.95,
    draw_seeds: bool = True,
) -> Difference:
    """first - second on the same patients (and the same seeds, by place) in each draw."""
    one, other = _runs(first), _runs(second)
    if len(one) != len(other):
        msg = f"{len(one)} and {len(other)} seeds cannot be paired; train both models with the same ones"
        raise ValueError(msg)

    def both(rows: np.ndarray, seeds: np.ndarray) -> float:
        return _mean_over_seeds(one, rows, seeds) - _mean_over_seeds(other, rows, seeds)

    values = np.array([both(rows, seeds) for rows, seeds in _with_seeds(drawn, len(one), draw_seeds)])
    point = both(np.arange(drawn.lesions), np.arange(len(one)))
    low, high = _percentiles(values, level, drawn)
    p_value = _p_value(values) if drawn.patients > 1 else float("nan")
    return Difference(point, low, high, **_sizes(values, level, drawn), p_value=p_value)


def holm(p_values: Sequence[float]) -> np.ndarray:
    """P-values adjusted for being several (Holm, Scand J Statist 1979), in the order given: reject where <= alpha."""
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        msg = f"p-values must lie between 0 and 1, not {p.tolist()}; leave out comparisons that could not be made"
        raise ValueError(msg)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)
    return adjusted


def _runs(statistics: Statistic | Sequence[Statistic]) -> Sequence[Statistic]:
    runs = [statistics] if callable(statistics) else list(statistics)
    if not runs:
        msg = "no statistic was given; give one, or one for each seed"
        raise ValueError(msg)
    return runs


def _with_seeds(drawn: PatientDraws, seeds: int, draw_seeds: bool) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    if seeds == 1:
        yield from ((rows, np.zeros(1, dtype=int)) for rows in drawn)
        return
    # A generator of its own: one seed or five, the patients drawn are the same.
    rng = np.random.default_rng([drawn.seed, 1])
    for rows in drawn:
        yield rows, rng.integers(seeds, size=seeds) if draw_seeds else np.arange(seeds)


def _mean_over_seeds(runs: Sequence[Statistic], rows: np.ndarray, seeds: np.ndarray) -> float:
    if len(runs) == 1:
        return float(runs[0](rows))
    values = {seed: runs[seed](rows) for seed in np.unique(seeds)}
    return float(np.mean([values[seed] for seed in seeds]))


def _percentiles(values: np.ndarray, level: float, drawn: PatientDraws) -> tuple[float, float]:
    if not 0 < level < 1:
        msg = f"level must lie between 0 and 1, not {level!r}"
        raise ValueError(msg)
    valid = values[~np.isnan(values)]
    if not len(valid) or drawn.patients < 2:  # one patient is always drawn: no variation, but no certainty either
        return float("nan"), float("nan")
    low, high = np.percentile(valid, [50 * (1 - level), 50 * (1 + level)])
    return float(low), float(high)


def _sizes(values: np.ndarray, level: float, drawn: PatientDraws) -> dict[str, int | float]:
    return {
        "lesions": drawn.lesions,
        "patients": drawn.patients,
        "draws": drawn.draws,
        "failed": int(np.isnan(values).sum()),
        "level": level,
    }


def _p_value(differences: np.ndarray) -> float:
    """Twice the smaller share of draws on either side of zero, ties on both; never 0 (Davison and Hinkley 1997, 4.11)."""
    valid = differences[~np.isnan(differences)]
    if not len(valid):
        return float("nan")
    beyond = min((valid <= 0).sum(), (valid >= 0).sum())
    return float(min(1.0, 2 * (beyond + 1) / (len(valid) + 1)))
