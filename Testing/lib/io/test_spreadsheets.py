"""Tables as spreadsheets leave them: read, or refused with the row, the column and what to do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from LesionLib.errors import BoxError
from LesionLib.io.boxes import HEADER, CaseTableError, parse_boxes_csv, read_boxes_csv, read_case_table
from LesionLib.io.tables import doubtful_labels, parsed_table
from LesionRetrievalLib.library.intake import label_column, label_of, require_clear_labels

ROW = "L1,RAS,-20,30,-100,8,8,8"
TABLE = f"{','.join(HEADER)}\n{ROW}\n"


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        (TABLE.replace(",", ";"), "separated by semicolons: save it with commas"),
        (TABLE.replace(",", "\t"), "separated by tabs"),
        ("sep=,\n" + TABLE, "the line 'sep=' of a spreadsheet"),
        ("# lesions of March\n" + TABLE, "a remark stands before the header"),
    ],
)
def test_what_a_spreadsheet_did_to_a_table_of_boxes_is_said(text, hint):
    with pytest.raises(BoxError, match=f"line 1: the header must be name,.*{hint}"):
        parse_boxes_csv(text, source="b.csv")


@pytest.mark.parametrize(("cell", "hint"), [('"-20,5"', "decimal point, not a comma"), ("\u221220", "minus sign")])
def test_a_number_in_another_notation_is_named(cell, hint):
    with pytest.raises(BoxError, match=rf"line 2: center_x is .*write a number in mm with .*{hint}"):
        parse_boxes_csv(TABLE.replace("-20", cell), source="b.csv")


@pytest.mark.parametrize(("encoding", "hint"), [("utf-16", "it is UTF-16"), ("latin-1", "it is not UTF-8")])
def test_another_encoding_is_named_with_what_to_save_it_as(tmp_path, encoding, hint):
    (tmp_path / "b.csv").write_bytes(TABLE.replace("L1", "Läsion").encode(encoding))
    with pytest.raises(BoxError, match=f"{hint}.*save it as 'CSV UTF-8'"):
        read_boxes_csv(tmp_path / "b.csv")


def test_cells_lose_the_space_around_them_and_empty_rows_and_columns_go():
    header, rows = parsed_table("a, b ,\n 1 ,2,\n,,\n3\n")
    assert header == ("a", "b")
    assert rows == [(2, {"a": "1", "b": "2"}), (4, {"a": "3", "b": ""})]


@pytest.fixture
def folder(tmp_path) -> Path:
    for name in ("image", "mask"):
        (tmp_path / name).mkdir()
        for number in range(3):
            sitk.WriteImage(
                sitk.GetImageFromArray(np.ones((3, 3, 3), np.int16)), str(tmp_path / name / f"{number}.nrrd")
            )
    return tmp_path


def cases(folder: Path, *labels: str, header: str = "file,patient_id,label") -> list:
    rows = [f"{number}.nrrd,P{number},{label}" for number, label in enumerate(labels)]
    (folder / "t.csv").write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return read_case_table(folder, columns=["patient_id"])


def test_a_row_longer_than_its_header_is_named_with_row_and_column(folder):
    with pytest.raises(
        CaseTableError, match=r"t\.csv, line 3: a value 'more' in column 4, and the header has 3 columns"
    ):
        cases(folder, "1", "0,more,still")


def test_a_table_with_semicolons_is_named_as_one(folder):
    (folder / "t.csv").write_text("file;patient_id;label\n0.nrrd;1;1\n")
    with pytest.raises(CaseTableError, match="lacks the column.*separated by semicolons"):
        read_case_table(folder, columns=["patient_id"])


def test_a_column_that_stands_twice_is_refused(folder):
    with pytest.raises(CaseTableError, match="'label' stand twice"):
        cases(folder, "1,1", header="file,patient_id,label,label")


def test_spaces_after_commas_and_trailing_commas_are_no_hindrance(folder):
    (folder / "t.csv").write_text("file, patient_id, label,\n0.nrrd, 1, 1,\n,,,\n1.nrrd , 2, 0,\n")
    assert [row.values["label"] for row in read_case_table(folder, columns=["patient_id"])] == ["1", "0"]


@pytest.mark.parametrize("labels", [("1.0", "0.0", "1"), ("1", "0", "1.00")])
def test_a_class_number_with_a_decimal_point_is_the_same_class(folder, labels):
    rows = cases(folder, *labels)
    column = label_column(rows[0], None)
    assert [label_of(row, column, ("benign", "malignant")) for row in rows] == ["malignant", "benign", "malignant"]
    require_clear_labels(rows, column, ("benign", "malignant"))


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (("1", "", "0"), r"t\.csv, line 3: label is empty"),
        (("1", "NA", "0"), r"t\.csv, line 3: the label 'NA' reads like a missing value"),
        (("cyst", "nan", "?"), r"t\.csv, line 3: the label 'nan' reads like .*And 1 more like it"),
        (("Benign", "benign", "0"), r"t\.csv, line 3: the labels 'benign' and 'Benign' \(line 2\) look like one class"),
    ],
)
def test_labels_that_are_missing_or_written_in_two_ways_are_named_before_anything_starts(folder, labels, said):
    rows = cases(folder, *labels)
    with pytest.raises(CaseTableError, match=said):
        require_clear_labels(rows, "label", ())


def test_spellings_of_one_class_are_found_and_different_classes_are_not():
    alike = [("Benign", "benign"), ("1", "1.0"), ("e\u0301", "\xe9"), ("a  b", "a b"), ("01", "1")]
    for one, other in alike:
        assert [line for line, _ in doubtful_labels([(2, one), (3, other), (4, one)])] == [3], (one, other)
    assert doubtful_labels([(2, "benign"), (3, "malignant"), (4, "1"), (5, "2"), (6, ""), (7, "benign")]) == []
