"""How much to trust an answer: what is unusual about the input, said in plain words."""

from __future__ import annotations

import numpy as np

from LesionLib.errors import InputWarning, WarningName
from LesionLib.geometry import CTVolume, LesionBox
from LesionLib.io.segmentations import parts_warning
from LesionLib.model.bundle import Bundle
from LesionLib.sampling.inputs import Sample
from LesionLib.sampling.resample import AxialStack
from LesionLib.sampling.volumes import ShapeMaskSpec

_MOST_OUTSIDE = 0.02
_SAMPLED_VOXELS = 200_000
_FEWEST_SLICES = 2
_COARSEST_PIXELS = 1.5  # of the model's own pixels


def volume_warnings(volume: CTVolume) -> tuple[InputWarning, ...]:
    """What the reader noticed, and whether the values look like Hounsfield units."""
    stride = max(1, volume.array.size // _SAMPLED_VOXELS)
    low, high = np.percentile(volume.array.ravel()[::stride], [0.5, 99.5])
    # Fat or air below water, and something denser than lung: true of any CT, even a crop of the liver.
    looks_like_hu = low < -20 and -200 < high < 4000
    if looks_like_hu:
        return volume.warnings
    text = (
        f"The values run from {low:g} to {high:g} and do not look like Hounsfield units (air is near -1000, water 0): "
        "probabilities mean little. Load the CT with its rescale slope and intercept applied."
    )
    return (*volume.warnings, InputWarning(WarningName.NOT_HU, text))


def box_warnings(volume: CTVolume, box: LesionBox, sample: Sample, bundle: Bundle) -> tuple[InputWarning, ...]:
    """What is unusual about one box, beside what the model was trained on."""
    found = [
        _outside(sample),
        _box_size(box, bundle),
        _slice_distance(volume, bundle),
        _pixel_spacing(volume, sample, bundle),
        _few_slices(sample),
        parts_warning(box.name, box.segment) if box.segment is not None else None,
    ]
    return tuple(warning for warning in found if warning is not None)


def _outside(sample: Sample) -> InputWarning | None:
    if sample.outside_share <= _MOST_OUTSIDE:
        return None
    share = f"{sample.outside_share:.0%}"
    text = f"{share} of the box with its margin lies outside the volume; there the edge is repeated."
    return InputWarning(WarningName.OUTSIDE_VOLUME, text)


def _box_size(box: LesionBox, bundle: Bundle) -> InputWarning | None:
    smallest, largest = bundle.box_size_mm
    if smallest <= box.sizeMm.min() and box.sizeMm.max() <= largest:
        return None
    size = " x ".join(f"{edge:.1f}" for edge in box.sizeMm)
    text = f"The box is {size} mm; the model was trained on boxes with edges from {smallest:g} to {largest:g} mm."
    return InputWarning(WarningName.BOX_SIZE, text)


def _slice_distance(volume: CTVolume, bundle: Bundle) -> InputWarning | None:
    thickest = bundle.slice_distance_mm[1]
    if volume.sliceDistanceMm <= thickest * 1.01:
        return None
    text = f"The slices are {volume.sliceDistanceMm:.2f} mm apart; the model was trained on at most {thickest:g} mm."
    return InputWarning(WarningName.SLICE_DISTANCE, text)


def _pixel_spacing(volume: CTVolume, sample: Sample, bundle: Bundle) -> InputWarning | None:
    coarsest = float(volume.spacingMm[:2].max())
    wanted = sample.pixel_mm
    if coarsest <= _COARSEST_PIXELS * wanted or isinstance(bundle.spec, ShapeMaskSpec):
        return None
    text = f"The CT's pixels are {coarsest:.2f} mm; the model looks at {wanted:g} mm, finer than the CT shows."
    return InputWarning(WarningName.PIXEL_SPACING, text)


def _few_slices(sample: Sample) -> InputWarning | None:
    is_stack = isinstance(sample, AxialStack)  # the other kinds take one slice, or three planes, by design
    if not is_stack or len(sample.hu) >= _FEWEST_SLICES:
        return None
    return InputWarning(WarningName.FEW_SLICES, "Only one slice passes through the box; the answer rests on it alone.")
