"""Whether bfloat16 pays on this CPU: measured once a model and machine, believed only where the answer stays the same.

What was measured is kept among the user's data with the processor and the versions it holds for, so that the next process
decides the same without measuring.
"""

from __future__ import annotations

import copy
import json
import os
import platform
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from time import perf_counter, process_time
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from LesionLib import __version__
from LesionLib.inference.messages import Precision
from LesionLib.io.private_files import private_folder, write_private
from LesionLib.model.folder import user_data_folder
from LesionLib.networks import LesionNet
from LesionLib.networks.base import device_of, parted_output

_ROUNDS, _ROUNDS_OF_A_CLOSE_ONE = 5, 20
_BUDGET_S = 2.0  # large networks are measured in fewer rounds
_WORTH_IT = 1.2  # times faster; less is noise
_MARGIN = 1.1  # times: so near to what is worth it, it is measured longer
_MAX_CHANGE = 0.02  # of a probability of the test case
_MAX_SCORE_CHANGE = 0.05  # of a score of the test case, in levels
_CLOSE_CALL = 0.1  # between the two likeliest classes: five times the change that is accepted
# Time of the processor, which other programs do not lengthen; Windows counts it in steps that are too long for one batch.
_clock = perf_counter if os.name == "nt" else process_time
_chosen: WeakKeyDictionary[LesionNet, Precision] = WeakKeyDictionary()


class Bfloat16Features(LesionNet):
    """A network whose ``features`` are computed in bfloat16 with channels last; all that follows stays float32.

    Where the two likeliest classes are close, rounding could turn the answer: such a lesion is computed in float32.
    ``rounded``: a network that takes and gives float32 and rounds inside; without it, torch's weights are rounded.
    """

    def __init__(
        self,
        exact: LesionNet,
        *,
        dimensions: int,
        temperature: float = 1.0,
        scores: int = 0,
        rounded: LesionNet | None = None,
    ) -> None:
        super().__init__()
        self._format = torch.channels_last_3d if dimensions == 5 else torch.channels_last
        self._temperature, self._scores = temperature, scores
        self._input = torch.bfloat16 if rounded is None else torch.float32
        self.exact = exact
        self.rounded = rounded or copy.deepcopy(exact).to(torch.bfloat16).to(memory_format=self._format)
        self.eval()

    def rounded_features(self, x: Tensor) -> Tensor:
        """The map computed in bfloat16, as float32."""
        return self.rounded.features(x.to(self._input, memory_format=self._format)).float()

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

    @property
    def mapped_channels(self) -> int | None:
        """Those of the float32 network."""
        return self.exact.mapped_channels

    @property
    def cell_centres(self) -> tuple[float, float] | None:
        """Those of the float32 network."""
        return self.exact.cell_centres

    def weighted_map(self, f: Tensor, weights: Tensor) -> Tensor:
        """As the float32 network spreads it."""
        return self.exact.weighted_map(f, weights)

    def training_likeness(self, f: Tensor, descriptor: Tensor) -> Tensor:
        """As the float32 network tells it."""
        return self.exact.training_likeness(f, descriptor)

    def probabilities(self, logits: Tensor, temperature: float = 1.0) -> Tensor:
        """As the float32 network makes them."""
        return self.exact.probabilities(logits, temperature)


def choose_precision(network: LesionNet, patches: Tensor, *, scores: int = 0, kept_as: str = "") -> Precision:
    """Measure both on ``patches`` (batch of the golden case) and say what to use; measured once per network.

    bfloat16 is chosen only where it is at least 1.2 times as fast, the class stays the same, no probability moves by more than
    0.02 and none of the ``scores`` (the network's last columns) by more than a twentieth of a level. On a GPU nothing is
    measured: float32. ``kept_as``: the model's hash, under which the answer is kept for later processes on this machine; ""
    keeps it for this one alone.
    """
    if network not in _chosen:
        _chosen[network] = _kept(network, patches, scores, kept_as) if kept_as else _choice(network, patches, scores)
    return _chosen[network]


def machine() -> str:
    """What an answer of the probe holds for: processor, threads, versions."""
    processor = platform.processor() or platform.machine()
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        processor = " ".join(next(line for line in lines if line.startswith(name)) for name in ("model name", "flags"))
    return f"{processor}; {torch.get_num_threads()} threads; torch {torch.__version__}; LesionLens {__version__}"


def _kept(network: LesionNet, patches: Tensor, scores: int, kept_as: str) -> Precision:
    path = user_data_folder() / "measured" / f"{sha256(f'{kept_as} {machine()}'.encode()).hexdigest()[:32]}.json"
    with suppress(OSError, ValueError, TypeError, KeyError):
        precision = Precision(**json.loads(path.read_text(encoding="utf-8"))["precision"])
        if precision.name in ("float32", "bfloat16"):
            return precision
    precision = _choice(network, patches, scores)
    if device_of(network).type == "cpu":
        kept = {"model": kept_as, "machine": machine(), "precision": asdict(precision)}
        with suppress(OSError):  # a drive that takes nothing: it is measured again
            private_folder(path.parent)
            write_private(path, json.dumps(kept, indent=1) + "\n")
    return precision


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
            float32_ms, bfloat16_ms = interleaved_ms(
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


def interleaved_ms(first: Callable[[], object], second: Callable[[], object]) -> tuple[float, float]:
    """The shortest times of both, taken in turns: what else the machine does makes a time longer, never shorter.

    The first call of each is not counted. Where they are nearly what is worth it apart, more rounds are measured.
    """
    started = perf_counter()
    _ms(first), _ms(second)
    a, b = _ms(first), _ms(second)
    for done in range(1, _ROUNDS_OF_A_CLOSE_ONE):
        is_close = _WORTH_IT / _MARGIN < a / max(b, 1e-9) < _WORTH_IT * _MARGIN
        if perf_counter() - started > _BUDGET_S * (2 if is_close else 1) or (done >= _ROUNDS and not is_close):
            break
        a, b = min(a, _ms(first)), min(b, _ms(second))
    return a, b


def interleaved_pairs_ms(
    first: Callable[[], object], second: Callable[[], object], *, rounds: int, fewest: int, budget_s: float
) -> list[tuple[float, float]]:
    """The times of both, taken in turns ``rounds`` times, or ``fewest`` where the budget is used up; the first are not counted."""
    started, found = perf_counter(), []
    _ms(first), _ms(second)
    while len(found) < rounds and (len(found) < fewest or perf_counter() - started < budget_s):
        found.append((_ms(first), _ms(second)))
    return found


def _ms(function: Callable[[], object]) -> float:
    started = _clock()
    function()
    return (_clock() - started) * 1e3
