"""Boxes from CSV: both frames, and every mistake named with its line."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from LesionLib.box_files import HEADER, parse_boxes_csv, read_boxes_csv
from LesionLib.errors import BoxError

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
