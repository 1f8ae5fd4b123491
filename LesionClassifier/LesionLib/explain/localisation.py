"""Whether a heat map lies on the lesion: its energy inside, boxes of its hot parts, its hottest point. Knows no torch.

Two uses. One heat map in the CT: `energy_share`. Many maps with the truth beside them, each on the lattice of its picture
(2-D) or cube (3-D): `choose_threshold` on validation data, once for each method, then `localisation` on the test data.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from .geometry import CTVolume, LesionBox, transformed_points
from .heat_map import HeatMap
from .proportion import Proportion, proportion
from .sampling import lattice_points

THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(1, 20))
BOXES = ("largest", "any", "whole")
_AS_HOT = 1.0 - 1e-6


@dataclass(frozen=True, eq=False)
class LocalisationCase:
    """One map with its truth. A slice without a lesion cannot be localised and is no case.

    ``cam``: (h, w) or (d, h, w), at least 0: the map of class ``label``, coarse as the network makes it. ``truth``: bool,
    where the lesion is, on the pixels (voxels) of the network's input. ``predicted``: the class that was answered.
    """

    cam: np.ndarray
    truth: np.ndarray
    label: str
    predicted: str

    def __post_init__(self) -> None:
        """Refuse maps and truths that do not belong together (ValueError)."""
        if self.cam.ndim != self.truth.ndim or not np.any(self.truth):
            msg = f"a map of shape {self.cam.shape} needs a truth in as many dimensions with a lesion, not {self.truth.shape}"
            raise ValueError(msg)
        if not (np.isfinite(self.cam).all() and (self.cam >= 0).all()):
            msg = "a map must be finite and not negative; give it as grad_cam makes it"
            raise ValueError(msg)


@dataclass(frozen=True)
class ClassLocalisation:
    """The figures of one class, or of all. ``gt_known``: IoU of at least ``iou``; ``top_1``: and the class answered right;
    ``pointing``: the hottest point on the lesion. ``empty``: maps without any heat; they count as misses.
    """

    gt_known: Proportion
    top_1: Proportion
    pointing: Proportion
    empty: int


@dataclass(frozen=True)
class Localisation:
    """``classes``: by label; ``all_cases``: pooled; ``mean_gt_known``: mean over the classes."""

    threshold: float
    iou: float
    classes: dict[str, ClassLocalisation]
    all_cases: ClassLocalisation

    @property
    def mean_gt_known(self) -> float:
        """Mean of the classes' GT-known shares: rare classes count as much as frequent ones."""
        return float(np.mean([figures.gt_known.value for figures in self.classes.values()]))


def energy_share(heat_map: HeatMap, region: LesionBox | CTVolume) -> float:
    """Share of the heat that lies inside a box or a segment (0 and 1), 0 to 1; 0 for an empty map.

    The energy-based pointing game (Wang et al., "Score-CAM", CVPR workshops 2020, section 4.3) on the CT's voxels: a voxel
    is inside where its centre is.
    """
    total = float(heat_map.array.sum(dtype=np.float64))
    if not total > 0:
        return 0.0
    points = transformed_points(heat_map.ijkToRAS, lattice_points(heat_map.array.shape[::-1]))
    inside = _in_box(points, region) if isinstance(region, LesionBox) else _in_mask(points, region)
    return float(heat_map.array[inside].sum(dtype=np.float64)) / total


def localisation(
    cases: Sequence[LocalisationCase], *, threshold: float, iou: float = 0.5, boxes: str = "largest"
) -> Localisation:
    """The paper's LocAcc_c = correctly localised slices of class c / slices of class c (DADRN), with its gaps filled.

    The paper leaves "correct" open. Here: IoU of a box of {map >= ``threshold`` x its maximum} and the box of the lesion
    of at least ``iou`` (.5, and .3 beside it), the class being known (GT-known) or also answered right (Top-1); and the
    pointing game (Zhang et al., ECCV 2016). ``threshold`` comes from `choose_threshold`. ``boxes``: that of the "largest"
    connected part (Zhou et al., CVPR 2016), "any" of the parts (Choe et al., CVPR 2020), or one around the "whole" set.
    Cases of several test sets are pooled by giving them together, as the paper's denominators show it did.
    """
    if not cases:
        msg = "no cases were given"
        raise ValueError(msg)
    found = localised(cases, threshold=threshold, iou=iou, boxes=boxes)
    pointed = np.array([points_at_lesion(case) for case in cases])
    right = np.array([case.label == case.predicted for case in cases])
    empty = np.array([not case.cam.max() > 0 for case in cases])
    labels = np.array([case.label for case in cases])

    def figures(of: np.ndarray) -> ClassLocalisation:
        return ClassLocalisation(
            _share(found[of]), _share((found & right)[of]), _share(pointed[of]), int(empty[of].sum())
        )

    classes = {str(label): figures(labels == label) for label in np.unique(labels)}
    return Localisation(threshold, iou, classes, figures(np.full(len(cases), True)))


