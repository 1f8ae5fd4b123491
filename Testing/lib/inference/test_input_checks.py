"""What is unusual about the input is named and said; what is usual is not."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from LesionLib.errors import InputWarning, WarningName
from LesionLib.geometry import CTVolume, LesionBox
from LesionLib.inference.classifier import Classifier
from LesionLib.inference.input_checks import box_warnings, volume_warnings
from LesionLib.inference.results import RunInfo, abstention_codes, as_csv, as_json
from LesionLib.model.bundle import Bundle, load_bundle
from LesionLib.phantom.chest import chest_phantom
from LesionLib.phantom.nodules import nodule_patch
from LesionLib.sampling.resample import AxialStack, AxialStackSpec, axial_stack


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return load_bundle("lung-nodule-malignancy")


@pytest.fixture(scope="module")
def patch():
    return nodule_patch(kind="lobulated", diameter_mm=14.0, seed=1)


def named(bundle: Bundle, volume: CTVolume, box: LesionBox) -> set[WarningName]:
    return {warning.name for warning in Classifier(bundle, volume).classify(box).warnings}


def test_an_ordinary_nodule_on_an_ordinary_ct_has_no_warning(bundle, patch):
    assert named(bundle, patch[0], patch[1].box.grown(1.5)) == set()


@pytest.mark.parametrize(
    "change", [lambda a: (a + 1024) / 8, lambda a: a + 1024, lambda a: a * 0 + 40, lambda a: a / 1000]
)
def test_values_that_are_not_hu_are_named(patch, change):
    (warning,) = volume_warnings(replace(patch[0], array=change(patch[0].array.astype(np.float32))))
    assert warning.name is WarningName.NOT_HU
    assert "Hounsfield" in warning


def test_what_the_reader_noticed_travels_on(patch):
    noticed = InputWarning(WarningName.UNEVEN_SLICES, "The slices are unevenly spaced.")
    assert volume_warnings(replace(patch[0], warnings=(noticed,))) == (noticed,)


def test_boxes_unlike_those_in_training_are_named(bundle, patch):
    center = patch[1].box.centerRAS
    assert WarningName.BOX_SIZE in named(bundle, patch[0], LesionBox(center, [1.0, 8.0, 8.0]))
    assert {WarningName.BOX_SIZE, WarningName.OUTSIDE_VOLUME} <= named(
        bundle, patch[0], LesionBox(center, [80, 80, 80])
    )


def test_a_box_half_outside_is_named_with_its_share(bundle, patch):
    edge = patch[0].ijkToRAS @ [-0.5, 30, 20, 1]
    result = Classifier(bundle, patch[0]).classify(LesionBox(edge[:3], [10, 10, 10]))
    (warning,) = [w for w in result.warnings if w.name is WarningName.OUTSIDE_VOLUME]
    assert "% of the box" in warning


def test_thick_slices_and_coarse_pixels_are_named(bundle):
    """A cube lies between the slices: how many pass through the box is no question to it."""
    volume, nodule = nodule_patch(kind="round", diameter_mm=14.0, seed=2, spacing_mm=(1.4, 1.4, 6.0))
    thin = LesionBox(nodule.box.centerRAS, [14, 14, 4.0])
    assert {WarningName.SLICE_DISTANCE, WarningName.PIXEL_SPACING} <= named(bundle, volume, thin)


def test_a_warning_is_written_as_its_sentence_with_its_name_beside_it(bundle, patch):
    result = Classifier(bundle, patch[0]).classify(LesionBox(patch[1].box.centerRAS, [1.0, 8.0, 8.0], name="a"))
    run = RunInfo("CT", "m", "1.0.0", "0" * 64, "cpu")
    (written,) = json.loads(json.dumps(as_json(run, [result])))["results"]
    assert "box-size" in written["warningNames"]
    assert len(written["warnings"]) == len(written["warningNames"])
    header, row = as_csv(run, [result]).splitlines()
    assert header.startswith("name,label,p_benign,p_malignant,center_r,center_a,center_s,size_x,size_y,size_z,grad_cam")
    assert "The box is 1.0 x 8.0 x 8.0 mm" in row


@pytest.mark.parametrize(
    ("low", "high", "dtype"), [(0, 256, np.uint8), (0, 4096, np.uint16), (0, 4096, np.int16), (-1, 1, np.float32)]
)
def test_pictures_and_raw_scanner_values_are_not_taken_for_hu(low, high, dtype):
    array = np.random.default_rng(0).uniform(low, high, (10, 20, 30)).astype(dtype)
    (warning,) = volume_warnings(CTVolume(array, np.eye(4)))
    assert warning.name is WarningName.NOT_HU
    assert "\n" not in warning


def test_a_whole_chest_and_a_large_one_look_like_hu():
    chest = chest_phantom(seed=0, spacing_mm=(4.0, 4.0, 6.0), kinds=()).volume
    assert volume_warnings(chest) == ()
    large = replace(chest, array=np.tile(chest.array, (3, 2, 2)))
    assert large.array.size > 400_000
    assert volume_warnings(large) == ()


def test_a_few_metal_voxels_do_not_make_a_ct_suspect(patch):
    array = patch[0].array.copy()
    array.ravel()[:: array.size // 20] = 20_000
    assert volume_warnings(replace(patch[0], array=array)) == ()


@pytest.fixture
def stack(patch) -> AxialStack:
    return axial_stack(patch[0], patch[1].box, AxialStackSpec())


def names(found: tuple[InputWarning, ...]) -> set[WarningName]:
    return {warning.name for warning in found}


@pytest.mark.parametrize(("factor", "expected"), [(0.99, True), (1.0, False)])
def test_edges_shorter_than_any_in_training_are_named(bundle, patch, stack, factor, expected):
    smallest, largest = bundle.box_size_mm
    box = LesionBox(patch[1].box.centerRAS, [smallest * factor, largest, largest])
    assert (WarningName.BOX_SIZE in names(box_warnings(patch[0], box, stack, bundle))) is expected


@pytest.mark.parametrize(("factor", "expected"), [(1.01, True), (1.0, False)])
def test_edges_longer_than_any_in_training_are_named_with_both_sizes(bundle, patch, stack, factor, expected):
    smallest, largest = bundle.box_size_mm
    box = LesionBox(patch[1].box.centerRAS, [smallest, smallest, largest * factor])
    found = [w for w in box_warnings(patch[0], box, stack, bundle) if w.name is WarningName.BOX_SIZE]
    assert bool(found) is expected
    assert all(f"from {smallest:g} to {largest:g} mm" in warning for warning in found)


@pytest.mark.parametrize(("share", "expected"), [(0.0, False), (0.02, False), (0.021, True), (1.0, True)])
def test_a_share_outside_of_more_than_a_fiftieth_is_named(bundle, patch, stack, share, expected):
    found = box_warnings(patch[0], patch[1].box, replace(stack, outside_share=share), bundle)
    assert (WarningName.OUTSIDE_VOLUME in names(found)) is expected


@pytest.mark.parametrize(("factor", "expected"), [(1.0, False), (1.05, True)])
def test_slices_further_apart_than_in_training_are_named_by_their_true_distance(bundle, patch, stack, factor, expected):
    thickest = bundle.slice_distance_mm[1]
    matrix = np.diag([0.7, 0.7, thickest * factor, 1.0])
    matrix[1, 2] = 2.0  # a tilted gantry makes the step longer than the distance
    found = box_warnings(replace(patch[0], ijkToRAS=matrix), patch[1].box, stack, bundle)
    assert (WarningName.SLICE_DISTANCE in names(found)) is expected


def test_one_slice_is_named_and_two_are_not(bundle, patch, stack):
    for count, expected in ((1, True), (2, False)):
        found = box_warnings(patch[0], patch[1].box, replace(stack, hu=stack.hu[:count]), bundle)
        assert (WarningName.FEW_SLICES in names(found)) is expected


def test_a_model_of_one_slice_by_design_is_not_warned_of_one_slice(bundle, patch, stack):
    one = replace(stack, hu=stack.hu[:1])
    for most, expected in ((1, False), (2, True)):
        found = box_warnings(patch[0], patch[1].box, one, replace(bundle, spec=AxialStackSpec(max_slices=most)))
        assert (WarningName.FEW_SLICES in names(found)) is expected


def test_an_answer_of_a_phantom_model_is_warned_of_and_no_other(bundle, patch, stack):
    for hu, expected in (((-1000.0, 1000.0), True), (None, False)):
        found = box_warnings(patch[0], patch[1].box, stack, replace(bundle, phantom_hu=hu))
        assert (WarningName.PHANTOM in names(found)) is expected
        assert any("On a real CT its answer means nothing" in warning for warning in found) is expected
        assert WarningName.OUT_OF_DISTRIBUTION not in names(found)


def test_a_phantom_model_refuses_a_box_as_dense_as_none_of_its_own(bundle, patch, stack):
    found = box_warnings(patch[0], patch[1].box, stack, replace(bundle, phantom_hu=(900.0, 1000.0)))
    (refused,) = (warning for warning in found if warning.name is WarningName.OUT_OF_DISTRIBUTION)
    assert "those of the computed lesions held 900 to 1000 HU" in refused
    assert abstention_codes(found) == (WarningName.OUT_OF_DISTRIBUTION,)


def test_a_crop_of_lung_alone_is_no_reason_to_doubt_the_units():
    rng = np.random.default_rng(0)
    lung = rng.normal(-870, 40, (12, 40, 40)).round()
    lung[5:7, 15:22, 15:22] = -450  # a small nodule of ground glass; nothing here is as dense as water
    assert volume_warnings(CTVolume(lung.astype(np.int16), np.eye(4))) == ()


def test_values_from_which_the_intercept_was_taken_twice_are_named(patch):
    (warning,) = volume_warnings(replace(patch[0], array=patch[0].array - 1024))
    assert warning.name is WarningName.NOT_HU
