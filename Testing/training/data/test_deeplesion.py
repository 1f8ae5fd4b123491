"""DeepLesion in its released form: 16 bits kept, neighbours that exist, patients, splits, types, and rows that are wrong."""

from __future__ import annotations

import numpy as np
import pytest
from lesion_tables import read_table, write_rows
from LesionLib.errors import VolumeError
from lesiontraining.data.crops import input_spec
from lesiontraining.data.dataset import lesion_dataset
from lesiontraining.data.messages import TableError
from lesiontraining.data.sources import read_slice
from PIL import Image

DEEP = {
    "File_name": "000007_01_02_011.png", "Bounding_boxes": "10, 12, 30, 28", "Coarse_lesion_type": "5",
    "Possibly_noisy": "0", "Spacing_mm_px_": "0.8, 0.8, 5", "Train_Val_Test": "2", "Patient_age": "61.0",
}  # fmt: skip


def slice_hu(index):
    """A slice by its number: no two are alike, and the values need more than 8 bits."""
    row, column = np.mgrid[:40, :40]
    return (row + 3 * column + 10 * index - 500).astype(np.int32)


@pytest.fixture
def deeplesion(tmp_path):
    folder = tmp_path / "Images_png" / "000007_01_02"
    folder.mkdir(parents=True)
    for index in (9, 10, 11, 12, 14):
        Image.fromarray((slice_hu(index) + 32768).astype(np.uint16)).save(folder / f"{index:03d}.png")
    return tmp_path


def test_deeplesion_slices_are_hu_to_the_unit(deeplesion):
    assert np.array_equal(read_slice(deeplesion / "Images_png/000007_01_02/011.png"), slice_hu(11))
    Image.fromarray((slice_hu(3) % 256).astype(np.uint8)).save(deeplesion / "eight.png")
    with pytest.raises(VolumeError, match="8 bits leave 256 HU a grey level"):
        read_slice(deeplesion / "eight.png")


def test_deeplesion_takes_the_key_slice_with_the_neighbours_that_exist(deeplesion):
    write_rows(deeplesion / "DL_info.csv", [DEEP])
    (row,) = read_table("deeplesion", deeplesion, label="type", neighbours=2).rows
    assert [path.stem for path in row.source.files()] == [
        "009",
        "010",
        "011",
        "012",
    ]  # 013 is missing, so 014 is no neighbour
    volume = row.source.read()
    assert np.array_equal(volume.array[2], slice_hu(11))
    box = row.source.lesion(volume, name="a")
    voxel = volume.rasToIJK @ [*box.centerRAS, 1]
    assert voxel[:3] == pytest.approx([20, 20, 2])
    assert box.sizeMm == pytest.approx([16, 12.8, 5])


def test_deeplesion_pictures_show_the_lesion_and_its_neighbours(deeplesion):
    write_rows(deeplesion / "DL_info.csv", [DEEP])
    table = read_table("deeplesion", deeplesion, label="type")
    spec = {
        "kind": "slice_with_neighbours",
        "view": "box",
        "size": 32,
        "spacing_mm": 0.8,
        "windows_hu": [[-1000, 1000]],
    }
    (image,) = lesion_dataset(table, input_spec(spec), progress=False).images[0]
    middle = image[:, 15:17, 15:17].mean(axis=(1, 2)) * 1000
    # Channels are below, itself, above; the numbers of slices grow towards the feet.
    assert middle == pytest.approx([slice_hu(n)[19:22, 19:22].mean() for n in (12, 11, 10)], abs=3)


def test_deeplesion_knows_patient_split_type_and_leaves_noisy_ones_out(deeplesion):
    rows = [
        DEEP, {**DEEP, "File_name": "000008_01_01_005.png", "Possibly_noisy": "1"},
        {**DEEP, "File_name": "000009_02_01_006.png", "Train_Val_Test": "1", "Coarse_lesion_type": "-1"},
        {**DEEP, "Bounding_boxes": "1,1,4,4"},
    ]  # fmt: skip
    write_rows(deeplesion / "DL_info.csv", rows)
    table = read_table("deeplesion", deeplesion, label="type", only_existing=False)
    assert [(r.patient, r.study, r.split, r.label, r.lesion_id) for r in table.rows] == [
        ("000007", "000007_01", "val", "lung", "000007_01_02_011"),
        ("000009", "000009_02", "train", "", "000009_02_01_006"),
        ("000007", "000007_01", "val", "lung", "000007_01_02_011#2"),
    ]
    assert table.class_names[0] == "bone"
    assert any("Possibly_noisy" in text for text in table.warnings)
    assert len(read_table("deeplesion", deeplesion, label="type", keep_noisy=True, only_existing=False)) == 4


def test_a_part_of_deeplesion_is_used_and_what_is_missing_is_counted(deeplesion):
    write_rows(deeplesion / "DL_info.csv", [DEEP, {**DEEP, "File_name": "000009_02_01_006.png"}])
    table = read_table("deeplesion", deeplesion, label="type")
    assert [row.patient for row in table.rows] == ["000007"]
    assert "1 lesion(s) without their key slice are left out." in table.warnings


def test_where_no_slice_of_deeplesion_is_there_the_error_says_where_they_were_sought(deeplesion):
    write_rows(deeplesion / "DL_info.csv", [{**DEEP, "File_name": "000009_02_01_006.png"}])
    with pytest.raises(TableError, match=r"of its 1 lesions not one has its key slice under .*000009_02_01"):
        read_table("deeplesion", deeplesion, label="type")


def test_deeplesion_boxes_without_their_padding_are_5_pixels_smaller_on_every_side(deeplesion):
    write_rows(deeplesion / "DL_info.csv", [DEEP])
    (row,) = read_table("deeplesion", deeplesion, label="type", padded_boxes=False).rows
    assert row.source.pixels == (15, 17, 25, 23)


def test_deeplesion_types_of_the_lists_name_lesions_that_have_none(deeplesion):
    write_rows(deeplesion / "DL_info.csv", [{**DEEP, "Coarse_lesion_type": "-1"}])
    listed = {"Volume_fn": "000007_01_02_001-021.nii.gz", "bbox": "[10, 12, 30, 28]", "centroid_z": "11.0"}
    write_rows(deeplesion / "lesion_types_val.csv", [{**listed, "Coarse_lesion_type": "4"}])
    assert read_table("deeplesion", deeplesion, label="type").rows[0].label == "lung"


def test_deeplesion_rows_that_are_wrong_are_all_named(deeplesion):
    wrong = [
        {"File_name": "7_1.png"}, {"Bounding_boxes": "1,2,3"}, {"Spacing_mm_px_": "0,0,5"}, {"Train_Val_Test": "4"},
        {"Coarse_lesion_type": "9"}, {"File_name": "../../etc_1_2_3.png"},
    ]  # fmt: skip
    write_rows(deeplesion / "DL_info.csv", [{**DEEP, **change} for change in wrong])
    with pytest.raises(TableError) as caught:
        read_table("deeplesion", deeplesion, label="type")
    assert [problem.line for problem in caught.value.problems] == [2, 3, 4, 5, 6, 7]
