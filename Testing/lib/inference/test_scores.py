"""Models that score lesions beside their classes: what the manifest may say, and how the scores come out."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from LesionLib.errors import BundleError, InputWarning, WarningName
from LesionLib.geometry import LesionBox
from LesionLib.inference import precision
from LesionLib.inference.classifier import Classifier
from LesionLib.inference.description import description_sentence, score_rows
from LesionLib.inference.messages import (
    EmbeddingRequest,
    RunOptions,
    RunRequest,
    reply_from_frame,
    reply_to_frame,
)
from LesionLib.inference.precision import choose_precision, in_precision, mean_probabilities
from LesionLib.inference.results import LesionResult, RunInfo, as_csv, as_json
from LesionLib.inference.runner import InProcessRunner, SharedRunner
from LesionLib.model.bundle import Bundle, load_bundle, manifest_sha256
from LesionLib.model.folder import MANIFEST, golden_case
from LesionLib.model.scores import ScoreError, ScoreSpec, scores_from_json
from LesionLib.networks.base import parted_output
from LesionLib.sampling.batches import crop_lesion
from LesionLib.sampling.statistics import longest_extent_mm
from scored_model import CLASSES, NAME, SCORES, scored_network, write_scored_model

SHADE = ScoreSpec("shade", "how dark", 1, 5, ("white", "light", "grey", "dark", "black"), say="when_high")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return write_scored_model(tmp_path_factory.mktemp("model") / NAME)


@pytest.fixture(scope="module")
def bundle(model) -> Bundle:
    return load_bundle(model)


@pytest.fixture(scope="module")
def answered(model) -> tuple[RunInfo, LesionResult]:
    """The golden case, and four boxes drawn a little differently."""
    response = InProcessRunner().run(RunRequest(str(model), *_asked(), RunOptions(box_jitter=4)))
    return response.info, response.results[0]


def _asked() -> tuple:
    volume, box = golden_case()
    return volume, [box]


@pytest.fixture
def changed(model, tmp_path) -> Callable[..., Path]:
    """The model with this done to the manifest's section, sealed again."""

    def change(edit: Callable[[dict], object]) -> Path:
        folder = Path(shutil.copytree(model, tmp_path / NAME))
        manifest = json.loads((folder / MANIFEST).read_text())
        edit(manifest["lesionlens"])
        manifest["sha256"] = manifest_sha256(manifest)
        (folder / MANIFEST).write_text(json.dumps(manifest))
        return folder

    return change


def test_a_score_is_the_mean_of_the_patches_last_columns_brought_onto_its_scale(bundle, answered):
    run, result = answered
    patches = torch.from_numpy(crop_lesion(*golden_case(), bundle.spec).patches)
    with torch.no_grad():
        output = bundle.network(patches)
    assert len(patches) > 1
    assert output.shape == (len(patches), len(CLASSES) + len(SCORES))
    raw = output[:, len(CLASSES) :].mean(dim=0).numpy()
    assert raw[2] > 5  # beyond the end of its scale
    expected = np.clip(raw, [spec.low for spec in bundle.scores], [spec.high for spec in bundle.scores])
    assert list(result.scores) == [entry["name"] for entry in SCORES]
    np.testing.assert_allclose(list(result.scores.values()), expected, atol=1e-4)
    np.testing.assert_allclose(
        list(result.probabilities.values()), output[:, : len(CLASSES)].softmax(dim=1).mean(dim=0), atol=1e-5
    )
    assert run.scores == bundle.scores


def test_classes_and_scores_are_parted_and_without_scores_the_output_is_the_very_one():
    output = torch.arange(14.0).reshape(2, 7)
    logits, scores = parted_output(output, 3)
    assert (logits.tolist(), scores.tolist()) == ([[0, 1, 2, 3], [7, 8, 9, 10]], [[4, 5, 6], [11, 12, 13]])
    assert parted_output(output, 0)[0] is output
    assert parted_output(output, 0)[1].shape == (2, 0)


def test_boxes_drawn_a_little_differently_give_each_score_its_range(bundle, answered):
    run, result = answered
    spread = result.reliability.spread
    assert spread.score_minimum.shape == spread.score_maximum.shape == (len(SCORES),)
    assert (spread.score_minimum <= spread.score_maximum).all()
    assert spread.score_minimum[1] < spread.score_maximum[1]
    assert spread.score_maximum[2] == 5.0  # on the scale, too
    row = result.score_rows(run.scores)[1]
    assert row.spread == (spread.score_minimum[1], spread.score_maximum[1])
    assert row.spread_text == f"{row.spread[0]:.1f} to {row.spread[1]:.1f} for boxes drawn a little differently"
    assert len(spread.mean) == len(CLASSES)


