"""An answer in the slice views, by its pixels: the heat lies where the model looked, and the box is drawn in its colour."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from LesionClassifierLib.classification import classifyNodes, heatMapNode, showModelInput
from LesionClassifierLib.sample_data import addPhantom
from LesionClassifierLib.scene.lesions import lesionNodes
from LesionLib.geometry import transformed_points
from PIL import Image
from slice_views import SliceRenderer

FIELD_MM, PIXELS = 60.0, 320
# Right and up of a picture in RAS, as a radiologist sees it.
PLANES = {
    "Axial": ([-1, 0, 0], [0, 1, 0]),
    "Coronal": ([-1, 0, 0], [0, 0, 1]),
    "Sagittal": ([0, -1, 0], [0, 0, 1]),
}


@pytest.fixture(scope="module")
def renderer(headless):
    with SliceRenderer(headless, size=(PIXELS, PIXELS)) as renderer:
        yield renderer


@pytest.fixture
def an_answer(scene, slicers_python, phantom_once, runner):
    """The lobulated nodule of the phantom, answered; what the model looked at is drawn."""
    (volumeNode,) = addPhantom()
    roi = next(node for node in lesionNodes(scene) if "lobulated" in node.GetName())
    answer, _ = classifyNodes(runner, volumeNode, [roi], "lung-nodule-malignancy")
    return volumeNode, roi, answer.results[0], showModelInput(roi)


def offsets_mm(mask: np.ndarray) -> np.ndarray:
    """Where pixels lie, right and up of the picture's middle, in mm."""
    rows, columns = np.nonzero(mask)
    return (np.stack([columns + 0.5, PIXELS - rows - 0.5], axis=1) - PIXELS / 2) * FIELD_MM / PIXELS


@pytest.mark.parametrize("plane", PLANES)
def test_heat_lies_inside_what_the_model_looked_at_and_nowhere_else(renderer, an_answer, plane):
    volumeNode, roi, result, _ = an_answer
    view = {"centerRAS": result.box.centerRAS, "fieldOfViewMm": FIELD_MM, "volumeNode": volumeNode, "ruler": False}
    without = renderer.render(plane, visibleRois=[], **view).astype(int)
    heat = renderer.render(plane, visibleRois=[], heatMapNode=heatMapNode(roi), **view).astype(int)
    changed = np.abs(heat - without).max(axis=2) > 8
    assert changed.mean() > 0.02
    right, up = (np.array(axis, float) for axis in PLANES[plane])
    away = offsets_mm(changed)
    points = result.box.centerRAS + away[:, :1] * right + away[:, 1:] * up
    (seen,) = result.model_input_boxes
    inSeen = np.abs(transformed_points(np.linalg.inv(seen.boxToRAS), points))
    # A voxel of the map may reach half over the edge.
    assert (inSeen <= seen.sizeMm / 2 + 1.0).all()


def test_the_pictures_of_the_tutorial_are_drawn(renderer, an_answer, tmp_path):
    volumeNode, roi, result, seen = an_answer
    pictures = [
        renderer.render(
            plane, centerRAS=result.box.centerRAS, fieldOfViewMm=FIELD_MM, volumeNode=volumeNode,
            heatMapNode=heatMapNode(roi), visibleRois=[roi, *seen],
        )
        for plane in PLANES
    ]  # fmt: skip
    together = np.concatenate(pictures, axis=1)
    folder = Path(os.environ.get("LESIONLENS_TEST_ARTEFACTS", tmp_path))
    Image.fromarray(together).save(folder / "views.png", optimize=True)
    red = (together[..., 0].astype(int) - together[..., 1] > 80) & (together[..., 2] < 90)
    assert red.sum() > 300  # the box in the colour of its class
