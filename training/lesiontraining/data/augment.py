"""Random changes of an image on top of the sampling: MONAI's transforms, drawn from the item's own seed."""

from __future__ import annotations

from dataclasses import dataclass
from math import radians

import torch
from monai.data import get_track_meta, set_track_meta
from monai.transforms import (
    Compose,
    RandAffine,
    RandFlip,
    RandGaussianSmooth,
    Randomizable,
    RandomizableTransform,
    RandScaleIntensity,
    RandShiftIntensity,
)
from monai.utils.misc import MAX_SEED
from torch import Tensor


@dataclass(frozen=True)
class Augmentation:
    """What may happen to an image. Nothing, unless it is said.

    ``flips``: along every axis, each with probability .5; ``rotate_degrees``, ``shift_pixels``, ``zoom``: at most, either way;
    ``brightness``, ``contrast``: at most, as a share of -1 ... 1; ``blur_pixels``: standard deviation at most, half the time.
    ``exchange_axes``: the axes of a square or a cube in any order; ``roll_pixels``: whole pixels at most, either way along every
    axis, what leaves on one side comes in on the other. Both leave a mask a mask.
    """

    flips: bool = False
    rotate_degrees: float = 0.0
    shift_pixels: float = 0.0
    zoom: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    blur_pixels: float = 0.0
    exchange_axes: bool = False
    roll_pixels: int = 0

    @property
    def does_nothing(self) -> bool:
        """Whether images stay as they are."""
        return self == Augmentation()


class Augmenter:
    """Changes images (channel, [slice,] row, column), float32, for a seed; the same seed, the same change.

    ``value_range``: what images of this kind hold at least and at most, which a change does not leave; None where they have no
    such bounds, as after a division by the deviation.
    """

    def __init__(
        self,
        augmentation: Augmentation,
        *,
        dimensions: int,
        value_range: tuple[float, float] | None = (-1.0, 1.0),
    ) -> None:
        self.transform = Compose(_transforms(augmentation, dimensions)).set_random_state(seed=0)
        self.value_range = value_range
        self._randomizable = [_with_parts(each) for each in self.transform.transforms]

    def __call__(self, image: Tensor, seed: int) -> Tensor:
        """The changed image, of the same shape, within ``value_range``."""
        self._set_random_state(seed)
        tracked = get_track_meta()
        # Where an image lies in a patient is known elsewhere, and keeping track takes longer than the change.
        set_track_meta(False)
        try:
            changed = torch.as_tensor(self.transform(image), dtype=torch.float32)
        finally:
            set_track_meta(tracked)
        if self.value_range is not None:
            changed = changed.clamp(*self.value_range)
        return changed.as_subclass(Tensor)

    def _set_random_state(self, seed: int) -> None:
        """As `Compose.set_random_state` draws the seeds; that makes every generator anew, which takes longer than seeding it."""
        self.transform.R.seed(seed % MAX_SEED)
        for parts in self._randomizable:
            drawn = int(self.transform.R.randint(MAX_SEED, dtype="uint32")) % MAX_SEED
            for part in parts:
                part.R.seed(drawn)


def _with_parts(transform: Randomizable) -> list[Randomizable]:
    """A transform, and that which it draws from besides itself."""
    return [transform, transform.rand_affine_grid] if isinstance(transform, RandAffine) else [transform]


def _transforms(a: Augmentation, dimensions: int) -> list:
    found: list = [RandFlip(prob=0.5, spatial_axis=axis) for axis in range(dimensions)] if a.flips else []
    if a.exchange_axes or a.roll_pixels:
        found.append(_WholePixels(dimensions, exchange=a.exchange_axes, roll=a.roll_pixels))
    if a.rotate_degrees or a.shift_pixels or a.zoom:
        angle = radians(a.rotate_degrees)
        affine = RandAffine(
            prob=1.0,
            rotate_range=angle if dimensions == 2 else [angle] * 3,
            translate_range=[a.shift_pixels] * dimensions,
            scale_range=[a.zoom] * dimensions,
            mode="bilinear",
            padding_mode="border",
        )
        found.append(affine)
    if a.contrast:
        found.append(RandScaleIntensity(factors=a.contrast, prob=1.0))
    if a.brightness:
        found.append(RandShiftIntensity(offsets=2 * a.brightness, prob=1.0))
    if a.blur_pixels:
        sigma = (0.1, max(a.blur_pixels, 0.1))
        found.append(RandGaussianSmooth(prob=0.5, sigma_x=sigma, sigma_y=sigma, sigma_z=sigma))
    return found


class _WholePixels(RandomizableTransform):
    """Axes in another order, and everything moved by whole pixels: no value is made anew."""

    def __init__(self, dimensions: int, *, exchange: bool, roll: int) -> None:
        super().__init__(prob=1.0)
        self.dimensions, self.exchange, self.roll = dimensions, exchange, roll

    def __call__(self, image: Tensor) -> Tensor:
        """(channel, [slice,] row, column) of one length each, where axes are exchanged."""
        if self.exchange:
            image = image.permute(0, *(1 + self.R.permutation(self.dimensions)).tolist())
        if self.roll:
            shifts = self.R.randint(-self.roll, self.roll + 1, size=self.dimensions).tolist()
            image = torch.roll(image, shifts, tuple(range(1, self.dimensions + 1)))
        return image
