"""``lesiontrain check``: all that is wrong with a table at once, whatever hides behind what."""

from __future__ import annotations

import pytest
from lesion_tables import write_lesion_table
from lesiontraining.cli import main


@pytest.fixture
def table(tmp_path):
    return write_lesion_table(tmp_path)


def changed(table, **cells):
    """The table with cells of lines changed: ``line_3__patient="x"``."""
    header, *rows = (line.split(",") for line in table.read_text().splitlines())
    for name, value in cells.items():
        line, column = name.removeprefix("line_").split("__")
        rows[int(line) - 2][header.index(column)] = value
    table.write_text("\n".join(",".join(row) for row in (header, *rows)) + "\n")
    return table


def test_a_sound_table_is_counted(table, capsys):
    assert main(["check", str(table), "--label", "kind", "--folds", "3"]) == 0
    assert "24 lesions of 12 patients, 12 bright, 12 hollow." in capsys.readouterr().out


def test_problems_of_every_stage_are_named_in_one_go(table, capsys):
    changed(
        table,
        line_2__size_x="-3",
        line_3__patient="",
        line_5__volume="gone.nii.gz",
        line_7__kind="Bright",
        line_9__frame="XYZ",
    )
    assert main(["check", str(table), "--label", "kind", "--folds", "7"]) == 2
    said = capsys.readouterr().err
    for line in (2, 3, 5, 7, 9):
        assert f"line {line}: " in said
    assert "gone.nii.gz is missing" in said
    assert "the patient is empty" in said
    assert "too few for 7 folds" in said


def test_a_box_in_the_other_frame_is_recognised(table, capsys):
    header, first, *rest = table.read_text().splitlines()
    values = dict(zip(header.split(","), first.split(","), strict=True))
    values["frame"] = "RAS" if values["frame"] == "LPS" else "LPS"
    table.write_text("\n".join([header, ",".join(values.values()), *rest]) + "\n")
    assert main(["check", str(table), "--label", "kind"]) == 2
    assert "it would lie inside if its frame were" in capsys.readouterr().err


def test_a_missing_column_does_not_hide_what_is_wrong_with_the_rows(table, capsys):
    changed(table, line_4__volume="gone.nii.gz")
    assert main(["check", str(table), "--label", "diagnosis"]) == 2
    said = capsys.readouterr().err
    assert "there is no column 'diagnosis'" in said
    assert "gone.nii.gz is missing" in said


def test_two_spellings_of_one_patient_are_said(table, capsys):
    changed(table, line_2__patient="P X", line_3__patient="p x")
    main(["check", str(table), "--label", "kind"])
    assert "patient" in capsys.readouterr().err
