"""Size and density of lesions, in their segment or their box."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from LesionLib.errors import BoxError
from LesionLib.geometry import CTVolume, LesionBox, transformed_points
from LesionLib.sampling.resample import lattice_points
from LesionLib.sampling.statistics import lesion_statistics


@pytest.fixture
def ct() -> CTVolume:
    """A ball of 8 mm radius and 50 HU in lung of -800 HU, on an oblique lattice."""
    angle = np.deg2rad(25)
    matrix = np.eye(4)
    matrix[:3, :3] = [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    matrix[:3, :3] = matrix[:3, :3] @ np.diag([0.8, -0.8, 1.5])
    array = np.full((40, 60, 60), -800, np.int16)
    middle = transformed_points(matrix, (np.array(array.shape[::-1]) - 1) / 2)
    distance = np.linalg.norm(transformed_points(matrix, lattice_points(array.shape[::-1])) - middle, axis=-1)
    array[distance < 8] = 50
    return CTVolume(array, matrix, "CT")


@pytest.fixture
def ball(ct: CTVolume) -> LesionBox:
    middle = transformed_points(ct.ijkToRAS, (np.array(ct.sizeIJK) - 1) / 2)
    segment = CTVolume((ct.array == 50).astype(np.uint8), ct.ijkToRAS, "ball")
    return LesionBox(middle, [18.0, 17.0, 16.0], ct.ijkToRAS[:3, :3] / ct.spacingMm, segment=segment)


def test_a_segment_is_measured_voxel_by_voxel(ct, ball):
    known = lesion_statistics(ct, ball)
    assert known.measured_in == "segment"
    assert known.volume_ml == pytest.approx(np.count_nonzero(ct.array == 50) * 0.8 * 0.8 * 1.5 / 1000)
    assert known.volume_ml == pytest.approx(4 / 3 * np.pi * 8**3 / 1000, rel=0.03)
    assert (known.hu_mean, known.hu_sd, known.hu_minimum, known.hu_maximum) == pytest.approx((50, 0, 50, 50))
    assert known.edges_mm == (18.0, 17.0, 16.0)


def test_a_segment_on_a_cropped_lattice_gives_the_same(ct, ball):
    crop = ct.ijkToRAS.copy()
    crop[:3, 3] = transformed_points(ct.ijkToRAS, [10, 12, 8])
    cropped = CTVolume(ball.segment.array[8:, 12:, 10:], crop)
    assert lesion_statistics(ct, replace(ball, segment=cropped)) == lesion_statistics(ct, ball)


def test_a_box_without_a_segment_is_measured_whole(ct, ball):
    known = lesion_statistics(ct, replace(ball, segment=None))
    share = 4 / 3 * np.pi * 8**3 / (18 * 17 * 16)
    assert known.measured_in == "box"
    assert known.volume_ml == pytest.approx(18 * 17 * 16 / 1000)
    assert known.hu_mean == pytest.approx(50 * share - 800 * (1 - share), abs=25)
    assert (known.hu_minimum, known.hu_maximum) == (-800, 50)


def test_what_lies_outside_the_ct_is_left_out(ct, ball):
    corner = replace(ball, centerRAS=transformed_points(ct.ijkToRAS, [0, 0, 0]), segment=None)
    assert lesion_statistics(ct, corner).hu_mean == pytest.approx(-800)


def test_a_segment_beside_the_ct_is_refused(ct, ball):
    away = ball.segment.ijkToRAS.copy()
    away[:3, 3] += 500
    with pytest.raises(BoxError, match="nothing of its segment lies inside CT"):
        lesion_statistics(ct, replace(ball, segment=CTVolume(ball.segment.array, away)))
