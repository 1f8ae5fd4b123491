"""Warnings as data: a plain sentence that carries a name, so that people can read it and programs can filter by it."""

from __future__ import annotations

from enum import StrEnum


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


class InputWarning(str):
    """A sentence for the reader; ``name`` says what kind of warning it is."""

    __slots__ = ("name",)

    def __new__(cls, name: WarningName, text: str) -> InputWarning:
        """The sentence ``text`` under the name ``name``."""
        warning = super().__new__(cls, text)
        warning.name = name
        return warning
