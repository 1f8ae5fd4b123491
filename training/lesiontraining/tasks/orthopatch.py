"""Three orthogonal patches through a lesion, Inception-V3 and a head of 512 and 512 (papers 1.3)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from LesionLib.networks import LesionNet, build_network
from torch import Tensor
from torch.nn import functional
from torch.optim import Adam
from torch.optim.lr_scheduler import ReduceLROnPlateau

from lesiontraining.data.augment import Augmentation
from lesiontraining.data.loading import FlatImages, Plan, every_image
from lesiontraining.tasks.base import LesionTask

_LOWEST_RATE = 1e-10
_AUXILIARY_WEIGHT = 0.4  # Szegedy et al., CVPR 2016

_AUGMENTATION = Augmentation(flips=True, rotate_degrees=30.0, shift_pixels=25.0)


class OrthoPatchTask(LesionTask):
    """Adam 1e-3, halved after 10 epochs without a better validation accuracy, down to 1e-10; label smoothing .1.

    Early stopping (patience 50) is a callback of the configuration. ``auxiliary``: the auxiliary classifier helps the
    training and is not exported.
    """

    def __init__(
        self,
        *,
        class_names: list[str],
        arguments: dict[str, Any] | None = None,
        weights: Path | None = None,
        auxiliary: bool = True,
        label_smoothing: float = 0.1,
        batch_size: int = 8,
        epoch_size: int | None = None,
        lr: float = 1e-3,
        patience: int = 10,
        augmentation: Augmentation = _AUGMENTATION,
    ) -> None:
        super().__init__(
            class_names=class_names, network="orthopatch", arguments={**(arguments or {}), "auxiliary": auxiliary},
            weights=weights, batch_size=batch_size, epoch_size=epoch_size, augmentation=augmentation,
        )  # fmt: skip
        self.label_smoothing, self.lr, self.patience = label_smoothing, lr, patience

    def plan(self, flat: FlatImages) -> Plan:
        """All lesions: each has one image, with three planes."""
        return every_image(len(flat))

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Cross-entropy, with .4 of the auxiliary classifier's."""
        # The auxiliary classifier's batch norm sees one place of each image: of one image alone it has no variance.
        if self.network.auxiliary is None or len(x) < 2:
            return self._entropy(self.network(x[:, 0]), y[:, 0])
        main, auxiliary = self.network.training_logits(x[:, 0])
        return self._entropy(main, y[:, 0]) + _AUXILIARY_WEIGHT * self._entropy(auxiliary, y[:, 0])

    def configure_optimizers(self) -> dict[str, Any]:
        """Adam, halved on a plateau of the validation accuracy."""
        optimizer = Adam(self.network.parameters(), lr=self.lr)
        # PyTorch waits for one epoch more than its patience, and takes no step below its eps: the paper's 10 and 1e-10 are meant.
        schedule = ReduceLROnPlateau(
            optimizer, mode="max", factor=0.5, patience=max(0, self.patience - 1), min_lr=_LOWEST_RATE, eps=0.0
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "monitor": "val_accuracy"}}

    def bundle_parts(self) -> tuple[str, dict[str, Any], LesionNet]:
        """Without the auxiliary classifier."""
        arguments = {name: value for name, value in self.arguments.items() if name != "auxiliary"}
        network = build_network(self.architecture, arguments)
        network.load_state_dict({k: v.cpu() for k, v in self.network.inference_state().items()}, strict=True)
        return self.architecture, arguments, network.eval()

    def _entropy(self, logits: Tensor, y: Tensor) -> Tensor:
        return functional.cross_entropy(logits, y, label_smoothing=self.label_smoothing)
