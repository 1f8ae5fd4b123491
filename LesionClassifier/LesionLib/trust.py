"""How much to trust an answer: what is unusual about the input, said in plain words."""

from __future__ import annotations

import numpy as np

from .bundle import Bundle
from .geometry import CTVolume, LesionBox
from .sampling import AxialStack

_MOST_OUTSIDE = 0.02
_SAMPLED_VOXELS = 200_000


def volume_warnings(volume: CTVolume) -> tuple[str, ...]:
    """What the reader noticed, and whether the values look like Hounsfield units."""
    stride = max(1, volume.array.size // _SAMPLED_VOXELS)
    low, high = np.percentile(volume.array.ravel()[::stride], [0.5, 99.5])
    looks_like_hu = low < -300 and -200 < high < 4000
    if looks_like_hu:
        return volume.warnings
    text = (
        f"The values run from {low:g} to {high:g} and do not look like Hounsfield units (air is near -1000, water 0): "
        "probabilities mean little. Load the CT with its rescale slope and intercept applied."
    )
    return (*volume.warnings, text)


def box_warnings(volume: CTVolume, box: LesionBox, stack: AxialStack, bundle: Bundle) -> tuple[str, ...]:
    """What is unusual about one box, beside what the model was trained on."""
    found = []
    if stack.outside_share > _MOST_OUTSIDE:
        found.append(
            f"{stack.outside_share:.0%} of the box with its margin lies outside the volume; there the edge is repeated."
        )
    smallest, largest = bundle.box_size_mm
    if box.sizeMm.min() < smallest or box.sizeMm.max() > largest:
        size = " x ".join(f"{edge:.1f}" for edge in box.sizeMm)
        found.append(
            f"The box is {size} mm; the model was trained on boxes with edges from {smallest:g} to {largest:g} mm."
        )
    thickest = bundle.slice_distance_mm[1]
    if volume.sliceDistanceMm > thickest * 1.01:
        found.append(
            f"The slices are {volume.sliceDistanceMm:.2f} mm apart; the model was trained on at most {thickest:g} mm."
        )
    return tuple(found)
