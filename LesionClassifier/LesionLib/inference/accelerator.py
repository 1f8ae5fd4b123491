"""OpenVINO computes the costly part of a network on the CPU, where it is installed; all that follows stays torch's.

Which part that is, a network says (`LesionNet.costly`); heads, Grad-CAM, descriptors and probabilities are the very ones of the
network without it. A model is converted once a machine, by a process of its own that nobody waits for, and the conversion is
kept among the user's data under the hash of the model. Before it is used, it answers the golden case beside the network
itself: where the two differ by more than rounding does, or OpenVINO is not there, the network computes alone and one line says why.

OpenVINO's wheel brings a package that reports its use to its makers; it is kept from being loaded.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from math import comb
from pathlib import Path
from statistics import median
from tempfile import mkdtemp
from threading import Thread
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from LesionLib import __version__
from LesionLib.errors import LesionLensError
from LesionLib.explain.saliency import grad_cam
from LesionLib.inference.messages import Precision
from LesionLib.inference.precision import (
    Bfloat16Features,
    choose_precision,
    in_precision,
    interleaved_pairs_ms,
    machine,
)
from LesionLib.inference.process import worker_environment, worker_python
from LesionLib.inference.worker import end_with_parent
from LesionLib.io.private_files import private_folder, write_private
from LesionLib.model.bundle import Bundle, load_bundle
from LesionLib.model.folder import golden_case, user_data_folder
from LesionLib.networks import LesionNet
from LesionLib.networks.base import folded, parted_output
from LesionLib.sampling.batches import crop_lesion, in_channels_last, lesions_at_once

if TYPE_CHECKING:
    from openvino import CompiledModel

SWITCH = "LESIONLENS_ACCELERATOR"  # "off" in the environment: never
MAX_CHANGE, MIN_MAP_CORRELATION, MIN_COSINE = 0.005, 0.99, 0.9995
_MAX_ROUNDED_CHANGE, _MIN_ROUNDED_COSINE = 0.02, 0.995  # where the probe chose bfloat16
_WORTH_IT = 1.1  # times faster, which it must be for certain: the lower end of the interval of the median
_ROUNDS, _FEWEST_ROUNDS, _BUDGET_S = 20, 6, 6.0
_DOUBT = 0.025
_MAX_SCORE_CHANGE = 0.05  # of a score, in levels
_MODEL, _REFUSED = "model.xml", "refused.txt"
_ASKED_AGAIN_S = 7 * 24 * 3600
_OF_A_CONVERSION = "-m", "LesionLib.inference.accelerator"


class AcceleratorError(LesionLensError):
    """The accelerator cannot be used for this model; the text says why."""


def accelerator_version() -> str | None:
    """The version of OpenVINO that is installed, None where none is; nothing is imported."""
    try:
        return version("openvino") if find_spec("openvino") is not None else None
    except PackageNotFoundError:
        return None


def is_switched_off() -> bool:
    """Whether the environment forbids it."""
    return os.environ.get(SWITCH, "").lower() == "off"


def conversion_folder(sha256: str) -> Path:
    """Where the conversion of the model with that hash is kept, for the versions that are installed here."""
    return user_data_folder() / "accelerated" / f"{sha256[:32]}-{__version__}-openvino-{accelerator_version()}"


def is_converted(sha256: str) -> bool:
    """Whether there is a conversion, or the answer that there can be none."""
    folder = conversion_folder(sha256)
    return (folder / _MODEL).is_file() or _is_refused(folder)


def _is_refused(folder: Path) -> bool:
    """Whether it was found of no use lately; a busy computer may have made it look slow, so that is asked again."""
    try:
        return time.time() - (folder / _REFUSED).stat().st_mtime < _ASKED_AGAIN_S
    except OSError:
        return False


def accelerator_state(sha256: str) -> str:
    """What the accelerator is to the model with that hash, in a few words."""
    if accelerator_version() is None:
        return "OpenVINO is not installed"
    if is_switched_off():
        return f"switched off by {SWITCH}"
    folder = conversion_folder(sha256)
    if _is_refused(folder):
        return (folder / _REFUSED).read_text(encoding="utf-8").strip()
    return "converted" if (folder / _MODEL).is_file() else "not converted yet"


def start_conversion(model: Path) -> subprocess.Popen[bytes]:
    """Convert a model folder in a process of its own, with what others leave of the processor; it ends with this one.

    It has as many threads as a worker: whether OpenVINO pays depends on them. Raises `OSError`.
    """
    apart = {"creationflags": subprocess.CREATE_NO_WINDOW} if os.name == "nt" else {}
    nowhere = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    return subprocess.Popen(
        [str(worker_python()), *_OF_A_CONVERSION, str(model)], env=worker_environment(), **nowhere, **apart
    )


def convert(bundle: Bundle, *, must_pay: bool = True) -> Path:
    """Convert the costly part of a bundle's network and keep it; where it went.

    Kept is why not, where OpenVINO cannot compute it, or computes it hardly faster and ``must_pay``.
    """
    folder = conversion_folder(bundle.sha256)
    private_folder(folder.parent)
    partial = Path(mkdtemp(prefix=".partial-", dir=folder.parent))
    try:
        _write_conversion(bundle, partial, must_pay=must_pay)
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):  # another process was faster
            partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def accelerated(bundle: Bundle, precision: Precision) -> LesionNet:
    """The network of ``bundle`` (float32) with its costly part computed by its conversion, checked on the golden case.

    In bfloat16 where that is the ``precision`` that was chosen here, with close calls in float32 as without it. Raises
    `AcceleratorError`: no OpenVINO, no conversion, or one that answers differently (which is deleted).
    """
    folder = conversion_folder(bundle.sha256)
    if _is_refused(folder):
        raise AcceleratorError((folder / _REFUSED).read_text(encoding="utf-8").strip())
    try:
        patches = in_channels_last(golden_patches(bundle))
        network = with_part(bundle.network, _part(folder / _MODEL))
        reason = difference(bundle, network, patches)
        if not reason and precision.name == "bfloat16":
            network = _rounded(bundle, network, folder / _MODEL, dimensions=patches.ndim)
            reason = difference(
                bundle, network, patches, max_change=_MAX_ROUNDED_CHANGE, min_cosine=_MIN_ROUNDED_COSINE
            )
    except (RuntimeError, ImportError, OSError) as error:
        msg = f"OpenVINO could not compute this model: {_first_line(error)}"
        raise AcceleratorError(msg) from error
    if reason:
        shutil.rmtree(folder, ignore_errors=True)
        msg = f"OpenVINO is not used, for it answers the test case differently: {reason}"
        raise AcceleratorError(msg)
    return network


def _rounded(bundle: Bundle, exact: LesionNet, model: Path, *, dimensions: int) -> LesionNet:
    return Bfloat16Features(
        exact, dimensions=dimensions, temperature=bundle.temperature, scores=len(bundle.scores),
        rounded=with_part(bundle.network, _part(model, precision="bf16")),
    )  # fmt: skip


def with_part(network: LesionNet, part: Callable[[Tensor], Any]) -> LesionNet:
    """The network with ``part`` in place of its costly method: the same weights, the same everything else."""
    other = copy.copy(network)
    other.__dict__[network.costly] = part
    return other


def golden_patches(bundle: Bundle) -> Tensor:
    """The network input of the golden case."""
    return torch.from_numpy(crop_lesion(*golden_case(), bundle.spec).patches)


def difference(
    bundle: Bundle,
    other: LesionNet,
    patches: Tensor,
    *,
    max_change: float = MAX_CHANGE,
    min_cosine: float = MIN_COSINE,
) -> str:
    """How ``other`` answers ``patches``, one lesion's, differently from the bundle's network by more than rounding; "" where not."""
    network = bundle.network
    with torch.no_grad():
        here, there = network.features(patches), other.features(patches)
        if here.shape != there.shape:
            return f"its map has the shape {tuple(there.shape)}, not {tuple(here.shape)}"
        cosine = float(functional.cosine_similarity(network.descriptor(here), network.descriptor(there)).min())
    if not cosine >= min_cosine:  # written so that a NaN is refused too
        return f"the cosine of the embeddings is {cosine:.5f}"
    return _answer_difference(bundle, here, there, max_change) if bundle.class_names else ""


def _answer_difference(bundle: Bundle, here: Tensor, there: Tensor, max_change: float) -> str:
    network = bundle.network
    with torch.no_grad():
        outputs = [parted_output(network.head(f), len(bundle.scores)) for f in (here, there)]
        p, q = (network.probabilities(logits, bundle.temperature).mean(dim=0) for logits, _ in outputs)
        a, b = (scores.mean(dim=0) for _, scores in outputs)
    change, score_change = float((p - q).abs().max()), float((a - b).abs().max()) if len(a) else 0.0
    if p.argmax() != q.argmax() or not change <= max_change:
        return f"a probability moves by {change:.4f}"
    if not score_change <= _MAX_SCORE_CHANGE:
        return f"a score moves by {score_change:.4f}"
    maps = torch.stack([grad_cam(network, f, int(p.argmax())).flatten() for f in (here, there)])
    correlation = float(torch.corrcoef(maps)[0, 1]) if float(maps.std(dim=1).min()) > 0 else 1.0
    return "" if correlation >= MIN_MAP_CORRELATION else f"the maps correlate by {correlation:.3f} only"


def _write_conversion(bundle: Bundle, folder: Path, *, must_pay: bool) -> None:
    patches, slow = golden_patches(bundle), ""
    try:
        openvino = _openvino()
        example = _input_of_part(bundle.network, patches)
        with torch.no_grad():
            model = openvino.convert_model(_Costly(bundle.network), example_input=example)
        # As many patches as there are, of the one size that this model takes: known sizes compute faster.
        model.reshape(openvino.PartialShape([-1, *example.shape[1:]]))
        openvino.save_model(model, folder / _MODEL, compress_to_fp16=False)
        network = with_part(bundle.network, _part(folder / _MODEL))
        # Two lesions at once: a conversion may have taken the number of patches for a constant.
        reason = difference(bundle, network, in_channels_last(torch.cat([patches, patches.flip(-1)])))
        if must_pay and not reason:
            slow = _slowness(_trunk_hash(model), bundle, folder / _MODEL)
    except Exception as error:  # whatever the converter raises: this model is not one for it
        reason = f"{type(error).__name__}: {_first_line(error)}"
    text = f"OpenVINO cannot compute this model ({reason})" if reason else slow
    if text:
        for file in folder.iterdir():
            file.unlink()
        (folder / _REFUSED).write_text(text, encoding="utf-8")


def _slowness(trunk: str, bundle: Bundle, model: Path) -> str:
    """Why a conversion is not worth it; "" where it is. Measured once a trunk, and kept."""
    precision = _precision(bundle)
    key = f"{trunk} {precision.name} {machine()} openvino {accelerator_version()}"
    kept = user_data_folder() / "measured" / f"openvino-{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"
    known = _kept_slowness(kept)
    if known is not None:
        return known
    reason = measured_slowness(bundle, model, precision)
    known = _kept_slowness(kept)  # another process may have been faster
    if known is not None:
        return known
    with suppress(OSError):  # a drive that takes nothing: the next model measures again
        private_folder(kept.parent)
        write_private(kept, json.dumps({"trunk": trunk, "machine": machine(), "reason": reason}, indent=1) + "\n")
    return reason


def measured_slowness(bundle: Bundle, model: Path, precision: Precision | None = None) -> str:
    """Why the conversion ``model`` of a bundle's network is not worth it, for one lesion and for as many as go at once; "" where
    it is. Beside torch, both in ``precision``: the one that is chosen here."""
    precision = precision or _precision(bundle)
    lesion = crop_lesion(*golden_case(), bundle.spec)
    patches = in_channels_last(torch.from_numpy(lesion.patches))
    alone = in_precision(
        folded(bundle.network), precision,
        dimensions=patches.ndim, temperature=bundle.temperature, scores=len(bundle.scores),
    )  # fmt: skip
    other = with_part(bundle.network, _part(model))
    if precision.name == "bfloat16":
        other = _rounded(bundle, other, model, dimensions=patches.ndim)

    def pairs(count: int) -> list[tuple[float, float]]:
        many = in_channels_last(torch.cat([patches] * count))
        counts = [len(patches)] * count
        with torch.no_grad():
            return interleaved_pairs_ms(
                lambda: alone.features_of_lesions(many, counts), lambda: other.features_of_lesions(many, counts),
                rounds=_ROUNDS, fewest=_FEWEST_ROUNDS, budget_s=_BUDGET_S,
            )  # fmt: skip

    reason, count = hardly_faster(pairs(1)), lesions_at_once(lesion)
    return reason if reason or count == 1 else no_faster_with_many(pairs(count), count)


def _precision(bundle: Bundle) -> Precision:
    network, patches = folded(bundle.network), golden_patches(bundle)
    return choose_precision(network, patches, scores=len(bundle.scores), kept_as=bundle.sha256)


def _kept_slowness(path: Path) -> str | None:
    """What was found before; None where nothing was, or where it was found slow so long ago that it is asked again."""
    with suppress(OSError, ValueError, TypeError, KeyError):
        reason = json.loads(path.read_text(encoding="utf-8"))["reason"]
        is_old = time.time() - path.stat().st_mtime >= _ASKED_AGAIN_S
        return None if not isinstance(reason, str) or (reason and is_old) else reason
    return None


def hardly_faster(pairs: Sequence[tuple[float, float]]) -> str:
    """Why these times (ms without, ms with) do not say for certain that it pays; "" where they do."""
    ratios = _ratios(pairs)
    if ratios[_rank_of_lower_end(len(ratios))] >= _WORTH_IT:
        return ""
    alone, together = _medians(pairs)
    return f"OpenVINO is hardly faster with this model (it takes {together:.1f} ms, torch {alone:.1f} ms)"


def no_faster_with_many(pairs: Sequence[tuple[float, float]], count: int) -> str:
    """Why these times of ``count`` lesions do not say for certain that it is as fast as torch; "" where they do."""
    ratios = _ratios(pairs)
    if ratios[_rank_of_lower_end(len(ratios))] >= 1:
        return ""
    alone, together = _medians(pairs)
    return (
        f"OpenVINO is no faster with {count} lesions at once (they take {together:.1f} ms, with torch {alone:.1f} ms)"
    )


def _ratios(pairs: Sequence[tuple[float, float]]) -> list[float]:
    return sorted(alone / max(together, 1e-9) for alone, together in pairs)


def _medians(pairs: Sequence[tuple[float, float]]) -> list[float]:
    return [median(times) for times in zip(*pairs, strict=True)]


def _rank_of_lower_end(n: int) -> int:
    """Which of ``n`` numbers in rising order the median lies below with a probability of at most a fortieth; from 0."""
    below, rank = 1, 0
    while below + comb(n, rank + 1) <= _DOUBT * 2**n:
        rank += 1
        below += comb(n, rank)
    return rank


def _trunk_hash(model: Any) -> str:
    """Of what the costly part computes: its operations in their order, and their weights."""
    found = hashlib.sha256()
    for operation in model.get_ordered_ops():
        shapes = [str(output.get_partial_shape()) for output in operation.outputs()]
        found.update(f"{operation.get_type_name()} {shapes}".encode())
        if operation.get_type_name() == "Constant":
            found.update(np.ascontiguousarray(operation.data).tobytes())
    return found.hexdigest()


class _Costly(nn.Module):
    def __init__(self, network: LesionNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Any:
        return getattr(self.network, self.network.costly)(x)


def _input_of_part(network: LesionNet, patches: Tensor) -> Tensor:
    """What the costly part is given for these patches."""
    given, method = [], getattr(network, network.costly)

    def part(x: Tensor) -> Any:
        given.append(x)
        return method(x)

    with torch.no_grad():
        with_part(network, part).features(in_channels_last(patches))
    return given[0].contiguous()


def _part(path: Path, *, precision: str = "f32") -> Callable[[Tensor], Any]:
    compiled = _compiled(path, precision)
    single = len(compiled.outputs) == 1

    def part(x: Tensor) -> Any:
        found = compiled(x.contiguous().numpy())
        maps = tuple(torch.from_numpy(found[index]) for index in range(len(compiled.outputs)))
        return maps[0] if single else maps

    return part


def _compiled(path: Path, precision: str) -> CompiledModel:
    openvino = _openvino()
    core = openvino.Core()
    core.set_property({"ENABLE_MMAP": False})  # a file that is replaced meanwhile would end the process
    options = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "ENABLE_CPU_PINNING": False,  # the threads are not alone here
        "PERFORMANCE_HINT": "LATENCY",
    }
    return core.compile_model(core.read_model(path), "CPU", options)


def _openvino() -> Any:
    """The package, without that which reports its use."""
    if "openvino" not in sys.modules and "openvino_telemetry" not in sys.modules:
        sys.modules["openvino_telemetry"] = None  # importing it fails, and OpenVINO then does without
        try:
            import openvino
        finally:
            del sys.modules["openvino_telemetry"]
        return openvino
    import openvino

    return openvino


def _first_line(error: object) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__


def main() -> None:
    """Convert the model folder that is named; for `start_conversion`."""
    Thread(target=end_with_parent, daemon=True).start()
    if hasattr(os, "nice"):
        os.nice(19)
    bundle = load_bundle(Path(sys.argv[1]))
    if not is_converted(bundle.sha256):
        convert(bundle)


if __name__ == "__main__":
    main()
