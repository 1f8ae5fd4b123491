"""Models that stay loaded: the last few, each verified and in the precision that was chosen for it."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from .batches import cut_lesion
from .bundle import Bundle, load_bundle
from .bundle_folder import MANIFEST, WEIGHTS, find_bundle
from .golden import golden_case
from .precision import choose_precision, in_precision
from .runner_types import Precision, PrecisionChoice, RunnerError

_KEPT = 3
_NOT_ASKED = Precision("float32", "bfloat16 was not asked for")


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model that is ready to answer, where it is, and what it computes in."""

    bundle: Bundle
    device: torch.device
    precision: Precision


class ModelCache:
    """The models used last. A folder whose files changed is loaded and verified again."""

    def __init__(self) -> None:
        self._models: OrderedDict[tuple, dict[str, LoadedModel]] = OrderedDict()

    def get(self, model: str | Path, device: torch.device, precision: PrecisionChoice) -> LoadedModel:
        """The model ``model`` on ``device``; loaded once for both precisions. Raises `BundleError` as `load_bundle` does."""
        folder = find_bundle(model)
        key = (str(folder.resolve()), _state(folder), str(device))
        if key not in self._models:
            self._models[key] = {"float32": LoadedModel(load_bundle(folder, device=device), device, _NOT_ASKED)}
        self._models.move_to_end(key)
        while len(self._models) > _KEPT:
            self._models.popitem(last=False)
        forms = self._models[key]
        if precision == "auto" and precision not in forms:
            forms[precision] = _in_measured_precision(forms["float32"])
        return forms[precision if precision == "auto" else "float32"]

    def clear(self) -> None:
        """Forget all models and give the GPU's memory back."""
        self._models.clear()
        torch.cuda.empty_cache()


def chosen_device(preference: str) -> torch.device:
    """The device for "auto", "cpu" or "cuda". Raises `RunnerError` for a GPU that is not there."""
    has_gpu = torch.cuda.is_available()
    if preference == "cuda" and not has_gpu:
        msg = f"torch {torch.__version__} finds no NVIDIA GPU here; choose the device 'auto' or 'cpu'."
        raise RunnerError(msg)
    if preference not in ("auto", "cpu", "cuda"):
        msg = f"unknown device {preference!r}; choose 'auto', 'cpu' or 'cuda'."
        raise RunnerError(msg)
    return torch.device("cuda" if has_gpu and preference != "cpu" else "cpu")


def _in_measured_precision(model: LoadedModel) -> LoadedModel:
    """The model in the precision that pays here; in float32 with the very network of ``model``."""
    bundle = model.bundle
    pictures = torch.from_numpy(cut_lesion(*golden_case(), bundle.spec).pictures)
    precision = choose_precision(bundle.network, pictures)
    network = in_precision(bundle.network, precision, dimensions=pictures.ndim, temperature=bundle.temperature)
    return LoadedModel(replace(bundle, network=network), model.device, precision)


def _state(folder: Path) -> tuple[tuple[int, int], ...]:
    stats = [(folder / name).stat() for name in (MANIFEST, WEIGHTS) if (folder / name).exists()]
    return tuple((stat.st_mtime_ns, stat.st_size) for stat in stats)