@pytest.fixture(scope="module")
def worker():
    shared = SharedRunner()
    yield shared
    shared.close()


def test_scores_cross_the_process_border(model, answered, worker):
    response = worker.run(RunRequest(str(model), *_asked(), RunOptions(box_jitter=4, precision="float32")))
    run, result = answered
    there = response.results[0]
    assert response.info.scores == run.scores
    assert there.scores == pytest.approx(result.scores, abs=1e-4)
    assert there.longest_mm == result.longest_mm == 12.0
    np.testing.assert_allclose(
        there.reliability.spread.score_maximum, result.reliability.spread.score_maximum, atol=1e-4
    )
    assert there.sentence(response.info.scores) == result.sentence(run.scores)


def test_an_embedding_carries_scores_where_more_than_the_vector_is_asked(model):
    volume, box = golden_case()
    request = EmbeddingRequest(str(model), volume, box)
    embedding = InProcessRunner().run(request)
    again = reply_from_frame(reply_to_frame(embedding), request)
    assert list(again.scores) == [entry["name"] for entry in SCORES]
    assert (dict(again.scores), again.info) == (embedding.scores, embedding.info)
    assert dict(InProcessRunner().run(replace(request, query_only=True)).scores) == {}


def test_without_an_answer_there_are_no_scores_and_what_was_computed_stays_in_the_details(answered):
    run, result = answered
    silent = replace(result, warnings=(InputWarning(WarningName.BOX_SIZE, "It is too small."),)).without_abstained
    assert (silent.shown_scores, silent.score_rows(run.scores), silent.sentence(run.scores)) == ({}, (), "")
    content = as_json(run, [silent])["results"][0]
    assert (content["scores"], content["sentence"]) == ({}, "")
    assert content["details"]["scores"]["lobulation"] == pytest.approx(result.scores["lobulation"], abs=1e-4)
    row = next(csv.DictReader(io.StringIO(as_csv(run, [silent]))))
    assert {name: row[name] for name in row if name.startswith("score_")} == {
        f"score_{entry['name']}": "" for entry in SCORES
    }
    assert row["sentence"] == ""
    assert silent.answered_anyway.sentence(run.scores) == result.sentence(run.scores)


def test_results_name_each_score_with_its_scale(answered):
    run, result = answered
    content = as_json(run, [result])
    assert [entry["name"] for entry in content["scores"]] == [entry["name"] for entry in SCORES]
    assert content["scores"][1]["error"] == {"model": 0.82, "reader": 0.64, "n": 806}
    assert content["results"][0]["scores"] == {k: round(v, 4) for k, v in result.scores.items()}
    assert content["results"][0]["sentence"] == result.sentence(run.scores)
    assert json.loads(json.dumps(content)) == content
    row = next(csv.DictReader(io.StringIO(as_csv(run, [result]))))
    assert float(row["score_lobulation"]) == pytest.approx(result.scores["lobulation"], abs=1e-3)
    assert row["sentence"] == result.sentence(run.scores)
    assert list(row)[: 2 + len(CLASSES) + len(SCORES)] == [
        "name", "label", *(f"p_{name}" for name in CLASSES), *(f"score_{entry['name']}" for entry in SCORES),
    ]  # fmt: skip


def test_a_run_without_scores_writes_no_key_of_them_and_one_of_before_them_is_read(answered):
    plain = replace(answered[0], scores=())
    assert "scores" not in plain.to_json()
    assert RunInfo.from_json(plain.to_json()) == plain
    assert RunInfo.from_json(answered[0].to_json()) == answered[0]
    bare = replace(answered[1], scores={}, reliability=replace(answered[1].reliability, spread=None))
    text = json.dumps(as_json(plain, [bare])) + as_csv(plain, [bare])
    assert not any(word in text for word in ("score", "sentence"))


def test_the_same_network_without_scores_would_be_another_model(changed):
    folder = changed(lambda ours: ours.pop("scores"))
    with pytest.raises(BundleError, match="it names 3 classes, and its network answers"):
        load_bundle(folder)


