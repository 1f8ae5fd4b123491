"""All kinds of input: their specs travel as JSON, their input is as their spec says, and heat finds its way back."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from functools import cache

import jsonschema
import numpy as np
import pytest
import torch
from lattices import middle, noise_ct, turned
from LesionLib.errors import BoxError, BundleError
from LesionLib.explain.heat_map import HeatMap, resample_to_ct
from LesionLib.geometry import CTVolume, LesionBox, transformed_points
from LesionLib.model.folder import golden_case
from LesionLib.sampling.frangi import MODES, frangi
from LesionLib.sampling.inputs import (
    KIND_SCHEMAS,
    KINDS,
    Sample,
    Spec,
    crop_sample,
    kind_name,
    network_input,
    section_from_spec,
    spec_from_section,
)
from LesionLib.sampling.planes import KeySliceSpec, OrthogonalPlanesSpec, PlaneSample, SliceWithNeighboursSpec
from LesionLib.sampling.resample import AxialStackSpec, axial_stack, windowed
from LesionLib.sampling.volumes import CubeSample, IsotropicCubeSpec, ShapeMaskSpec
from scipy import ndimage

TWO_WINDOWS = ((-1000.0, 400.0), (-160.0, 240.0))
SPECS = {
    "axial stack": AxialStackSpec(size=32, spacing_mm=1.0),
    "fitted axial stack": AxialStackSpec(size=32, fit_box=True),
    "whole slice": SliceWithNeighboursSpec(size=64),
    "every whole slice": SliceWithNeighboursSpec(size=64, slices="every", windows_hu=TWO_WINDOWS),
    "box with neighbours": SliceWithNeighboursSpec(size=40, view="box", slices="every", spacing_mm=0.8),
    "orthogonal planes": OrthogonalPlanesSpec(rows=48, columns=40, margin_mm=3.0),
    "key slice": KeySliceSpec(size=40),
    "key slice at the CT's pixels": KeySliceSpec(size=40, spacing_mm=None),
    "filtered key slice": KeySliceSpec(size=40, frangi="blob"),
    "key slice of lung or tissue": KeySliceSpec(size=40, air_windows_hu=((-1500.0, 500.0),)),
    "cube": IsotropicCubeSpec(edge_mm=32.0, voxels=32, windows_hu=TWO_WINDOWS),
    "shape": ShapeMaskSpec(edge_mm=32.0, voxels=16, interpolation="nearest"),
}


@pytest.fixture(params=sorted(SPECS))
def spec(request):
    return SPECS[request.param]


def segment(ct: CTVolume) -> CTVolume:
    places = transformed_points(ct.ijkToRAS, np.moveaxis(np.indices(ct.array.shape)[::-1], 0, -1))
    return CTVolume((np.linalg.norm(places - middle(ct), axis=-1) < 7.0).astype(np.uint8), ct.ijkToRAS, "ball")


def a_box(ct: CTVolume, degrees: float = 20.0) -> LesionBox:
    return LesionBox(middle(ct), [20.0, 18.0, 16.0], turned((1, 0.5, 2), degrees))


@cache
def seen_with_segment(ct: CTVolume, spec: Spec, degrees: float = 20.0) -> Sample:
    """What the model sees of `a_box` with the ball as its segment."""
    return crop_sample(ct, replace(a_box(ct, degrees), segment=segment(ct)), spec)


def map_of(sample, patch: int, cell: tuple[int, ...], cells: int = 8) -> np.ndarray:
    """A map with one hot cell; ``cell`` is (row, column), or (slice, row, column) for a cube."""
    cam = np.zeros((len(sample.hu), *[cells] * len(cell)), np.float32)
    cam[patch, *cell] = 1.0
    return cam


def warmest_around(heat: HeatMap, places: np.ndarray) -> np.ndarray:
    """The hottest of the 27 voxels around each place."""
    index = np.round(transformed_points(np.linalg.inv(heat.ijkToRAS), places)).astype(int)
    k, j, i = np.clip(index[..., ::-1], 0, np.array(heat.array.shape) - 1).T
    return ndimage.maximum_filter(heat.array, 3)[k, j, i]


def test_specs_survive_the_way_through_json(spec):
    section = section_from_spec(spec)
    text = json.dumps(section)
    assert json.loads(text) == section
    again = spec_from_section(json.loads(text))
    assert again == spec
    assert type(again) is type(spec)
    assert hash(again) == hash(spec)


@pytest.mark.parametrize("name", sorted(KINDS))
def test_every_kind_s_defaults_fit_its_schema_which_names_every_field(name):
    default = KINDS[name].spec_class()
    jsonschema.Draft202012Validator.check_schema(KIND_SCHEMAS[name])
    jsonschema.validate(section_from_spec(default), KIND_SCHEMAS[name])
    assert set(KIND_SCHEMAS[name]["properties"]) == {"kind", *(f.name for f in fields(default))}
    assert kind_name(default) == section_from_spec(default)["kind"] == name


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"kind": "oblique_stack"}, "unknown kind of input 'oblique_stack'; known are axial_stack"),
        ({"kind": ["key_slice"]}, "unknown kind"),
        ({"size": 0}, r"\$\.size: 0 is less than"),
        ({"spacing": 1.0}, "'spacing' was unexpected"),
        ({"spacing_mm": "0.8"}, r"\$\.spacing_mm"),
    ],
)
def test_a_section_that_is_not_as_it_should_be_is_refused_in_one_line(changed, message):
    section = {**section_from_spec(KeySliceSpec()), **changed}
    with pytest.raises(BundleError, match=message) as error:
        spec_from_section(section)
    assert "\n" not in str(error.value)


def test_a_section_without_one_of_its_fields_is_refused():
    section = section_from_spec(SliceWithNeighboursSpec())
    del section["view"]
    with pytest.raises(BundleError, match="'view' is a required property"):
        spec_from_section(section)


def test_every_kind_is_cut_and_fed_to_a_network_as_its_shape_says(spec):
    volume, box = golden_case()
    mask = CTVolume((volume.array > -400).astype(np.uint8), volume.ijkToRAS, "segment")
    sample = crop_sample(volume, replace(box, segment=mask), spec)
    x = network_input(sample, spec)
    assert sample.hu.dtype == x.dtype == np.float32
    assert 0 <= sample.outside_share < 1
    windows = len(getattr(spec, "windows_hu", [0]))
    planes = 3 if isinstance(spec, SliceWithNeighboursSpec | OrthogonalPlanesSpec) else 1
    channels = planes if isinstance(spec, OrthogonalPlanesSpec) else planes * windows
    assert x.shape[:2] == (len(sample.hu), channels)
    assert x.ndim == (5 if isinstance(sample, CubeSample) else 4)
    assert x.shape[2:] == sample.hu.shape[(1 if isinstance(spec, AxialStackSpec) else 2) :]


def test_windows_of_a_plane_stand_together():
    hu = np.random.default_rng(0).uniform(-1200, 600, (2, 3, 8, 9)).astype(np.float32)
    sample = PlaneSample(hu, np.zeros((2, 3, 4, 4)), np.ones((3, 8, 9), bool), 0.0, 1.0, (1,))
    x = network_input(sample, SliceWithNeighboursSpec(windows_hu=TWO_WINDOWS))
    for plane in range(3):
        np.testing.assert_array_equal(x[:, 2 * plane : 2 * plane + 2], windowed(hu[:, plane], TWO_WINDOWS))


def test_the_axial_stack_s_input_is_what_it_was():
    volume, box = golden_case()
    stack = axial_stack(volume, box, AxialStackSpec())
    np.testing.assert_array_equal(crop_sample(volume, box, AxialStackSpec()).hu, stack.hu)
    x = network_input(stack, AxialStackSpec())
    np.testing.assert_array_equal(x, windowed(stack.hu, AxialStackSpec().windows_hu))


@pytest.mark.parametrize("normalise", ["patch", "box", "windows"])
def test_orthogonal_planes_are_normalised_as_their_spec_says(ct, normalise):
    spec = OrthogonalPlanesSpec(rows=48, columns=40, normalise=normalise)
    sample = crop_sample(ct, a_box(ct), spec)
    x = network_input(sample, spec)
    for channel in range(3):
        plane, region = x[0, channel], sample.region[channel]
        if normalise == "windows":
            np.testing.assert_array_equal(plane, windowed(sample.hu[:, channel], spec.windows_hu)[0, 0])
            continue
        counted = plane if normalise == "patch" else plane[region]
        assert counted.mean() == pytest.approx(0, abs=1e-3)
        assert counted.std() == pytest.approx(1, abs=1e-3)
        np.testing.assert_allclose(plane[~region], 0, atol=1e-3)  # padding is the mean


def test_a_lesion_without_any_texture_is_normalised_to_nothing_not_to_nan():
    ct = CTVolume(np.full((20, 30, 30), 40, np.int16), np.eye(4))
    spec = OrthogonalPlanesSpec(rows=32, columns=32)
    x = network_input(crop_sample(ct, LesionBox([15, 15, 10], [8, 8, 8]), spec), spec)
    np.testing.assert_allclose(x, 0, atol=1e-6)


def test_a_shape_is_fed_as_zeros_and_ones(ct):
    spec = SPECS["shape"]
    sample = crop_sample(ct, replace(a_box(ct), segment=segment(ct)), spec)
    assert set(np.unique(network_input(sample, spec))) == {0.0, 1.0}
    with pytest.raises(BoxError, match="give the segment"):
        crop_sample(ct, a_box(ct), spec)


@pytest.mark.parametrize("degrees", [0.0, 40.0])
@pytest.mark.parametrize("cell", [(3, 4), (4, 3), (5, 4)])
def test_a_hot_cell_is_painted_at_its_place_in_ras_mm(ct, spec, degrees, cell):
    box = a_box(ct, degrees)
    sample = seen_with_segment(ct, spec, degrees)
    patch = len(sample.hu) // 2
    is_cube = isinstance(sample, CubeSample)
    hot = (3, *cell) if is_cube else cell
    heat = resample_to_ct(map_of(sample, patch, hot), sample, box, ct, "any")
    size = np.array(sample.hu.shape[-len(hot) :])
    index = ((np.array(hot) + 0.5) * size / 8 - 0.5)[::-1]
    if isinstance(sample, PlaneSample):
        planes = [sample.sampleToRAS[patch, channel] for channel in sample.mapped_channels]
        expected = np.array([transformed_points(m, [*index, 0.0]) for m in planes])
    else:
        expected = transformed_points(sample.sampleToRAS, index if is_cube else [*index, patch])[None]
    cell_mm = float(size.max()) / 8 * sample.pixel_mm
    reach = np.hypot(cell_mm, np.abs(ct.ijkToRAS[:3, :3]).max()) / 1.4
    assert heat.array.max() == pytest.approx(1.0)
    assert heat.class_name == "any"
    places = transformed_points(heat.ijkToRAS, np.argwhere(heat.array > 0.9 * heat.array.max())[:, ::-1])
    distance = np.linalg.norm(places[:, None] - expected, axis=-1).min(axis=1)
    assert distance.max() < reach
    # Every plane has its own copy of the hot spot, not only the one whose voxels happen to lie nearest to its middle.
    assert (warmest_around(heat, expected) > 0.4).all()


def test_heat_lies_on_voxels_of_the_ct_itself_and_only_where_the_model_looked(ct, spec):
    box = a_box(ct)
    sample = seen_with_segment(ct, spec)
    cube = isinstance(sample, CubeSample)
    heat = resample_to_ct(np.full((len(sample.hu), *[4] * (3 if cube else 2)), 0.25), sample, box, ct, "any")
    np.testing.assert_allclose(heat.ijkToRAS[:3, :3], ct.ijkToRAS[:3, :3])
    offset = ct.rasToIJK @ heat.ijkToRAS[:, 3]
    np.testing.assert_allclose(offset, np.round(offset), atol=1e-6)
    assert (np.round(offset[:3]) + heat.array.shape[::-1] <= ct.sizeIJK).all()
    assert heat.peak == pytest.approx(0.25)
    assert heat.array.dtype == np.float32
    places = transformed_points(heat.ijkToRAS, np.argwhere(heat.array > 0)[:, ::-1])
    if isinstance(sample, PlaneSample):
        planes = sample.sampleToRAS[:, list(sample.mapped_channels)].reshape(-1, 4, 4)
        off = np.abs([transformed_points(np.linalg.inv(m), places)[:, 2] for m in planes]).min(axis=0)
        assert off.max() <= 0.5 + 1e-5
    if isinstance(spec, OrthogonalPlanesSpec):
        half = box.sizeMm / 2 + spec.margin_mm + sample.pixel_mm + np.abs(ct.ijkToRAS[:3, :3]).sum(axis=1).max()
        assert (np.abs((places - box.centerRAS) @ box.axesRAS) <= half).all()


def test_every_line_of_voxels_that_crosses_a_plane_has_a_painted_voxel(ct):
    """So one step is thick enough: no holes, in no view, on no lattice."""
    sample = crop_sample(ct, a_box(ct, 33.0), OrthogonalPlanesSpec(rows=48, columns=40))
    heat = resample_to_ct(np.ones((1, 4, 4), np.float32), sample, a_box(ct, 33.0), ct, "any")
    places = transformed_points(heat.ijkToRAS, np.moveaxis(np.indices(heat.array.shape)[::-1], 0, -1))
    for channel, to_ras in enumerate(sample.sampleToRAS[0]):
        column, row, depth = np.moveaxis(transformed_points(np.linalg.inv(to_ras), places), -1, 0)
        line = 2 - np.abs(to_ras[:3, 2] @ ct.ijkToRAS[:3, :3]).argmax()
        rows, columns = np.nonzero(sample.region[channel])
        within = (np.abs(depth) <= 0.5) & (rows.min() < row) & (row < rows.max())
        within &= (columns.min() < column) & (column < columns.max())
        assert within.sum() > 50
        assert (heat.array[within] > 0).all()
        crossed = (depth.min(axis=line) < 0) & (depth.max(axis=line) > 0)
        assert (np.abs(depth).min(axis=line)[crossed] <= 0.5 + 1e-6).all()


def test_maps_of_another_sample_are_refused(ct):
    box = a_box(ct)
    stack, cube = crop_sample(ct, box, SPECS["axial stack"]), crop_sample(ct, box, SPECS["cube"])
    with pytest.raises(BoxError, match=r"maps have shape \(1, 4, 4\)"):
        resample_to_ct(np.zeros((1, 4, 4)), replace(stack, hu=np.zeros((5, 32, 32))), box, ct, "any")
    with pytest.raises(BoxError, match=r"needs \(1, d, h, w\)"):
        resample_to_ct(np.zeros((1, 4, 4)), cube, box, ct, "any")


def test_an_empty_map_is_painted_empty(ct, spec):
    box = a_box(ct)
    sample = seen_with_segment(ct, spec)
    cam = np.zeros((len(sample.hu), *[4] * (3 if isinstance(sample, CubeSample) else 2)))
    heat = resample_to_ct(cam, sample, box, ct, "any")
    assert heat.is_empty
    assert heat.peak == 0


@pytest.mark.parametrize("mode", MODES)
def test_a_key_slice_goes_through_the_frangi_filter_window_by_window(mode):
    ct = noise_ct("straight")
    box = a_box(ct)
    plain, filtered = (KeySliceSpec(size=40, windows_hu=TWO_WINDOWS, frangi=f) for f in (None, mode))
    patches = [network_input(crop_sample(ct, box, spec), spec) for spec in (plain, filtered)]
    assert patches[1].shape == patches[0].shape == (1, 2, 40, 40)
    expected = frangi(torch.from_numpy(patches[0][0] + 1) / 2, mode=mode).numpy() * 2 - 1
    np.testing.assert_allclose(patches[1][0], expected, atol=1e-6)
    assert np.ptp(patches[1]) > 0.01


def test_an_unknown_frangi_mode_is_refused():
    with pytest.raises(BundleError, match="frangi"):
        spec_from_section({**section_from_spec(KeySliceSpec()), "frangi": "nicest"})


@pytest.mark.parametrize(("around", "window"), [(-850.0, (-1500.0, 500.0)), (-100.0, (-160.0, 240.0))])
def test_a_lesion_in_air_is_seen_in_the_window_for_air_and_another_in_its_own(around, window):
    array = np.full((9, 60, 60), around, np.float32)
    array[:, 26:34, 26:34] = 30.0
    ct = CTVolume(array, np.eye(4))
    spec = KeySliceSpec(size=40, spacing_mm=None, air_windows_hu=((-1500.0, 500.0),))
    sample = crop_sample(ct, LesionBox([29.5, 29.5, 4.0], [8.0, 8.0, 3.0]), spec)
    np.testing.assert_allclose(network_input(sample, spec), windowed(sample.hu[:, 0], (window,)))


def test_as_many_windows_for_air_are_needed_as_for_tissue():
    section = section_from_spec(KeySliceSpec(windows_hu=TWO_WINDOWS))
    with pytest.raises(BundleError, match="air_windows_hu has 1 windows and windows_hu 2"):
        spec_from_section({**section, "air_windows_hu": [[-1500.0, 500.0]]})
