"""Whether bfloat16 pays on this CPU: measured once per network, believed only where the answer stays the same."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from statistics import median
from time import perf_counter
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from LesionLib.inference.messages import Precision
from LesionLib.networks import LesionNet
from LesionLib.networks.base import device_of, parted_output

_ROUNDS = 5
_BUDGET_S = 2.0  # large networks are measured in fewer rounds
_WORTH_IT = 1.2  # times faster; less is noise
_MAX_CHANGE = 0.02  # of a probability of the test case
_MAX_SCORE_CHANGE = 0.05  # of a score of the test case, in levels
_CLOSE_CALL = 0.1  # between the two likeliest classes: five times the change that is accepted
_chosen: WeakKeyDictionary[LesionNet, Precision] = WeakKeyDictionary()


class Bfloat16Features(LesionNet):
    """A network whose ``features`` are computed in bfloat16 with channels last; all that follows stays float32.

    Where the two likeliest classes are close, rounding could turn the answer: such a lesion is computed in float32.
    """

    def __init__(self, exact: LesionNet, *, dimensions: int, temperature: float = 1.0, scores: int = 0) -> None:
        super().__init__()
        self._format = torch.channels_last_3d if dimensions == 5 else torch.channels_last
        self._temperature, self._scores = temperature, scores
        self.exact = exact
        self.rounded = copy.deepcopy(exact).to(torch.bfloat16).to(memory_format=self._format)
        self.eval()

    def rounded_features(self, x: Tensor) -> Tensor:
        """The map computed in bfloat16, as float32."""
        return self.rounded.features(x.to(torch.bfloat16, memory_format=self._format)).float()

    def features(self, x: Tensor) -> Tensor:
        """The map computed in bfloat16; in float32 for a close call. All patches are one lesion's."""
        return self.features_of_lesions(x, [len(x)])

    def features_of_lesions(self, x: Tensor, counts: Sequence[int]) -> Tensor:
        """The maps computed in bfloat16, those of lesions that are close calls again in float32."""
        rounded = list(self.rounded_features(x).split(list(counts)))
        for lesion, patches in enumerate(x.split(list(counts))):
            together = mean_probabilities(self.exact, rounded[lesion], self._temperature, scores=self._scores)
            best = together.topk(2).values
            if float(best[0] - best[1]) < _CLOSE_CALL:
                rounded[lesion] = self.exact.features(patches)
        return torch.cat(rounded)

    def head(self, f: Tensor) -> Tensor:
        """Logits by the float32 head."""
        return self.exact.head(f)

    def descriptor(self, f: Tensor) -> Tensor:
        """The float32 network's descriptor of the map."""
        return self.exact.descriptor(f)

    def training_likeness(self, f: Tensor, descriptor: Tensor) -> Tensor:
        """As the float32 network tells it."""
        return self.exact.training_likeness(f, descriptor)

    def probabilities(self, logits: Tensor, temperature: float = 1.0) -> Tensor:
        """As the float32 network makes them."""
        return self.exact.probabilities(logits, temperature)


def choose_precision(network: LesionNet, patches: Tensor, *, scores: int = 0) -> Precision:
    """Measure both on ``patches`` (batch of the golden case) and say what to use; measured once per network.

    bfloat16 is chosen only where it is at least 1.2 times as fast, the class stays the same, no probability moves by more than
    0.02 and none of the ``scores`` (the network's last columns) by more than a twentieth of a level. On a GPU nothing is
    measured: float32.
    """
    if network not in _chosen:
        _chosen[network] = _choice(network, patches, scores)
    return _chosen[network]


def in_precision(
    network: LesionNet, precision: Precision, *, dimensions: int, temperature: float, scores: int = 0
) -> LesionNet:
    """The network that computes in ``precision``; ``dimensions`` of its input are 4, or 5 for 3-D networks."""
    if precision.name == "float32":
        return network
    return Bfloat16Features(network, dimensions=dimensions, temperature=temperature, scores=scores)


def mean_probabilities(network: LesionNet, features: Tensor, temperature: float = 1.0, *, scores: int = 0) -> Tensor:
    """Class probabilities of a lesion: the mean of its patches'."""
    logits, _ = parted_output(network.head(features), scores)
    return network.probabilities(logits, temperature).mean(dim=0)


def _choice(network: LesionNet, patches: Tensor, scores: int) -> Precision:
    if device_of(network).type != "cpu":
        return Precision("float32", "on a GPU float32 is used")
    try:
        rounded = Bfloat16Features(network, dimensions=patches.ndim, scores=scores)
        with torch.no_grad():
            float32_ms, bfloat16_ms = _interleaved_ms(
                lambda: network.features(patches), lambda: rounded.rounded_features(patches)
            )
            exact_map, rounded_map = network.features(patches), rounded.rounded_features(patches)
            here, there = (mean_probabilities(network, f, scores=scores) for f in (exact_map, rounded_map))
            score_change = _score_change(network, exact_map, rounded_map, scores)
    except (RuntimeError, TypeError, NotImplementedError) as error:
        return Precision("float32", f"this network does not run in bfloat16: {str(error).splitlines()[0]}")
    return _verdict(float32_ms, bfloat16_ms, here, there, score_change)


def _score_change(network: LesionNet, exact_map: Tensor, rounded_map: Tensor, scores: int) -> float:
    """The largest change of a score of the test case; 0 for a network without scores."""
    if not scores:
        return 0.0
    here, there = (parted_output(network.head(f), scores)[1].mean(dim=0) for f in (exact_map, rounded_map))
    return float((here - there).abs().max())


def _verdict(float32_ms: float, bfloat16_ms: float, here: Tensor, there: Tensor, score_change: float) -> Precision:
    times = f"{bfloat16_ms:.1f} ms instead of {float32_ms:.1f} ms"
    change = float((here - there).abs().max())
    if float32_ms < _WORTH_IT * bfloat16_ms:
        return Precision("float32", f"bfloat16 does not pay on this CPU: {times}", float32_ms, bfloat16_ms)
    # Written so that a NaN is refused too.
    if here.argmax() != there.argmax() or not change <= _MAX_CHANGE:
        reason = f"bfloat16 would change the test case's answer: a probability moves by {change:.3f}"
        return Precision("float32", reason, float32_ms, bfloat16_ms)
    if not score_change <= _MAX_SCORE_CHANGE:
        reason = f"bfloat16 would change the test case's answer: a score moves by {score_change:.3f}"
        return Precision("float32", reason, float32_ms, bfloat16_ms)
    return Precision("bfloat16", f"bfloat16 pays on this CPU: {times}, same class", float32_ms, bfloat16_ms)


def _interleaved_ms(first: Callable[[], object], second: Callable[[], object]) -> tuple[float, float]:
    """Median times of both, taken in turns so that a busy moment hits both; the first call of each is not counted."""
    started = perf_counter()
    _ms(first), _ms(second)
    rounds = [(_ms(first), _ms(second))]
    while len(rounds) < _ROUNDS and perf_counter() - started < _BUDGET_S:
        rounds.append((_ms(first), _ms(second)))
    return median(a for a, _ in rounds), median(b for _, b in rounds)


def _ms(function: Callable[[], object]) -> float:
    started = perf_counter()
    function()
    return (perf_counter() - started) * 1e3
