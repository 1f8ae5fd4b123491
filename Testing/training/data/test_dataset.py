"""Pictures are LesionLib's own, measured rightly, the same from the cache, and cut anew when anything changed."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest
from LesionLib.errors import BundleError, OutputError, VolumeError
from LesionLib.io.boxes import MmBox, boxes_from_label_array
from LesionLib.sampling.batches import crop_lesion
from LesionLib.sampling.planes import KeySliceSpec
from LesionLib.sampling.resample import AxialStackSpec
from lesiontraining.data import dataset as images
from lesiontraining.data import dataset as picture_cache
from lesiontraining.data.crops import (
    PhotographSpec,
    StoredCubeSpec,
    eye_disc,
    input_section,
    input_spec,
    photograph_input,
)
from lesiontraining.data.dataset import lesion_dataset
from lesiontraining.data.lesions import LesionRow, LesionTable
from lesiontraining.data.messages import TableError
from lesiontraining.data.sources import Photograph, StoredCube, VolumeSource
from phantom_cases import write_cases
from PIL import Image

STACK = AxialStackSpec(size=32, spacing_mm=1.0)


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    return write_cases(tmp_path_factory.mktemp("cases"), patients=4)


@pytest.fixture
def table(cases):
    rows = [
        LesionRow(line, f"L{line}", case.patient, VolumeSource(case.volume_path, mask=case.mask_path), case.kind)
        for line, case in enumerate(cases, start=2)
    ]
    return LesionTable(tuple(rows), ("round", "spiculated"), "lesions.csv")


def cut(table, spec=STACK, **options):
    return lesion_dataset(table, spec, progress=False, **options)


def same(first, second):
    assert all(np.array_equal(a, b) for a, b in zip(first.images, second.images, strict=True))
    for name in ("size_mm", "volume_mm3", "mean_hu", "spacing_mm", "targets"):
        assert np.array_equal(getattr(first, name), getattr(second, name), equal_nan=True)


@pytest.fixture
def uncuttable(monkeypatch):
    """From here on, cutting is an error."""
    return lambda: monkeypatch.setattr(images, "crop_row", lambda *_: pytest.fail("a lesion was cut again"))


def test_pictures_are_what_the_classifier_would_see(table, cases):
    found = cut(table)
    for number, case in enumerate(cases):
        box = boxes_from_label_array(case.mask, case.volume.ijkToRAS, {1: "lesion"})[0]
        wanted = crop_lesion(case.volume, box, STACK).patches
        assert found.images[number].shape == wanted.shape
        assert np.abs(found.images[number] - wanted).max() < 1e-3
        assert found.images[number].dtype == np.float32


def test_size_volume_and_density_are_measured_in_the_mask(table, cases):
    found = cut(table)
    for number, case in enumerate(cases):
        inside = case.mask > 0
        extent = np.ptp(np.argwhere(inside), axis=0)[::-1] + 1
        assert np.allclose(found.size_mm[number], extent * case.volume.spacingMm)
        assert found.volume_mm3[number] == pytest.approx(inside.sum() * 2.0)
        assert found.mean_hu[number] == pytest.approx(case.volume.array[inside].mean(), abs=0.5)
        assert found.spacing_mm[number].tolist() == pytest.approx([1, 1, 2])
    assert found.labels.tolist() == [0, 1, 0, 1]


def test_the_target_is_where_the_lesion_shows(table, cases):
    for spec in (STACK, KeySliceSpec(size=48, spacing_mm=1.0, windows_hu=((-1000.0, 400.0),))):
        found = cut(table, spec)
        for number in range(len(cases)):
            image = found.images[number][len(found.images[number]) // 2, 0]
            row, column, rows, columns = found.targets[number]
            centers = np.arange(len(image)) + 0.5
            inside = ((centers >= row) & (centers < row + rows))[:, None] & (
                (centers >= column) & (centers < column + columns)
            )
            assert image[inside].mean() > image[~inside].mean() + 0.3
            assert (rows, columns) == pytest.approx(tuple(found.size_mm[number][[1, 0]]), abs=1e-6)


def test_a_target_is_not_known_for_cubes_and_crossing_planes(table):
    for kind in ("isotropic_cube", "orthogonal_planes"):
        assert np.isnan(cut(table, input_spec({"kind": kind})).targets).all()


def test_a_box_and_a_mask_give_the_box_with_the_mask_measured(table, cases):
    wide = MmBox("RAS", tuple(cases[0].box.centerRAS), (20.0, 20.0, 20.0))
    both = replace(table.rows[0], source=replace(table.rows[0].source, location=wide))
    found = cut(replace(table, rows=(both,)))
    assert found.size_mm[0].tolist() == [20, 20, 20]
    assert found.volume_mm3[0] == pytest.approx((cases[0].mask > 0).sum() * 2.0)
    only = replace(both, source=replace(both.source, mask=None))
    assert cut(replace(table, rows=(only,))).volume_mm3[0] == pytest.approx(8000.0)


def test_worker_processes_give_the_same_in_the_same_order(table):
    same(cut(table, workers=2), cut(table))


def test_the_second_run_comes_from_the_cache(table, tmp_path, uncuttable):
    first = cut(table, cache=tmp_path)
    uncuttable()
    same(cut(table, cache=tmp_path), first)
    assert len(list(tmp_path.rglob("*.npz"))) == 4
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize("harm", ["cut short", "another byte", "pickle", "empty", "other arrays"])
def test_a_damaged_entry_is_made_anew(table, tmp_path, harm):
    first = cut(table, cache=tmp_path)
    for path in tmp_path.rglob("*.npz"):
        content = path.read_bytes()
        if harm == "pickle":
            np.savez(path, images=np.array([{"a": 1}], dtype=object))
        elif harm == "other arrays":
            np.savez(path, images=np.zeros(3))
        else:
            middle = len(content) // 2
            bad = {"cut short": content[:middle], "empty": b""}
            path.write_bytes(bad.get(harm, content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :]))
    same(cut(table, cache=tmp_path), first)


def test_what_changed_is_cut_again(table, tmp_path, monkeypatch):
    row = table.rows[0]
    before = picture_cache.entry_key(row, STACK)
    assert picture_cache.entry_key(replace(row, label="other", line=99), STACK) == before
    assert picture_cache.entry_key(row, replace(STACK, size=64)) != before
    value = replace(row, source=replace(row.source, mask_value=1))
    assert picture_cache.entry_key(value, STACK) != before
    stat = row.source.volume.stat()
    os.utime(row.source.volume, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1_000_000))
    touched = picture_cache.entry_key(row, STACK)
    assert touched != before
    monkeypatch.setattr(picture_cache.LesionLib, "__version__", "99")
    picture_cache._code.cache_clear()
    assert picture_cache.entry_key(row, STACK) != touched
    picture_cache._code.cache_clear()


def test_a_cache_that_cannot_be_written_is_one_error(table, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        cut(table, cache=tmp_path / "file")


@pytest.mark.parametrize("cached", [False, True])
def test_all_lesions_that_cannot_be_cut_are_named(table, tmp_path, cached):
    far = replace(table.rows[0].source, location=MmBox("RAS", (0.0, 0.0, 9000.0), (9.0, 9.0, 9.0)))
    gone = replace(table.rows[2].source, volume=tmp_path / "gone.nii.gz")
    rows = (replace(table.rows[0], source=far), table.rows[1], replace(table.rows[2], source=gone))
    with pytest.raises(TableError) as caught:
        cut(replace(table, rows=rows), cache=tmp_path if cached else None)
    first, second = caught.value.problems
    assert (first.line, second.line) == (2, 4)
    assert "lies outside the volume" in first.text
    assert "gone.nii.gz" in second.text


def test_lesions_of_one_ct_read_it_once(table, monkeypatch):
    row = table.rows[0]
    reads = []
    real = VolumeSource.read
    monkeypatch.setattr(VolumeSource, "read", lambda self: reads.append(self.volume) or real(self))
    rows = tuple(replace(row, line=n, lesion_id=f"L{n}") for n in range(5))
    cut(replace(table, rows=rows))
    assert len(reads) == 1


def test_input_that_does_not_fit_the_table_is_said_before_anything_is_read(table):
    with pytest.raises(TableError, match="need input of one of axial_stack"):
        cut(table, PhotographSpec())
    boxes = replace(table, rows=tuple(replace(r, source=replace(r.source, mask=None)) for r in table.rows))
    with pytest.raises(TableError, match="needs the mask of every lesion"):
        cut(boxes, input_spec({"kind": "shape_mask"}))


def test_fields_left_out_of_the_input_take_their_default_and_wrong_ones_are_refused():
    spec = input_spec({"kind": "axial_stack", "size": 32, "windows_hu": [[-160, 240]]})
    assert spec == AxialStackSpec(size=32, windows_hu=((-160, 240),))
    assert input_spec(input_section(spec)) == spec
    assert input_section(PhotographSpec(64, "graham")) == {"kind": "photograph", "size": 64, "preparation": "graham"}
    for wrong in ({"kind": "axial"}, {"kind": "axial_stack", "sise": 3}, {"kind": "photograph", "size": "x"},
                  {"kind": "photograph", "preparation": "none"}, {"kind": "stored_cube", "edge": 1}, {}):  # fmt: skip
        with pytest.raises(BundleError):
            input_spec(wrong)


def a_photograph(tmp_path, name="eye.png", tint=(180, 90, 40), edge=(90, 140)):
    """A lit disc with a darker spot on black."""
    row, column = np.mgrid[: edge[0], : edge[1]]
    away = np.hypot(row - (edge[0] - 1) / 2, column - (edge[1] - 1) / 2)
    array = np.where(away[..., None] < 60, tint, 0).astype(np.uint8)
    array[40:44, 80:84] //= 2
    Image.fromarray(array).save(tmp_path / name)
    return tmp_path / name


def test_a_plain_photograph_is_shown_whole_in_minus_one_to_one(tmp_path):
    x = photograph_input(Photograph(a_photograph(tmp_path)).read(), PhotographSpec(size=70))
    assert x.shape == (1, 3, 70, 70)
    assert x.dtype == np.float32
    assert (x[0, :, 0] == -1).all()
    assert x[0, :, 35, 20] == pytest.approx([180 / 127.5 - 1, 90 / 127.5 - 1, 40 / 127.5 - 1], abs=0.02)


def test_grahams_preparation_takes_colour_and_size_of_the_eye_away(tmp_path):
    spec = PhotographSpec(size=96, preparation="graham")
    small = photograph_input(Photograph(a_photograph(tmp_path)).read(), spec)
    row, column = np.mgrid[:180, :280]
    array = np.where(np.hypot(row - 89.5, column - 139.5)[..., None] < 120, (120, 60, 90), 0).astype(np.uint8)
    array[80:88, 160:168] //= 2
    large = photograph_input(array, spec)
    for x in (small, large):
        assert x.shape == (1, 3, 96, 96)
        assert np.abs(x).max() <= 1
        assert (x[0, :, 0, 0] == 0).all()
        assert np.abs(x[0, :, 48, 20:40]).max() < 0.05  # even colour is gone
        assert x[0, 0].min() < -0.3  # the spot is not
    assert (
        np.abs(
            np.array(np.unravel_index(small[0, 0].argmin(), (96, 96)))
            - np.unravel_index(large[0, 0].argmin(), (96, 96))
        ).max()
        <= 3
    )


def test_the_disc_of_the_eye_is_measured(tmp_path):
    center, radius = eye_disc(Photograph(a_photograph(tmp_path)).read())
    assert center == pytest.approx(69.5, abs=1)
    assert radius == pytest.approx(60, abs=1)
    with pytest.raises(VolumeError, match="dark"):
        eye_disc(np.zeros((20, 20, 3), np.uint8))


def test_a_photograph_of_16_bits_is_refused(tmp_path):
    Image.new("I;16", (20, 20)).save(tmp_path / "ct.png")
    with pytest.raises(VolumeError, match="more than 8 bits"):
        Photograph(tmp_path / "ct.png").read()


def test_stored_cubes_are_input_as_they_are(tmp_path):
    cubes = np.zeros((2, 8, 8, 8), np.uint8)
    cubes[:, 2:4, 1:5, 3] = 255
    np.savez(tmp_path / "a.npz", train_images=cubes)

    def rows(is_mask):
        return tuple(
            LesionRow(n, f"{n}", f"{n}", StoredCube(tmp_path / "a.npz", "train_images", n, is_mask, 64.0), "ab"[n])
            for n in (0, 1)
        )

    shapes = cut(LesionTable(rows(True), ("a", "b"), "t"), input_spec({"kind": "shape_mask", "voxels": 8}))
    assert shapes.images[0].shape == (1, 1, 8, 8, 8)
    assert (shapes.images[0][0, 0] == (cubes[0] > 0)).all()
    assert shapes.size_mm[0].tolist() == [8, 32, 16]
    assert shapes.volume_mm3[0] == 8 * 8**3
    grey = cut(LesionTable(rows(False), ("a", "b"), "t"), StoredCubeSpec(voxels=8))
    assert set(np.unique(grey.images[0])) == {-1.0, 1.0}
    with pytest.raises(TableError, match="another size in use"):
        cut(LesionTable(rows(True), ("a", "b"), "t"), input_spec({"kind": "shape_mask", "voxels": 8, "edge_mm": 32}))
    with pytest.raises(TableError, match="the input wants 28 a side"):
        cut(LesionTable(rows(True), ("a", "b"), "t"), input_spec({"kind": "shape_mask"}))


def test_an_eye_cut_off_above_and_below_has_no_false_edge_there(tmp_path):
    whole = Photograph(a_photograph(tmp_path)).read()
    x = photograph_input(whole[10:80], PhotographSpec(size=96, preparation="graham"))
    assert np.abs(x[0, :, :20]).max() < 0.05
    assert np.abs(x[0, :, -20:]).max() < 0.05
