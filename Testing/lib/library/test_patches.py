"""HU patches: what the library keeps of a CT around a lesion, and what a model sees of it."""

import zlib
from dataclasses import replace

import numpy as np
import pytest
from case_libraries import MODEL, a_case
from LesionLib.errors import BoxError, CaseLibraryError
from LesionLib.geometry import CTVolume, LesionBox, transformed_points
from LesionLib.sampling.inputs import crop_sample, network_input
from LesionLib.sampling.planes import KeySliceSpec, OrthogonalPlanesSpec, SliceWithNeighboursSpec
from LesionLib.sampling.resample import AxialStackSpec, lattice_points
from LesionLib.sampling.volumes import IsotropicCubeSpec, ShapeMaskSpec
from LesionRetrievalLib.library import patches as library_codec
from LesionRetrievalLib.library.patches import lesion_patch, sees_beyond

SIZE = np.array([130, 120, 60])
REACHED = [
    AxialStackSpec(),
    SliceWithNeighboursSpec(view="box"),
    SliceWithNeighboursSpec(view="box", slices="every"),
    OrthogonalPlanesSpec(margin_mm=5.0),
    KeySliceSpec(),
    IsotropicCubeSpec(),
    ShapeMaskSpec(edge_mm=50.0, voxels=24, interpolation="linear"),
]
BEYOND = [SliceWithNeighboursSpec(view="slice"), KeySliceSpec(spacing_mm=2.0), IsotropicCubeSpec(edge_mm=120.0)]


def turned(axis: int, angle: float) -> np.ndarray:
    first, second = (a for a in range(3) if a != axis)
    matrix = np.eye(3)
    matrix[first, first] = matrix[second, second] = np.cos(angle)
    matrix[first, second], matrix[second, first] = -np.sin(angle), np.sin(angle)
    return matrix


@pytest.fixture(scope="module")
def ct() -> CTVolume:
    """Noise on an oblique lattice of 0.9 x 0.9 x 2 mm."""
    ijk_to_ras = np.eye(4)
    ijk_to_ras[:3, :3] = turned(0, 0.1) @ turned(2, 0.2) @ np.diag([-0.9, -0.9, 2.0])
    ijk_to_ras[:3, 3] = [31.0, -17.0, 403.0]
    array = np.random.default_rng(0).integers(-1000, 1500, SIZE[::-1], dtype=np.int16)
    return CTVolume(array, ijk_to_ras, name="DOE JANE")


def a_lesion(ct: CTVolume, *, at=(0.5, 0.5, 0.5)) -> LesionBox:
    center = transformed_points(ct.ijkToRAS, np.array(at) * (SIZE - 1))
    near = np.linalg.norm(transformed_points(ct.ijkToRAS, lattice_points(tuple(SIZE))) - center, axis=-1) < 6
    segment = CTVolume(near.astype(np.uint8), ct.ijkToRAS, name="DOE JANE")
    return LesionBox(center, [14.0, 12.0, 13.0], turned(2, 0.3), name="DOE JANE", segment=segment)


@pytest.mark.parametrize("spec", REACHED, ids=lambda spec: type(spec).__name__)
@pytest.mark.parametrize("at", [(0.5, 0.5, 0.5), (0.02, 0.5, 0.97)], ids=["inside", "at the CT's edge"])
def test_a_model_sees_the_same_on_the_patch_as_on_the_ct(ct, spec, at):
    box = a_lesion(ct, at=at)
    patch = lesion_patch(ct, box)
    assert patch.volume.array.size < ct.array.size / 2
    assert not sees_beyond(patch, spec)
    # Not bit for bit: the origin of the lattice is another, and so is the rounding. 1e-3 is 0.7 HU in the widest window.
    on_ct, on_patch = (network_input(crop_sample(v, b, spec), spec) for v, b in ((ct, box), (patch.volume, patch.box)))
    np.testing.assert_allclose(on_patch, on_ct, atol=1e-3)


@pytest.mark.parametrize("spec", BEYOND, ids=lambda spec: type(spec).__name__)
def test_a_model_that_looks_further_than_the_patch_is_found_out(ct, spec):
    box = a_lesion(ct)
    patch = lesion_patch(ct, box)
    assert sees_beyond(patch, spec)
    on_ct, on_patch = (network_input(crop_sample(v, b, spec), spec) for v, b in ((ct, box), (patch.volume, patch.box)))
    assert not np.allclose(on_patch, on_ct, atol=0.1)


@pytest.mark.parametrize("spec", [*BEYOND, *REACHED], ids=lambda spec: type(spec).__name__)
def test_where_the_ct_itself_ends_there_is_no_beyond(ct, spec):
    box = a_lesion(ct)
    assert not sees_beyond(lesion_patch(ct, box, margin_mm=1000.0), spec)


