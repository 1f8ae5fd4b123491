"""Boxes from CSV: both frames, and every mistake named with its line."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from LesionLib.errors import BoxError
from LesionLib.geometry import LesionBox
from LesionLib.io.boxes import (
    HEADER,
    VOXEL_COLUMNS,
    VoxelBox,
    box_from_json,
    box_to_json,
    parse_boxes_csv,
    read_box_locations,
    read_boxes_csv,
)

TOP = ",".join(HEADER)


def parse(*lines: str):
    return parse_boxes_csv("\n".join(lines), source="b.csv")


def test_lps_is_turned_into_ras():
    ras, lps = parse(TOP, "a,RAS,1,2,3,4,5,6", "b,lps,-1,-2,3,4,5,6")
    np.testing.assert_array_equal(ras.centerRAS, lps.centerRAS)
    np.testing.assert_array_equal(lps.sizeMm, [4, 5, 6])


def test_columns_may_stand_in_any_order_and_lines_may_be_blank(tmp_path):
    path = tmp_path / "b.csv"
    path.write_text("\ufeffframe,name,size_x,size_y,size_z,center_x,center_y,center_z\r\n\r\nRAS, L1 ,4,5,6,1,2,3\r\n")
    (box,) = read_boxes_csv(path)
    assert box.name == "L1"
    np.testing.assert_array_equal(box.centerRAS, [1, 2, 3])


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("L1,RAS,1,2,3,4,5", "line 2: 7 values where 8"),
        ("L1,RAS,1,2,3,4,5,6,7", "line 2: 9 values where 8"),
        ("L1,XYZ,1,2,3,4,5,6", "line 2: frame is 'XYZ'"),
        ("L1,RAS,1,2,3,4,5,six", "line 2: size_z is 'six'"),
        ("L1,RAS,1,2,nan,4,5,6", "line 2.*finite"),
        ("L1,RAS,1,2,3,4,0,6", "line 2.*4 x 0 x 6 mm"),
        (" ,RAS,1,2,3,4,5,6", "line 2: the name is empty"),
    ],
)
def test_a_mistake_is_named_with_its_line(line, said):
    with pytest.raises(BoxError, match=said):
        parse(TOP, line)


def test_two_boxes_of_one_name_no_boxes_and_another_header_are_refused(tmp_path):
    with pytest.raises(BoxError, match="two boxes are named 'L1'"):
        parse(TOP, "L1,RAS,1,2,3,4,5,6", "L1,RAS,1,2,3,4,5,6")
    with pytest.raises(BoxError, match="holds 0 boxes"):
        parse(TOP)
    with pytest.raises(BoxError, match="the header must be"):
        parse("x,y,z", "1,2,3")
    (tmp_path / "image.csv").write_bytes(b"\xff\xfe\x00\x89")
    with pytest.raises(BoxError, match="cannot be read as a text file"):
        read_boxes_csv(tmp_path / "image.csv")


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=200) | st.lists(st.text(alphabet='LRAPS,.-0123456789e"\n ', max_size=40)).map("\n".join))
def test_no_text_raises_anything_but_a_box_error(text):
    for candidate in (text, f"{TOP}\n{text}"):
        try:
            boxes = parse_boxes_csv(candidate, source="b.csv")
        except BoxError as error:
            assert "b.csv" in str(error)
        else:
            assert boxes


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(*[st.floats(-500, 500)] * 3, *[st.floats(0.2, 300)] * 3), min_size=1, max_size=5))
def test_what_is_written_is_read(rows):
    lines = [f"L{i},RAS,{','.join(repr(v) for v in row)}" for i, row in enumerate(rows)]
    for row, box in zip(rows, parse(TOP, *lines), strict=True):
        np.testing.assert_array_equal([*box.centerRAS, *box.sizeMm], row)


@pytest.mark.parametrize("rows", [(), ("",), (" , ,",), (",,,,,,,", "")])
def test_a_table_without_a_filled_line_is_refused(rows):
    with pytest.raises(BoxError, match="holds 0 boxes; give at least one"):
        parse(TOP, *rows)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "a,b",
        f"{TOP},comment",
        TOP.replace("frame", "name"),
        TOP.upper(),
        TOP.replace(",", ";"),
        '"a\nb",c',
        "a\x1b",
    ],
)
def test_a_wrong_header_is_refused_in_one_printable_line(header):
    with pytest.raises(BoxError, match=r"b\.csv, line 1: the header must be name,frame,center_x") as error:
        parse(header, "L1,RAS,1,2,3,4,5,6")
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("L1,RAS,1,2,,4,5,6", "center_z is ''"),
        ("L1,RAS,1,2,inf,4,5,6", "finite"),
        ("L1,RAS,1,2,3,4,-inf,6", "finite"),
        ("L1,RAS,1,2,3,4,-5,6", "4 x -5 x 6 mm"),
        ("L1,,1,2,3,4,5,6", "frame is ''"),
        ('L1,RAS,"1,5",2,3,4,5,6', "center_x is '1,5'"),
        ("L\x07,RAS,1,2,3,4,5,6", "not printable"),
        ("L0,lps,1,2,3,4,5,6", "two boxes are named 'L0'"),
    ],
)
def test_the_line_of_a_mistake_counts_blank_lines_and_good_ones(line, said):
    with pytest.raises(BoxError, match=f"b.csv, line 5: .*{said}") as error:
        parse(TOP, "", "L0,RAS,1,2,3,4,5,6", "", line)
    assert str(error.value).isprintable()


def test_more_boxes_than_anyone_drew_are_refused():
    with pytest.raises(BoxError, match="holds 10001 boxes"):
        parse(TOP, *(f"L{n},RAS,1,2,3,4,5,6" for n in range(10_001)))


def test_a_folder_and_a_missing_file_are_refused_by_name(tmp_path):
    for path in (tmp_path, tmp_path / "absent.csv"):
        with pytest.raises(BoxError, match="cannot be read as a text file of boxes") as error:
            read_boxes_csv(path)
        assert path.name in str(error.value)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(alphabet="LRAS,.-019e\"'\n\r\t\x1b\x00é ", max_size=30), max_size=4), st.booleans())
def test_every_message_is_one_line_whatever_the_text(lines, with_header):
    try:
        parse("L1,RAS".join(lines) if not with_header else "\n".join([TOP, *lines]))
    except BoxError as error:
        assert str(error).isprintable()


@settings(max_examples=60, deadline=None)
@given(
    st.permutations(HEADER),
    st.sampled_from(["RAS", "LPS"]),
    st.tuples(*[st.floats(-500, 500)] * 3, *[st.floats(0.2, 300)] * 3),
)
def test_any_order_of_columns_and_either_frame_gives_the_same_box(order, frame, numbers):
    cells = dict(zip(HEADER, ["L1", frame, *map(repr, numbers)], strict=True))
    (box,) = parse(",".join(order), ",".join(cells[key] for key in order))
    sign = np.array([1, 1, 1] if frame == "RAS" else [-1, -1, 1])
    np.testing.assert_array_equal(box.centerRAS, np.array(numbers[:3]) * sign)
    np.testing.assert_array_equal(box.sizeMm, numbers[3:])
    np.testing.assert_array_equal(box.axesRAS, np.eye(3))


def test_a_box_comes_back_from_json_without_its_name():
    turn = np.array([[0.6, -0.8, 0], [0.8, 0.6, 0], [0, 0, 1]])
    box = LesionBox([1.5, -2.0, 1 / 3], [4.0, 5.0, 6.0], turn, name="Doe^Jane")
    document = json.loads(json.dumps(box_to_json(box)))
    assert list(document) == ["centerRAS", "sizeMm", "axesRAS"]
    again = box_from_json(document, name="L1")
    assert again.name == "L1"
    for key in document:
        np.testing.assert_array_equal(getattr(again, key), getattr(box, key))


def test_a_box_without_size_in_json_is_refused():
    with pytest.raises(BoxError, match="its size is 0 x 5 x 6 mm"):
        box_from_json({"centerRAS": [0, 0, 0], "sizeMm": [0, 5, 6], "axesRAS": np.eye(3).tolist()})


VOXELS = ",".join(("name", *VOXEL_COLUMNS))
OBLIQUE = np.array([[0.0, -0.8, 0.0, 10.0], [0.7, 0.0, 0.0, -20.0], [0.0, 0.0, 2.5, 30.0], [0.0, 0.0, 0.0, 1.0]])


def test_a_box_in_voxels_holds_its_first_and_last_voxel_whole():
    (box,) = parse_boxes_csv(f"{VOXELS}\nL1,2,3,4,5,3,6\n", source="b.csv", ijkToRAS=OBLIQUE)
    assert box.name == "L1"
    middle = OBLIQUE @ [3.5, 3.0, 5.0, 1.0]
    np.testing.assert_allclose(box.centerRAS, middle[:3])
    np.testing.assert_allclose(box.sizeMm, [4 * 0.7, 0.8, 3 * 2.5])
    np.testing.assert_allclose(np.abs(box.axesRAS), [[0, 1, 0], [1, 0, 0], [0, 0, 1]])


def test_the_names_of_a_training_table_s_columns_are_read_too(tmp_path):
    (tmp_path / "b.csv").write_text("i_max,j_max,k_max,i_min,j_min,k_min,frame,lesion\n5,3,6,2,3,4,IJK,L1\n")
    assert read_box_locations(tmp_path / "b.csv") == [("L1", VoxelBox((2, 3, 4), (5, 3, 6)))]
    with pytest.raises(BoxError, match="'L1' is given in voxels, and the CT that they are of is not known here"):
        read_boxes_csv(tmp_path / "b.csv")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("L1,2,3,4,5,3", r"line 2: 6 values where 7 are expected \(name,i_min"),
        ("L1,2,3,4,5,3,2", r"line 2: the voxel box ends at \(5, 3, 2\) before it begins at \(2, 3, 4\)"),
        ("L1,2,3,4,5.5,3,6", "line 2: the voxel box .* has fractions"),
        ("L1,2,3,4,9999,3,6", "line 2: .*larger than any CT; are these millimetres"),
        ('L1,"2,0",3,4,5,3,6', "line 2: i_min is '2,0'; write a whole number of voxels, counted from 0"),
        ("L1,,,,,,", "line 2: 'L1' has no numbers; write where it is in all of i_min"),
        ("L1,2,3,4,5,3,", "line 2: k_max is ''"),
    ],
)
def test_a_mistake_in_a_box_in_voxels_is_named_with_its_line(line, said):
    with pytest.raises(BoxError, match=rf"b\.csv, {said}"):
        parse_boxes_csv(f"{VOXELS}\n{line}\n", source="b.csv", ijkToRAS=np.eye(4))


def test_decimal_commas_that_make_more_values_than_columns_are_guessed():
    with pytest.raises(BoxError, match="line 2: 9 values where 8 are expected .*; write decimals with a point"):
        parse(TOP, "L1,RAS,1,5,2,3,4,5,6")


def test_a_header_of_neither_form_is_told_both():
    with pytest.raises(BoxError, match=rf"must be {TOP} \(mm\) or {VOXELS} \(voxels, from 0\), not 'name,i_min'"):
        parse("name,i_min", "L1,2")
