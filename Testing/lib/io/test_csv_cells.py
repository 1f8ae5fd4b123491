"""A cell that somebody typed is text to a spreadsheet, whatever it begins with; numbers stay numbers."""

from __future__ import annotations

import csv
import io
from dataclasses import replace

import numpy as np
import pytest
from LesionLib.geometry import LesionBox
from LesionLib.inference.results import LesionResult, RunInfo, as_csv
from LesionLib.io.tables import csv_cell


@pytest.mark.parametrize(
    "text", ["=1+1", "+49 31", "-Doe", "@SUM(A1)", "\t=1", "\r=1", "  =1", "\uff1d1", '=HYPERLINK("x")', "-", "--1"]
)
def test_a_text_that_a_spreadsheet_would_compute_gets_an_apostrophe(text):
    assert csv_cell(text) == f"'{text}"


@pytest.mark.parametrize("value", ["-1.5", "+3", "-1e-05", "-inf", "L1", "", "a=b", "1-2", -2.5, 7, None])
def test_numbers_and_plain_texts_stay_as_they_are(value):
    assert csv_cell(value) == value


def test_results_csv_holds_no_formula_and_its_negative_numbers_are_numbers():
    run = RunInfo("=cmd|' /C calc'!A0", "@model", "1.0", "ab" * 32, "cpu", "+software")
    result = LesionResult(
        name="=HYPERLINK(\"http://x\")", box=LesionBox([-12.5, -3, 4], [5, 5, 5]), label="-yes",
        probabilities={"-yes": 0.75, "=no": 0.25}, embedding=np.ones(1, np.float32), heat_map=None,
    )  # fmt: skip
    header, row = csv.reader(io.StringIO(as_csv(run, [replace(result)])))
    assert header[2:4] == ["p_-yes", "p_=no"]
    cells = dict(zip(header, row, strict=True))
    assert (cells["center_r"], cells["center_a"]) == ("-12.500", "-3.000")
    assert (cells["name"], cells["label"]) == ('\'=HYPERLINK("http://x")', "'-yes")
    for text in [*header, *row]:
        assert not text.startswith(("=", "@", "+", "-")) or float(text) is not None
