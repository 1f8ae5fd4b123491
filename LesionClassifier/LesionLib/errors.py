"""What can be wrong with the input: as exceptions, whose one-line text says what was given and what to do, and as warnings."""

from __future__ import annotations

from enum import StrEnum


class LesionLensError(ValueError):
    """Base of every error a user can mend. The message is one line, in plain English."""


class VolumeError(LesionLensError):
    """The CT cannot be used: not 3-D, not finite, no geometry, unreadable."""


class BoxError(LesionLensError):
    """A box cannot be used: zero size, outside the volume, malformed file."""


class BundleError(LesionLensError):
    """A model folder is unknown, incomplete, tampered with, or does not do here what it did where it was made."""


class CaseLibraryError(LesionLensError):
    """A case library cannot be used: not a library, another schema, another model."""


class OutputError(LesionLensError):
    """The place for the results cannot be used."""


class WarningName(StrEnum):
    """Every kind of warning there is."""

    NOT_HU = "not-hu"
    MODALITY = "modality"
    UNEVEN_SLICES = "uneven-slices"
    SINGLE_SLICE = "single-slice"
    OUTSIDE_VOLUME = "outside-volume"
    BOX_SIZE = "box-size"
    SLICE_DISTANCE = "slice-distance"
    PIXEL_SPACING = "pixel-spacing"
    FEW_SLICES = "few-slices"
    EMPTY_HEAT_MAP = "empty-heat-map"
    PHANTOM = "phantom"
    OUT_OF_DISTRIBUTION = "out-of-distribution"
    GPU_MEMORY = "gpu-memory"
    SEGMENT_MARGIN = "segment-margin"
    TRAINING_LESION = "training-lesion"
    NIFTI_TRANSFORMS = "nifti-transforms"
    NO_GEOMETRY = "no-geometry"
    FILES_LEFT_OUT = "files-left-out"
    SINGLE_FILE = "single-file"
    MISSING_SLICES = "missing-slices"
    SEVERAL_PARTS = "several-parts"
    MASK_GEOMETRY = "mask-geometry"
    SEGMENTATION = "segmentation"
    BOX_FRAME = "box-frame"
    REPORT_NOT_WRITTEN = "report-not-written"
    REPORT_GAPS = "report-gaps"
    DICOM_NOT_WRITTEN = "dicom-not-written"


class InputWarning(str):
    """A warning as data: a plain sentence that people can read; ``name``, by which programs can filter, says of what kind."""

    __slots__ = ("name",)

    def __new__(cls, name: WarningName, text: str) -> InputWarning:
        """The sentence ``text`` under the name ``name``."""
        warning = super().__new__(cls, text)
        warning.name = name
        return warning
