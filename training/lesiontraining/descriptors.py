"""The frozen trunk's view of every nodule: its slices' descriptors, for the tight box and for looser drawings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from LesionLib.batches import cut_lesion, stacked
from LesionLib.geometry import LesionBox
from LesionLib.networks import LesionNet
from LesionLib.networks.base import device_of
from LesionLib.sampling_kinds import Spec

from .nodules import Nodule


@dataclass(frozen=True)
class Looseness:
    """How another reader's box may differ from the tight one: moved, grown a side, turned about the body axis."""

    shift_mm: float = 2.0
    grow_mm: float = 3.0
    turn_degrees: float = 15.0

    def boxes(self, nodules: Sequence[Nodule], seed: int) -> list[LesionBox]:
        """One loose box a nodule; the same seed, the same boxes."""
        rng = np.random.default_rng(seed)
        how = {"shift_mm": self.shift_mm, "grow_mm": self.grow_mm, "turn_degrees": self.turn_degrees}
        return [nodule.box.jittered(rng, **how) for nodule in nodules]


def slice_descriptors(
    network: LesionNet, nodules: Sequence[Nodule], boxes: Sequence[LesionBox], spec: Spec
) -> list[np.ndarray]:
    """Descriptors (slice, d) of each nodule, float32, cut as they are cut in use."""
    found = []
    with torch.inference_mode():
        for nodule, box in zip(nodules, boxes, strict=True):
            pictures = stacked([cut_lesion(nodule.volume, box, spec)], device_of(network))
            features = network.features(pictures)
            found.append(network.descriptor(features).float().cpu().numpy())
    return found
