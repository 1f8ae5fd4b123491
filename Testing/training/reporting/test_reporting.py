"""A report's figures are those of scikit-learn and of plain loops, and its words follow from its numbers."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from drawn_predictions import predictions
from lesiontraining.cli import main
from lesiontraining.evaluation.baselines import MAJORITY, SIZE, SIZE_AND_HU, baseline_runs, size_as_angle
from lesiontraining.evaluation.leaks import LeakReport
from lesiontraining.evaluation.predictions import Predictions, PredictionsError
from lesiontraining.reporting.charts import are_ordered, class_colors, roc_chart
from lesiontraining.reporting.examples import frangi_chart
from lesiontraining.reporting.figures import measure, search_rows
from lesiontraining.reporting.report import ReportInput, conclude, write_report
from lesiontraining.reporting.where_maps_lie import FIGURES as MAP_FIGURES
from lesiontraining.reporting.where_maps_lie import added
from lesiontraining.runs.inference import neighbour_probabilities
from matplotlib.colors import to_rgb
from sklearn.metrics import balanced_accuracy_score, f1_score, precision_score, recall_score, roc_auc_score


def with_skill(model: Predictions, skill: float, seed: int) -> Predictions:
    """Another method on the same lesions."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=model.probabilities.shape)
    logits[np.arange(len(model)), model.labels] += skill
    return replace(model, probabilities=np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True))


@pytest.mark.parametrize("classes", [("a", "b"), ("a", "b", "c")])
def test_figures_are_those_of_scikit_learn(classes):
    model = predictions(classes=classes)
    row = measure({"model": model}, draws=20, seed=0).rows["model"]
    called = model.probabilities.argmax(axis=1)
    assert row["balanced_accuracy"].value == pytest.approx(balanced_accuracy_score(model.labels, called))
    assert row["macro_f1"].value == pytest.approx(f1_score(model.labels, called, average="macro"))
    score = model.probabilities[:, 1] if len(classes) == 2 else model.probabilities
    assert row["auc"].value == pytest.approx(roc_auc_score(model.labels, score, multi_class="ovr"))
    assert row["auc"].low < row["auc"].value < row["auc"].high


@pytest.mark.parametrize(("positive", "index"), [(None, 1), ("b", 1), ("a", 0)])
def test_of_two_classes_the_named_one_has_its_sensitivity_and_specificity(positive, index, tmp_path):
    model = predictions(skill=0.6)
    given = ReportInput("t", {"model": model}, LeakReport((), ("patient",)), {"Command": "x"})
    write_report(given, tmp_path, draws=20, positive=positive)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    called, truth = model.probabilities.argmax(axis=1) == index, model.labels == index
    figures = metrics["figures"]["model"]
    assert metrics["positive"] == "ab"[index]
    assert figures["sensitivity"]["value"] == pytest.approx(recall_score(truth, called), abs=1e-4)
    assert figures["specificity"]["value"] == pytest.approx(recall_score(~truth, ~called), abs=1e-4)
    assert figures["precision"]["value"] == pytest.approx(precision_score(truth, called), abs=1e-4)
    page = (tmp_path / "report.html").read_text()
    assert f"those of <b>{'ab'[index]}</b>" in page
    assert '<th class="n">sensitivity</th>' in page
    assert "mean specificity" not in page


def test_a_positive_class_that_is_not_there_or_one_of_three_is_refused():
    with pytest.raises(PredictionsError, match="'c'; the classes are a, b"):
        measure({"model": predictions()}, draws=20, seed=0, positive="c")
    three = predictions(classes=("a", "b", "c"))
    with pytest.raises(PredictionsError, match="for two classes, and these lesions have 3"):
        measure({"model": three}, draws=20, seed=0, positive="c")
    assert "sensitivity" not in measure({"model": three}, draws=20, seed=0).rows["model"]


def test_groups_have_the_size_baseline_beside_the_model(tmp_path):
    model = predictions()
    size = with_skill(model, 0.3, 4)
    given = ReportInput(
        "t", {"model": model, SIZE: size}, LeakReport((), ("patient",)), {}, baselines=(SIZE,), size_baseline=SIZE
    )
    write_report(given, tmp_path, draws=20)
    groups = json.loads((tmp_path / "metrics.json").read_text())["subgroups"]
    assert all({"auc", f"auc, {SIZE}"} <= set(group["figures"]) for group in groups)
    assert f"AUC, {SIZE}" in (tmp_path / "report.html").read_text()


