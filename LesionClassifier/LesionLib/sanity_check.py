"""Whether a heat map shows what the network learned: it must change when the network forgets.

Adebayo et al., "Sanity checks for saliency maps", NeurIPS 2018, section 3: layers are randomised one after the other from
the head down, and the maps are compared with those of the trained network. A map that stays the same, such as an edge
detector's, explains the picture and not the network.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor, nn

from .explain import grad_cam
from .networks import LesionNet

_MOST_ALIKE = 0.5  # of the rank correlation of a map with itself
_DRAWS = 2000

Explain = Callable[[LesionNet, Tensor, int], Tensor]


@dataclass(frozen=True)
class CascadeStep:
    """The maps after ``layers`` and all before them were randomised, beside those of the trained network.

    ``rank_correlation``: Spearman's, mean over pictures and repeats, ``low`` to ``high`` its 95 % bootstrap interval, both
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
    """The steps of the cascade; ``left_out``: pictures whose map was constant already in the trained network."""

    method: str
    steps: tuple[CascadeStep, ...]
    pictures: int
    left_out: int
    repeats: int
    seed: int

    @property
    def passed(self) -> bool:
        """Whether the map of the wholly randomised network is less than half as alike as the map is to itself."""
        return self.steps[-1].rank_correlation < _MOST_ALIKE

    def __str__(self) -> str:
        """One sentence for a model card."""
        last = self.steps[-1]
        verdict = "changes, as it must" if self.passed else "hardly changes: it does not show what the network learned"
        return (
            f"With all layers randomised the {self.method} {verdict} (rank correlation {last.rank_correlation:.2f}, "
            f"95 % interval {last.low:.2f} to {last.high:.2f}; overlap {last.overlap:.2f}; n = {self.pictures} pictures, "
            f"{self.left_out} left out; {self.repeats} randomisations)."
        )


def grad_cam_of_pictures(network: LesionNet, pictures: Tensor, class_index: int) -> Tensor:
    """Grad-CAM from the picture on."""
    with torch.no_grad():
        features = network.features(pictures)
    return grad_cam(network, features, class_index)


def sanity_check(
    network: LesionNet,
    pictures: Tensor,
    *,
    explain: Explain = grad_cam_of_pictures,
    method: str = "Grad-CAM",
    most_steps: int = 8,
    repeats: int = 3,
    seed: int = 0,
) -> SanityCheck:
    """Randomise copies of ``network`` from the head down in at most ``most_steps`` steps and compare the maps.

    ``pictures``: network input, (batch, channel, row, column) or with slices. Each is explained for the class that the
    trained network answers, before and after. The cascade is run ``repeats`` times: one randomisation can fall near what
    was learned. The same seed gives the same numbers; the network is not changed. Raises ValueError where no picture has
    a map.
    """
    if network.training or repeats < 1:
        msg = f"the network must be in evaluation mode (call eval() first) and repeats at least 1, not {repeats}"
        raise ValueError(msg)
    with torch.no_grad():
        answers = network(pictures).argmax(dim=1)
    trained = _maps(network, pictures, answers, explain)
    kept = np.ptp(trained, axis=1) > 0
    if not kept.any():
        msg = f"none of the {len(trained)} pictures has a map to compare; give others"
        raise ValueError(msg)
    groups = _grouped(layers_from_the_head(network, pictures[:1]), most_steps)
    maps = np.empty((len(groups), repeats, *trained[kept].shape))
    for repeat in range(repeats):
        forgetful = copy.deepcopy(network)
        for number, layers in enumerate(groups):
            randomise(forgetful, layers, seed=int(np.random.SeedSequence([seed, repeat, number]).generate_state(1)[0]))
            maps[number, repeat] = _maps(forgetful, pictures, answers, explain)[kept]
    steps = tuple(_step(layers, trained[kept], now, seed) for layers, now in zip(groups, maps, strict=True))
    return SanityCheck(method, steps, int(kept.sum()), int((~kept).sum()), repeats, seed)


def layers_from_the_head(network: LesionNet, pictures: Tensor) -> list[str]:
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
            network(pictures)
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
    ranks = [rankdata(m.ravel()) for m in (a, b)]
    x, y = (r - r.mean() for r in ranks)
    product = float(np.linalg.norm(x) * np.linalg.norm(y))
    return float(x @ y) / product if product > 0 else 0.0


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """What two maps, at least 0 everywhere, share when each adds up to 1: 0 to 1; 0 where one is empty."""
    if not (a.sum() > 0 and b.sum() > 0):
        return 0.0
    return float(np.minimum(a / a.sum(), b / b.sum()).sum())


def _maps(network: LesionNet, pictures: Tensor, classes: Tensor, explain: Explain) -> np.ndarray:
    """(picture, place), float64: each picture's map for its class."""
    maps: dict[int, np.ndarray] = {}
    for class_index in classes.unique().tolist():
        chosen = (classes == class_index).nonzero().flatten()
        found = explain(network, pictures[chosen], class_index).flatten(1).double().cpu().numpy()
        maps.update(zip(chosen.tolist(), found, strict=True))
    return np.stack([maps[i] for i in range(len(classes))])


def _step(layers: list[str], trained: np.ndarray, now: np.ndarray, seed: int) -> CascadeStep:
    """``trained``: (picture, place); ``now``: (repeat, picture, place)."""
    # An overflow in a shuffled network is a map that says nothing.
    now = np.where(np.isfinite(now).all(axis=2, keepdims=True), now, 0.0)
    pairs = [list(zip(trained, maps, strict=True)) for maps in now]
    correlations = np.array([[rank_correlation(a, b) for a, b in row] for row in pairs])
    rng = np.random.default_rng(seed)
    repeats, pictures = (rng.integers(n, size=(_DRAWS, n)) for n in correlations.shape)
    low, high = np.percentile(correlations[repeats[:, :, None], pictures[:, None]].mean(axis=(1, 2)), [2.5, 97.5])
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
