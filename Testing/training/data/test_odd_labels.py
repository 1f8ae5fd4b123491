"""Labels that a table writes in two ways, or not at all, are named before a training starts."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from lesiontraining.data.checks import check_table
from lesiontraining.data.lesions import parse_csv, table_from_rows
from lesiontraining.data.messages import TableError


def table(tmp_path, labels, patients=None):
    patients = patients or [f"P{n}" for n in range(len(labels))]
    lines = [f"ct.nrrd,{n},0,0,8,8,8,RAS,{x},{p}" for n, (x, p) in enumerate(zip(labels, patients, strict=True))]
    header = "volume,center_x,center_y,center_z,size_x,size_y,size_z,frame,dx,patient"
    columns, rows = parse_csv("\n".join([header, *lines]), source="t.csv")
    return table_from_rows(columns, rows, folder=tmp_path, source="t.csv", label="dx")


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (["a", "b", "NA"], "line 4: the label 'NA' reads like a missing value"),
        (["Benign", "benign", "malignant"], r"line 3: the labels 'benign' and 'Benign' \(line 2\) look like one class"),
        (["1", "0", "1.0"], r"line 4: the labels '1.0' and '1' \(line 2\) look like one class"),
    ],
)
def test_a_table_with_one_class_written_twice_is_refused(tmp_path, labels, said):
    with pytest.raises(TableError, match=said):
        check_table(table(tmp_path, labels), look_at_files=False, progress=False)


def test_patients_that_may_be_one_are_a_warning(tmp_path):
    (warning,) = table(tmp_path, ["a", "b", "a"], ["007", "7", "x"]).warnings
    assert "line 3: the patients '7' and '007' (line 2) look like one patient" in warning
    assert table(tmp_path, ["a", "b"], ["P1", "P2"]).warnings == ()


def test_what_is_odd_about_a_ct_is_said_when_the_table_is_checked(tmp_path, capsys):
    head = "NRRD0004\ntype: short\ndimension: 3\nsizes: 30 30 30\nencoding: raw\nendian: little\nspacings: 1 1 1\n\n"
    (tmp_path / "ct.nrrd").write_bytes(head.encode() + bytes(2 * 30**3))
    check_table(table(tmp_path, ["a", "b"]), progress=False)
    assert "t.csv, line 2: ct.nrrd does not say where it lies" in capsys.readouterr().err


def test_a_table_with_semicolons_is_named_as_one():
    with pytest.raises(TableError, match="t.csv: line 1: values are separated by semicolons"):
        parse_csv("volume;patient;dx\nct.nrrd;1;a\n", source="t.csv")


def test_an_error_is_shown_in_whatever_code_page_the_console_has(tmp_path):
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"}
    code = "import sys; from lesiontraining.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "check", str(tmp_path / "腫瘤.csv"), "--label", "dx"]
    ran = subprocess.run(command, env=environment, capture_output=True, check=False, timeout=200)
    assert ran.returncode == 2, ran.stderr
    assert b"\\u816b" in ran.stderr
