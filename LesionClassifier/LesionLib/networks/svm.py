"""A linear support vector machine with calibrated probabilities, as tensors.

The numbers of scikit-learn's ``CalibratedClassifierCV(SVC(kernel="linear"), ensemble=False)``: LIBSVM's one-vs-one
margins (Chang and Lin, 2011), votes with a confidence that breaks ties, a sigmoid per class (Platt, 1999).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from LesionLib.networks.base import LesionNet


class LinearSVM(nn.Module):
    """Margins (batch, class) of descriptors (batch, d), and their probabilities. Random until filled.

    All its numbers are buffers: it is fitted once on descriptors (`fill_from_sklearn`), never by gradient descent.
    """

    def __init__(self, descriptor_size: int, classes: int) -> None:
        super().__init__()
        if classes < 2:
            msg = f"a support vector machine tells at least 2 classes apart, not {classes}"
            raise ValueError(msg)
        first, second = torch.triu_indices(classes, classes, offset=1)  # LIBSVM's order of pairs
        sides = torch.eye(classes)[first] - torch.eye(classes)[second]  # +1 where the margin speaks for a class
        sigmoids = 1 if classes == 2 else classes
        self.register_buffer("sides", sides, persistent=False)
        self.register_buffer("weight", torch.randn(len(sides), descriptor_size) / descriptor_size**0.5)
        self.register_buffer("bias", torch.zeros(len(sides)))
        self.register_buffer("platt_slope", -torch.ones(sigmoids))
        self.register_buffer("platt_offset", torch.zeros(sigmoids))
        self.register_buffer("mean", torch.zeros(descriptor_size))
        self.register_buffer("scale", torch.ones(descriptor_size))

    def forward(self, descriptor: Tensor) -> Tensor:
        """Decision values (batch, class): votes won plus a tie-breaking confidence; two classes: -margin and margin.

        scikit-learn's ``decision_function_shape="ovr"``; its two-class margin speaks for class 1. The gradient is that of
        the confidence: votes are steps.
        """
        pairwise = self.pairwise_margins(descriptor)
        if pairwise.shape[1] == 1:
            return torch.cat([-pairwise, pairwise], dim=1)
        first_wins = (pairwise >= 0).to(pairwise.dtype)
        votes = first_wins @ self.sides.clamp(min=0) + (1 - first_wins) @ (-self.sides).clamp(min=0)
        confidence = pairwise @ self.sides
        return votes + confidence / (3 * (confidence.abs() + 1))

    def pairwise_margins(self, descriptor: Tensor) -> Tensor:
        """LIBSVM's one-vs-one margins, (batch, pair)."""
        return ((descriptor - self.mean) / self.scale) @ self.weight.T + self.bias

    def probabilities(self, margins: Tensor, temperature: float = 1.0) -> Tensor:
        """Calibrated probabilities (batch, class); ``temperature`` 1 is scikit-learn's answer."""
        if len(self.platt_slope) == 1:
            second = self._sigmoids(margins[:, 1:])
            p = torch.cat([1 - second, second], dim=1)
        else:
            each = self._sigmoids(margins)
            total = each.sum(dim=1, keepdim=True)
            p = torch.where(total > 0, each / total, torch.full_like(each, 1 / each.shape[1]))
        return p if temperature == 1.0 else (p.log() / temperature).softmax(dim=1)

    def _sigmoids(self, margins: Tensor) -> Tensor:
        return torch.sigmoid(-(self.platt_slope * margins + self.platt_offset))


class SVMNet(LesionNet):
    """A network whose classes are told by a `LinearSVM`, ``svm``, on its descriptor."""

    svm: LinearSVM

    def head(self, f: Tensor) -> Tensor:
        """Decision values of the support vector machine, (batch, class)."""
        return self.svm(self.descriptor(f))

    def reference_values(self, f: Tensor) -> Tensor:
        """The one-vs-one margins, (batch, pair): votes are steps, and a rounding error could turn one."""
        return self.svm.pairwise_margins(self.descriptor(f))

    def probabilities(self, logits: Tensor, temperature: float = 1.0) -> Tensor:
        """Its calibrated probabilities, (batch, class)."""
        return self.svm.probabilities(logits, temperature)


class FittedScaler(Protocol):
    """What is read of a fitted ``StandardScaler``: of each feature, (d,); None where it does not centre or scale."""

    mean_: np.ndarray | None
    scale_: np.ndarray | None


def fill_from_sklearn(svm: LinearSVM, fitted: object, *, scaler: FittedScaler | None = None) -> None:
    """Copy a fitted ``CalibratedClassifierCV(SVC(kernel="linear"), ensemble=False)`` into ``svm``, in place.

    The SVC may stand in a pipeline behind a ``StandardScaler``, or the scaler be given. Labels must be 0, 1, 2, ...: they
    are columns of the answer. Only attributes are read. Raises ValueError for what cannot be copied exactly.
    """
    calibrated = _only(fitted.calibrated_classifiers_, "calibrated classifier: fit it with ensemble=False")
    svc = calibrated.estimator
    if hasattr(svc, "steps"):
        (_, scaler), (_, svc) = _two_steps(svc.steps)
    _check(svm, svc, calibrated)
    size = svm.weight.shape[1]
    values = {
        "weight": svc.coef_,
        "bias": svc.intercept_,
        "platt_slope": [c.a_ for c in calibrated.calibrators],
        "platt_offset": [c.b_ for c in calibrated.calibrators],
        "mean": _given(scaler, "mean_", "with_mean", np.zeros(size)),
        "scale": _given(scaler, "scale_", "with_std", np.ones(size)),
    }
    tensors = {name: torch.from_numpy(np.array(value, dtype=np.float64)) for name, value in values.items()}
    for name, tensor in tensors.items():
        if tensor.shape != svm.get_buffer(name).shape:
            msg = f"{name} has shape {tuple(tensor.shape)}, expected {tuple(svm.get_buffer(name).shape)}"
            raise ValueError(msg)
    for name, tensor in tensors.items():
        svm.get_buffer(name).copy_(tensor)


def _check(svm: LinearSVM, svc: object, calibrated: object) -> None:
    classes = svm.sides.shape[1]
    if list(svc.classes_) != list(range(classes)):
        msg = f"the labels must be 0 to {classes - 1}, not {list(svc.classes_)}"
        raise ValueError(msg)
    if svc.kernel != "linear" or (classes > 2 and svc.decision_function_shape != "ovr"):
        msg = f'expected SVC(kernel="linear", decision_function_shape="ovr"), not {svc!r}'
        raise ValueError(msg)
    if not all(hasattr(c, "a_") and hasattr(c, "b_") for c in calibrated.calibrators):
        msg = 'expected the sigmoid calibration: fit it with method="sigmoid"'
        raise ValueError(msg)


def _only(items: Sequence[object], what: str) -> object:
    if len(items) != 1:
        msg = f"expected one {what}; got {len(items)}"
        raise ValueError(msg)
    return items[0]


def _two_steps(steps: Sequence[tuple[str, object]]) -> Sequence[tuple[str, object]]:
    if len(steps) != 2 or not hasattr(steps[0][1], "scale_"):
        msg = f"expected a pipeline of a StandardScaler and an SVC, not {[name for name, _ in steps]}"
        raise ValueError(msg)
    return steps


def _given(scaler: FittedScaler | None, name: str, switch: str, neutral: np.ndarray) -> np.ndarray:
    # A StandardScaler that does not centre still knows the mean; its switch says whether it counts.
    value = getattr(scaler, name, None) if getattr(scaler, switch, True) else None
    return neutral if value is None else value
