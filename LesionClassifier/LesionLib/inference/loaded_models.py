"""Models that stay loaded: each verified, its batch norms folded, in the precision and with the accelerator that pay here."""

from __future__ import annotations

from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from subprocess import Popen

import torch

from LesionLib.inference.accelerator import (
    AcceleratorError,
    accelerated,
    accelerator_version,
    golden_patches,
    is_converted,
    is_switched_off,
    start_conversion,
)
from LesionLib.inference.messages import Precision, PrecisionChoice, RunnerError
from LesionLib.inference.precision import choose_precision, in_precision
from LesionLib.model.bundle import Bundle, load_bundle
from LesionLib.model.folder import MANIFEST, WEIGHTS, find_bundle
from LesionLib.networks.base import fold

_KEPT = 3
_NOT_ASKED = Precision("float32", "bfloat16 was not asked for")


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model that is ready to answer, where it is, and what it computes in."""

    bundle: Bundle
    device: torch.device
    precision: Precision


class ModelCache:
    """Models that stay loaded: the last few, each verified and in the precision that was chosen for it.

    A folder whose files changed is loaded and verified again.
    """

    def __init__(self) -> None:
        self._models: OrderedDict[tuple, dict[str, LoadedModel]] = OrderedDict()
        self._conversions: dict[str, Popen[bytes] | None] = {}  # by the model's hash

    def get(
        self, model: str | Path, device: torch.device, precision: PrecisionChoice, *, accelerate: bool = False
    ) -> LoadedModel:
        """The model ``model`` on ``device``; loaded once for all its forms. Raises `BundleError` as `load_bundle` does.

        ``accelerate``: with its costly part computed by the accelerator, where there is a conversion of it.
        """
        folder = find_bundle(model)
        key = (str(folder.resolve()), _state(folder), str(device))
        if key not in self._models:
            bundle = load_bundle(folder, device=device)
            fold(bundle.network)
            self._models[key] = {"float32": LoadedModel(bundle, device, _NOT_ASKED)}
        self._models.move_to_end(key)
        while len(self._models) > _KEPT:
            self._models.popitem(last=False)
        forms = self._models[key]
        if precision == "auto" and precision not in forms:
            forms[precision] = _in_measured_precision(forms["float32"])
        form = precision if precision == "auto" else "float32"
        if not accelerate or device.type != "cpu" or accelerator_version() is None or is_switched_off():
            return forms[form]
        with_accelerator = f"{form} accelerated"
        if with_accelerator not in forms and is_converted(forms[form].bundle.sha256):
            forms[with_accelerator] = _with_accelerator(forms["float32"].bundle, forms[form])
        return forms.get(with_accelerator, forms[form])

    def convert_soon(self, model: LoadedModel) -> None:
        """Have the model converted for the accelerator by a process that nobody waits for, where that was not done yet."""
        sha256 = model.bundle.sha256
        if model.device.type != "cpu" or sha256 in self._conversions or is_switched_off():
            return
        if accelerator_version() is None or is_converted(sha256):
            return
        self._conversions[sha256] = None
        with suppress(OSError, RunnerError):
            self._conversions[sha256] = start_conversion(model.bundle.folder)

    def clear(self) -> None:
        """Forget all models and give the GPU's memory back."""
        self._models.clear()
        torch.cuda.empty_cache()


def _in_measured_precision(model: LoadedModel) -> LoadedModel:
    """The model in the precision that pays here; in float32 with the very network of ``model``."""
    bundle = model.bundle
    patches = golden_patches(bundle)
    precision = choose_precision(bundle.network, patches, scores=len(bundle.scores), kept_as=bundle.sha256)
    network = in_precision(
        bundle.network, precision,
        dimensions=patches.ndim, temperature=bundle.temperature, scores=len(bundle.scores),
    )  # fmt: skip
    return LoadedModel(replace(bundle, network=network), model.device, precision)


def _with_accelerator(exact: Bundle, model: LoadedModel) -> LoadedModel:
    """The model with its costly part computed by the accelerator; as it is, with the reason why not, where that fails."""
    precision = model.precision
    try:
        network = accelerated(exact, precision)
    except AcceleratorError as error:
        return replace(model, precision=replace(precision, reason=f"{precision.reason}; {error}"))
    name = f"OpenVINO {accelerator_version()}"
    told = replace(precision, reason=f"{precision.reason}; {name} computes the network", accelerator=name)
    return LoadedModel(replace(exact, network=network), model.device, told)


def _state(folder: Path) -> tuple[tuple[int, int], ...]:
    stats = [(folder / name).stat() for name in (MANIFEST, WEIGHTS) if (folder / name).exists()]
    return tuple((stat.st_mtime_ns, stat.st_size) for stat in stats)