def test_more_scores_than_the_network_has_columns_are_refused(changed):
    folder = changed(lambda ours: ours["scores"].append({**SCORES[2], "name": "texture"}))
    with pytest.raises(BundleError, match="it names 3 classes, and its network answers"):
        load_bundle(folder)


def test_a_score_that_answers_otherwise_here_is_caught_by_the_golden_case(changed):
    def shift(ours):
        for row in ours["golden_logits"]:
            row[-1] += 0.5

    with pytest.raises(BundleError, match=r"answers its own test case differently here \(largest difference 0\.5\)"):
        load_bundle(changed(shift))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda s: s.update(low=5), r"'lobulation' runs from 5 to 5; low must be below high"),
        (lambda s: s["levels"].pop(), r"'lobulation' runs from 1 to 5 and has 4 levels, not 5"),
        (lambda s: s.update(phrases=["a", "b"]), r"'lobulation' runs from 1 to 5 and has 2 phrases, not 5"),
        (lambda s: s.update(say_from=6), r"'lobulation' is said from 6 on, which is not on its scale of 1 to 5"),
        (lambda s: s.update(name="spiculation"), r"two scores are named 'spiculation'"),
        (lambda s: s.update(say="loudly"), r"scores\[1\]\.say: 'loudly' is not one of"),
        (lambda s: s.update(name="x" * 49), r"scores\[1\]\.name: "),
        (lambda s: s.update(low=1.5), r"scores\[1\]\.low: 1\.5 is not of type 'integer'"),
        (lambda s: s["error"].update(model=-0.1), r"scores\[1\]\.error\.model: -0\.1 is less than the minimum of 0"),
        (lambda s: s["error"].update(model=float("nan")), r"scores\[1\]\.error\.model: "),
        (lambda s: s["error"].update(n=0), r"scores\[1\]\.error\.n: 0 is less than the minimum of 1"),
        (lambda s: s["code"].update(value="C\n1"), r"scores\[1\]\.code\.value: "),
        (lambda s: s["levels"].__setitem__(0, "\x1b[2J"), r"scores\[1\]\.levels\[0\]: "),
        (lambda s: s["levels"].__setitem__(0, " "), r"scores\[1\]\.levels\[0\]: "),
        (lambda s: s.update(unit="mm"), r"scores\[1\]: Additional properties are not allowed \('unit' was unexpected\)"),
        (lambda s: s.pop("description"), r"scores\[1\]: 'description' is a required property"),
    ],
)  # fmt: skip
def test_a_score_that_makes_no_sense_is_refused_in_one_line(changed, edit, message):
    with pytest.raises(BundleError, match=message) as caught:
        load_bundle(changed(lambda ours: edit(ours["scores"][1])))
    assert "\n" not in str(caught.value)


def test_scores_without_classes_are_refused(changed):
    with pytest.raises(BundleError, match="it names 4 scores and no classes; scores stand beside at least two classes"):
        load_bundle(changed(lambda ours: ours.update(classes=[])))


def test_an_empty_list_of_scores_is_a_model_without_any(tmp_path):
    folder = write_scored_model(tmp_path / NAME, outputs=(0.2, 1.5, 0.1), scores=[])
    bundle = load_bundle(folder)
    result = Classifier(bundle, golden_case()[0]).classify(golden_case()[1], box_jitter=2)
    assert (bundle.scores, result.scores, result.longest_mm) == ((), {}, None)
    assert "score_minimum" not in result.reliability.to_json()["boxSpread"]


def test_a_rounded_network_that_moves_a_score_is_not_used(monkeypatch):
    network = scored_network()
    with torch.no_grad():
        network.classifier[1].weight[3:] *= 1000
    monkeypatch.setattr(precision, "interleaved_ms", lambda *_, **__: (10.0, 1.0))
    patches = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    choice = choose_precision(network, patches, scores=4)
    assert choice.name == "float32"
    assert "a score moves by" in choice.reason
    steady = choose_precision(scored_network(), patches, scores=4)
    assert steady.name == "bfloat16"
    fast = in_precision(scored_network(), steady, dimensions=4, temperature=1.0, scores=4)
    with torch.no_grad():
        rounded = fast.features_of_lesions(patches, [1, 1])
        assert mean_probabilities(fast, rounded, scores=4).shape == (3,)
        torch.testing.assert_close(fast.head(rounded), fast.exact(patches), atol=0.05, rtol=0.05)


