"""Heat inside the lesion is measured in RAS; boxes, IoU and the pointing game do what the protocols say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from LesionLib.explain.heat_map import HeatMap
from LesionLib.explain.localisation import (
    THRESHOLDS,
    LocalisationCase,
    box_iou,
    choose_threshold,
    energy_share,
    localisation,
    localised,
    points_at_lesion,
)
from LesionLib.geometry import CTVolume, LesionBox, transformed_points
from LesionLib.sampling.resample import lattice_points
from scipy.spatial.transform import Rotation
from scipy.stats import binomtest
from torch.nn import functional


def lattice(degrees: float, spacing, origin=(3.0, -8.0, 5.0)) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = (
        Rotation.from_euler("xyz", [degrees, -degrees / 2, 2 * degrees], degrees=True).as_matrix() * spacing
    )
    matrix[:3, 3] = origin
    return matrix


def heat(array: np.ndarray, matrix: np.ndarray) -> HeatMap:
    return HeatMap(array.astype(np.float32), matrix, 1.0, "a")


def bump(shape: tuple[int, ...], center, width: float) -> np.ndarray:
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    return np.exp(-((grid - np.array(center)) ** 2).sum(axis=-1) / (2 * width**2))


def square(low, high, shape=(64, 64)) -> np.ndarray:
    truth = np.zeros(shape, bool)
    truth[low[0] : high[0], low[1] : high[1]] = True
    return truth


def case(cam: np.ndarray, truth: np.ndarray, *, label="a", predicted="a") -> LocalisationCase:
    return LocalisationCase(np.asarray(cam, dtype=np.float32), truth, label, predicted)


def test_energy_in_a_turned_box_is_the_sum_of_the_voxels_whose_centres_it_holds():
    matrix = lattice(17, [0.8, 0.9, 1.5])
    array = np.random.default_rng(0).random((12, 18, 20))
    center = transformed_points(matrix, [9, 10, 6])
    box = LesionBox(center, [8, 7, 9], Rotation.from_euler("z", 40, degrees=True).as_matrix())
    inside = 0.0
    for k, j, i in np.ndindex(array.shape):
        offset = box.axesRAS.T @ ((matrix @ [i, j, k, 1])[:3] - center)
        inside += array[k, j, i] * bool((np.abs(offset) <= box.sizeMm / 2).all())
    assert energy_share(heat(array, matrix), box) == pytest.approx(inside / array.sum(), rel=1e-5)
    assert 0.01 < inside / array.sum() < 0.5


def test_energy_in_a_segment_is_found_over_a_lattice_of_its_own():
    matrix = lattice(17, [1.0, 1.0, 2.0])
    array = np.random.default_rng(1).random((10, 16, 18))
    # The same ball, on a finer lattice that lies otherwise and covers only a part of the heat map.
    own = lattice(-25, [0.4, 0.4, 0.4], origin=(0, 0, 0))
    center = transformed_points(matrix, [8, 8, 5])
    own[:3, 3] = center - own[:3, :3] @ [20, 20, 20]
    ball = np.linalg.norm(transformed_points(own, lattice_points((41, 41, 41))) - center, axis=-1) < 6
    distance = np.linalg.norm(transformed_points(matrix, lattice_points((18, 16, 10))) - center, axis=-1)
    expected = array[distance < 6].sum() / array.sum()
    assert energy_share(heat(array, matrix), CTVolume(ball.astype(np.uint8), own)) == pytest.approx(expected, abs=0.01)


def test_heat_outside_the_segment_s_lattice_is_outside_and_an_empty_map_has_no_share():
    matrix = np.eye(4)
    mask = CTVolume(np.ones((4, 4, 4), np.uint8), matrix)
    array = np.zeros((8, 8, 8))
    array[1, 1, 1], array[6, 6, 6] = 1.0, 3.0
    assert energy_share(heat(array, matrix), mask) == 0.25
    assert energy_share(heat(array * 0, matrix), mask) == 0.0
    assert energy_share(heat(array * 0, matrix), LesionBox([0, 0, 0], [5, 5, 5])) == 0.0


@settings(deadline=None)
@given(st.lists(st.integers(0, 20), min_size=12, max_size=12))
def test_iou_is_monai_s_in_two_and_three_dimensions(numbers):
    from monai.data.box_utils import box_iou as monai_iou  # seconds, for whoever only collects

    for d in (2, 3):
        a, b = (np.array(numbers[o : o + 2 * d]).reshape(2, d) for o in (0, 12 - 2 * d))
        boxes = [(x.min(axis=0), x.max(axis=0) + 1) for x in (a, b)]
        expected = monai_iou(*(np.concatenate(box)[None].astype(np.float32) for box in boxes))[0, 0]
        assert box_iou(*boxes) == pytest.approx(float(expected), abs=1e-6)


@pytest.mark.parametrize(("coarse", "fine"), [((7, 7), (224, 224)), ((8, 8), (64, 64)), ((4, 5, 6), (16, 20, 24))])
def test_maps_are_laid_on_the_picture_as_torch_interpolates(coarse, fine):
    cam = np.random.default_rng(2).random(coarse)
    mode = "bilinear" if len(coarse) == 2 else "trilinear"
    up = functional.interpolate(torch.from_numpy(cam)[None, None], size=fine, mode=mode, align_corners=False)[
        0, 0
    ].numpy()
    for threshold in (0.3, 0.6, 0.9):
        hot = up >= threshold * up.max()
        # A truth that is the very box of the hot pixels has an IoU of 1, and no other box of theirs has.
        truth = np.zeros(fine, bool)
        places = np.argwhere(hot)
        truth[tuple(slice(a, b + 1) for a, b in zip(places.min(axis=0), places.max(axis=0), strict=True))] = True
        (found,) = localised([case(cam, truth)], threshold=threshold, iou=1 - 1e-9, boxes="whole")
        assert found


def test_the_three_ways_to_make_boxes_differ_where_a_map_has_two_parts():
    cam = np.zeros((64, 64))
    cam[10:30, 10:30], cam[40:46, 50:56] = 0.8, 1.0
    big, small, both = square((10, 10), (30, 30)), square((40, 50), (46, 56)), square((10, 10), (46, 56))
    for boxes, right in {"largest": (1, 0, 0), "any": (1, 1, 0), "whole": (0, 0, 1)}.items():
        found = localised([case(cam, t) for t in (big, small, both)], threshold=0.5, boxes=boxes)
        assert tuple(found) == right, boxes


def test_parts_that_touch_at_a_corner_are_one_part():
    cam = np.zeros((8, 8))
    cam[1:3, 1:3] = cam[3:5, 3:5] = 1.0
    assert localised([case(cam, square((1, 1), (5, 5), (8, 8)))], threshold=0.5, iou=0.99)[0]


def test_a_box_counts_from_the_asked_iou_on():
    cam = square((10, 10), (20, 20)).astype(float)
    truth = square((10, 10), (20, 30))  # IoU exactly .5
    for iou, right in ((0.3, True), (0.5, True), (0.51, False)):
        assert localised([case(cam, truth)], threshold=0.5, iou=iou)[0] == right


def test_pooled_figures_are_counted_per_class_with_empty_maps_as_misses():
    truth = square((20, 20), (40, 40))
    good, bad, empty = truth.astype(float), square((2, 2), (6, 6)).astype(float), np.zeros((64, 64))
    cases = [
        case(good, truth, label="cyst", predicted="cyst"),
        case(good, truth, label="cyst", predicted="HCC"),
        case(bad, truth, label="cyst", predicted="cyst"),
        case(empty, truth, label="cyst", predicted="cyst"),
        case(good, truth, label="HCC", predicted="HCC"),
    ]
    found = localisation(cases, threshold=0.4)
    cyst = found.classes["cyst"]
    assert (cyst.gt_known.hits, cyst.gt_known.n, cyst.top_1.hits, cyst.pointing.hits, cyst.empty) == (2, 4, 1, 2, 1)
    assert found.classes["HCC"].top_1.value == 1.0
    assert (found.all_cases.gt_known.hits, found.all_cases.gt_known.n) == (3, 5)
    assert found.mean_gt_known == pytest.approx((0.5 + 1.0) / 2)
    interval = binomtest(2, 4).proportion_ci(method="wilson")
    assert (cyst.gt_known.low, cyst.gt_known.high) == (interval.low, interval.high)
    assert str(cyst.gt_known) == f"0.500 ({interval.low:.3f}-{interval.high:.3f}, n = 4)"


def test_the_paper_s_figure_for_cysts_is_70_of_137():
    truth = square((20, 20), (40, 40))
    cases = [case(truth.astype(float) if n < 70 else np.zeros((64, 64)), truth, label="CYST") for n in range(137)]
    assert round(localisation(cases, threshold=0.5).classes["CYST"].gt_known.value, 4) == 0.5109


def test_the_threshold_fits_how_peaked_a_method_s_maps_are():
    rng = np.random.default_rng(3)
    truths, peaked, broad = [], [], []
    for _ in range(12):
        low = rng.integers(4, 30, 2)
        truth = square(low, low + 24)
        center = low + 11.5
        truths.append(truth)
        peaked.append(bump((64, 64), center, 5.0))
        broad.append(bump((64, 64), center, 25.0))
    chosen = {}
    for name, maps in (("peaked", peaked), ("broad", broad)):
        cases = [case(m, t) for m, t in zip(maps, truths, strict=True)]
        chosen[name] = choose_threshold(cases, iou=0.8)
        everywhere = [localised(cases, threshold=t, iou=0.8).mean() for t in THRESHOLDS]
        assert localised(cases, threshold=chosen[name], iou=0.8).mean() == max(everywhere) == 1.0
    assert chosen["peaked"] < 0.3
    assert chosen["broad"] > 0.7
    # Half the box's width is 12 pixels: exp(-12^2 / (2 s^2)).
    assert chosen["peaked"] == pytest.approx(np.exp(-(12**2) / 50), abs=0.06)
    assert chosen["broad"] == pytest.approx(np.exp(-(12**2) / 1250), abs=0.06)


def test_a_frequent_class_does_not_outvote_a_rare_one_when_the_threshold_is_chosen():
    wide, narrow = square((8, 8), (56, 56)), square((26, 26), (38, 38))
    cam = bump((64, 64), (31.5, 31.5), 12.0)
    frequent = [case(cam, wide, label="frequent")] * 9
    # Alone, each class wants its own; with a class that any threshold up to .4 serves, the rare one decides.
    rare = [case(cam, narrow, label="rare")]
    assert choose_threshold(frequent) < 0.3
    assert choose_threshold(rare) > 0.8
    some = [case(narrow.astype(float), narrow, label="frequent")] * 9
    assert choose_threshold([*some, *rare]) == pytest.approx(choose_threshold(rare), abs=0.1)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_the_scale_of_a_map_does_not_matter(scale):
    truth = square((20, 20), (40, 40))
    cam = bump((16, 16), (7, 7), 2.0)
    (found,), (scaled,) = (
        [localisation([case(c, truth)], threshold=0.4).all_cases] for c in (cam, (cam * scale).astype(np.float32))
    )
    assert found == scaled


def test_the_pointing_game_wants_the_hottest_point_on_the_lesion_itself():
    ring = square((10, 10), (50, 50)) & ~square((20, 20), (40, 40))
    assert points_at_lesion(case(bump((64, 64), (15, 30), 4), ring))
    assert not points_at_lesion(case(bump((64, 64), (30, 30), 4), ring))
    assert not points_at_lesion(case(np.ones((8, 8)), ring))
    assert not points_at_lesion(case(np.zeros((8, 8)), ring))


@settings(max_examples=50, deadline=None)
@given(
    arrays(np.float32, (6, 7), elements=st.floats(0, 100, width=32)),
    arrays(bool, (18, 21)).filter(lambda t: t.any()),
    st.floats(0.05, 0.95),
)
def test_any_map_has_an_answer_and_a_stricter_iou_never_more_hits(cam, truth, threshold):
    c = case(cam, truth)
    found = [localised([c], threshold=threshold, iou=iou, boxes="any")[0] for iou in (0.1, 0.3, 0.5, 0.9)]
    assert found == sorted(found, reverse=True)
    assert localised([c], threshold=threshold, boxes="any")[0] >= localised([c], threshold=threshold)[0]
    if not cam.any():
        assert not any(found)


def test_cubes_are_localised_as_pictures_are():
    truth = np.zeros((16, 32, 32), bool)
    truth[2:12, 4:14, 10:20] = True
    cam = bump((16, 32, 32), (6.5, 8.5, 14.5), 4.0)
    found = localisation([case(cam, truth), case(cam[:, ::-1], truth)], threshold=0.4)
    assert (found.all_cases.gt_known.hits, found.all_cases.pointing.hits) == (1, 1)


def test_what_cannot_be_localised_is_refused():
    truth = square((20, 20), (40, 40))
    with pytest.raises(ValueError, match="with a lesion"):
        case(np.ones((8, 8)), truth & False)
    with pytest.raises(ValueError, match="in as many dimensions"):
        case(np.ones((8, 8, 8)), truth)
    for bad in (np.full((8, 8), -1.0), np.full((8, 8), np.nan)):
        with pytest.raises(ValueError, match="finite and not negative"):
            case(bad, truth)
    with pytest.raises(ValueError, match="boxes must be one of"):
        localised([case(np.ones((8, 8)), truth)], threshold=0.5, boxes="best")
    with pytest.raises(ValueError, match="no cases"):
        localisation([], threshold=0.5)
    with pytest.raises(ValueError, match="at least one case"):
        choose_threshold([])
    assert replace(case(np.ones((8, 8)), truth), label="b").label == "b"
