"""The table form: what is written in it is read, what is wrong is named with its line, and no text makes it fall over."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from LesionLib.io.boxes import MM_COLUMNS, VOXEL_COLUMNS, MmBox, VoxelBox, read_box_locations
from lesiontraining.data.lesions import COLUMNS, parse_csv, read_lesion_table, table_from_rows
from lesiontraining.data.messages import TableError
from lesiontraining.data.sources import Photograph, VolumeSource

ROW = {
    "volume": "ct/1.nii.gz", "center_x": "-61.5", "center_y": "14", "center_z": "-310", "size_x": "18", "size_y": "16",
    "size_z": "20", "frame": "LPS", "diagnosis": "cyst", "patient": "P1", "study": "S1", "age": "61",
}  # fmt: skip


@pytest.fixture
def a_table(tmp_path):
    def write(*rows, header=None, name="lesions.csv"):
        path = tmp_path / name
        with path.open("w", newline="", encoding="utf-8") as handle:
            writer = csv.DictWriter(handle, fieldnames=header or list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        return path

    return write


def problems_of(path, **options):
    with pytest.raises(TableError) as caught:
        read_lesion_table(path, **{"label": "diagnosis", **options})
    return caught.value


def test_a_row_keeps_where_it_is_what_it_is_whose_it_is_and_its_line(a_table):
    path = a_table(ROW, {**ROW, "center_x": "3", "diagnosis": "metastasis", "patient": "P2"})
    table = read_lesion_table(path, label="diagnosis")
    first, second = table.rows
    assert first.source == VolumeSource(path.parent / "ct/1.nii.gz", MmBox("LPS", (-61.5, 14, -310), (18, 16, 20)))
    assert (first.line, second.line) == (2, 3)
    assert (first.label, first.patient, first.study, first.attributes["age"]) == ("cyst", "P1", "S1", "61")
    assert table.class_names == ("cyst", "metastasis")
    assert table.labels.tolist() == [0, 1]


def test_lps_and_ras_are_the_same_place_with_two_signs_changed(a_table):
    lps, ras = ROW, {**ROW, "frame": "RAS", "center_x": "61.5", "center_y": "-14"}
    boxes = [
        row.source.location.box(np.eye(4), name="a")
        for row in read_lesion_table(a_table(lps, ras), label="diagnosis").rows
    ]
    assert boxes[0].centerRAS.tolist() == boxes[1].centerRAS.tolist() == [61.5, -14, -310]


def test_a_voxel_box_holds_its_first_and_last_voxel_whole():
    spacing = np.array([0.5, 0.5, 2.0])
    to_ras = np.diag([*(-spacing[:2]), spacing[2], 1.0])
    to_ras[:3, 3] = [10, 20, 30]
    box = VoxelBox((2, 3, 4), (5, 3, 6)).box(to_ras, name="a")
    assert box.sizeMm.tolist() == [2.0, 0.5, 6.0]
    assert box.centerRAS.tolist() == [10 - 0.5 * 3.5, 20 - 0.5 * 3, 30 + 2 * 5]
    assert box.segment is None


def test_all_bad_rows_are_named_at_once_with_their_lines(a_table):
    path = a_table(
        ROW, {**ROW, "center_x": "left"}, {**ROW, "frame": "XYZ"}, {**ROW, "size_z": "0"}, {**ROW, "patient": ""},
        {**ROW, "volume": ""}, {**ROW, "size_y": "nan"},
    )  # fmt: skip
    error = problems_of(path)
    assert [problem.line for problem in error.problems] == [3, 4, 5, 6, 7, 8]
    for word in (
        "center_x is 'left'",
        "RAS (3D Slicer) or LPS",
        "its size is 18 x 16 x 0 mm",
        "patient is empty",
        "size_y",
    ):
        assert word in str(error)


def test_many_problems_are_shown_in_part_and_counted(a_table):
    error = problems_of(a_table(*[{**ROW, "frame": "?"}] * 50))
    assert "50 problems" in str(error)
    assert "and 30 more" in str(error)
    assert len(error.problems) == 50


@pytest.mark.parametrize(
    ("missing", "says"),
    [
        ("volume", "no column 'volume'"),
        ("patient", "no column 'patient'"),
        ("diagnosis", "no column 'diagnosis'"),
        ("size_z", "missing: size_z"),
    ],
)
def test_a_missing_column_is_named(a_table, missing, says):
    row = {key: value for key, value in ROW.items() if key != missing}
    assert says in str(problems_of(a_table(row)))


def test_a_label_outside_the_classes_is_named_with_its_line(a_table):
    error = problems_of(a_table(ROW, {**ROW, "diagnosis": "cist"}), classes=["cyst", "metastasis"])
    assert "line 3: the label 'cist' is none of the classes cyst, metastasis" in str(error)


def test_a_row_with_neither_box_nor_mask_is_refused_and_with_both_boxes_too(a_table):
    voxels = dict.fromkeys(VOXEL_COLUMNS, "")
    nothing = {**ROW, **dict.fromkeys(MM_COLUMNS, ""), **voxels}
    both = {**ROW, **dict.fromkeys(VOXEL_COLUMNS, "3")}
    text = str(problems_of(a_table(nothing, both)))
    assert "line 2: neither a box nor a mask" in text
    assert "line 3: the row has a box in mm" in text


def test_voxel_boxes_that_end_before_they_begin_or_have_fractions_are_refused(a_table):
    base = {"volume": "a.nii", "patient": "P", "diagnosis": "cyst", "mask_value": ""}
    good = dict(zip(VOXEL_COLUMNS, map(str, (1, 2, 3, 4, 5, 6)), strict=True))
    text = str(
        problems_of(
            a_table(
                {**base, **good, "i_max": "0"}, {**base, **good, "k_min": "2.5"}, {**base, **good, "i_max": "90000"}
            )
        )
    )
    assert "ends at (0, 5, 6) before it begins" in text
    assert "has fractions" in text
    assert "larger than any CT" in text


def test_classes_are_in_natural_order_and_an_empty_label_is_unknown(a_table):
    table = read_lesion_table(
        a_table(*({**ROW, "diagnosis": text} for text in ("10", "2", "", "1"))), label="diagnosis"
    )
    assert table.class_names == ("1", "2", "10")
    assert table.labels.tolist() == [2, 1, -1, 0]


def test_a_table_of_pictures_has_photographs(a_table):
    path = a_table({"image": "eye.jpg", "patient": "P", "grade": "2"})
    (row,) = read_lesion_table(path, label="grade").rows
    assert row.source == Photograph(path.parent / "eye.jpg")


def test_a_parquet_table_says_the_same_as_the_csv(a_table, tmp_path):
    from pyarrow import Table
    from pyarrow.parquet import write_table

    rows = [{**ROW, "age": 61.0}, {**ROW, "patient": "P2", "age": None}]
    write_table(
        Table.from_pylist([{**r, "center_x": float(r["center_x"])} for r in rows]), tmp_path / "lesions.parquet"
    )
    stored = read_lesion_table(tmp_path / "lesions.parquet", label="diagnosis")
    written = read_lesion_table(a_table({**rows[0], "age": "61"}, {**rows[1], "age": ""}), label="diagnosis")
    for ours, theirs in zip(stored.rows, written.rows, strict=True):
        assert {**vars(ours)} == {**vars(theirs)}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"\xff\xfe\x00", "UTF-8"),
        (b"volume,patient\n", "no row"),
        (b'volume,patient\n"a', "not a CSV table"),
        (b"volume,volume\na,b\n", "twice"),
        (b"volume,patient\na\n", "1 values where the header has 2"),
    ],
)
def test_a_file_that_is_no_table_says_why(tmp_path, content, says):
    path = tmp_path / "lesions.csv"
    path.write_bytes(content)
    assert says in str(problems_of(path))


def test_a_table_that_is_not_there_or_no_parquet_says_so(tmp_path):
    assert "no such file" in str(problems_of(tmp_path / "nowhere.csv"))
    (tmp_path / "lesions.parquet").write_bytes(b"PAR1 nothing")
    assert "not a parquet table" in str(problems_of(tmp_path / "lesions.parquet"))


CELLS = st.one_of(
    st.text(max_size=8),
    st.sampled_from(["RAS", "LPS", "IJK", "1", "-3.5", "nan", "1e999", "train", "a.nii.gz", "", "٣", "1_0"]),
)


@settings(max_examples=150, deadline=None)
@given(
    header=st.lists(st.one_of(st.sampled_from([*COLUMNS, "label"]), st.text(max_size=5)), max_size=20),
    rows=st.lists(st.lists(CELLS, max_size=20), max_size=4),
    noise=st.text(max_size=20),
)
def test_any_text_gives_a_table_or_a_table_error(header, rows, noise):
    text = "\n".join([",".join(header), *(",".join(row) for row in rows)]) + noise
    _read(text)


@settings(max_examples=150, deadline=None)
@given(st.fixed_dictionaries(dict.fromkeys((*COLUMNS[:1], *COLUMNS[2:], "label"), CELLS)))
def test_any_cells_under_the_right_columns_give_a_table_or_a_table_error(values):
    quoted = ",".join('"' + cell.replace('"', '""') + '"' for cell in values.values())
    _read(",".join(values) + "\n" + quoted)


def _read(text):
    try:
        header, rows = parse_csv(text, source="any.csv")
        table = table_from_rows(header, rows, folder=Path("/x"), source="any.csv", label="label")
    except TableError as error:
        assert error.problems
        assert str(error).startswith("any.csv")
    else:
        assert len(table) >= 1
        assert set(table.labels.tolist()) <= set(range(-1, len(table.class_names)))


def test_short_names_of_studies_count_within_their_patient_and_long_ones_stand(a_table):
    uid = "1.2.840.113619.2"
    rows = [{**ROW, "study": "1"}, {**ROW, "patient": "P2", "study": "1"}, {**ROW, "study": uid}, {**ROW, "study": ""}]
    table = read_lesion_table(a_table(*rows), label="diagnosis")
    assert table.studies.tolist() == ["P1/1", "P2/1", uid, "P1"]


def test_a_decimal_comma_is_named_as_one(a_table):
    text = str(problems_of(a_table({**ROW, "center_x": "-61,5"})))
    assert "center_x is '-61,5'; write a number in mm with a decimal point, not a comma" in text


def test_a_box_is_read_as_the_command_line_reads_it(a_table, tmp_path):
    path = a_table(ROW)
    box = {name: value for name, value in ROW.items() if name in (*MM_COLUMNS, "frame")}
    (tmp_path / "boxes.csv").write_text(f"name,{','.join(box)}\nL1,{','.join(box.values())}\n")
    ((_, location),) = read_box_locations(tmp_path / "boxes.csv")
    assert read_lesion_table(path, label="diagnosis").rows[0].source.location == location
