"""Where a model has no answer it gives none: no label, a reason as a code, and what was computed in the details only."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

import numpy as np
import pytest
from LesionLib.errors import WarningName
from LesionLib.geometry import LesionBox
from LesionLib.inference.classifier import Classifier
from LesionLib.inference.messages import EmbeddingRequest, RunOptions, RunRequest, result_from_json, result_to_json
from LesionLib.inference.results import RunInfo, abstention_codes, as_csv, as_json
from LesionLib.inference.runner import InProcessRunner
from LesionLib.model.bundle import Bundle, load_bundle
from LesionLib.model.folder import golden_case
from LesionLib.phantom.nodules import nodule_patch

MODEL = "lung-nodule-malignancy"
RUN = RunInfo("CT", MODEL, "1.2.0", "ab" * 32, "cpu")


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return load_bundle(MODEL)


@pytest.fixture(scope="module")
def strict(bundle) -> Bundle:
    """To it every lesion is unlike those of training."""
    return replace(bundle, ood=replace(bundle.ood, threshold=1e-6))


@pytest.fixture(scope="module")
def large() -> tuple:
    """A box with an edge that no box of training had."""
    volume, nodule = nodule_patch(kind="round", diameter_mm=14.0, seed=1)
    return volume, LesionBox(nodule.box.centerRAS, [60.0, 20.0, 20.0], name="organ")


def texts_in(value) -> list[str]:
    """Every text in a JSON value, keys left out."""
    if isinstance(value, dict):
        return [text for inner in value.values() for text in texts_in(inner)]
    if isinstance(value, list):
        return [text for inner in value for text in texts_in(inner)]
    return [value] if isinstance(value, str) else []


def test_a_box_outside_the_range_of_size_gets_no_answer(bundle, large):
    volume, box = large
    result = Classifier(bundle, volume).classify(box)
    assert (result.label, result.usable, result.heat_map) == ("", False, None)
    assert WarningName.BOX_SIZE in result.abstention
    assert result.shown_probabilities == {}
    assert sum(result.probabilities.values()) == pytest.approx(1.0, abs=1e-5)


def test_a_lesion_unlike_those_of_training_gets_no_answer(strict):
    volume, box = golden_case()
    result = Classifier(strict, volume).classify(box)
    assert (result.label, result.abstention) == ("", (WarningName.OUT_OF_DISTRIBUTION,))
    assert result.messages == (
        "The model has no answer for this lesion: it looks unlike the lesions the model learned from.",
    )


def test_what_is_unlike_is_told_by_the_numbers_that_the_network_has_for_it(bundle, monkeypatch):
    """A short embedding that hits the middle of the training lesions hides nothing, and one far from it accuses nobody."""
    volume, box = golden_case()
    embedding, usual = Classifier(bundle, volume).embed_checked(box)
    monkeypatch.setattr(type(bundle.network), "training_likeness", lambda self, f, descriptor: -descriptor)
    turned, unlike = Classifier(bundle, volume).embed_checked(box)
    np.testing.assert_array_equal(embedding, turned)
    assert WarningName.OUT_OF_DISTRIBUTION in [warning.name for warning in unlike]
    assert WarningName.OUT_OF_DISTRIBUTION not in [warning.name for warning in usual]


def test_a_usual_lesion_is_answered_as_before(bundle):
    volume, box = golden_case()
    result = Classifier(bundle, volume).classify(box)
    assert (result.label, result.usable, result.abstention) == ("malignant", True, ())
    assert result.without_abstained is result
    assert result.shown_probabilities == result.probabilities
    assert result.messages == result.reliability.messages(("benign", "malignant"))


def test_who_asks_for_it_all_the_same_gets_label_and_map_and_is_told(strict):
    volume, box = golden_case()
    (result,) = Classifier(strict, volume).classify_all([box], answer_anyway=True)
    assert (result.label, result.usable) == ("malignant", False)
    assert result.heat_map.class_name == "malignant"
    assert "asked for all the same" in result.messages[0]
    assert "sets made like this" not in " ".join(result.messages)


def test_a_class_that_is_asked_for_is_explained_without_becoming_the_answer(strict):
    volume, box = golden_case()
    result = Classifier(strict, volume).classify(box, class_name="malignant")
    assert (result.label, result.heat_map.class_name) == ("", "malignant")


def test_the_json_keeps_the_probabilities_in_the_details_and_names_no_class_elsewhere(strict):
    volume, box = golden_case()
    result = Classifier(strict, volume).classify(box, box_jitter=2)
    (written,) = json.loads(json.dumps(as_json(RUN, [result])))["results"]
    assert (written["label"], written["usable"], written["probabilities"]) == ("", False, {})
    assert written["noAnswer"] == ["out-of-distribution"]
    assert set(written["details"]["probabilities"]) == {"benign", "malignant"}
    assert written["details"]["predictionSet"]
    assert not {"benign", "malignant"} & set(texts_in({**written, "details": None}))


def test_the_json_of_an_answer_has_no_details(bundle):
    volume, box = golden_case()
    (written,) = as_json(RUN, [Classifier(bundle, volume).classify(box)])["results"]
    assert (written["usable"], written["noAnswer"], written["details"]) == (True, [], None)


def test_the_csv_leaves_the_columns_of_the_classes_empty_and_says_why(bundle, strict):
    volume, box = golden_case()
    results = [Classifier(model, volume).classify(box, box_jitter=2) for model in (strict, bundle)]
    without, answered = csv.DictReader(io.StringIO(as_csv(RUN, results)))
    assert (without["label"], without["p_benign"], without["p_malignant"]) == ("", "", "")
    assert (without["prediction_set"], without["redrawn_max"], without["grad_cam"]) == ("", "", "")
    assert (without["usable"], without["warning_codes"]) == ("no", "out-of-distribution")
    assert (answered["usable"], answered["warning_codes"]) == ("yes", "")
    assert float(answered["p_benign"]) == pytest.approx(results[0].probabilities["benign"], abs=1e-6)


def test_an_answer_of_before_models_abstained_is_read_and_loses_its_label_where_it_is_shown(strict):
    volume, box = golden_case()
    (old,) = Classifier(strict, volume).classify_all([box], answer_anyway=True)
    again = result_from_json(result_to_json(replace(old, heat_map=None)), box, iter([old.embedding]))
    assert (again.label, again.usable) == ("malignant", False)
    assert (again.without_abstained.label, again.without_abstained.heat_map) == ("", None)
    assert again.without_abstained.answered_anyway.label == "malignant"


def test_the_runner_abstains_and_answers_anyway_as_it_is_asked(large):
    volume, box = large
    runner = InProcessRunner()
    silent, asked = (
        runner.run(RunRequest(MODEL, volume, [box], RunOptions(answer_anyway=anyway))).results[0]
        for anyway in (False, True)
    )
    assert (silent.label, silent.heat_map) == ("", None)
    assert asked.label == max(silent.probabilities, key=silent.probabilities.__getitem__)


@pytest.mark.parametrize("query_only", [True, False])
def test_an_embedding_says_that_the_model_has_no_answer_for_the_lesion(large, query_only):
    volume, box = large
    embedding = InProcessRunner().run(EmbeddingRequest(MODEL, volume, box, query_only=query_only))
    assert WarningName.BOX_SIZE in abstention_codes(embedding.warnings)
    np.testing.assert_allclose(np.linalg.norm(embedding.vector), 1.0, atol=1e-5)


def test_other_warnings_do_not_take_the_answer_away(bundle):
    volume, box = golden_case()
    thick = replace(volume, ijkToRAS=volume.ijkToRAS @ np.diag([1, 1, 2.0, 1]))
    result = Classifier(bundle, thick).classify(replace(box, centerRAS=thick.ijkToRAS[:3] @ [23.5, 21.5, 11.5, 1]))
    assert WarningName.SLICE_DISTANCE in {warning.name for warning in result.warnings}
    assert result.usable == bool(result.label)
