"""Whether a heat map lies on the lesion, and whether it shows what the network learned.

Where it lies: its energy inside, boxes of its hot parts, its hottest point. Two uses. One heat map in the CT:
`energy_share`. Many maps with the truth beside them, each on the lattice of its patch (2-D) or cube (3-D):
`choose_threshold` on validation data, once for each method, then `localisation` on the test data.

What it shows (`sanity_check`): a map must change when the network forgets. Adebayo et al., "Sanity checks for saliency
maps", NeurIPS 2018, section 3: layers are randomised one after the other from the head down, and the maps are compared
with those of the trained network. A map that stays the same, such as an edge detector's, explains the patch and not the
network.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from LesionLib.explain.heat_map import HeatMap, cells_along
from LesionLib.explain.saliency import grad_cam
from LesionLib.geometry import CTVolume, LesionBox, transformed_points
from LesionLib.networks import LesionNet
from LesionLib.sampling.resample import lattice_points
from LesionLib.uncertainty.conformal import Proportion, proportion

THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(1, 20))
BOXES = ("largest", "any", "whole")
_AS_HOT = 1.0 - 1e-6


@dataclass(frozen=True, eq=False)
class LocalisationCase:
    """One map with its truth. A slice without a lesion cannot be localised and is no case.

    ``cam``: (h, w) or (d, h, w), at least 0: the map of class ``label``, coarse as the network makes it. ``truth``: bool,
    where the lesion is, on the pixels (voxels) of the network's input. ``predicted``: the class that was answered.
    ``cell_centres``: where the cells of the map look, `LesionNet.cell_centres`.
    """

    cam: np.ndarray
    truth: np.ndarray
    label: str
    predicted: str
    cell_centres: tuple[float, float] | None = None

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
    return np.array([_best_iou(map_on_pixels(c), c.truth, threshold, boxes) >= iou for c in cases])


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
    maps = ((case, map_on_pixels(case)) for case in cases)
    overlaps = np.array([[_best_iou(m, c.truth, t, boxes) for t in thresholds] for c, m in maps])
    quality = np.mean([(overlaps[labels == label] >= iou).mean(axis=0) for label in np.unique(labels)], axis=0)
    best = np.flatnonzero(quality >= quality.max() - 1e-12)
    return float(thresholds[best[(len(best) - 1) // 2]])


def map_box(case: LocalisationCase, *, threshold: float) -> tuple[np.ndarray, np.ndarray] | None:
    """The box that `localisation` holds against the lesion's: first index and index after the last, (axis,) each.

    Of the largest connected part of {map >= ``threshold`` x its maximum} on the truth's pixels; None of a map without heat.
    """
    fine = map_on_pixels(case)
    return next(_boxes(fine >= threshold * fine.max(), "largest")) if fine.max() > 0 else None


def points_at_lesion(case: LocalisationCase) -> bool:
    """The pointing game: the hottest pixel lies on the lesion; where several are equally hot, all of them must."""
    fine = map_on_pixels(case)
    return bool(fine.max() > 0 and case.truth[fine >= fine.max() * _AS_HOT].all())


def box_iou(a: tuple[np.ndarray, np.ndarray], b: tuple[np.ndarray, np.ndarray]) -> float:
    """Intersection over union of two boxes (first index, index after the last) in any number of dimensions, (axis,) each."""
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
    from scipy import ndimage  # a second to import, and no answer needs it

    parts, count = ndimage.label(hot, structure=np.ones([3] * hot.ndim))
    largest = int(np.bincount(parts.ravel())[1:].argmax()) + 1
    for part in range(1, count + 1) if which == "any" else [largest]:
        yield _around(parts == part)


def _around(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    indices = np.argwhere(mask)
    return indices.min(axis=0), indices.max(axis=0) + 1


def map_on_pixels(case: LocalisationCase) -> np.ndarray:
    """The map on the truth's pixels, linear between the centres of its cells as `heat_map.resample_to_ct` lays it."""
    axes = []
    for coarse, fine in zip(case.cam.shape, case.truth.shape, strict=True):
        first, step = cells_along(coarse, fine, case.cell_centres)
        axes.append((np.arange(fine) - first) / step)
    where = np.meshgrid(*axes, indexing="ij")
    from scipy import ndimage

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


