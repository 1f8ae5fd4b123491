"""Segments and boxes as every command takes them, and what is odd about where they lie on their CT."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from LesionLib.errors import BoxError, InputWarning, WarningName
from LesionLib.geometry import CTVolume, LesionBox, in_missing_slices_mm
from LesionLib.io.boxes import FrameSource, frame_warning, read_boxes_csv
from LesionLib.io.segmentations import read_segments, split_parts
from LesionLib.io.volumes import DicomSeries, read_ct
from LesionRetrievalLib.libraries import open_store


def require_files(options: argparse.Namespace) -> None:
    """Refuse at once what is mistyped: paths that are not there, and a table of boxes that cannot be read.

    Raises what reading them would raise. What a file holds besides shows when it is read.
    """
    if not os.path.exists(options.volume):
        read_ct(options.volume)
    if options.boxes is not None:
        require_boxes(options.boxes)
        if options.boxes.suffix.lower() == ".csv":
            read_boxes_csv(options.boxes)
    if options.segmentation is not None and not os.path.exists(options.segmentation):
        read_segments(options.segmentation)
    if isinstance(options.library, Path) and not os.path.isfile(options.library):
        open_store(options.library).close()


def require_boxes(path: Path) -> None:
    """Raises `BoxError` where no file of boxes is."""
    if not os.path.isfile(path):
        msg = f"{path} does not exist; give a .csv of boxes or a Slicer markups file (.mrk.json)."
        raise BoxError(msg)


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
