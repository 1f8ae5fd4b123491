"""How far one answer can be relied on: what was measured, in numbers and in plain words. Knows no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from LesionLib.uncertainty.stability import Stability

_SPREAD_ARRAYS = ("mean", "minimum", "maximum", "sd")
_SCORE_ARRAYS = ("score_minimum", "score_maximum")  # written only for a model with scores
NOT_MEASURED = "How far this answer can be relied on was not measured: the model brings nothing to measure it with."


@dataclass(frozen=True, eq=False)
class Reliability:
    """What is known of one answer beside its probabilities; None where the model or the run does not measure it.

    ``prediction_set``: the classes that cannot be ruled out, the likeliest first; sets made like this hold the true class
    in a share ``target_coverage`` of lesions like those of the calibration. ``distance``: how unlike the training lesions the
    embedding is; up to ``distance_threshold`` it is usual. ``spread``: the answers to boxes drawn a little differently.
    ``energy_inside``: the share of the Grad-CAM's energy inside the box, or inside its segment where there is one.
    """

    prediction_set: tuple[str, ...] | None = None
    target_coverage: float | None = None
    distance: float | None = None
    distance_threshold: float | None = None
    spread: Stability | None = None
    energy_inside: float | None = None

    def messages(self, class_names: Sequence[str]) -> tuple[str, ...]:
        """In plain words, for the one who reads the answer; the classes in the order of the probabilities."""
        text = []
        if self.prediction_set is not None:
            text.append(_set_message(self.prediction_set, self.target_coverage or 0.0, class_names))
        if self.distance is not None and self.distance_threshold is not None:
            is_usual = self.distance <= self.distance_threshold
            text.append(f"The lesion looks {'like' if is_usual else 'unlike'} those the model learned from.")
        if self.spread is not None:
            text.append(self.spread.message(class_names))
        return tuple(text) or (NOT_MEASURED,)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, the inverse of `from_json`; a number that could not be computed is null."""
        spread = None
        if self.spread is not None:
            arrays = {key: _numbers(getattr(self.spread, key)) for key in (*_SPREAD_ARRAYS, *_SCORE_ARRAYS)}
            spread = asdict(self.spread) | arrays
            spread = {key: value for key, value in spread.items() if value or key not in _SCORE_ARRAYS}
        return {
            "predictionSet": None if self.prediction_set is None else list(self.prediction_set),
            "promisedCoverage": self.target_coverage,
            "distance": self.distance,
            "usualDistance": self.distance_threshold,
            "heatInside": self.energy_inside,
            "boxSpread": spread,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Reliability:
        """What `to_json` wrote."""
        spread, names = values["boxSpread"], values["predictionSet"]
        if spread is not None:
            there = [*_SPREAD_ARRAYS, *(key for key in _SCORE_ARRAYS if key in spread)]
            spread = Stability(**{**spread, **{key: _array(spread[key]) for key in there}})
        return cls(
            prediction_set=None if names is None else tuple(names),
            target_coverage=values["promisedCoverage"],
            distance=values["distance"],
            distance_threshold=values["usualDistance"],
            spread=spread,
            energy_inside=values["heatInside"],
        )


def _set_message(chosen: Sequence[str], target_coverage: float, class_names: Sequence[str]) -> str:
    names, share = " or ".join(chosen), f"{target_coverage:.0%}"
    if len(chosen) == len(class_names):
        return (
            f"No class can be ruled out: {names} (sets made like this hold the true class in {share} of such lesions)."
        )
    return (
        f"Cannot be ruled out: {names} (sets made like this hold the true class in {share} of lesions like those of the "
        "calibration)."
    )


def _numbers(values: np.ndarray) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values]


def _array(values: Sequence[float | None]) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values], dtype=float)
