"""The readers on the public sets themselves, where they are at hand: LESIONLENS_DATA names the folder that holds them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from lesiontraining.data.checks import check_table
from lesiontraining.data.crops import input_spec
from lesiontraining.data.data_module import LesionDataModule
from lesiontraining.data.dataset import lesion_dataset
from lesiontraining.data.readers.deeplesion import listed_types
from lesiontraining.data.readers.registry import read_with
from lesiontraining.data.splits import patient_folds


@pytest.fixture
def public_set():
    def find(name: str) -> Path:
        folder = os.environ.get("LESIONLENS_DATA")
        if not folder or not (Path(folder) / name).exists():
            pytest.skip(f"the public set {name} is not here; LESIONLENS_DATA must name the folder that holds it")
        return Path(folder) / name

    return find


def test_the_lidc_nodules_have_the_figures_of_their_table(public_set):
    table = read_with("nodule_set", public_set("lung_nodules"), label="malignant", classes=None)
    assert len(table) == 806
    assert len(set(table.patients)) == 441
    assert np.bincount(table.labels).tolist() == [545, 261]
    assert "LIDC" not in table.warnings[0]
    some = table.where(lambda row: row.fold == "5")
    check_table(some, progress=False)
    found = lesion_dataset(some, input_spec({"kind": "axial_stack"}), progress=False)
    written = some.column("volume_mm3").astype(float)
    assert np.abs(found.volume_mm3 / written - 1).max() < 0.02
    assert found.labels.tolist() == some.labels.tolist()


def test_real_deeplesion_slices_are_cut_in_hu(public_set):
    folder = public_set("deeplesion")
    table = read_with(
        "deeplesion", folder / "DL_info_patient000001.csv", label="type", classes=None, only_existing=True, neighbours=9
    )
    assert len(table) == 4
    assert set(table.patients) == {"000001"}
    assert {row.label for row in table.rows} == {"mediastinum"}
    volume = table.rows[0].source.read()
    assert volume.array.shape == (13, 512, 512)  # slices 103 to 115, and no further
    assert volume.spacingMm == pytest.approx([0.488281, 0.488281, 5])
    assert volume.array.min() == -3024  # outside the scanner's circle
    assert len(np.unique(volume.array[6])) > 1000  # 8 bits would leave a handful
    found = lesion_dataset(table, input_spec({"kind": "key_slice"}), progress=False)
    windowed = found.images[0][0, 0]
    assert len(np.unique(windowed)) > 100
    assert found.mean_hu[0] == pytest.approx(-56, abs=2)  # a lymph node in fat: the released boxes have a margin
    assert table.column("split").tolist() == ["test"] * 4


def test_lists_of_deeplesion_types_agree_with_the_table_where_both_know(public_set):
    folder = public_set("deeplesion")
    table = read_with("deeplesion", folder / "DL_info_excerpt.csv", label="type", classes=None, keep_noisy=True)
    listed = listed_types(folder)
    assert len(listed) > 3700
    known = {
        (row.series, row.source.key, int(row.source.pixels[0]), int(row.source.pixels[1])): row.label
        for row in table.rows
        if row.label
    }
    both = set(listed) & set(known)
    assert len(both) > 100
    assert all(listed[key] == known[key] for key in both)


def test_deeplesion_is_divided_anew_by_patient(public_set):
    table = read_with("deeplesion", public_set("deeplesion") / "DL_info_excerpt.csv", label="type", classes=None)
    typed = table.where(lambda row: bool(row.label))
    folds = patient_folds(typed.patients, typed.labels, folds=5)
    assert all(len(set(folds[typed.patients == patient])) == 1 for patient in set(typed.patients))


def test_adrenal_shapes_keep_their_official_split(public_set):
    path = public_set("adrenal_shape") / "adrenalmnist3d_trainval.npz"
    table = read_with("medmnist3d", path, label="label", classes=None)
    assert (table.column("split") == "train").sum() == 1188
    assert (table.column("split") == "val").sum() == 98
    found = lesion_dataset(table, input_spec({"kind": "shape_mask"}), progress=False)
    assert found.images[0].shape == (1, 1, 28, 28, 28)
    assert 500 < np.median(found.volume_mm3) < 20_000  # a gland has a few millilitres


def test_copies_among_the_fundus_photographs_are_kept_together(public_set, tmp_path):
    table = read_with("image_folder", public_set("fundus"), label="dr_grade", classes=None)
    assert len(table) == 413
    assert table.class_names == ("0", "1", "2", "3", "4")
    assert "5 image(s) are copies" in table.warnings[1]
    few = table.where(lambda row: row.line < 8)
    found = lesion_dataset(few, input_spec({"kind": "photograph", "size": 96, "preparation": "graham"}), progress=False)
    for (image,) in found.images:
        assert abs(float(image.mean())) < 0.05  # the average colour is gone
        assert image.std() > 0.05


def test_the_box_of_a_real_dicom_folder_lies_on_its_nodule(public_set):
    folder = public_set("ct")
    table = read_with("dicom_boxes", folder / "lidc_0001_boxes.csv", label="label", classes=None, folder="lidc_0001")
    check_table(table, labelled=False, progress=False)
    found = lesion_dataset(table, input_spec({"kind": "key_slice"}), progress=False)
    assert found.size_mm[0] == pytest.approx([28.8, 35.2, 22.5], abs=0.1)
    assert found.mean_hu[0] == pytest.approx(-505, abs=2)  # nodule and much lung
    assert found.images[0][0, 0, 28:36, 28:36].mean() > 0  # above 40 HU in the middle
    (row,) = table.rows
    volume = row.source.read()
    corner = row.source.lesion(volume, name="a").cornersRAS * [-1, -1, 1]
    assert str([round(value, 2) for value in corner.min(axis=0).tolist()]) == row.attributes["lps_min"]


def test_the_nodules_divided_by_their_folds_have_no_leak(public_set, tmp_path):
    module = LesionDataModule(
        public_set("lung_nodules"), reader="nodule_set", label="malignant", input={"kind": "key_slice"}, folds="fold", held_out=3,
        validation="next", progress=False,
    )  # fmt: skip
    module.setup()
    assert len(module.test) == 98
    assert module.leaks.leaks == ()
