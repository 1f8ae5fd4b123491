"""What the scores of a lesion say: rows to show, and the one sentence that a radiologist would write. Knows no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from LesionLib.model.scores import ScoreSpec
from LesionLib.sampling.statistics import LesionStatistics
from LesionLib.uncertainty.stability import Stability

_FULL, _EMPTY = "\N{BLACK CIRCLE}", "\N{WHITE CIRCLE}"


@dataclass(frozen=True)
class ScoreRow:
    """One score of a lesion as it is shown. ``dots``: for each level of the scale whether the value reaches it.

    ``share``: how far up the scale, 0 to 1. ``spread``: lowest and highest value of boxes drawn a little differently; None where
    none were asked.
    """

    spec: ScoreSpec
    value: float
    spread: tuple[float, float] | None

    @property
    def level_text(self) -> str:
        return self.spec.level_text(self.value)

    @property
    def on_scale(self) -> str:
        return self.spec.level_on_scale(self.value)

    @property
    def share(self) -> float:
        return self.spec.share(self.value)

    @property
    def dots(self) -> tuple[bool, ...]:
        level = self.spec.level(self.value)
        return tuple(step <= level for step in range(self.spec.low, self.spec.high + 1))

    @property
    def dots_text(self) -> str:
        """The same as letters, where there are no pictures."""
        return "".join(_FULL if filled else _EMPTY for filled in self.dots)

    @property
    def errors_text(self) -> str:
        """How far the model and one reader are off on average; "" where it was not measured."""
        error = self.spec.error
        if error is None:
            return ""
        return f"model off by {error.model:.2f}, one reader by {error.reader:.2f} (n = {error.n})"

    @property
    def spread_text(self) -> str:
        if self.spread is None:
            return ""
        return f"{self.spread[0]:.1f} to {self.spread[1]:.1f} for boxes drawn a little differently"


def score_rows(
    specs: Sequence[ScoreSpec], values: Mapping[str, float], spread: Stability | None = None
) -> tuple[ScoreRow, ...]:
    """A row for each score that has a value, in the order of the model's; ``spread``: of the same answer, where asked for."""
    measured = spread is not None and spread.answered and len(spread.score_minimum) == len(specs)
    ranges = zip(spread.score_minimum, spread.score_maximum, strict=True) if measured else [None] * len(specs)
    return tuple(
        ScoreRow(spec, values[spec.name], None if ends is None else (float(ends[0]), float(ends[1])))
        for spec, ends in zip(specs, ranges, strict=True)
        if spec.name in values
    )


def description_sentence(
    label: str,
    specs: Sequence[ScoreSpec],
    values: Mapping[str, float],
    *,
    longest_mm: float | None = None,
    statistics: LesionStatistics | None = None,
) -> str:
    """``solid, 9 mm, lobulated 3 of 5, not calcified``: class, size, and of the scores what their manifest says to say.

    Of a segment the size is the longest diameter in an axial slice. ``longest_mm``: of the box where there is none: then the text
    says that it is the box's; and of a segment whose diameters are not known. "" without a label or without scores: of such a
    lesion nothing is described.
    """
    if not label or not any(spec.name in values for spec in specs):
        return ""
    in_segment = statistics is not None and statistics.measured_in == "segment"
    parts = [label]
    if in_segment and statistics.diameters is not None:
        longest_mm = statistics.diameters.longest_mm
    if longest_mm is not None:
        size = f"{longest_mm:.0f} mm" if longest_mm >= 1 else "below 1 mm"
        parts.append(size if in_segment else f"box of {size}")
    parts += [phrase for spec in specs if spec.name in values and (phrase := spec.phrase(values[spec.name]))]
    return ", ".join(parts)


def score_notes(specs: Sequence[ScoreSpec], values: Mapping[str, float]) -> tuple[str, ...]:
    """Of which scores the model errs more than a reader does; none where it does not, or where it was not measured."""
    return tuple(spec.note for spec in specs if spec.name in values and spec.note)
