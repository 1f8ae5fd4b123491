"""How much to trust an answer: what is unusual about the input, said in plain words."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from LesionLib.errors import InputWarning, WarningName
from LesionLib.geometry import CTVolume, LesionBox
from LesionLib.inference.results import TRAINING_LESION_TEXT
from LesionLib.io.boxes import segment_margins_mm
from LesionLib.io.segmentations import parts_warning
from LesionLib.sampling.inputs import Sample
from LesionLib.sampling.resample import AxialStack, AxialStackSpec
from LesionLib.sampling.statistics import lesion_statistics
from LesionLib.sampling.volumes import IsotropicCubeSpec, ShapeMaskSpec

if TYPE_CHECKING:  # it imports torch
    from LesionLib.model.bundle import Bundle

_MAX_OUTSIDE = 0.02
_SAMPLED_VOXELS = 200_000
_MIN_SLICES = 2
_THINNEST_LUNG_HU = -1100  # air and its noise
_DENSEST_LUNG_HU = -750  # what the densest half per cent of a lung crop, its vessels, reaches at least
_COARSEST_PIXELS = 1.5  # of the model's own pixels
_COARSEST_OF_CUBES = 2.0  # cubes lie between slices anyway, and their models learned from such CTs
_MARGIN_TOLERANCE_MM = 0.5
_PHANTOM = InputWarning(
    WarningName.PHANTOM,
    "A PHANTOM model, for teaching: it learned from computed lesions and has seen no patient. On a real CT its answer means nothing.",
)


def volume_warnings(volume: CTVolume) -> tuple[InputWarning, ...]:
    """What the reader noticed, and whether the values look like Hounsfield units."""
    stride = max(1, volume.array.size // _SAMPLED_VOXELS)
    low, high = np.percentile(volume.array.ravel()[::stride], [0.5, 99.5])
    # Fat or air below water, and something denser than lung: true of any CT, even a crop of the liver. A crop of lung alone
    # has nothing as dense as that, but nothing below air either, as values have from which an intercept was taken twice.
    holds_tissue = low < -20 and -200 < high < 4000
    is_lung = _THINNEST_LUNG_HU <= low < -20 and _DENSEST_LUNG_HU < high < 4000
    if holds_tissue or is_lung:
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
        _few_slices(sample, bundle),
        parts_warning(box.name, box.segment) if box.segment is not None else None,
        _segment_margin(box, bundle),
        _training_lesion(volume, box, bundle),
        *_phantom(volume, box, bundle),
    ]
    return tuple(warning for warning in found if warning is not None)


def _outside(sample: Sample) -> InputWarning | None:
    if sample.outside_share <= _MAX_OUTSIDE:
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
    most = _COARSEST_OF_CUBES if isinstance(bundle.spec, IsotropicCubeSpec) else _COARSEST_PIXELS
    fitted = isinstance(bundle.spec, AxialStackSpec) and bundle.spec.fit_box  # a small lesion is shown as large as any
    if coarsest <= most * wanted or isinstance(bundle.spec, ShapeMaskSpec) or fitted:
        return None
    text = f"The CT's pixels are {coarsest:.2f} mm; the model looks at {wanted:g} mm, finer than the CT shows."
    return InputWarning(WarningName.PIXEL_SPACING, text)


def _few_slices(sample: Sample, bundle: Bundle) -> InputWarning | None:
    is_stack = isinstance(sample, AxialStack)  # the other kinds take one slice, or three planes, by design
    by_design = isinstance(bundle.spec, AxialStackSpec) and bundle.spec.max_slices < _MIN_SLICES
    if not is_stack or by_design or len(sample.hu) >= _MIN_SLICES:
        return None
    return InputWarning(WarningName.FEW_SLICES, "Only one slice passes through the box; the answer rests on it alone.")


def _segment_margin(box: LesionBox, bundle: Bundle) -> InputWarning | None:
    margins, wanted = segment_margins_mm(box), bundle.segment_margin_mm
    if margins is None or np.abs(margins - wanted).max() <= _MARGIN_TOLERANCE_MM:
        return None
    low, high = margins.min(), margins.max()
    reach = f"{high:.1f} mm" if high - low < 0.1 else f"{low:.1f} to {high:.1f} mm"
    text = (
        f"The box reaches {reach} beyond its segment; the model was made for boxes that reach {wanted:g} mm beyond: its answer "
        "and the similar cases can be others."
    )
    return InputWarning(WarningName.SEGMENT_MARGIN, text)


def _phantom(volume: CTVolume, box: LesionBox, bundle: Bundle) -> tuple[InputWarning, ...]:
    """Of a phantom model always; a box that is none of a computed lesion has no answer, whatever the network makes of it."""
    if bundle.phantom_hu is None:
        return ()
    (low, high), mean = bundle.phantom_hu, lesion_statistics(volume, replace(box, segment=None)).hu_mean
    slack = (high - low) / 2  # boxes are drawn wider and tighter than the computed ones
    if low - slack <= mean <= high + slack:
        return (_PHANTOM,)
    text = f"The box holds {mean:.0f} HU on average; those of the computed lesions held {low:.0f} to {high:.0f} HU: not one of them."
    return _PHANTOM, InputWarning(WarningName.OUT_OF_DISTRIBUTION, text)


def _training_lesion(volume: CTVolume, box: LesionBox, bundle: Bundle) -> InputWarning | None:
    if bundle.training_content is None or not bundle.training_content.holds(volume, box):
        return None
    return InputWarning(WarningName.TRAINING_LESION, TRAINING_LESION_TEXT)
