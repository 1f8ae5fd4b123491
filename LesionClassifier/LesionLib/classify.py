"""From a box to an answer: probabilities, embedding and Grad-CAM of one lesion."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from .bundle import Bundle
from .explain import grad_cam
from .geometry import CTVolume, LesionBox
from .heat_map import HeatMap, paint
from .input_warning import InputWarning, WarningName
from .networks.base import device_of
from .results import LesionResult
from .sampling import AxialStack, axial_stack, windowed
from .trust import box_warnings, volume_warnings


def best_device() -> torch.device:
    """The GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def device_name(device: torch.device) -> str:
    """How a device is named in results."""
    return f"cuda: {torch.cuda.get_device_name(device)}" if device.type == "cuda" else device.type


@dataclass(frozen=True, eq=False)
class Classifier:
    """Answers for the boxes of one CT with one model."""

    bundle: Bundle
    volume: CTVolume

    def classify(self, box: LesionBox, *, class_name: str | None = None) -> LesionResult:
        """Probabilities, embedding and the Grad-CAM of ``class_name`` (default: of the class that is answered).

        The probability of a lesion is the mean of its slices' (DMRN's rule). Raises `BoxError` for a box outside.
        """
        stack = axial_stack(self.volume, box, self.bundle.spec)
        features, probabilities, embedding = self._answer(stack)
        names = self.bundle.class_names
        label = names[int(probabilities.argmax())]
        heat_map = self._heat_map(features, stack, box, class_name or label)
        warnings = (*volume_warnings(self.volume), *box_warnings(self.volume, box, stack, self.bundle))
        if heat_map.is_empty:
            text = f"The Grad-CAM is empty: nothing in the box speaks for {heat_map.class_name!r}."
            warnings += (InputWarning(WarningName.EMPTY_HEAT_MAP, text),)
        return LesionResult(
            name=box.name,
            box=box,
            label=label,
            probabilities={name: float(p) for name, p in zip(names, probabilities, strict=True)},
            embedding=embedding,
            heat_map=heat_map,
            warnings=warnings,
        )

    def embed(self, box: LesionBox) -> np.ndarray:
        """The L2-normalised embedding of a lesion, float32, shape (d,)."""
        return self._answer(axial_stack(self.volume, box, self.bundle.spec))[2]

    def _answer(self, stack: AxialStack) -> tuple[torch.Tensor, np.ndarray, np.ndarray]:
        network = self.bundle.network
        pictures = torch.from_numpy(windowed(stack.hu, self.bundle.spec.windows_hu)).to(device_of(network))
        with torch.no_grad():
            features = network.features(pictures)
            probabilities = network.probabilities(network.head(features), self.bundle.temperature).mean(dim=0)
            descriptor = functional.normalize(network.descriptor(features), dim=1).mean(dim=0)
        return features, probabilities.cpu().numpy(), functional.normalize(descriptor, dim=0).cpu().numpy()

    def _heat_map(self, features: torch.Tensor, stack: AxialStack, box: LesionBox, class_name: str) -> HeatMap:
        cam = grad_cam(self.bundle.network, features, self.bundle.class_names.index(class_name)).cpu().numpy()
        margin_mm = self.bundle.spec.margin_mm
        return paint(cam, stack, box, self.volume, margin_mm=margin_mm, class_name=class_name)
