"""Planes of a CT as a slice view shows them, drawn from arrays: the outline of a box over them, a heat map laid over both.

Needs no OpenGL, and one thread a lesion can draw: nothing here touches the scene.
"""

from __future__ import annotations

import base64
import io
from functools import cache

import numpy as np
from LesionClassifierLib.scene.heatmaps import HEAT_RAMP, MAP_OPACITY, MAP_THRESHOLD
from LesionLib.explain.heat_map import HeatMap
from LesionLib.geometry import CTVolume, LesionBox, transformed_points
from LesionLib.inference.results import RGB
from LesionLib.sampling.resample import resample
from LesionRetrievalLib.library.patches import plane_to_ras
from PIL import Image, ImageDraw

# The patient's sides at the left, right, top and bottom of a plane.
PLANE_EDGES = {"Axial": ("R", "L", "A", "P"), "Coronal": ("R", "L", "S", "I"), "Sagittal": ("A", "P", "S", "I")}
_LINE_PX, _FINER = 3, 4
_OUTLINE = 255  # its place in the palette: white is one grey darker for it
# A box's corners are counted by their signs along its axes: an edge is between two that differ in one of them.
_EDGES = [(a, a | bit) for a in range(8) for bit in (1, 2, 4) if not a & bit]


def outlined_png(grey: np.ndarray, outline: np.ndarray, color: RGB) -> str:
    """A grey plane, uint8 (h, w), with a line over it (`box_outline`), as a PNG inside a data URI."""
    if not np.isin(outline, (0, 255)).all():
        return _png(Image.fromarray(_with_line(np.repeat(grey[..., None], 3, axis=2), outline, color)))
    # A palette: a third of the bytes of three channels to pack, and all that such a picture has.
    picture = Image.fromarray(np.where(outline > 0, _OUTLINE, np.minimum(grey, _OUTLINE - 1)).astype(np.uint8), "L")
    picture.putpalette([value for level in range(_OUTLINE) for value in (level,) * 3] + _rgb8(color).tolist())
    return _png(picture)


def explained_png(grey: np.ndarray, heat: np.ndarray, outline: np.ndarray, color: RGB) -> str:
    """The same under the heat map, 0 ... 1 (h, w): transparent where it is faint, in the colours of the scene."""
    picture = np.repeat(grey[..., None], 3, axis=2)
    is_shown = heat >= MAP_THRESHOLD
    levels = np.round(np.clip(heat[is_shown], 0, 1) * 255).astype(np.uint8)
    picture[is_shown] = picture[is_shown] * (1 - MAP_OPACITY) + _heat_colors()[levels] * MAP_OPACITY
    return _png(Image.fromarray(_with_line(picture, outline, color)), compress_type=_RUNS)


def heat_of_plane(heat_map: HeatMap, centerRAS: np.ndarray, plane: str, *, extent_mm: float, side: int) -> np.ndarray:
    """The heat map on the pixels of a plane, 0 where it does not reach: float32 (side, side)."""
    volume = CTVolume(heat_map.array, heat_map.ijkToRAS, "heat map")
    to_ras = plane_to_ras(centerRAS, plane.lower(), extent_mm=extent_mm, side=side)
    values, inside = resample(volume, to_ras, (side, side, 1))
    return np.where(inside[0], values[0], 0)


def box_outline(box: LesionBox, centerRAS: np.ndarray, plane: str, *, extent_mm: float, side: int) -> np.ndarray:
    """Where a plane cuts the sides of a box, as a line three pixels wide: uint8 (side, side), 255 on it, smooth where it slants."""
    to_plane = np.linalg.inv(plane_to_ras(centerRAS, plane.lower(), extent_mm=extent_mm, side=side))
    corners = transformed_points(to_plane, box.cornersRAS)
    points = _cut(corners)
    if not len(points):
        return np.zeros((side, side), np.uint8)
    is_upright = (np.abs(np.diff(points, axis=0, append=points[:1])).min(axis=1) < 0.5).all()
    finer = 1 if is_upright else _FINER
    mask = Image.new("L", (side * finer, side * finer))
    corners_px = [tuple(np.round((point + 0.5) * finer - 0.5)) for point in points]
    ImageDraw.Draw(mask).line([*corners_px, *corners_px[:2]], fill=255, width=_LINE_PX * finer, joint="curve")
    return np.asarray(mask if finer == 1 else mask.reduce(finer))


def _cut(corners: np.ndarray) -> np.ndarray:
    """The corners of the polygon that the plane z = 0 cuts out of a box, (n, 2), one after the other around it."""
    ends = np.array([(corners[a], corners[b]) for a, b in _EDGES])
    low, high = ends[:, 0, 2], ends[:, 1, 2]
    crosses = (low <= 0) != (high <= 0)
    ends, share = ends[crosses], (low / (low - high + (low == high)))[crosses]
    points = (ends[:, 0] + share[:, None] * (ends[:, 1] - ends[:, 0]))[:, :2]
    if not len(points):
        return points
    away = points - points.mean(axis=0)
    return points[np.argsort(np.arctan2(away[:, 1], away[:, 0]))]


def _with_line(picture: np.ndarray, outline: np.ndarray, color: RGB) -> np.ndarray:
    on_it = outline > 0
    share = outline[on_it][:, None] / 255
    picture[on_it] = picture[on_it] * (1 - share) + _rgb8(color) * share
    return picture


def _rgb8(color: RGB) -> np.ndarray:
    return np.round(np.array(color) * 255).astype(np.uint8)


@cache
def _heat_colors() -> np.ndarray:
    """The scene's colour ramp at 256 levels, (256, 3), 0 ... 255."""
    ramp = np.array(HEAT_RAMP)
    return np.stack([np.interp(np.linspace(0, 1, 256), ramp[:, 0], 255 * part) for part in ramp[:, 1:].T], axis=1)


_RUNS = 3  # zlib's Z_RLE: on the noise of a CT in colours nearly as small as level 2, in less time


def _png(picture: Image.Image, **options: int) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", compress_level=2, **options)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
