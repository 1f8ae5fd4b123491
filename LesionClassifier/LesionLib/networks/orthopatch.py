"""OrthoPatch: an Inception network on three orthogonal patches of a lesion, for metastasis or cyst.

The three channels are the plane where the lesion is largest and the two planes across it. Inception-V3 is the network
that the paper proposes (its 2048 averaged features tell so), Inception-ResNet-V2 the one it compares with.
"""

from __future__ import annotations

from torch import Tensor, nn

from LesionLib.networks.base import LesionNet
from LesionLib.networks.inception_resnet_v2 import InceptionResNetV2Trunk
from LesionLib.networks.inception_v3 import WIDTHS, InceptionAux, InceptionV3Trunk, channels_at, he_initialised

_BACKBONES = {"inception_v3": InceptionV3Trunk, "inception_resnet_v2": InceptionResNetV2Trunk}
_HIDDEN = 512


class OrthoPatch(LesionNet):
    """Trunk -> global average -> 512, ReLU, dropout -> 512, ReLU, dropout -> linear.

    ``auxiliary``: also the auxiliary classifier of Inception-V3, for training alone (`training_logits`); `forward` never
    reads it, and a model that is only to answer is built without it: see `inference_state`. ``width`` "tiny" divides the
    trunk's and the head's channels by 16. Raises ValueError for arguments that are not offered.
    """

    def __init__(
        self,
        *,
        backbone: str = "inception_v3",
        classes: int = 2,
        channels: int = 3,
        dropout: float = 0.4,
        auxiliary: bool = False,
        width: str = "full",
    ) -> None:
        super().__init__()
        if backbone not in _BACKBONES:
            msg = f"backbone must be one of {', '.join(map(repr, _BACKBONES))}, not {backbone!r}"
            raise ValueError(msg)
        if auxiliary and backbone != "inception_v3":
            msg = f"auxiliary=True needs backbone 'inception_v3'; {backbone!r} has no auxiliary classifier"
            raise ValueError(msg)
        self.trunk = _BACKBONES[backbone](channels=channels, width=width)
        size = _HIDDEN // WIDTHS[width]
        self.hidden = nn.Sequential(
            nn.Linear(self.trunk.out_channels, size), nn.ReLU(), nn.Dropout(dropout), nn.Linear(size, size), nn.ReLU()
        )
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(size, classes))
        self.auxiliary = None
        if auxiliary:
            self.auxiliary = InceptionAux(self.trunk.middle_channels, classes, channels_at(width))
            he_initialised(self.auxiliary)

    def features(self, x: Tensor) -> Tensor:
        """(batch, channel, row, column) -> (batch, 2048 or 1536, h, w): 6 x 5 for 252 x 210. Raises ValueError below 75 x 75."""
        self._refuse_a_small_patch(x)
        return self.trunk(x)

    def descriptor(self, f: Tensor) -> Tensor:
        """The second hidden layer, (batch, 512), not normalised.

        Not the 2048 averages before it: these 512 numbers are what the answer is read from, so that lesions are near
        each other when the network takes them for alike, and a case library is a quarter of the size.
        """
        return self.hidden(f.mean(dim=(2, 3)))

    def head(self, f: Tensor) -> Tensor:
        """Logits (batch, class)."""
        return self.classifier(self.descriptor(f))

    def training_logits(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the classifier and of the auxiliary classifier, each (batch, class), for a sum of two losses.

        In training mode it takes at least two patches at once, for the auxiliary classifier's batch norm sees one place
        of each. Raises ValueError when the network was built without ``auxiliary=True``.
        """
        if self.auxiliary is None:
            msg = "this network has no auxiliary classifier; build it with auxiliary=True, or train with forward()"
            raise ValueError(msg)
        self._refuse_a_small_patch(x)
        middle = self.trunk.middle(x)
        return self.head(self.trunk.last(middle)), self.auxiliary(middle)

    def inference_state(self) -> dict[str, Tensor]:
        """The weights that an answer reads; they fit the same network with ``auxiliary=False``."""
        return {name: tensor for name, tensor in self.state_dict().items() if not name.startswith("auxiliary.")}

    def _refuse_a_small_patch(self, x: Tensor) -> None:
        rows, columns = x.shape[2:]
        if min(rows, columns) < self.trunk.smallest_side:
            side = self.trunk.smallest_side
            msg = f"patches must have at least {side} rows and {side} columns, not {rows} x {columns}; pad or enlarge them"
            raise ValueError(msg)
