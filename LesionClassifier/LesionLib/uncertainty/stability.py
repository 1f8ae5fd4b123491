"""How much the answer moves when the box is drawn a little differently. Knows no network: it is given a function."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from LesionLib.geometry import CTVolume, LesionBox, transformed_points

_MAX_PART = 0.25  # of an edge: nobody draws the box beside the lesion
_SMALLEST_MM = 1.0  # edges do not shrink below this
_ON_THE_EDGE = 1e-6  # voxels

Predict = Callable[[LesionBox], np.ndarray]


@dataclass(frozen=True, eq=False)
class Stability:
    """The answers to ``answered`` boxes drawn near the user's; ``skipped`` would have left the volume.

    ``mean``, ``minimum``, ``maximum``, ``sd``: of each class's probability, shape (class,); NaN where no box was answered,
    ``sd`` (with n - 1) also where only one was. ``label``: the class of the user's own box; ``keeping``: answers with it.
    ``score_minimum``, ``score_maximum``: of each score, shape (score,); (0,) for a model without scores, and where no box
    was answered.
    """

    mean: np.ndarray
    minimum: np.ndarray
    maximum: np.ndarray
    sd: np.ndarray
    label: int
    keeping: int
    answered: int
    skipped: int
    shift_mm: float
    size_mm: float
    score_minimum: np.ndarray = field(default_factory=lambda: np.zeros(0))
    score_maximum: np.ndarray = field(default_factory=lambda: np.zeros(0))

    @property
    def share_keeping(self) -> float:
        """Share of the answers that name the same class; NaN where there is none."""
        return self.keeping / self.answered if self.answered else float("nan")

    def message(self, class_names: Sequence[str]) -> str:
        """For the reliability line."""
        name = class_names[self.label]
        drawn = f"moved by up to {self.shift_mm:g} mm, edges up to {self.size_mm:g} mm longer or shorter"
        left_out = f" {_boxes(self.skipped)} would have left the volume." if self.skipped else ""
        if not self.answered:
            return f"How the answer depends on the box was not measured.{left_out}"
        low, high = self.minimum[self.label], self.maximum[self.label]
        return (
            f"Drawn a little differently ({drawn}), {self.keeping} of {_boxes(self.answered)} give the same answer, "
            f"{name}; its probability runs from {low:.0%} to {high:.0%}.{left_out}"
        )


def box_stability(
    predict: Predict,
    box: LesionBox,
    volume: CTVolume,
    *,
    probabilities: np.ndarray | None = None,
    n: int = 8,
    shift_mm: float = 2.0,
    size_mm: float = 2.0,
    seed: int = 0,
) -> Stability:
    """Ask ``predict`` (box -> probabilities, shape (class,)) about ``n`` boxes drawn near ``box``.

    ``probabilities``: the answer to ``box`` itself, where it is known; what ``predict`` gives beyond as many is scores, shape
    (class + score,). The same seed gives the same boxes. Boxes with a
    corner outside ``volume`` are skipped, not moved: moving them back would hide how near the edge the lesion lies.
    """
    if n < 1 or shift_mm < 0 or size_mm < 0:
        msg = f"n must be at least 1, shift_mm and size_mm at least 0; not {n}, {shift_mm:g} and {size_mm:g}"
        raise ValueError(msg)
    own = np.asarray(predict(box) if probabilities is None else probabilities, dtype=float)
    boxes = list(jittered_boxes(box, n=n, shift_mm=shift_mm, size_mm=size_mm, seed=seed))
    inside = [b for b in boxes if lies_inside(volume, b)]
    values_of = np.array([predict(b) for b in inside], dtype=float).reshape(len(inside), -1 if inside else len(own))
    probabilities_of, scores_of = values_of[:, : len(own)], values_of[:, len(own) :]
    nothing = np.full(len(own), np.nan)
    return Stability(
        mean=probabilities_of.mean(axis=0) if inside else nothing,
        minimum=probabilities_of.min(axis=0) if inside else nothing,
        maximum=probabilities_of.max(axis=0) if inside else nothing,
        sd=probabilities_of.std(axis=0, ddof=1) if len(inside) > 1 else nothing,
        label=int(own.argmax()),
        keeping=int((probabilities_of.argmax(axis=1) == own.argmax()).sum()),
        answered=len(inside),
        skipped=n - len(inside),
        shift_mm=shift_mm,
        size_mm=size_mm,
        score_minimum=scores_of.min(axis=0) if inside else np.zeros(0),
        score_maximum=scores_of.max(axis=0) if inside else np.zeros(0),
    )


def jittered_boxes(box: LesionBox, *, n: int, shift_mm: float, size_mm: float, seed: int) -> Iterator[LesionBox]:
    """``n`` boxes: centre moved by up to ``shift_mm`` and edges changed by up to ``size_mm``, evenly, along each box axis.

    Neither is more than a quarter of an edge, so that the boxes of a small lesion still hold most of it. Unlike
    `LesionBox.jittered`, which augments training, boxes here may shrink and do not turn.
    """
    rng = np.random.default_rng(seed)
    shift, change = (np.minimum(mm, _MAX_PART * box.sizeMm) for mm in (shift_mm, size_mm))
    for _ in range(n):
        moved = box.axesRAS @ (rng.uniform(-1, 1, 3) * shift)
        size = np.maximum(box.sizeMm + rng.uniform(-1, 1, 3) * change, np.minimum(box.sizeMm, _SMALLEST_MM))
        yield replace(box, centerRAS=box.centerRAS + moved, sizeMm=size)


def lies_inside(volume: CTVolume, box: LesionBox) -> bool:
    """Whether all corners lie in the volume, its outer voxels counted to their outer faces."""
    corners = transformed_points(volume.rasToIJK, box.cornersRAS)
    edge = np.array(volume.sizeIJK) - 0.5 + _ON_THE_EDGE
    return bool(((corners >= -0.5 - _ON_THE_EDGE) & (corners <= edge)).all())


def _boxes(n: int) -> str:
    return "1 box" if n == 1 else f"{n} boxes"