def test_a_value_between_two_levels_is_the_nearer_one_and_the_ends_hold():
    assert [SHADE.level(value) for value in (-3.0, 1.49, 1.5, 3.2, 4.5, 99.0)] == [1, 1, 2, 3, 5, 5]
    assert [SHADE.level_text(value) for value in (0.0, 2.6, 7.0)] == ["white", "grey", "black"]
    assert [SHADE.share(value) for value in (0.0, 3.0, 7.0)] == [0.0, 0.5, 1.0]


def test_a_sentence_says_a_score_always_when_high_or_never():
    values = {"shade": 3.4}
    assert [replace(SHADE, say=say).phrase(3.4) for say in ("always", "when_high", "never")] == [
        "shade 3 of 5", "shade 3 of 5", "",
    ]  # fmt: skip
    assert (SHADE.phrase(2.4), replace(SHADE, say_from=4).phrase(3.4)) == ("", "")
    assert replace(SHADE, word="shaded", say_from=2).phrase(2.4) == "shaded 2 of 5"
    assert replace(SHADE, phrases=("pale", "", "", "", "pitch-black"), say="always").phrase(5.0) == "pitch-black"
    quiet = replace(SHADE, phrases=("pale", "", "", "", "pitch-black"), say="always")
    assert description_sentence("round", [quiet], values) == "round"


def test_a_scale_that_does_not_begin_with_one_says_both_of_its_ends():
    from_zero = replace(SHADE, low=0, high=4, say="always")
    assert from_zero.phrase(2.2) == "shade 2 on 0 to 4"


def test_the_size_is_that_of_the_segment_and_a_boxs_own_is_called_so(answered):
    run, result = answered
    longest = result.statistics.diameters.longest_mm
    assert 12.0 < longest < 13.5  # a ball of 12 voxels along each axis, and a little more between them
    assert result.sentence(run.scores).startswith(f"solid, {longest:.0f} mm, lobulated 3 of 5, not calcified")
    of_old = replace(result, statistics=replace(result.statistics, diameters=None))  # as answers of older versions are
    assert of_old.sentence(run.scores).startswith("solid, 12 mm, lobulated 3 of 5, not calcified")
    boxed = replace(result, statistics=replace(result.statistics, measured_in="box"), longest_mm=14.0)
    assert boxed.sentence(run.scores).startswith("solid, box of 14 mm, lobulated 3 of 5")
    tiny = replace(of_old, longest_mm=0.4)
    assert tiny.sentence(run.scores).startswith("solid, below 1 mm, ")


def test_the_longest_extent_is_measured_along_the_segments_own_lattice():
    _, box = golden_case()
    assert longest_extent_mm(box) == pytest.approx(12.0)  # a sphere of 12 mm on voxels of 0.8 x 0.8 x 2 mm
    assert longest_extent_mm(LesionBox([0, 0, 0], [3.0, 9.0, 5.0])) == 9.0
    empty = replace(box.segment, array=np.zeros_like(box.segment.array))
    assert longest_extent_mm(replace(box, segment=empty)) == box.sizeMm.max()


def test_where_the_model_errs_more_than_a_reader_it_is_said(answered):
    run, result = answered
    (note,) = result.score_notes(run.scores)
    assert note == (
        "For lobulation the model is off by 0.82 on average, more than one reader is from the others (0.64)."
    )
    equal = replace(SHADE, error=ScoreError(0.3, 0.3, 10))
    assert (equal.note, SHADE.note) == ("", "")


def test_a_row_of_a_score_draws_its_level_and_tells_both_errors(answered):
    run, result = answered
    row = result.score_rows(run.scores)[1]
    assert row.dots == (True, True, True, False, False)
    assert (row.dots_text, row.on_scale, row.level_text) == ("●●●○○", "3 of 5", "moderate lobulation")
    assert row.errors_text == "model off by 0.82, one reader by 0.64 (n = 806)"
    (unmeasured,) = score_rows([SHADE], {"shade": 2.0})
    assert (unmeasured.errors_text, unmeasured.spread_text) == ("", "")


def test_a_spec_comes_back_from_json_as_it_was():
    specs = scores_from_json(SCORES)
    assert [spec.to_json() for spec in specs] == [{"say": "never", **entry} for entry in SCORES]
    assert scores_from_json([spec.to_json() for spec in specs]) == specs