_MAX_ALIKE = 0.5  # of the rank correlation of a map with itself
_DRAWS = 2000

Explain = Callable[[LesionNet, Tensor, int], Tensor]


@dataclass(frozen=True)
class CascadeStep:
    """The maps after ``layers`` and all before them were randomised, beside those of the trained network.

    ``rank_correlation``: Spearman's, mean over patches and repeats, ``low`` to ``high`` its 95 % bootstrap interval, both
    drawn. ``overlap``: what two maps share when each adds up to 1, mean. ``empty``: maps now constant; they count as 0.
    """

    layers: tuple[str, ...]
    rank_correlation: float
    low: float
    high: float
    overlap: float
    empty: int


@dataclass(frozen=True)
class SanityCheck:
    """The steps of the cascade; ``left_out``: patches whose map was constant already in the trained network."""

    method: str
    steps: tuple[CascadeStep, ...]
    patches: int
    left_out: int
    repeats: int
    seed: int

    @property
    def passed(self) -> bool:
        """Whether the map of the wholly randomised network is less than half as alike as the map is to itself."""
        return self.steps[-1].rank_correlation < _MAX_ALIKE

    def __str__(self) -> str:
        """One sentence for a model card."""
        last = self.steps[-1]
        verdict = "changes, as it must" if self.passed else "hardly changes: it does not show what the network learned"
        return (
            f"With all layers randomised the {self.method} {verdict} (rank correlation {last.rank_correlation:.2f}, "
            f"95 % interval {last.low:.2f} to {last.high:.2f}; overlap {last.overlap:.2f}; n = {self.patches} patches, "
            f"{self.left_out} left out; {self.repeats} randomisations)."
        )


def grad_cam_of_patches(network: LesionNet, patches: Tensor, class_index: int) -> Tensor:
    """Grad-CAM from the patch on."""
    with torch.no_grad():
        features = network.features(patches)
    return grad_cam(network, features, class_index)


def sanity_check(
    network: LesionNet,
    patches: Tensor,
    *,
    explain: Explain = grad_cam_of_patches,
    method: str = "Grad-CAM",
    max_steps: int = 8,
    repeats: int = 3,
    seed: int = 0,
) -> SanityCheck:
    """Randomise copies of ``network`` from the head down in at most ``max_steps`` steps and compare the maps.

    ``patches``: network input, (batch, channel, row, column) or with slices. Each is explained for the class that the
    trained network answers, before and after. The cascade is run ``repeats`` times: one randomisation can fall near what
    was learned. The same seed gives the same numbers; the network is not changed. Raises ValueError where no patch has
    a map.
    """
    if network.training or repeats < 1:
        msg = f"the network must be in evaluation mode (call eval() first) and repeats at least 1, not {repeats}"
        raise ValueError(msg)
    with torch.no_grad():
        predicted = network(patches).argmax(dim=1)
    trained = _maps(network, patches, predicted, explain)
    kept = np.ptp(trained, axis=1) > 0
    if not kept.any():
        msg = f"none of the {len(trained)} patches has a map to compare; give others"
        raise ValueError(msg)
    groups = _grouped(layers_from_the_head(network, patches[:1]), max_steps)
    maps = np.empty((len(groups), repeats, *trained[kept].shape))
    for repeat in range(repeats):
        forgetful = copy.deepcopy(network)
        for number, layers in enumerate(groups):
            randomise(forgetful, layers, seed=int(np.random.SeedSequence([seed, repeat, number]).generate_state(1)[0]))
            maps[number, repeat] = _maps(forgetful, patches, predicted, explain)[kept]
    steps = tuple(_step(layers, trained[kept], now, seed) for layers, now in zip(groups, maps, strict=True))
    return SanityCheck(method, steps, int(kept.sum()), int((~kept).sum()), repeats, seed)


