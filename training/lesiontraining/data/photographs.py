"""Photographs as network input, and Graham's preparation of pictures of the retina (papers 1.5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from LesionLib.errors import VolumeError
from PIL import Image
from scipy.ndimage import gaussian_filter

CENTRAL_SHARE = 0.9  # of the radius that is kept: the rim differs between cameras
_BLUR = 1 / 30  # of the radius: what counts as the local average colour
_GAIN = 4.0
_RIM = 0.03  # of the kept radius: the very edge of the disc is half dark
_LIT = 0.1  # of the middle row's mean brightness: what is brighter belongs to the eye


@dataclass(frozen=True)
class PhotographSpec:
    """How a 2-D picture becomes network input, (1, 3, size, size), RGB in -1 ... 1.

    ``preparation``: "plain" shows the whole picture, its long side ``size``, the rest -1; "graham" brings the eye's disc to
    one radius, takes the local average colour away and keeps the central 90 %, the rest 0 (Graham 2015; papers 1.5).
    """

    size: int = 224
    preparation: Literal["plain", "graham"] = "plain"


def photograph_input(rgb: np.ndarray, spec: PhotographSpec) -> np.ndarray:
    """RGB (row, column, 3), uint8 -> float32 (1, 3, size, size). Raises `VolumeError` for a picture without an eye."""
    shown = _plain(rgb, spec.size) if spec.preparation == "plain" else _graham(rgb, spec.size)
    return np.ascontiguousarray(np.moveaxis(shown, -1, 0)[None], dtype=np.float32)


def _plain(rgb: np.ndarray, size: int) -> np.ndarray:
    rows, columns = rgb.shape[:2]
    scale = size / max(rows, columns)
    height, width = max(1, round(rows * scale)), max(1, round(columns * scale))
    resized = np.asarray(Image.fromarray(rgb).resize((width, height), Image.Resampling.BILINEAR), dtype=np.float32)
    shown = np.full((size, size, 3), -1.0, dtype=np.float32)
    top, left = (size - height) // 2, (size - width) // 2
    shown[top : top + height, left : left + width] = resized / 127.5 - 1.0
    return shown


def _graham(rgb: np.ndarray, size: int) -> np.ndarray:
    center, radius = eye_disc(rgb)
    half = CENTRAL_SHARE * radius
    middle = (rgb.shape[0] - 1) / 2
    # More than is kept is cut out, so that the average colour at the rim is one of the eye, too.
    reach = half + 2 * _BLUR * radius
    margin = round(size / 2 * (reach / half - 1))
    edge = size + 2 * margin
    window = tuple(np.array([center - reach, middle - reach, center + reach, middle + reach]) + 0.5)
    whole = Image.fromarray(rgb)
    reduced = whole.transform((edge, edge), Image.Transform.EXTENT, window, Image.Resampling.BILINEAR)
    factor = int(2 * reach / edge)
    if factor > 1:  # transform() does not smooth before it shrinks
        scaled = whole.reduce(factor)
        small = tuple(value / factor for value in window)
        reduced = scaled.transform((edge, edge), Image.Transform.EXTENT, small, Image.Resampling.BILINEAR)
    picture = np.asarray(reduced, dtype=np.float32)
    across = (np.arange(edge) - (edge - 1) / 2) / (size / 2)  # in kept radii
    away = np.hypot(across[:, None], across[None, :])
    in_picture = np.abs(across) * half < (rgb.shape[0] - 1) / 2
    # Many cameras cut the eye off above and below: the average is that of the eye's pixels alone.
    eye = ((away < 1 / CENTRAL_SHARE - _RIM) & in_picture[:, None]).astype(np.float32)[..., None]
    sigma = _BLUR * (size / 2) / CENTRAL_SHARE
    average = gaussian_filter(picture * eye, (sigma, sigma, 0)) / np.maximum(
        gaussian_filter(eye, (sigma, sigma, 0)), 1e-6
    )
    shown = np.clip(_GAIN * (picture - average) / 127.5, -1.0, 1.0) * eye
    shown[away > 1.0] = 0.0
    return shown[margin : margin + size, margin : margin + size]


def eye_disc(rgb: np.ndarray) -> tuple[float, float]:
    """Middle column and radius of the eye's disc in pixels, from the lit part of the picture's middle row."""
    row = rgb[rgb.shape[0] // 2].astype(np.float64).sum(axis=1)
    lit = np.flatnonzero(row > row.mean() * _LIT)
    if len(lit) < 8 or row.max() == 0:
        msg = "the middle row of the picture is dark; Graham's preparation is for photographs of the retina."
        raise VolumeError(msg)
    return float(lit[0] + lit[-1]) / 2, len(lit) / 2
