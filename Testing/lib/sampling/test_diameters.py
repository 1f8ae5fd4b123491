"""Diameters of segments whose size is known, on lattices as CTs have them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from LesionLib.geometry import CTVolume, LesionBox
from LesionLib.inference.messages import result_from_json, result_to_json
from LesionLib.inference.results import LesionResult
from LesionLib.sampling.diameters import axial_diameters
from LesionLib.sampling.resample import lattice_points
from LesionLib.sampling.statistics import LesionStatistics

SPACING = (0.7, 0.8, 1.25)


def ellipsoid(half_mm: tuple[float, float, float], degrees: float, matrix: np.ndarray, size=(60, 50, 30)) -> CTVolume:
    """Turned about the body axis, in the middle of a lattice."""
    points = lattice_points(size) @ matrix[:3, :3].T
    x, y, z = np.moveaxis(points - points.reshape(-1, 3).mean(axis=0), -1, 0)
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    a, b, h = half_mm
    inside = ((x * c + y * s) / a) ** 2 + ((y * c - x * s) / b) ** 2 + (z / h) ** 2 <= 1
    return CTVolume(inside.astype(np.uint8), matrix, name="ellipsoid")


def axial(spacing=SPACING) -> np.ndarray:
    return np.diag([-spacing[0], -spacing[1], spacing[2], 1.0])


@pytest.mark.parametrize("degrees", [0, 17, 45, 90, 128])
def test_the_axes_of_an_ellipsoid_are_found_within_a_voxel_however_it_lies(degrees):
    found = axial_diameters(ellipsoid((12, 6, 8), degrees, axial()))
    assert found.longest_mm == pytest.approx(24, abs=1)
    assert found.perpendicular_mm == pytest.approx(12, abs=1)
    assert found.mean_mm == (found.longest_mm + found.perpendicular_mm) / 2


def test_the_ends_are_where_the_diameters_are_measured():
    found = axial_diameters(ellipsoid((12, 6, 8), 30, axial()))
    longest, across = (np.subtract(*ends) for ends in (found.ends, found.perpendicular_ends))
    assert np.linalg.norm(longest) == pytest.approx(found.longest_mm, abs=2e-3)
    assert np.linalg.norm(across) == pytest.approx(found.perpendicular_mm, abs=2e-3)
    assert abs(longest @ across) < 0.01 * found.longest_mm * found.perpendicular_mm
    assert len({ends[2] for ends in (*found.ends, *found.perpendicular_ends)}) == 1  # all in one axial slice
    assert np.rad2deg(np.arctan2(longest[1], longest[0])) % 180 == pytest.approx(30, abs=6)


def test_a_long_lesion_along_the_body_is_measured_in_an_axial_slice_alone():
    assert axial_diameters(ellipsoid((5, 4, 16), 0, axial())).longest_mm == pytest.approx(10, abs=1)


def test_slices_stored_sagittally_are_measured_across_the_body_axis_all_the_same():
    sagittal = np.eye(4)
    sagittal[:3, :3] = np.array([[0, 0, 1.25], [-0.7, 0, 0], [0, -0.8, 0]])  # i to P, j to I, k to R
    found = axial_diameters(ellipsoid((6, 5, 15), 0, sagittal, size=(60, 60, 30)))
    assert found.longest_mm == pytest.approx(12, abs=1.3)


def test_one_voxel_is_as_long_as_its_longer_edge():
    mask = np.zeros((3, 3, 3), np.uint8)
    mask[1, 1, 1] = 1
    found = axial_diameters(CTVolume(mask, axial(), name="voxel"))
    assert (found.longest_mm, found.perpendicular_mm) == pytest.approx((0.8, 0.7))


def test_an_empty_segment_has_none():
    assert axial_diameters(CTVolume(np.zeros((3, 3, 3), np.uint8), axial(), name="nothing")) is None


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.05, 0.9))
def test_whatever_the_shape_the_diameters_are_ordered_and_fit_the_segment(seed, share):
    rng = np.random.default_rng(seed)
    mask = (rng.random((3, 9, 11)) < share).astype(np.uint8)
    found = axial_diameters(CTVolume(mask, axial(), name="blob"))
    if not mask.any():
        assert found is None
        return
    assert 0 < found.perpendicular_mm <= found.longest_mm + 1e-3
    assert found.longest_mm <= np.hypot(11 * SPACING[0], 9 * SPACING[1])
    flipped = axial_diameters(CTVolume(mask[:, ::-1, ::-1], axial(), name="blob"))
    assert flipped.longest_mm == pytest.approx(found.longest_mm, abs=1e-3)


def test_they_travel_with_the_answer_as_they_are():
    found = axial_diameters(ellipsoid((12, 6, 8), 30, axial()))
    statistics = LesionStatistics("segment", (24.0, 16.0, 12.0), 2.4, 40.0, 1.5, 30.0, 40.0, 50.0, found)
    box = LesionBox([0.0, 0.0, 0.0], [24.0, 16.0, 12.0])
    result = LesionResult("L1", box, "solid", {"solid": 1.0}, np.ones(1, np.float32), None, statistics=statistics)
    sent = json.loads(json.dumps(result_to_json(result)))
    assert result_from_json(sent, box, iter([result.embedding])).statistics == statistics