def test_a_patch_bears_no_names(ct):
    patch = lesion_patch(ct, a_lesion(ct))
    assert {patch.volume.name, patch.box.name, patch.box.segment.name} == {"patch", "lesion", "segment"}


def test_a_patch_comes_back_from_the_library_number_for_number(ct, library):
    box = a_lesion(ct, at=(0.02, 0.5, 0.5))
    values = replace(ct, array=ct.array.astype(np.float32) + 0.25)
    for name, volume, lesion in (("int", ct, box), ("float", values, replace(box, segment=None))):
        patch = lesion_patch(volume, lesion)
        library.add(a_case(name), np.ones(4), model_sha256=MODEL.sha256, patch=patch)
        back = library.patch(name)
        require_equal(back.volume, patch.volume)
        for key in ("centerRAS", "sizeMm", "axesRAS"):
            np.testing.assert_array_equal(getattr(back.box, key), getattr(lesion, key))
        assert back.open_faces == patch.open_faces == (False, True, True, True, True, True)
        if lesion.segment is None:
            assert back.box.segment is None
        else:
            require_equal(back.box.segment, patch.box.segment)
            assert back.box.segment.array.sum() == box.segment.array.sum()
    assert library.patch("int").volume.array.dtype == np.int16
    assert library.patch("float").volume.array.dtype == np.float32
    library.remove("int")
    assert library._rows("SELECT DISTINCT case_id FROM patches") == [("float",)]


def require_equal(one: CTVolume, other: CTVolume) -> None:
    np.testing.assert_array_equal(one.array, other.array)
    assert one.array.dtype == other.array.dtype
    np.testing.assert_array_equal(one.ijkToRAS, other.ijkToRAS)


def test_a_patch_reaches_25_mm_beyond_a_large_lesion_and_34_mm_from_the_middle_of_a_small_one(ct):
    fine = replace(ct, array=np.zeros((200, 200, 200), np.int16), ijkToRAS=np.eye(4))
    for size, reach in ((8.0, 34.0), (60.0, 55.0)):
        patch = lesion_patch(fine, LesionBox([100, 100, 100], [size] * 3))
        first = patch.volume.ijkToRAS[:3, 3]
        np.testing.assert_allclose([first, first + patch.volume.sizeIJK], [[100 - reach] * 3, [101 + reach] * 3])


def test_the_voxels_of_a_patch_lie_where_they_lay_in_the_ct(ct):
    patch = lesion_patch(ct, a_lesion(ct))
    points = transformed_points(patch.volume.ijkToRAS, lattice_points(patch.volume.sizeIJK))
    i, j, k = np.round(np.moveaxis(transformed_points(ct.rasToIJK, points), -1, 0)).astype(int)
    np.testing.assert_array_equal(patch.volume.array, ct.array[k, j, i])


def test_a_box_outside_and_a_patch_without_end_are_refused(ct):
    with pytest.raises(BoxError, match="outside"):
        lesion_patch(ct, LesionBox([900, 0, 0], [10, 10, 10]))
    fine = CTVolume(np.broadcast_to(np.int16(0), (400, 400, 400)), np.diag([0.1, 0.1, 0.1, 1.0]))
    with pytest.raises(CaseLibraryError, match="without a patch"):
        lesion_patch(fine, LesionBox([20, 20, 20], [5, 5, 5]))


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE patches SET zlib = x'00'",
        "UPDATE patches SET zlib = substr(zlib, 1, length(zlib) - 9)",
        "UPDATE patches SET width = width + 1",
        "UPDATE patches SET dtype = 'float32'",
        "UPDATE patches SET ijk_to_ras = '[]'",
        "UPDATE patches SET ijk_to_ras = 'nonsense'",
        "UPDATE patch_boxes SET size_mm = '[0, 0, 0]'",
        "DELETE FROM patches WHERE part = 'ct'",
        "DELETE FROM patch_boxes",
        "UPDATE patches SET slices = 1000000, height = 1000000, width = 1000000",
    ],
)
def test_a_damaged_patch_is_named_by_the_check(ct, library, change):
    library.add(a_case("hurt"), np.ones(4), model_sha256=MODEL.sha256, patch=lesion_patch(ct, a_lesion(ct)))
    assert library.integrity_problems() == ()
    library._rows(change)
    (problem,) = library.integrity_problems()
    assert "hurt" in problem
    assert "patch" in problem


def test_a_patch_that_unpacks_to_more_than_it_says_is_refused_early(ct):
    patch = lesion_patch(ct, a_lesion(ct))
    bomb = zlib.compress(bytes(1 << 26))
    rows = [(*row[:-1], bomb) for row in library_codec.part_rows(patch)]
    with pytest.raises(CaseLibraryError, match="damaged"):
        library_codec.decoded_patch("c", library_codec.box_row(patch), rows)
