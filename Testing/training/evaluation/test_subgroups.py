"""Subgroup tables: who belongs where, on how many lesions a row rests, and its interval."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lesiontraining.evaluation.classification import accuracy
from lesiontraining.evaluation.intervals import PatientDraws, interval, over
from lesiontraining.evaluation.subgroups import by_edges, by_tercile, by_value, subgroup_table

sizes = st.lists(st.one_of(st.integers(1, 9).map(float), st.just(float("nan"))), min_size=1, max_size=40)


@given(sizes)
def test_every_lesion_is_in_one_group_and_ranges_do_not_overlap(values):
    groups = by_tercile("size", np.array(values), unit="mm")
    rows = np.concatenate([group.rows for group in groups])
    assert sorted(rows.tolist()) == list(range(len(values)))
    ranges = [np.array(values)[group.rows] for group in groups if group.name != "not given"]
    assert len(ranges) <= 3
    assert all(a.max() < b.min() for a, b in pairwise(ranges))
    assert np.isnan(values).any() == (groups[-1].name == "not given")


def test_terciles_of_different_sizes_are_thirds():
    groups = by_tercile("diameter", np.random.default_rng(0).permutation(30) + 1.0, unit="mm")
    assert [len(group.rows) for group in groups] == [10, 10, 10]
    assert [group.name for group in groups] == ["1 to 10 mm", "11 to 20 mm", "21 to 30 mm"]


def test_fixed_edges_belong_to_the_group_below_and_empty_groups_are_left_out():
    groups = by_edges("diameter", np.array([4.0, 5.0, 5.1, 30.0]), [5, 12, 20], unit="mm")
    assert [(g.name, g.rows.tolist()) for g in groups] == [
        ("4 to 5 mm", [0, 1]),
        ("5.1 mm", [2]),
        ("30 mm", [3]),
    ]


def test_values_are_groups_in_order_and_missing_ones_come_last():
    scanners = by_value("scanner", ["GE", None, "Philips", "GE", ""])
    assert [(g.name, g.rows.tolist()) for g in scanners] == [
        ("GE", [0, 3]),
        ("Philips", [2]),
        ("not given", [1, 4]),
    ]
    spacing = by_value("slice distance", np.array([10.0, 2.5, np.nan, 2.5]))
    assert [(g.name, g.rows.tolist()) for g in spacing] == [("2.5", [1, 3]), ("10", [0]), ("not given", [2])]


def test_a_row_is_the_figure_of_its_lesions_with_the_interval_of_its_patients():
    rng = np.random.default_rng(1)
    size, patients = rng.uniform(3, 30, 90), rng.integers(25, size=90)
    truth = rng.integers(3, size=90)
    predicted = np.where(rng.random(90) < size / 30, truth, (truth + 1) % 3)  # large lesions are easy
    table = subgroup_table(
        by_tercile("size", size), {"accuracy": over(accuracy, truth, predicted)}, patients, draws=300, seed=4
    )
    figures = [row.figures["accuracy"] for row in table]
    assert figures[0].value < figures[1].value < figures[2].value
    for row, group in zip(table, by_tercile("size", size), strict=True):
        rows = group.rows
        drawn = PatientDraws(patients[rows], draws=300, seed=4)
        assert row.figures["accuracy"] == interval(over(accuracy, truth[rows], predicted[rows]), drawn)
        assert (row.lesions, row.patients) == (30, len(np.unique(patients[rows])))


def test_a_group_of_one_patient_shows_its_figure_without_an_interval():
    groups = by_value("scanner", ["A", "A", "B", "B"])
    truth = np.array([0, 1, 0, 1])
    table = subgroup_table(groups, {"accuracy": over(accuracy, truth, truth)}, np.array([1, 2, 3, 3]), draws=50)
    entry = json.loads(json.dumps(table[1].as_json(), allow_nan=False))
    assert (entry["column"], entry["group"], entry["lesions"], entry["patients"]) == ("scanner", "B", 2, 1)
    assert entry["figures"]["accuracy"]["value"] == 1
    assert entry["figures"]["accuracy"]["low"] is None


def test_a_column_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"'size' must have shape \(lesion,\)"):
        by_tercile("size", np.ones((3, 2)))