def test_every_tested_lesion_stands_in_a_table_with_what_each_method_said(tmp_path):
    model = predictions(classes=("=a", "b"))
    model = replace(model, labels=np.where(np.arange(len(model)) < 5, -1, model.labels))
    other = with_skill(model, 0.3, 4)
    given = ReportInput("t", {"model": model, "other": other}, LeakReport((), ("patient",)), {})
    write_report(given, tmp_path, draws=20)
    with (tmp_path / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["method"] for row in rows] == ["model"] * len(model) + ["other"] * len(model)
    assert [row["lesion"] for row in rows[: len(model)]] == list(model.lesion_ids)
    assert [float(row["p_b"]) for row in rows[len(model) :]] == pytest.approx(other.probabilities[:, 1], abs=1e-6)
    assert rows[0]["label"] == ""
    assert {row["predicted"] for row in rows} == {"'=a", "b"}


def test_lesions_without_a_label_are_left_out_and_counted():
    model = predictions()
    some = replace(model, labels=np.where(np.arange(len(model)) < 20, -1, model.labels))
    measured = measure({"model": some}, draws=20, seed=0)
    assert (measured.lesions, measured.unlabelled) == (100, 20)
    whole = measure({"model": model.at(np.arange(20, 120))}, draws=20, seed=0)
    assert measured.rows["model"]["auc"].value == whole.rows["model"]["auc"].value


def test_what_the_differences_allow_to_say():
    model = predictions(skill=3.0)
    others = {"weak": with_skill(model, 0.0, 1), "equal": with_skill(model, 3.0, 2)}
    measured = measure({"model": model, **others}, draws=200, seed=0)
    weak, equal = measured.comparisons
    assert weak.auc.is_better()
    assert weak.p_holm < 0.01
    assert weak.p_delong < 0.01
    assert equal.auc.low < 0 < equal.auc.high
    assert conclude(measured, ["weak"]) == "By AUC this model is better than weak."
    assert conclude(measured, ["equal"]).startswith("No advantage over equal is shown")
    turned = measure({"weak": others["weak"], "model": model}, draws=200, seed=0)
    assert conclude(turned, ["model"]) == "By AUC this model is worse than model."
    assert "nothing is shown" in conclude(measured, [])


def test_a_class_that_nobody_has_leaves_gaps_and_no_nan_in_the_json(tmp_path):
    model = predictions(classes=("a", "b", "c"))
    none_of_c = model.at(model.labels < 2)
    given = ReportInput("t", {"model": none_of_c}, LeakReport((), ("patient",)), {"Command": "x"})
    write_report(given, tmp_path, draws=20)
    metrics = json.loads((tmp_path / "metrics.json").read_text(), parse_constant=pytest.fail)
    assert metrics["figures"]["model"]["auc"]["value"] is None
    assert "No tested lesion is c" in metrics["notes"][0]
    html = (tmp_path / "report.html").read_text()
    assert "not measured" in html
    assert "nan" not in html.lower().replace("nanometre", "")


def test_text_from_a_table_cannot_become_part_of_the_page(tmp_path):
    model = predictions(classes=("<script>alert(1)</script>", "b"))
    write_report(ReportInput("<b>x</b>", {"m": model}, LeakReport((), ()), {}), tmp_path, draws=10)
    html = (tmp_path / "report.html").read_text()
    assert "<script>alert" not in html
    assert "<b>x</b>" not in html


def test_embeddings_without_direction_leave_the_search_unmeasured_and_the_rest_measured():
    model, other = predictions(n=60, skill=6.0), predictions(n=60, skill=6.0)
    other.embeddings[[3, 8]] = 0.0
    rows, notes = search_rows({"model": model, "other": other}, draws=20, seed=0)
    assert {row.method for row in rows} == {"model"}
    assert len(notes) == 3
    assert "by other: not measured, the embeddings of 2 lesions are zero everywhere" in notes[0]
    rows, notes = search_rows({"other": other, "model": model}, draws=20, seed=0)
    assert (rows, len(notes)) == ([], 3)


