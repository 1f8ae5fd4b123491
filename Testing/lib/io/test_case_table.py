"""A folder of known cases: read whole, or refused with the line that is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from LesionLib.io.boxes import CaseTableError, read_case_table


@pytest.fixture
def folder(tmp_path) -> Path:
    for name in ("image", "mask"):
        (tmp_path / name).mkdir()
    for number in range(2):
        mask = np.zeros((4, 5, 6), np.uint8)
        mask[1:3, 1:4, 2:5] = 1
        sitk.WriteImage(
            sitk.GetImageFromArray(np.full((4, 5, 6), -700, np.int16)), str(tmp_path / "image" / f"{number}.nrrd")
        )
        sitk.WriteImage(sitk.GetImageFromArray(mask), str(tmp_path / "mask" / f"{number}.nrrd"))
    write(tmp_path, "0.nrrd,A,7.5", "1.nrrd,B,x")
    return tmp_path


def write(folder: Path, *rows: str) -> None:
    (folder / "cases.csv").write_text("\n".join(["file,patient_id,diameter", *rows]) + "\n")


def test_rows_give_their_ct_box_and_mask(folder):
    first, _ = read_case_table(folder, columns=["patient_id"])
    volume, box, mask = first.load()
    assert volume.sizeIJK == (6, 5, 4)
    assert mask.sum() == 18
    np.testing.assert_allclose(box.sizeMm, [3, 3, 2])
    np.testing.assert_allclose(box.centerRAS, [-3, -2, 1.5])
    assert first.number("diameter") == 7.5


def test_a_value_that_is_no_number_is_named_with_its_line(folder):
    _, second = read_case_table(folder, columns=[])
    with pytest.raises(CaseTableError, match=r"cases\.csv, line 3: diameter is 'x'"):
        second.number("diameter")


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (["0.nrrd,A,1", "0.nrrd,A,1"], "line 3: 0.nrrd stands in line 2 already"),
        (["9.nrrd,A,1"], "line 2:.*9.nrrd is missing"),
        (["../cases.csv,A,1"], "line 2:.*is missing"),
        ([], "has no rows"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(folder, rows, said):
    write(folder, *rows)
    with pytest.raises(CaseTableError, match=said):
        read_case_table(folder, columns=[])


def test_a_missing_column_two_tables_and_no_folder_are_refused(folder):
    with pytest.raises(CaseTableError, match=r"lacks the column\(s\) label"):
        read_case_table(folder, columns=["label"])
    (folder / "other.csv").write_text("x\n")
    with pytest.raises(CaseTableError, match=r"found: cases\.csv, other\.csv"):
        read_case_table(folder, columns=[])
    with pytest.raises(CaseTableError, match="found: none"):
        read_case_table(folder / "absent", columns=[])


def test_an_empty_mask_or_one_of_another_size_is_refused(folder):
    sitk.WriteImage(sitk.Image(6, 5, 4, sitk.sitkUInt8), str(folder / "mask" / "0.nrrd"))
    sitk.WriteImage(sitk.Image(6, 5, 3, sitk.sitkUInt8), str(folder / "mask" / "1.nrrd"))
    for row in read_case_table(folder, columns=[]):
        with pytest.raises(CaseTableError, match="empty or of another size"):
            row.load()


def test_blank_lines_count_in_the_line_that_is_named(folder):
    write(folder, "0.nrrd,A,1", "", "", "9.nrrd,B,2")
    with pytest.raises(CaseTableError, match=r"cases\.csv, line 5: .*9\.nrrd is missing"):
        read_case_table(folder, columns=[])


def test_a_short_row_is_named_like_any_other_mistake(folder):
    write(folder, "0.nrrd,A")
    (row,) = read_case_table(folder, columns=["diameter"])
    with pytest.raises(CaseTableError, match="line 2: diameter is ''; a number is needed"):
        row.number("diameter")
    (folder / "cases.csv").write_text("patient_id,file\nA\n")
    with pytest.raises(CaseTableError, match=r"line 2: .* is missing"):
        read_case_table(folder, columns=[])


def test_a_table_that_is_not_utf_8_is_refused_and_a_byte_order_mark_is_no_hindrance(folder):
    (folder / "cases.csv").write_bytes("file,patient_id\n0.nrrd,Müller\n".encode("latin-1"))
    with pytest.raises(CaseTableError, match=r"cases\.csv cannot be read as a CSV table in UTF-8"):
        read_case_table(folder, columns=[])
    (folder / "cases.csv").write_text("\ufefffile,patient_id\n0.nrrd,7\n", encoding="utf-8")
    assert read_case_table(folder, columns=["patient_id"])[0].values["patient_id"] == "7"


@pytest.mark.parametrize("part", ["image", "mask"])
def test_a_row_whose_image_or_mask_is_gone_is_named_with_the_missing_file(folder, part):
    (folder / part / "1.nrrd").unlink()
    with pytest.raises(CaseTableError, match=rf"line 3: .*{part}.1\.nrrd is missing"):
        read_case_table(folder, columns=[])


def test_a_mask_of_several_values_counts_as_one_lesion(folder):
    mask = np.zeros((4, 5, 6), np.int16)
    mask[0, 0, 0], mask[3, 4, 5], mask[2, 2, 2] = 1, 200, -5
    sitk.WriteImage(sitk.GetImageFromArray(mask), str(folder / "mask" / "0.nrrd"))
    _, box, found = read_case_table(folder, columns=[])[0].load()
    assert found.sum() == 2
    np.testing.assert_allclose(box.sizeMm, [6, 5, 4])