def layers_from_the_head(network: LesionNet, patches: Tensor) -> list[str]:
    """Names of the modules that hold weights of their own, the last to finish computing first.

    Modules that take no part in an answer are left out. The order of registration would not do: a head may be built
    before its trunk.
    """
    owners = {name.rpartition(".")[0] for name, tensor in network.state_dict().items() if tensor.is_floating_point()}
    finished: list[str] = []

    def note(name: str) -> Callable[[nn.Module, object, object], None]:
        return lambda _module, _input, _output: finished.append(name)

    handles = [m.register_forward_hook(note(name)) for name, m in network.named_modules() if name in owners]
    try:
        with torch.no_grad():
            network(patches)
    finally:
        for handle in handles:
            handle.remove()
    return list(dict.fromkeys(reversed(finished)))


def randomise(network: LesionNet, layers: Collection[str], *, seed: int) -> None:
    """Shuffle the numbers of each weight and stored statistic of ``layers`` among themselves, in place.

    What was learned is gone, but every layer keeps its scale: maps do not change merely because activations die. It also
    serves statistics that must stay positive, and a support vector machine, which no initialisation fits.
    """
    generator = torch.Generator().manual_seed(seed)
    state = network.state_dict()
    with torch.no_grad():
        for name, tensor in state.items():
            if name.rpartition(".")[0] in layers and tensor.is_floating_point():
                order = torch.randperm(tensor.numel(), generator=generator).to(tensor.device)
                tensor.copy_(tensor.flatten()[order].view_as(tensor))


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's, of two maps of one shape; 0 where one is constant."""
    from scipy.stats import rankdata  # a second to import, and no answer needs it

    ranks = [rankdata(m.ravel()) for m in (a, b)]
    x, y = (r - r.mean() for r in ranks)
    product = float(np.linalg.norm(x) * np.linalg.norm(y))
    return float(x @ y) / product if product > 0 else 0.0


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """What two maps, at least 0 everywhere, share when each adds up to 1: 0 to 1; 0 where one is empty."""
    if not (a.sum() > 0 and b.sum() > 0):
        return 0.0
    return float(np.minimum(a / a.sum(), b / b.sum()).sum())


def _maps(network: LesionNet, patches: Tensor, classes: Tensor, explain: Explain) -> np.ndarray:
    """(patch, place), float64: each patch's map for its class."""
    maps: dict[int, np.ndarray] = {}
    for class_index in classes.unique().tolist():
        chosen = (classes == class_index).nonzero().flatten()
        found = explain(network, patches[chosen], class_index).flatten(1).double().cpu().numpy()
        maps.update(zip(chosen.tolist(), found, strict=True))
    return np.stack([maps[i] for i in range(len(classes))])


def _step(layers: list[str], trained: np.ndarray, now: np.ndarray, seed: int) -> CascadeStep:
    """``trained``: (patch, place); ``now``: (repeat, patch, place)."""
    # An overflow in a shuffled network is a map that says nothing.
    now = np.where(np.isfinite(now).all(axis=2, keepdims=True), now, 0.0)
    pairs = [list(zip(trained, maps, strict=True)) for maps in now]
    correlations = np.array([[rank_correlation(a, b) for a, b in row] for row in pairs])
    rng = np.random.default_rng(seed)
    repeats, patches = (rng.integers(n, size=(_DRAWS, n)) for n in correlations.shape)
    low, high = np.percentile(correlations[repeats[:, :, None], patches[:, None]].mean(axis=(1, 2)), [2.5, 97.5])
    return CascadeStep(
        layers=tuple(layers),
        rank_correlation=float(correlations.mean()),
        low=float(low),
        high=float(high),
        overlap=float(np.mean([overlap(a, b) for row in pairs for a, b in row])),
        empty=int((np.ptp(now, axis=2) == 0).sum()),
    )


def _grouped(layers: list[str], most: int) -> list[list[str]]:
    """Neighbours together, in at most ``most`` groups; the head's last layer stays alone, as in the paper."""
    if most < 1 or not layers:
        msg = f"at least 1 step and 1 layer with weights are needed, not {most} and {len(layers)}"
        raise ValueError(msg)
    if most == 1 or len(layers) == 1:
        return [layers]
    first, rest = layers[:1], layers[1:]
    parts = np.array_split(np.arange(len(rest)), min(most - 1, len(rest)))
    return [first, *([rest[i] for i in part] for part in parts)]
