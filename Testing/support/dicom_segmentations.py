"""DICOM segmentations of the CT that `foreign_dicom.write_ct` leaves, as highdicom writes them."""

from __future__ import annotations

from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
from foreign_dicom import BALL_HU
from LesionLib.io.volumes import read_volume
from pydicom.sr.codedict import codes

KINDS = hd.seg.SegmentationTypeValues


def described(number: int, label: str) -> hd.seg.SegmentDescription:
    """A segment of no particular lesion, drawn by hand."""
    return hd.seg.SegmentDescription(
        number, label, codes.SCT.MorphologicallyAbnormalStructure, codes.SCT.Lesion,
        hd.seg.SegmentAlgorithmTypeValues.MANUAL,
    )  # fmt: skip


def ball_and_cube(ct: Path) -> np.ndarray:
    """(slice, row, column, segment): the ball of 80 HU, and a cube that overlaps it."""
    volume = read_volume(ct)
    ball = volume.array == BALL_HU
    cube = np.zeros_like(ball)
    cube[10:13, 14:18, 2:6] = True
    return np.stack([ball, cube], axis=-1).astype(np.uint8)


def write_seg(ct: Path, path: Path, pixels: np.ndarray, kind: KINDS, names: tuple[str, ...]) -> Path:
    """A segmentation of the CT in the folder ``ct``; ``pixels`` as `ball_and_cube` gives them."""
    sources = [pydicom.dcmread(p) for p in sorted(ct.iterdir())]
    segments = [described(number, name) for number, name in enumerate(names, start=1)]
    written = hd.seg.Segmentation(
        sources, pixels, kind, segments, hd.UID(), 100, hd.UID(), 1, "X", "Y", "1", "Z",
        **({"max_fractional_value": 200} if kind is KINDS.FRACTIONAL else {}),
    )  # fmt: skip
    written.save_as(path)
    return path
