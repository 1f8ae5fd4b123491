"""What is said of an answer beside its probabilities: in words, and across a border without loss."""

from __future__ import annotations

import json

import numpy as np
import pytest
from LesionLib.uncertainty.reliability import NOT_MEASURED, Reliability
from LesionLib.uncertainty.stability import Stability

CLASSES = ("benign", "malignant")
SPREAD = Stability(
    mean=np.array([0.3, 0.7]), minimum=np.array([0.1, 0.55]), maximum=np.array([0.45, 0.9]), sd=np.array([np.nan, 0.1]),
    label=1, keeping=7, answered=7, skipped=1, shift_mm=2.0, size_mm=2.0,
)  # fmt: skip


def test_a_model_that_measures_nothing_says_so():
    assert Reliability().messages(CLASSES) == (NOT_MEASURED,)


def test_a_set_of_one_class_and_a_set_of_all_are_said_differently():
    (one,) = Reliability(("malignant",), 0.9).messages(CLASSES)
    (all_,) = Reliability(("malignant", "benign"), 0.9).messages(CLASSES)
    assert one.startswith("Cannot be ruled out: malignant (sets made like this hold the true class in 90%")
    assert all_.startswith("No class can be ruled out: malignant or benign")


@pytest.mark.parametrize(("distance", "word"), [(3.0, " like "), (4.0, " like "), (4.1, " unlike ")])
def test_a_lesion_beyond_the_usual_distance_is_called_unlike(distance, word):
    (said,) = Reliability(distance=distance, distance_threshold=4.0).messages(CLASSES)
    assert word in said


def test_the_spread_is_said_last():
    said = Reliability(("malignant",), 0.9, 1.0, 2.0, SPREAD).messages(CLASSES)
    assert len(said) == 3
    assert "7 of 7 boxes give the same answer, malignant" in said[2]


@pytest.mark.parametrize(
    "known",
    [Reliability(), Reliability(("malignant", "benign"), 0.9, 3.5, 4.0, SPREAD, 0.25), Reliability(spread=SPREAD)],
)
def test_json_brings_back_what_was_written_and_holds_no_nan(known):
    text = json.dumps(known.to_json(), allow_nan=False)
    again = Reliability.from_json(json.loads(text))
    assert json.dumps(again.to_json(), allow_nan=False) == text
    if known.spread is not None:
        np.testing.assert_array_equal(again.spread.sd, SPREAD.sd)
        assert again.messages(CLASSES) == known.messages(CLASSES)