def test_lesions_are_compared_within_their_fold_and_never_with_themselves():
    model = predictions(n=60, skill=6.0)
    rows, notes = search_rows({"model": model}, draws=20, seed=0)
    by_rule = {row.rule: row for row in rows}
    assert notes == []
    # 30 lesions a fold: 29 others, or 28 of other patients, or the one other of the patient.
    for rule, others in (("all", 29), ("cross", 28), ("same", 1)):
        hits = []
        for i in range(60):
            allowed = [
                j for j in range(60)
                if j != i and model.folds[j] == model.folds[i]
                and (rule == "all" or (model.patients[j] == model.patients[i]) == (rule == "same"))
            ]  # fmt: skip
            assert len(allowed) == others
            if any(model.labels[j] == model.labels[i] for j in allowed):
                nearest = max(allowed, key=lambda j: model.embeddings[i] @ model.embeddings[j])
                hits.append(model.labels[nearest] == model.labels[i])
        assert by_rule[rule].figures["p_at_1"].value == pytest.approx(np.mean(hits))
        assert by_rule[rule].queries == len(hits)


def test_shortcuts_are_fitted_on_training_lesions_and_know_only_size_and_density():
    train, test = predictions(split="train", seed=1), predictions(seed=2)
    parts = {
        name: np.concatenate([getattr(train, name), getattr(test, name)])
        for name in vars(test)
        if name not in ("class_names", "metric")
    }
    fold = Predictions(test.class_names, **parts)
    found, notes = baseline_runs(fold)
    assert notes == ()
    assert set(found) == {MAJORITY, SIZE, SIZE_AND_HU}
    np.testing.assert_allclose(found[MAJORITY].probabilities[0], np.bincount(train.labels) / len(train))
    other_pictures = replace(fold, embeddings=fold.embeddings[::-1], probabilities=fold.probabilities[::-1])
    np.testing.assert_array_equal(baseline_runs(other_pictures)[0][SIZE].probabilities, found[SIZE].probabilities)
    swapped = replace(fold, labels=np.where(fold.split == "test", 1 - fold.labels, fold.labels))
    np.testing.assert_array_equal(baseline_runs(swapped)[0][SIZE].probabilities, found[SIZE].probabilities)
    nothing = replace(fold, volume_mm3=np.full(len(fold), np.nan))
    assert "size alone" in baseline_runs(nothing)[1][0]


def test_size_as_an_angle_ranks_by_the_ratio_of_volumes():
    e = size_as_angle(np.array([10.0, 20.0, 40.0, 1000.0]))
    similarity = e[1] @ e.T
    assert similarity[1] == pytest.approx(1)
    assert similarity[0] == pytest.approx(similarity[2])
    assert similarity[3] < similarity[0]


def test_neighbours_vote_by_similarity_and_no_class_is_impossible():
    known = np.eye(4)[[0, 0, 1]]
    p = neighbour_probabilities(np.eye(4)[[0]], known, np.array([0, 0, 1]), 3, k=3)
    np.testing.assert_allclose(p.sum(axis=1), 1)
    np.testing.assert_allclose(p[0], np.array([4 + 1 / 3, 1 + 1 / 3, 1 / 3]) / 6)


def test_retrieval_is_measured_from_the_command_line(tmp_path, capsys):
    from lesion_tables import write_lesion_table

    table = write_lesion_table(tmp_path / "t", patients=6)
    options = [
        "--model",
        "lung-nodule-malignancy",
        "--label",
        "kind",
        "--draws",
        "20",
        "--out",
        str(tmp_path / "r.json"),
    ]
    assert main(["retrieval", str(table), *options]) == 0
    said = capsys.readouterr().out
    assert "Same kind is relevant (6 bright, 6 hollow)" in said
    assert "other patients' lesions | size alone" in said
    rows = json.loads((tmp_path / "r.json").read_text())["kind"]
    assert [(row["rule"], row["method"]) for row in rows][:2] == [
        ("all", "lung-nodule-malignancy 2.0.0"),
        ("all", "size alone"),
    ]
    assert "Secret" not in said + (tmp_path / "r.json").read_text()


