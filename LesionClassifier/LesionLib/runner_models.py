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
        self._models: OrderedDict[tuple, LoadedModel] = OrderedDict()

    def get(self, model: str | Path, device: torch.device, precision: PrecisionChoice) -> LoadedModel:
        """The model ``model`` on ``device``. Raises `BundleError` as `load_bundle` does."""
        folder = find_bundle(model)
        key = (str(folder.resolve()), _state(folder), str(device), precision)
        if key not in self._models:
            self._models[key] = _loaded(folder, device, precision)
        self._models.move_to_end(key)
        while len(self._models) > _KEPT:
            self._models.popitem(last=False)
        return self._models[key]

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


def _loaded(folder: Path, device: torch.device, choice: PrecisionChoice) -> LoadedModel:
    bundle = load_bundle(folder, device=device)
    if choice != "auto":
        return LoadedModel(bundle, device, _NOT_ASKED)
    pictures = torch.from_numpy(cut_lesion(*golden_case(), bundle.spec).pictures)
    precision = choose_precision(bundle.network, pictures)
    network = in_precision(bundle.network, precision, dimensions=pictures.ndim, temperature=bundle.temperature)
    return LoadedModel(replace(bundle, network=network), device, precision)


def _state(folder: Path) -> tuple[tuple[int, int], ...]:
    stats = [(folder / name).stat() for name in (MANIFEST, WEIGHTS) if (folder / name).exists()]
    return tuple((stat.st_mtime_ns, stat.st_size) for stat in stats)
