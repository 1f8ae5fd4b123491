"""The journals' checklist: what a run knows is answered from it, what it cannot know is left to the author."""

from __future__ import annotations

from dataclasses import replace

import pytest
from drawn_predictions import predictions
from lesiontraining.evaluation.leaks import Leak, LeakReport
from lesiontraining.reporting.claim import STATES, ClaimRun, answered_share, as_markdown, claim_items
from lesiontraining.reporting.figures import measure

NO_LEAK = LeakReport((), ("patient across parts",))
RUN = ClaimRun(
    facts=[
        {
            "task": "DMRNTask", "epochs": 12, "device": "cpu", "software": "LesionLens 0.1.0, torch 2.13.0", "seed": 3,
            "options": ["--config", "dmrn.yaml"], "seconds": 90.0,
            "data": {
                "table": "lesions.csv", "reader": "table", "credit": "A table of one's own.", "warnings": [], "label": "kind",
                "classes": ["a", "b|c"], "folds": "5", "held_out": 0, "split_by": "patient", "seed": 3,
                "patients": {"train": 30, "val": 5, "test": 10}, "input": {"kind": "axial_stack", "size": 48},
                "fingerprint": "f1f2f3",
            },
        }
    ],
    settings={"model.init_args.lr": "0.001", "model.init_args.weights": "null", "trainer.max_epochs": "12"},
    architecture="dmrn", parameters=1234567, box_size_mm=(4.0, 40.0), slice_distance_mm=(0.6, 5.0),
    baselines=["size alone"], draws=20,
)  # fmt: skip


@pytest.fixture(scope="module")
def measured():
    return measure({"model": predictions()}, draws=20, seed=0)


def item(number, items):
    (found,) = [one for one in items if one.number == number]
    return found


def test_all_items_are_there_in_order_and_nine_in_ten_that_apply_are_answered(measured):
    items = claim_items(RUN, measured, NO_LEAK)
    assert [one.number for one in items] == list(range(1, 45))
    assert {one.state for one in items} <= set(STATES)
    known, part, apply = answered_share(items)
    assert apply == 43
    assert known >= 0.9 * apply
    assert part < known
    assert all(one.answer for one in items if one.state != "for the author")
    assert not any(one.answer for one in items if one.state == "for the author")


def test_answers_are_the_runs_own(measured):
    items = claim_items(RUN, measured, NO_LEAK)
    assert "1,234,567 parameters by the recipe DMRNTask" in item(22, items).answer
    assert "lesiontrain fit --config dmrn.yaml: 12 epochs; lr 0.001" in item(25, items).answer
    assert item(24, items).answer == "Random, seed 3."
    assert "Fold 0: 30 patients train, 5 patients val, 10 patients test." in item(19, items).answer
    assert str(measured.rows["model"]["auc"]) in item(37, items).answer
    assert f"{measured.lesions} lesions of {measured.patients} patients" in item(35, items).answer


def test_weights_from_a_file_are_named(measured):
    run = replace(RUN, settings={**RUN.settings, "model.init_args.weights": "resnet101.pth"})
    assert item(24, claim_items(run, measured, NO_LEAK)).answer == "From a file: weights resnet101.pth."


def test_a_leak_is_said_where_the_parts_are_said_to_be_disjoint(measured):
    leak = LeakReport((Leak("patient", "2 patients are in train and test", certain=True),), ("patient",))
    items = claim_items(RUN, measured, leak)
    assert "Leaks found: 1." in item(20, items).answer
    assert "but for the leaks that were found" in item(32, items).answer


def test_a_name_with_a_bar_breaks_no_cell(measured):
    items = claim_items(RUN, measured, NO_LEAK)
    assert "a, b/c" in item(4, items).answer
    table = [line for line in as_markdown(items).splitlines() if line.startswith("|")]
    assert len(table) == 46
    assert {line.count("|") for line in table[2:]} == {6}