def test_every_class_and_every_method_stands_on_the_page(tmp_path):
    names = ("grade 0", "grade 1", "grade 2")
    model = predictions(classes=names)
    methods = {"siamese": model, "cnn": with_skill(model, 0.5, 3), SIZE: with_skill(model, 0.1, 4)}
    given = ReportInput("t", methods, LeakReport((), ("patient",)), {}, baselines=(SIZE,), size_baseline=SIZE)
    write_report(given, tmp_path, draws=20)
    drawn = {path.stem for path in (tmp_path / "pictures").iterdir()}
    assert {"confusion", "confusion-2", "confusion-3", "embeddings", "embeddings-2"} <= drawn
    assert "embeddings-3" not in drawn  # the size alone has no embedding to look at
    page = (tmp_path / "report.html").read_text()
    table = page[page.index("Class by class") : page.index("This model minus")]
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    for method in methods:
        assert table.count(f"<td>{method}</td>") == len(names)
        for name in names:
            assert f'<td class="n">{metrics["per_class"][method][name]["sensitivity"]:.3f}</td>' in table


@pytest.mark.parametrize(
    ("names", "ordered"),
    [
        (("0", "1", "2", "3", "4"), True), (("grade 1", "grade 2", "grade 10"), True), (("2", "1", "3"), False),
        (("a", "b", "c"), False), (("0", "1"), False), (("grade 1", "stage 2", "grade 3"), False),
    ],
)  # fmt: skip
def test_grades_have_the_colours_of_one_ramp_and_other_classes_colours_apart(names, ordered):
    assert are_ordered(names) is ordered
    colors = class_colors(names)
    assert len(set(colors)) == len(names)
    light = [sum(weight * part for weight, part in zip((0.3, 0.6, 0.1), to_rgb(c), strict=True)) for c in colors]
    if ordered:
        assert light == sorted(light)


def test_the_curves_of_grades_have_the_colours_of_their_points():
    names = ("grade 0", "grade 1", "grade 2")
    axes = roc_chart({"siamese": predictions(classes=names)}).figure.axes[0]
    assert [line.get_color() for line in axes.lines[: len(names)]] == class_colors(names)


def test_where_maps_lie_stands_on_the_page_class_by_class_for_each_method(tmp_path):
    names = ("halo", "rim")
    model = predictions(classes=names)
    methods = {"dadrn": model, "drn50": with_skill(model, 0.5, 3), SIZE: with_skill(model, 0.1, 4)}
    one = {figure: {"hits": 3, "n": 8} for figure in MAP_FIGURES}
    fold = [{"halo": one}, {"halo": one, "rim": {figure: {"hits": 1, "n": 4} for figure in MAP_FIGURES}}]
    given = ReportInput(
        "t", methods, LeakReport((), ("patient",)), {}, baselines=(SIZE,), size_baseline=SIZE,
        localised={"dadrn": added(fold), "drn50": added(fold[1:])},
    )  # fmt: skip
    write_report(given, tmp_path, draws=20)
    page = (tmp_path / "report.html").read_text()
    table = page[page.index("Where its maps lie") :]
    cells = ["6 of 16, 0.375", "3 of 8, 0.375", "1 of 4, 0.250", "1 of 4, 0.250", "7 of 20, 0.350", "4 of 12, 0.333"]
    found = [row.split('<td class="n">')[1].partition("</td>")[0] for row in table.split("<tr")[2:8]]
    assert found == cells
    assert json.loads((tmp_path / "metrics.json").read_text())["localised"]["dadrn"]["rim"]["pointing"]["n"] == 4
    assert f"these know no picture: {SIZE}." in page
    write_report(replace(given, localised={}), tmp_path, draws=20)
    assert "Where its maps lie" not in (tmp_path / "report.html").read_text()


def test_a_filtered_picture_stands_below_its_original():
    rng = np.random.default_rng(0)
    examples = {
        "original": rng.random((3, 8, 8)),
        "filtered": rng.random((3, 8, 8)),
        "lesion": np.array(["a", "b", "c"]),
    }
    axes = frangi_chart(examples).figure.axes
    assert [one.get_title() for one in axes] == ["a", "b", "c", *["filtered"] * 3]
    np.testing.assert_array_equal(axes[4].images[0].get_array(), examples["filtered"][1])
    assert frangi_chart({}) is None
