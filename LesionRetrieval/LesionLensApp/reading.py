"""Segments and boxes as every command takes them, and what is odd about where they lie on their CT."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from LesionLib.errors import BoxError, InputWarning, LesionLensError, WarningName
from LesionLib.geometry import CTVolume, LesionBox, in_missing_slices_mm
from LesionLib.inference.results import LesionResult
from LesionLib.io.boxes import FrameSource, VoxelBox, frame_warning, read_box_locations
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
            read_box_locations(options.boxes)
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
    path: Path, series: DicomSeries | None, *, split: float | None, nifti_transform: str
) -> tuple[list[CTVolume], tuple[InputWarning, ...]]:
    """The segments of a file, and what is odd about them. ``split``: into their parts, of at least so many cubic mm."""
    if split is not None and not 0 <= split <= 1e6:
        msg = f"--split-parts is {split:g}; give the size of the smallest part in cubic mm, from 0 to 1000000."
        raise BoxError(msg)
    found = read_segments(path, nifti_transform=nifti_transform)
    masks, warnings = list(found.masks), found.warnings
    if split is not None:
        masks, dropped = split_parts(masks, smallest_mm3=split)
        warnings = (*warnings, *dropped)
    of_ct = series.frame_of_reference if series is not None else ""
    if of_ct and found.frame_of_reference and of_ct != found.frame_of_reference:
        text = (
            f"{path.name} names another frame of reference than the CT: it may have been drawn on another "
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


def with_reader_warnings(
    results: Sequence[LesionResult], of_file: Sequence[InputWarning], of_boxes: Sequence[Sequence[InputWarning]]
) -> list[LesionResult]:
    """The results with what was odd about their files, then about each box, before their own warnings; each said once."""
    return [
        replace(result, warnings=tuple(dict.fromkeys((*of_file, *own, *result.warnings))))
        for result, own in zip(results, of_boxes, strict=True)
    ]


def require_numbers(options: argparse.Namespace) -> None:
    """Refuse numbers of ``classify`` that no CT could want. Raises `LesionLensError`."""
    margin_mm = (
        0.0 if options.margin_mm is None else options.margin_mm
    )  # left out: the model's own, which its manifest bounds
    if not (0 <= margin_mm <= 100 and 1 <= options.similar <= 1000 and 0 <= options.box_jitter <= 100):
        msg = (
            f"--margin-mm is {margin_mm:g} (0 to 100 mm), --similar is {options.similar} (1 to 1000) and "
            f"--box-jitter is {options.box_jitter} (0 to 100)."
        )
        raise LesionLensError(msg)


def frame_source(boxes: Path | None) -> FrameSource:
    """How the boxes of a file came to their frame; None: they are those of a segmentation. Raises `BoxError`."""
    if boxes is None:
        return FrameSource.SAVED
    if boxes.suffix.lower() == ".csv":
        in_voxels = any(isinstance(location, VoxelBox) for _, location in read_box_locations(boxes))
        return FrameSource.SAVED if in_voxels else FrameSource.STATED  # voxels have no frame to be mistaken
    from LesionClassifierLib.scene.lesions import statesFrame

    return FrameSource.SAVED if statesFrame(boxes) else FrameSource.GUESSED