def localised(
    cases: Sequence[LocalisationCase], *, threshold: float, iou: float = 0.5, boxes: str = "largest"
) -> np.ndarray:
    """Whether each case is localised, the class being known: bool, (case,); for intervals that draw patients."""
    return np.array([_best_iou(_upsampled(c), c.truth, threshold, boxes) >= iou for c in cases])


def choose_threshold(
    cases: Sequence[LocalisationCase],
    *,
    iou: float = 0.5,
    boxes: str = "largest",
    thresholds: Sequence[float] = THRESHOLDS,
) -> float:
    """The threshold with the largest mean over classes of GT-known localisation on *validation* cases, for one method.

    One for each method, because maps differ in how peaked they are (Choe et al., CVPR 2020); never on the test data. Of
    several equally good ones, the one in their middle.
    """
    if not cases or not thresholds:
        msg = f"at least one case and one threshold are needed, not {len(cases)} and {len(thresholds)}"
        raise ValueError(msg)
    labels = np.array([case.label for case in cases])
    maps = ((case, _upsampled(case)) for case in cases)
    overlaps = np.array([[_best_iou(m, c.truth, t, boxes) for t in thresholds] for c, m in maps])
    quality = np.mean([(overlaps[labels == label] >= iou).mean(axis=0) for label in np.unique(labels)], axis=0)
    best = np.flatnonzero(quality >= quality.max() - 1e-12)
    return float(thresholds[best[(len(best) - 1) // 2]])


def points_at_lesion(case: LocalisationCase) -> bool:
    """The pointing game: the hottest pixel lies on the lesion; where several are equally hot, all of them must."""
    fine = _upsampled(case)
    return bool(fine.max() > 0 and case.truth[fine >= fine.max() * _AS_HOT].all())


def box_iou(a: tuple[np.ndarray, np.ndarray], b: tuple[np.ndarray, np.ndarray]) -> float:
    """Intersection over union of two boxes (first index, index after the last) in any number of dimensions."""
    shared = np.clip(np.minimum(a[1], b[1]) - np.maximum(a[0], b[0]), 0, None).prod()
    return float(shared / ((a[1] - a[0]).prod() + (b[1] - b[0]).prod() - shared))


def _best_iou(fine: np.ndarray, truth: np.ndarray, threshold: float, boxes: str) -> float:
    if not fine.max() > 0:
        return 0.0
    wanted = _around(truth)
    return max(box_iou(box, wanted) for box in _boxes(fine >= threshold * fine.max(), boxes))


def _boxes(hot: np.ndarray, which: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    if which not in BOXES:
        msg = f"boxes must be one of {', '.join(BOXES)}, not {which!r}"
        raise ValueError(msg)
    if which == "whole":
        yield _around(hot)
        return
    parts, count = ndimage.label(hot, structure=np.ones([3] * hot.ndim))
    largest = int(np.bincount(parts.ravel())[1:].argmax()) + 1
    for part in range(1, count + 1) if which == "any" else [largest]:
        yield _around(parts == part)


def _around(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    places = np.argwhere(mask)
    return places.min(axis=0), places.max(axis=0) + 1


def _upsampled(case: LocalisationCase) -> np.ndarray:
    """The map on the truth's pixels, linear between the centres of its cells as `painting.paint` lays it."""
    axes = [
        (np.arange(fine) + 0.5) * coarse / fine - 0.5
        for coarse, fine in zip(case.cam.shape, case.truth.shape, strict=True)
    ]
    where = np.meshgrid(*axes, indexing="ij")
    return ndimage.map_coordinates(case.cam.astype(np.float64), where, order=1, mode="nearest")


def _in_box(points: np.ndarray, box: LesionBox) -> np.ndarray:
    in_box = transformed_points(np.linalg.inv(box.boxToRAS), points)
    return (np.abs(in_box) <= box.sizeMm / 2).all(axis=-1)


def _in_mask(points: np.ndarray, mask: CTVolume) -> np.ndarray:
    ijk = np.rint(transformed_points(np.linalg.inv(mask.ijkToRAS), points)).astype(int)
    size = np.array(mask.array.shape[::-1])
    inside = ((ijk >= 0) & (ijk < size)).all(axis=-1)
    i, j, k = np.moveaxis(np.clip(ijk, 0, size - 1), -1, 0)
    return inside & mask.array[k, j, i].astype(bool)


def _share(hits: np.ndarray) -> Proportion:
    return proportion(int(hits.sum()), len(hits))
