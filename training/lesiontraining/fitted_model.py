"""A fitted network between training and export: weights as safetensors, all else as JSON. No checkpoint, no pickle."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from LesionLib.errors import BundleError, LesionLensError
from LesionLib.networks import LesionNet, build_network
from LesionLib.sampling_kinds import Spec, spec_from_section
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

WEIGHTS, DESCRIPTION = "network.safetensors", "network.json"


class FittedModelError(LesionLensError):
    """A run's folder that holds no fitted model, or one that was changed."""


@dataclass(frozen=True)
class FittedModel:
    """What is known of a fitted network beside its weights.

    ``architecture`` and ``arguments`` build it; ``input`` is the manifest's section. ``class_names`` is empty for a network
    that only compares. ``box_size_mm``, ``slice_distance_mm``: smallest and largest in training. ``facts``: how it was made.
    """

    architecture: str
    arguments: dict[str, Any]
    input: dict[str, Any]
    class_names: tuple[str, ...]
    temperature: float
    box_size_mm: tuple[float, float]
    slice_distance_mm: tuple[float, float]
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def spec(self) -> Spec:
        """How its pictures are cut."""
        return spec_from_section(self.input)

    def save(self, folder: Path, network: LesionNet) -> None:
        """Into ``folder``, which exists."""
        state = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
        save_file(state, folder / WEIGHTS)
        text = json.dumps({**asdict(self), "class_names": list(self.class_names)}, indent=2)
        (folder / DESCRIPTION).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> tuple[FittedModel, LesionNet]:
        """What `save` wrote. Raises `FittedModelError`."""
        try:
            values = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
            for name in ("class_names", "box_size_mm", "slice_distance_mm"):
                values[name] = tuple(values[name])
            model = cls(**values)
            network = build_network(model.architecture, model.arguments)
            network.load_state_dict(load_file(folder / WEIGHTS), strict=True)
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError, BundleError) as error:
            first = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
            msg = f"{folder} holds no fitted model ({first}); run lesiontrain fit for it first."
            raise FittedModelError(msg) from error
        return model, network.eval()
