"""How far one answer can be relied on: what was measured, in numbers and in plain words. Knows no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from LesionLib.uncertainty.stability import Stability

_SPREAD_ARRAYS = ("mean", "minimum", "maximum", "sd")
NOT_MEASURED = "How far this answer can be relied on was not measured: the model brings nothing to measure it with."


@dataclass(frozen=True, eq=False)
class Reliability:
    """What is known of one answer beside its probabilities; None where the model or the run does not measure it.

    ``prediction_set``: the classes that cannot be ruled out, the likeliest first; sets made like this hold the true class
    in a share ``promised`` of lesions like those of the calibration. ``distance``: how unlike the training lesions the
    embedding is; up to ``usual_distance`` it is usual. ``spread``: the answers to boxes drawn a little differently.
    ``heat_inside``: the share of the Grad-CAM's energy inside the box, or inside its segment where there is one.
    """

    prediction_set: tuple[str, ...] | None = None
    promised: float | None = None
    distance: float | None = None
    usual_distance: float | None = None
    spread: Stability | None = None
    heat_inside: float | None = None

    def sentences(self, class_names: Sequence[str]) -> tuple[str, ...]:
        """In plain words, for the one who reads the answer; the classes in the order of the probabilities."""
        said = []
        if self.prediction_set is not None:
            said.append(_set_sentence(self.prediction_set, self.promised or 0.0, class_names))
        if self.distance is not None and self.usual_distance is not None:
            usual = self.distance <= self.usual_distance
            said.append(f"The lesion looks {'like' if usual else 'unlike'} those the model learned from.")
        if self.spread is not None:
            said.append(self.spread.sentence(class_names))
        return tuple(said) or (NOT_MEASURED,)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, the inverse of `from_json`; a number that could not be computed is null."""
        spread = None
        if self.spread is not None:
            spread = asdict(self.spread) | {key: _numbers(getattr(self.spread, key)) for key in _SPREAD_ARRAYS}
        return {
            "predictionSet": None if self.prediction_set is None else list(self.prediction_set),
            "promisedCoverage": self.promised,
            "distance": self.distance,
            "usualDistance": self.usual_distance,
            "heatInside": self.heat_inside,
            "boxSpread": spread,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Reliability:
        """What `to_json` wrote."""
        spread, names = values["boxSpread"], values["predictionSet"]
        if spread is not None:
            spread = Stability(**{**spread, **{key: _array(spread[key]) for key in _SPREAD_ARRAYS}})
        return cls(
            prediction_set=None if names is None else tuple(names),
            promised=values["promisedCoverage"],
            distance=values["distance"],
            usual_distance=values["usualDistance"],
            spread=spread,
            heat_inside=values["heatInside"],
        )


def _set_sentence(chosen: Sequence[str], promised: float, class_names: Sequence[str]) -> str:
    names, share = " or ".join(chosen), f"{promised:.0%}"
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
