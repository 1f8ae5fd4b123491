"""Segments and boxes as every command takes them, and what is odd about where they lie on their CT."""

from __future__ import annotations

import argparse
from pathlib import Path

from LesionLib.errors import BoxError, InputWarning, WarningName
from LesionLib.geometry import CTVolume, LesionBox, in_missing_slices_mm
from LesionLib.io.boxes import FrameSource, frame_warning
from LesionLib.io.segmentations import read_segments, split_parts
from LesionLib.io.volumes import DicomSeries


def read_masks(
    options: argparse.Namespace, series: DicomSeries | None
) -> tuple[list[CTVolume], tuple[InputWarning, ...]]:
    """The segments of ``options.segmentation``, split where that is asked for, and what is odd about them."""
    split = options.split_parts
    if split is not None and not 0 <= split <= 1e6:
        msg = f"--split-parts is {split:g}; give the size of the smallest part in cubic mm, from 0 to 1000000."
        raise BoxError(msg)
    found = read_segments(options.segmentation, nifti_transform=options.nifti_transform)
    masks, warnings = list(found.masks), found.warnings
    if split is not None:
        masks, dropped = split_parts(masks, smallest_mm3=split)
        warnings = (*warnings, *dropped)
    of_ct = series.frame_of_reference if series is not None else ""
    if of_ct and found.frame_of_reference and of_ct != found.frame_of_reference:
        text = (
            f"{options.segmentation.name} names another frame of reference than the CT: it may have been drawn on another "
            "series. Check that the segments lie on their lesions."
        )
        warnings = (*warnings, InputWarning(WarningName.MASK_GEOMETRY, text))
    return masks, warnings


def warnings_of_box(volume: CTVolume, box: LesionBox, *, frame: FrameSource) -> tuple[InputWarning, ...]:
    """What is odd about where a box lies on its CT. ``frame``: how it came to its frame."""
    found = []
    missing = in_missing_slices_mm(volume, box)
    if missing > 0:
        text = f"{missing:.1f} mm of {box.name} lie where slices are missing; there values are interpolated."
        found.append(InputWarning(WarningName.MISSING_SLICES, text))
    found.append(frame_warning(volume, box, frame))
    return tuple(warning for warning in found if warning is not None)


def frame_source(boxes: Path | None) -> FrameSource:
    """How the boxes of a file came to their frame; None: they are those of a segmentation. Raises `BoxError`."""
    if boxes is None:
        return FrameSource.SAVED
    if boxes.suffix.lower() == ".csv":
        return FrameSource.STATED
    from LesionClassifierLib.scene.lesions import statesFrame

    return FrameSource.SAVED if statesFrame(boxes) else FrameSource.GUESSED
