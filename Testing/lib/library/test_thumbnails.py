"""Small pictures laid as radiologists see them."""

from __future__ import annotations

import numpy as np
import pytest
from LesionLib.geometry import CTVolume, LesionBox, transformed_points
from LesionLib.sampling.resample import lattice_points
from LesionRetrievalLib.library.patches import SIDE, case_thumbnails

MIDDLE = SIDE // 2


@pytest.fixture
def marked() -> CTVolume:
    """Lung with one bright ball to the patient's left, front and head of RAS 0."""
    matrix = np.diag([-1.0, -1.0, 1.5, 1.0])
    matrix[:3, 3] = [40, 40, -40]
    size = (80, 80, 54)
    points = transformed_points(matrix, lattice_points(size))
    near = np.linalg.norm(points - [-8, 8, 8], axis=-1) < 4
    return CTVolume(np.where(near, 100, -900).astype(np.int16), matrix)


def bright(volume: CTVolume, center) -> dict[str, tuple[float, float]]:
    thumbnails = case_thumbnails(volume, LesionBox(center, [10, 10, 10]))
    return {
        plane: tuple(np.argwhere(grey > 150).mean(axis=0) - MIDDLE)
        for plane, grey in thumbnails.items()
        if (grey > 150).any()
    }


def test_left_is_right_front_is_up_and_head_is_up(marked):
    down, right = bright(marked, [0, 0, 8])["axial"]
    assert down < -5
    assert right > 5
    down, right = bright(marked, [0, 8, 0])["coronal"]
    assert down < -5
    assert right > 5
    down, right = bright(marked, [-8, 0, 0])["sagittal"]
    assert down < -5
    assert right < -5


def test_where_there_is_no_ct_the_picture_is_black(marked):
    thumbnails = case_thumbnails(marked, LesionBox([38, 0, 0], [10, 10, 10]))
    assert (thumbnails["axial"][:, :10] == 0).all()
    assert (thumbnails["axial"][:, -10:] > 0).all()
    assert thumbnails["axial"].shape == (SIDE, SIDE)
    assert thumbnails["axial"].dtype == np.uint8
