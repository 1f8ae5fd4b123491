"""The report's pictures, drawn from arrays, beside what Slicer's own slice views show of the same scene."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from LesionClassifierLib.scene.heatmaps import addHeatMapNode
from LesionClassifierLib.scene.lesions import addRoiNode, boxColor, showAsOutline
from LesionClassifierLib.scene.volumes import addVolumeNode
from LesionLensApp.plane_drawings import PLANE_EDGES, box_outline, explained_png, heat_of_plane, outlined_png
from LesionLib.explain.heat_map import HeatMap
from LesionLib.geometry import LesionBox, transformed_points
from LesionRetrievalLib.library.patches import plane_picture
from PIL import Image
from scipy import ndimage
from slice_views import NoOpenGLError, SliceRenderer

SIDE, FIELD_MM, GREEN = 200, 50.0, (0.0, 1.0, 0.0)
TURN = np.deg2rad(25)
TURNED_AXES = np.array([[np.cos(TURN), -np.sin(TURN), 0], [np.sin(TURN), np.cos(TURN), 0], [0, 0, 1]])


@pytest.fixture(scope="module")
def renderer(headless):
    try:
        made = SliceRenderer(headless, (SIDE, SIDE))
    except NoOpenGLError as error:
        pytest.skip(str(error))
    yield made
    made.close()


@pytest.fixture
def shown(scene, an_oblique_ct):
    """An oblique CT with a bright block, a heat map on one corner of it, and a box around it: as nodes and as arrays."""
    ct = an_oblique_ct()
    ct.array[16:24, 24:36, 30:42] = 150
    center = transformed_points(ct.ijkToRAS, [35.5, 29.5, 19.5])
    i, j, k = (np.arange(n) for n in (20, 20, 14))
    bump = np.exp(-((k[:, None, None] - 6) ** 2 + (j[:, None] - 12) ** 2 + (i - 13) ** 2) / 30).astype(np.float32)
    to_ras = ct.ijkToRAS.copy()
    to_ras[:3, 3] = transformed_points(ct.ijkToRAS, [26, 20, 13])
    heat_map = HeatMap(bump / bump.max(), to_ras, 1.0, "benign")
    nodes = addVolumeNode(scene, ct), addHeatMapNode(scene, heat_map.array, to_ras, name="heat")
    return ct, heat_map, center, nodes


def _pixels(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB")).astype(int)


def _is_line(picture: np.ndarray) -> np.ndarray:
    return (picture[..., 1] - picture[..., 0] > 100) & (picture[..., 1] - picture[..., 2] > 100)


@pytest.mark.parametrize("plane", PLANE_EDGES)
@pytest.mark.parametrize("axes", [np.eye(3), TURNED_AXES], ids=["upright", "turned"])
def test_a_picture_drawn_from_arrays_is_what_the_slice_view_shows(renderer, shown, scene, plane, axes):
    ct, heat_map, center, (volumeNode, heatNode) = shown
    box = LesionBox(center, [22.0, 16.0, 19.0], axes, name="L1")
    roi = addRoiNode(scene, box)
    showAsOutline(roi, colorRGB=GREEN)
    assert boxColor(roi) == GREEN
    arguments = {"centerRAS": center, "fieldOfViewMm": FIELD_MM, "volumeNode": volumeNode, "visibleRois": [roi]}
    arguments |= {"ruler": False, "window": (400.0, 40.0)}
    view, hot_view = (renderer.render(plane, heatMapNode=node, **arguments).astype(int) for node in (None, heatNode))
    assert PLANE_EDGES[plane] == renderer.edges(plane)
    grey = plane_picture(ct, center, plane.lower(), extent_mm=FIELD_MM, window_hu=(-160.0, 240.0), side=SIDE)
    outline = box_outline(box, center, plane, extent_mm=FIELD_MM, side=SIDE)
    heat = heat_of_plane(heat_map, center, plane, extent_mm=FIELD_MM, side=SIDE)
    plain, hot = _pixels(outlined_png(grey, outline, GREEN)), _pixels(explained_png(grey, heat, outline, GREEN))
    # The line lies where the view's does, to a pixel, and all the way around.
    for mine, theirs in ((_is_line(plain), _is_line(view)), (_is_line(view), _is_line(plain))):
        assert mine.sum() > 4 * 50
        assert not (mine & ~ndimage.binary_dilation(theirs, iterations=3)).any()
    away = ~ndimage.binary_dilation(_is_line(view) | _is_line(plain), iterations=3)
    # Half a pixel apart at most: edges differ, nothing else does.
    for mine, theirs in ((plain, view), (hot, hot_view)):
        low, high = (function(theirs, size=(3, 3, 1)) for function in (ndimage.minimum_filter, ndimage.maximum_filter))
        beyond = np.maximum(low - mine, mine - high).max(axis=2)
        assert (beyond[away] > 6).mean() < 0.003
    is_hot = (hot != plain).any(axis=2) & away
    assert is_hot.sum() > 100
    assert np.corrcoef(hot[is_hot].ravel(), hot_view[is_hot].ravel())[0, 1] > 0.98


def test_a_box_that_the_plane_does_not_cut_leaves_no_line():
    box = LesionBox([0.0, 0.0, 0.0], [10.0, 10.0, 10.0])
    assert box_outline(box, np.array([0.0, 0.0, 5.5]), "Axial", extent_mm=30.0, side=60).max() == 0
    assert box_outline(box, np.array([0.0, 0.0, 4.5]), "Axial", extent_mm=30.0, side=60).max() == 255


def test_a_faint_map_and_none_leave_the_picture_as_it_is():
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    nothing = np.zeros((16, 16), np.uint8)
    plain = _pixels(outlined_png(grey, nothing, GREEN))
    faint = _pixels(explained_png(grey, np.full((16, 16), 0.14, np.float32), nothing, GREEN))
    assert np.abs(plain - faint).max() <= 1
    assert plain[0, 7].tolist() == [7, 7, 7]
