"""Planes as channels: the right values at the right place, nothing cropped, and padding that is what it says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from lattices import middle, turned
from LesionLib.errors import BoxError
from LesionLib.geometry import CTVolume, LesionBox, transformed_points
from LesionLib.sampling.planes import (
    KeySliceSpec,
    OrthogonalPlanesSpec,
    PlaneSample,
    SliceWithNeighboursSpec,
    key_slice,
    orthogonal_planes,
    slice_with_neighbours,
)
from scipy import ndimage

KINDS = {
    "slice with neighbours": (slice_with_neighbours, SliceWithNeighboursSpec(size=48, slices="every", max_slices=3)),
    "box with neighbours": (slice_with_neighbours, SliceWithNeighboursSpec(size=40, view="box", margin_mm=2.0)),
    "orthogonal planes": (orthogonal_planes, OrthogonalPlanesSpec(rows=48, columns=40)),
    "key slice": (key_slice, KeySliceSpec(size=32)),
    "key slice at the CT's pixels": (key_slice, KeySliceSpec(size=32, spacing_mm=None)),
}
BOX_VIEWS = [name for name in KINDS if name != "slice with neighbours"]


@pytest.fixture(params=sorted(KINDS))
def kind(request):
    return KINDS[request.param]


def pixel_places(sample: PlaneSample) -> np.ndarray:
    """RAS of every pixel, shape (patch, channel, row, column, 3)."""
    rows, columns = sample.hu.shape[2:]
    row, column = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
    index = np.stack([column, row, np.zeros_like(row)], axis=-1)
    return np.stack([[transformed_points(m, index) for m in patch] for patch in sample.sampleToRAS])


def shown(sample: PlaneSample) -> np.ndarray:
    return np.broadcast_to(sample.region, sample.hu.shape)


def distances(ct: CTVolume, center: np.ndarray) -> np.ndarray:
    """From each voxel of the CT to a place, in mm."""
    voxels = transformed_points(ct.ijkToRAS, np.moveaxis(np.indices(ct.array.shape)[::-1], 0, -1))
    return np.linalg.norm(voxels - center, axis=-1)


def ball_mask(ct: CTVolume, center: np.ndarray, radius: float) -> CTVolume:
    return CTVolume((distances(ct, center) < radius).astype(np.uint8), ct.ijkToRAS, "ball")


@pytest.mark.parametrize("axes", [np.eye(3), turned((0.3, 1, 0.2), 33)], ids=["upright", "turned"])
def test_the_values_are_scipy_s_at_the_places_the_sample_names(ct, kind, axes):
    cut, spec = kind
    sample = cut(ct, LesionBox(middle(ct) + [1.3, -0.4, 0.6], [14.0, 11.0, 9.0], axes), spec)
    ijk = transformed_points(ct.rasToIJK, pixel_places(sample))
    kji = np.moveaxis(ijk[..., ::-1], -1, 0)
    expected = ndimage.map_coordinates(ct.array.astype(float), kji, order=1, mode="nearest")
    compared = shown(sample) & ((ijk > -0.5) & (ijk < np.array(ct.sizeIJK) - 0.5)).all(axis=-1)
    assert compared.sum() > 0.75 * shown(sample).sum()
    np.testing.assert_allclose(sample.hu[compared], expected[compared], atol=0.01)
    assert sample.hu.dtype == np.float32
    assert sample.hu.shape[:2] == sample.sampleToRAS.shape[:2]


@pytest.mark.parametrize("turn", [(0, 0, 1, 35), (1, 0, 0, 30), (2, -1, 1, 70)])
def test_a_bright_spot_s_pixel_maps_back_to_its_place_within_a_pixel(ct, kind, turn):
    cut, spec = kind
    target = middle(ct) + [0.6, -0.8, 0.4]
    axes = turned(turn[:3], turn[3])
    box = LesionBox(target + axes @ [1.0, 2.0, 0.0], [18.0, 16.0, 15.0], axes)
    width_mm = 2.0 if ct.sliceDistanceMm < 4 else 4.0
    ball = 1500 * np.exp(-((distances(ct, target) / width_mm) ** 2)) - 1000
    sample = cut(replace(ct, array=np.round(ball).astype(np.int16)), box, spec)
    places = pixel_places(sample)
    for channel in sample.mapped_channels:
        weights = np.clip(sample.hu[:, channel] + 990, 0, None) * sample.region[channel]
        patch = weights.sum(axis=(1, 2)).argmax()
        found = (places[patch, channel] * weights[patch, ..., None]).sum(axis=(0, 1)) / weights[patch].sum()
        to_ras = sample.sampleToRAS[patch, channel]
        column, row, off_plane = np.linalg.solve(to_ras[:3, :3], found - target)
        assert np.hypot(column, row) < 1.0
        assert abs(off_plane) < 2.0 / np.linalg.norm(to_ras[:3, 2]) + 1.0


@pytest.mark.parametrize("name", BOX_VIEWS)
def test_a_larger_lesion_is_shown_smaller_and_never_cropped(ct, name):
    cut, spec = KINDS[name]
    box = LesionBox(middle(ct), [90.0, 120.0, 150.0], turned((0.1, 0.2, 1), 40))
    sample = cut(ct, box, spec)
    rows, columns = sample.hu.shape[2:]
    for to_ras in sample.sampleToRAS.reshape(-1, 4, 4):
        corners = transformed_points(np.linalg.inv(to_ras), box.cornersRAS)[:, :2]
        assert (corners > -0.5 - 1e-6).all()
        assert (corners < np.array([columns, rows]) - 0.5 + 1e-6).all()
    finest = cut(ct, replace(box, sizeMm=box.sizeMm / 20), spec).pixel_mm
    assert sample.pixel_mm > 2 * finest


@pytest.mark.parametrize("slices", ["middle", "every"])
@pytest.mark.parametrize("edge_mm", [3.0, 30.0])
def test_whole_slices_are_in_the_picture_whatever_the_box(ct, edge_mm, slices):
    box = LesionBox(transformed_points(ct.ijkToRAS, [20, 40, 15]), [edge_mm] * 3, turned((1, 1, 0), 20))
    sample = slice_with_neighbours(ct, box, SliceWithNeighboursSpec(size=64, slices=slices))
    for to_ras in sample.sampleToRAS[:, 1]:
        k = (ct.rasToIJK @ to_ras[:, 3])[2]
        assert k == pytest.approx(round(k), abs=1e-6)
        corners = transformed_points(ct.ijkToRAS, [[i, j, k] for i in (-0.5, 59.5) for j in (-0.5, 63.5)])
        index = transformed_points(np.linalg.inv(to_ras), corners)[:, :2]
        assert index.min() > -0.6
        assert index.max() < 63.6
    if slices == "middle":
        assert len(sample.hu) == 1
        assert np.ptp(index, axis=0).max() == pytest.approx(64, abs=0.2)


def test_channels_are_the_slice_below_the_slice_itself_and_the_one_above_unblurred():
    array = np.random.default_rng(2).integers(-1000, 400, (9, 64, 64)).astype(np.int16)
    ct = CTVolume(array, np.diag([0.8, 0.8, 3.0, 1.0]))
    box = LesionBox([20.0, 20.0, 12.9], [9.0, 9.0, 8.9])
    sample = slice_with_neighbours(ct, box, SliceWithNeighboursSpec(size=64))
    np.testing.assert_allclose(sample.hu[0], array[3:6], atol=0.01)
    assert sample.outside_share == 0
    every = slice_with_neighbours(ct, box, SliceWithNeighboursSpec(size=64, slices="every"))
    np.testing.assert_allclose(every.hu, np.stack([array[2:5], array[3:6], array[4:7]]), atol=0.01)
    few = slice_with_neighbours(ct, box, SliceWithNeighboursSpec(size=64, slices="every", max_slices=2))
    assert 1 <= len(few.hu) <= 2
    for patch in few.hu:  # a neighbour is the CT's next slice, also where slices of the box are left out
        k = next(k for k in range(9) if np.allclose(patch[1], array[k], atol=0.01))
        np.testing.assert_allclose(patch, array[k - 1 : k + 2], atol=0.01)


def test_a_neighbour_beyond_the_first_slice_is_that_slice_again_and_counts_as_outside():
    array = np.random.default_rng(2).integers(-1000, 400, (5, 32, 32)).astype(np.int16)
    ct = CTVolume(array, np.diag([1.0, 1.0, 3.0, 1.0]))
    sample = slice_with_neighbours(ct, LesionBox([16, 16, 0.0], [8, 8, 2]), SliceWithNeighboursSpec(size=32))
    np.testing.assert_allclose(sample.hu[0], array[[0, 0, 1]], atol=0.01)
    assert sample.outside_share == pytest.approx(1 / 3)


@pytest.mark.parametrize("flips", [(1, 1, -1), (1, -1, 1), (-1, -1, -1)])
@pytest.mark.parametrize("direction", [np.eye(3), np.eye(3)[:, [0, 2, 1]], np.eye(3)[:, [1, 2, 0]]])
def test_whole_slices_look_the_same_however_the_ct_is_stored(flips, direction):
    array = np.random.default_rng(4).integers(-1000, 400, (7, 20, 24)).astype(np.int16)
    matrix = np.eye(4)
    matrix[:3, :3] = turned((1, 2, 1), 9) @ direction @ np.diag([1.0, 1.0, 2.0])
    ct = CTVolume(array, matrix)
    stored = matrix.copy()
    stored[:3, :3] *= flips
    last = np.array(ct.sizeIJK) - 1
    stored[:3, 3] = transformed_points(matrix, np.where(np.array(flips) < 0, last, 0))
    other = CTVolume(array[:: flips[2], :: flips[1], :: flips[0]].transpose(0, 2, 1), stored[:, [1, 0, 2, 3]])
    box = LesionBox(transformed_points(matrix, [12, 9, 3]), [5, 5, 5])
    spec = SliceWithNeighboursSpec(size=32)
    expected, got = slice_with_neighbours(ct, box, spec), slice_with_neighbours(other, box, spec)
    np.testing.assert_allclose(got.hu, expected.hu, atol=0.01)
    np.testing.assert_allclose(got.sampleToRAS, expected.sampleToRAS, atol=1e-9)
    column, row = expected.sampleToRAS[0, 1, :3, :2].T
    assert column[np.abs(column).argmax()] > 0
    assert row[np.abs(row).argmax()] > 0


def test_what_is_not_shown_is_fill_and_its_share_is_told(ct):
    spec = SliceWithNeighboursSpec(size=40, view="box", spacing_mm=1.0, margin_mm=4.0, fill_hu=-777.0)
    sample = slice_with_neighbours(ct, LesionBox(middle(ct), [12.0, 6.0, 9.0]), spec)
    assert (sample.hu[~shown(sample)] == -777.0).all()
    assert sample.region.sum() == 3 * 20 * 14
    assert sample.padded_share == pytest.approx(1 - 20 * 14 / 40**2)
    assert key_slice(ct, LesionBox(middle(ct), [5, 5, 5]), KeySliceSpec()).padded_share == 0


@pytest.mark.parametrize("margin_mm", [0.0, 3.0])
def test_orthogonal_planes_are_padded_with_the_mean_of_what_they_show(ct, margin_mm):
    spec = OrthogonalPlanesSpec(rows=60, columns=50, spacing_mm=0.5, margin_mm=margin_mm)
    sample = orthogonal_planes(ct, LesionBox(middle(ct), [8.0, 12.0, 10.0], turned((0, 1, 1), 15)), spec)
    edges = np.array([8.0, 12.0, 10.0]) + 2 * margin_mm
    for channel, (x, y) in enumerate([(0, 1), (0, 2), (1, 2)]):
        region, hu = sample.region[channel], sample.hu[0, channel]
        assert np.ptp(hu[~region]) == 0
        assert hu[~region][0] == pytest.approx(hu[region].mean(dtype=float), abs=0.01)
        rows, columns = np.nonzero(region)
        assert (np.ptp(columns) + 1) * 0.5 == pytest.approx(edges[x], abs=0.5)
        assert (np.ptp(rows) + 1) * 0.5 == pytest.approx(edges[y], abs=0.5)
    assert sample.padded_share == pytest.approx(1 - sample.region.mean())


def test_the_paper_s_picture_is_252_rows_by_210_columns_at_one_spacing():
    ct = CTVolume(np.zeros((30, 64, 64), np.int16), np.diag([0.7, 0.7, 5.0, 1.0]))
    sample = orthogonal_planes(ct, LesionBox([22, 22, 75], [20, 15, 30]), OrthogonalPlanesSpec())
    assert sample.hu.shape == (1, 3, 252, 210)
    in_plane = np.linalg.norm(sample.sampleToRAS[0, :, :3, :2], axis=1)
    np.testing.assert_allclose(in_plane, 0.75)
    np.testing.assert_allclose(np.linalg.norm(sample.sampleToRAS[0, :, :3, 2], axis=1), [5.0, 0.7, 0.7])


@pytest.mark.parametrize("axes", [np.eye(3), turned((0, 0, 1), 50), turned((1, 1, 0), 25)])
def test_with_a_segment_the_planes_cross_in_its_largest_section(ct, axes):
    ball = middle(ct) + axes @ [3.0, -2.5, 2.0]
    box = LesionBox(middle(ct), [22.0, 20.0, 24.0], axes)
    without = orthogonal_planes(ct, box, OrthogonalPlanesSpec()).sampleToRAS[0]
    depth = [(np.linalg.inv(m) @ [*box.centerRAS, 1])[2] for m in without]
    np.testing.assert_allclose(depth[1:], 0, atol=1e-6)
    assert abs(depth[0]) <= 0.5 + 1e-6  # the CT's own slice nearest the middle
    sample = orthogonal_planes(ct, box, OrthogonalPlanesSpec(), mask=ball_mask(ct, ball, 6.0))
    off_plane = [float((np.linalg.inv(m) @ [*ball, 1])[2] * np.linalg.norm(m[:3, 2])) for m in sample.sampleToRAS[0]]
    assert abs(off_plane[0]) <= 0.75 * ct.sliceDistanceMm
    assert np.abs(off_plane[1:]).max() < 1.0
    # The box stays in the middle of each patch, so nothing of it is cropped.
    for m in sample.sampleToRAS[0]:
        center = transformed_points(np.linalg.inv(m), box.centerRAS)
        np.testing.assert_allclose(center[:2], [104.5, 125.5], atol=1e-6)


def test_a_segment_elsewhere_or_with_several_labels_is_refused(ct):
    box = LesionBox(middle(ct), [6.0, 6.0, 12.0])
    elsewhere = ball_mask(ct, transformed_points(ct.ijkToRAS, [3, 3, 15]), 2.0)
    with pytest.raises(BoxError, match="give the segment of this lesion"):
        orthogonal_planes(ct, box, OrthogonalPlanesSpec(), mask=elsewhere)
    labels = ball_mask(ct, middle(ct), 9.0)
    with pytest.raises(BoxError, match="other than 0 and 1"):
        orthogonal_planes(ct, box, OrthogonalPlanesSpec(), mask=replace(labels, array=labels.array * 3))


def test_a_box_in_the_middle_shows_nothing_from_outside_and_one_outside_is_refused(ct, kind):
    cut, spec = kind
    share = cut(ct, LesionBox(middle(ct), [6.0, 6.0, 6.0]), spec).outside_share
    with pytest.raises(BoxError, match="outside the volume"):
        cut(ct, LesionBox([900, 0, 0], [5, 5, 5]), spec)
    # Sheared slices are shifted against each other: a patch of several whole ones shows their missing corners.
    whole_and_sheared = getattr(spec, "view", "box") == "slice" and ct.name == "gantry tilt"
    assert share < 0.1 if whole_and_sheared else share == 0


@pytest.mark.parametrize("name", BOX_VIEWS)
def test_half_a_box_outside_gives_half_a_share_and_the_edge_repeated(name):
    ct = CTVolume(np.full((30, 60, 60), -500, np.int16), np.diag([1.0, 1.0, 2.0, 1.0]))
    cut, spec = KINDS[name]
    sample = cut(ct, LesionBox([-0.5, 30, 30], [10, 10, 10]), spec)
    assert sample.outside_share == pytest.approx(0.5 if name != "orthogonal planes" else 1 / 3, abs=0.18)
    np.testing.assert_array_equal(sample.hu[shown(sample)], -500)


def test_padding_does_not_count_what_lies_outside_the_volume():
    array = np.random.default_rng(0).integers(-1000, 400, (20, 40, 40)).astype(np.int16)
    ct = CTVolume(array, np.eye(4))
    sample = orthogonal_planes(ct, LesionBox([1.0, 20, 10], [12, 8, 8]), OrthogonalPlanesSpec(rows=32, columns=32))
    inside = pixel_places(sample)[0, 0, ..., 0] >= -0.5
    measured = sample.hu[0, 0][sample.region[0] & inside]
    assert sample.hu[0, 0, 0, 0] == pytest.approx(measured.mean(dtype=float), abs=0.01)
    assert not inside[sample.region[0]].all()


@pytest.mark.parametrize("size", [[0.1, 0.1, 0.1], [0.2, 30.0, 0.3]])
def test_a_box_thinner_than_a_pixel_still_gives_a_finite_picture(ct, kind, size):
    cut, spec = kind
    sample = cut(ct, LesionBox(middle(ct), size), spec)
    assert np.isfinite(sample.hu).all()
    assert sample.region.any(axis=(1, 2)).all()
    assert np.isfinite(sample.outside_share)


def test_the_key_slice_is_the_ct_s_own_nearest_the_middle_of_the_box():
    array = np.random.default_rng(3).integers(-1000, 400, (12, 64, 64)).astype(np.int16)
    ct = CTVolume(array, np.diag([0.8, 0.8, 4.0, 1.0]))
    box = LesionBox([31.5 * 0.8, 31.5 * 0.8, 25.5], [10, 10, 40])
    for spec in (KeySliceSpec(), KeySliceSpec(spacing_mm=None)):
        sample = key_slice(ct, box, spec)
        np.testing.assert_allclose(sample.hu[0, 0], array[6], atol=0.01)
        assert sample.pixel_mm == pytest.approx(0.8)
