"""What each reader said: majorities, ties, mixed nodules, boxes, and only those who were matched."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from LesionLib.geometry import LesionBox
from lesiontraining.data.messages import TableError
from lesiontraining.data.readers.lidc_ratings import ATTRIBUTES, NoduleReaders, read_ratings

USUAL = {"texture": 5, "calcification": 6, "malignancy": 3}


def readers(**ratings: tuple[int, ...]) -> NoduleReaders:
    n = len(next(iter(ratings.values())))
    usual = {name: (USUAL.get(name, 1),) * n for name in (*ATTRIBUTES, "malignancy")}
    return NoduleReaders(usual | ratings, ())


@pytest.mark.parametrize(
    ("ratings", "kind"),
    [
        ({"texture": (5, 5, 4)}, "solid"),
        ({"texture": (5, 5, 3)}, ""),
        ({"texture": (3, 1, 2, 5)}, "subsolid"),
        ({"texture": (3, 3, 5, 5)}, ""),
        ({"calcification": (3, 3, 6)}, "calcified"),
        ({"calcification": (3, 6)}, ""),
        ({"calcification": (3, 6, 6)}, ""),
        ({"calcification": (3, 3, 3), "texture": (2, 2, 2)}, "calcified"),
    ],
)
def test_a_kind_is_what_most_readers_saw_and_mixed_nodules_have_none(ratings, kind):
    assert readers(**ratings).kind == kind


def test_the_share_above_three_is_of_this_nodule_s_readers():
    assert readers(malignancy=(4, 3, 5, 1)).share_suspicious == 0.5


def write(folder: Path, *, match: str = "yes") -> None:
    rows = [
        {
            "file": "a.nii.gz", "match": match, "lps_x0": -20, "lps_x1": -10, "lps_y0": 5, "lps_y1": 11, "lps_z0": 7,
            "lps_z1": 7, "malignancy": rating, **dict.fromkeys(ATTRIBUTES, 2),
        }
        for rating in (2, 5)
    ]  # fmt: skip
    for name, of in (
        ("reader_ratings_train.csv", rows),
        ("nodule_summary_train.csv", [{"file": "a.nii.gz", "dx_nodule_unambiguous": "3.0"}]),
    ):
        with (folder / name).open("w", newline="", encoding="utf-8") as handle:
            writer = csv.DictWriter(handle, fieldnames=list(of[0]))
            writer.writeheader()
            writer.writerows(of)


def test_ratings_diagnosis_and_boxes_are_read(tmp_path):
    write(tmp_path)
    found = read_ratings(tmp_path)["a.nii.gz"]
    assert found.ratings["malignancy"] == (2, 5)
    assert found.diagnosis is True
    axes = np.array([[0.0, 1, 0], [1, 0, 0], [0, 0, 1]])
    drawn = found.drawn(LesionBox([0, 0, 0], [5, 5, 5], axes), np.random.default_rng(0))
    np.testing.assert_allclose(drawn.centerRAS, [15, -8, 7])
    np.testing.assert_allclose(drawn.sizeMm, [6, 10, 1.5])  # along the axes of the given box; one slice is not nothing


def test_readers_who_were_not_matched_say_nothing(tmp_path):
    write(tmp_path, match="check")
    assert read_ratings(tmp_path) == {}


def test_a_folder_without_the_tables_is_refused(tmp_path):
    with pytest.raises(TableError, match="reader_ratings_train.csv"):
        read_ratings(tmp_path)
