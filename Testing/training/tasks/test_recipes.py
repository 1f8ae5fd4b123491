"""Every recipe from a table of boxes to a model folder that answers the same without anything of training; seconds each."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from lesion_tables import write_lesion_table
from lesiontraining.cli import main
from lesiontraining.evaluation.predictions import Predictions
from repository import ROOT

RECIPES = (
    "cross-entropy", "dmrn", "dadrn", "orthopatch", "lesionsearch-pretrain", "lesionsearch", "siamese", "vae", "linear-probe",
    "vgg19", "cnn3d", "arl", "sdl", "supcon", "ra-resnet50", "resglnet", "single-cnn",
)  # fmt: skip
COMPARES_ONLY = {"lesionsearch-pretrain", "lesionsearch", "siamese", "vae"}
LICENSE = ROOT / "LICENSE"
pytestmark = pytest.mark.filterwarnings("ignore")

# What a radiologist's machine does, where nothing of training is installed. (MONAI, whose ResNet is a building block, imports
# its own transforms whenever it is imported; they are not used.)
ANSWER = """
import json, sys
for name in ("lightning", "sklearn", "matplotlib", "skimage", "pytorch_metric_learning", "lesiontraining"):
    sys.modules[name] = None  # importing it fails
from pathlib import Path
from LesionLib.model.bundle import load_bundle
from LesionLib.inference.classifier import Classifier
from LesionLib.geometry import LesionBox
from LesionLib.io.volumes import read_volume
for line in sys.stdin:
    model, ct, center, size = json.loads(line)
    bundle = load_bundle(Path(model))
    box = LesionBox([-center[0], -center[1], center[2]], size)
    classifier = Classifier(bundle, read_volume(Path(ct)))
    p = classifier.classify(box).probabilities if bundle.class_names else {}
    print(json.dumps({"p": list(p.values()), "e": classifier.embed(box).tolist()}), flush=True)
"""


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Path:
    return write_lesion_table(tmp_path_factory.mktemp("table"))


@pytest.fixture(scope="module")
def runs(tmp_path_factory, table):
    """The run of a recipe on one fold, fitted once."""
    folder, done = tmp_path_factory.mktemp("runs"), {}

    def run(recipe: str) -> Path:
        if recipe not in done:
            done[recipe] = folder / recipe
            assert (
                main(["fit", "--config", f"tiny/{recipe}", "--data.table", str(table), "--out", str(done[recipe])]) == 0
            )
        return done[recipe]

    return run


@pytest.fixture(scope="module")
def answer_elsewhere(table) -> Iterator[Callable[[Path, int], dict]]:
    """By a process of its own that imports LesionLib only; it answers for one model folder after the other."""
    header, *rows = [row.split(",") for row in table.read_text().splitlines()]

    def answer(model: Path, line: int) -> dict:
        row = dict(zip(header, rows[line - 2], strict=True))
        boxes = [[float(row[f"{what}_{axis}"]) for axis in "xyz"] for what in ("center", "size")]
        process.stdin.write(json.dumps([str(model), str(table.parent / row["volume"]), *boxes]) + "\n")
        process.stdin.flush()
        said = process.stdout.readline()
        assert said, "the process that answers has ended; its standard error says why"
        return json.loads(said)

    command = [sys.executable, "-c", ANSWER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield answer
        process.stdin.close()


@pytest.fixture(scope="module")
def measured(runs):
    """The run of a recipe with its report, made once."""
    done: set[str] = set()

    def run(recipe: str) -> Path:
        if recipe not in done:
            assert main(["evaluate", str(runs(recipe)), "--draws", "20"]) == 0
            done.add(recipe)
        return runs(recipe)

    return run


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_is_fitted_measured_exported_and_answers_the_same_without_training_code(
    recipe, measured, answer_elsewhere, tmp_path
):
    run = measured(recipe)
    assert main(["export", str(run), "--out", str(tmp_path / "model"), "--license", str(LICENSE)]) == 0
    assert "| 44 | Funding | for the author |" in (run / "report" / "claim.md").read_text(encoding="utf-8")
    predictions = Predictions.load(run / "fold-0" / "predictions.npz")
    np.testing.assert_allclose(predictions.probabilities.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(predictions.embeddings, axis=1), 1, atol=1e-5)
    row = int(np.flatnonzero(predictions.split == "test")[0])
    there = answer_elsewhere(tmp_path / "model", int(predictions.lesion_ids[row].split()[1]))
    np.testing.assert_allclose(there["e"], predictions.embeddings[row], atol=2e-4)
    if recipe in COMPARES_ONLY:
        assert there["p"] == []
    else:
        np.testing.assert_allclose(there["p"], predictions.probabilities[row], atol=1e-4)


@pytest.mark.parametrize("recipe", ["hand-crafted", "texture", "radiomics"])
def test_a_comparator_without_a_network_goes_the_same_way_and_is_measured_only(
    recipe, runs, measured, table, tmp_path, capsys
):
    run = measured(recipe)
    predictions = Predictions.load(run / "fold-0" / "predictions.npz")
    np.testing.assert_allclose(predictions.probabilities.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(predictions.embeddings, axis=1), 1, atol=1e-5)
    figures = json.loads((run / "report" / "metrics.json").read_text(encoding="utf-8"))["figures"]
    assert {recipe, "size alone"} <= set(figures)
    beside = tmp_path / "beside"
    assert main(["evaluate", str(runs("cross-entropy")), str(run), "--out", str(beside), "--draws", "20"]) == 0
    compared = json.loads((beside / "metrics.json").read_text(encoding="utf-8"))["comparisons"]
    assert recipe in compared
    assert not list((run / "fold-0").glob("*.ckpt"))
    assert main(["export", str(run), "--out", str(tmp_path / "model"), "--license", str(LICENSE)]) != 0
    assert "without a network" in capsys.readouterr().err
    done = (run / "fold-0" / "done.json").stat().st_mtime_ns
    assert main(["fit", "--config", f"tiny/{recipe}", "--data.table", str(table), "--out", str(run)]) == 0
    assert (run / "fold-0" / "done.json").stat().st_mtime_ns == done  # finished folds are left


def test_no_name_of_a_patient_is_in_what_a_run_leaves(measured):
    run = measured("cross-entropy")
    left = [path for path in run.rglob("*") if path.is_file()]
    assert {"report.html", "metrics.json", "predictions.npz", "done.json", "last-epoch=1.ckpt"} <= {
        path.name for path in left
    }
    for path in left:
        content = path.read_bytes()
        assert b"Secret" not in content, path
        assert b"1.2.840.3" not in content, path
    predictions = Predictions.load(run / "fold-0" / "predictions.npz")
    assert not any("Secret" in patient for patient in predictions.patients)


def test_the_report_has_the_shortcuts_beside_the_model_and_says_what_they_allow_to_say(measured):
    run = measured("cross-entropy")
    metrics = json.loads((run / "report" / "metrics.json").read_text())
    assert list(metrics["figures"]) == ["cross-entropy", "majority class", "size alone", "size and mean HU"]
    assert metrics["leaks"] == []
    assert metrics["lesions"] == 8
    assert {row["rule"] for row in metrics["search"]} == {"all", "same", "cross"}
    html = (run / "report" / "report.html").read_text()
    assert "Research use only, not for diagnosis" in html
    assert metrics["conclusion"] in html
    assert "http" not in html.replace("http-equiv", "")
    assert html.count("data:image/png;base64,") >= 4


def test_dadrn_tells_where_its_heat_lies_with_a_threshold_from_validation(runs):
    facts = json.loads((runs("dadrn") / "fold-0" / "done.json").read_text())
    found = facts["figures"]["localisation"]
    assert 0 < found["threshold"] < 1
    assert found["pointing"]["n"] == 8
    assert 0 <= found["gt_known_iou_50"]["low"] <= found["gt_known_iou_50"]["high"] <= 1


def test_two_runs_stand_side_by_side_on_the_same_lesions(runs, tmp_path):
    first, second = runs("dmrn"), runs("cross-entropy")
    assert main(["evaluate", str(first), str(second), "--draws", "20", "--out", str(tmp_path)]) == 0
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert list(metrics["figures"])[:2] == ["dmrn", "cross-entropy"]
    assert "cross-entropy" in metrics["comparisons"]


def test_the_support_vector_machine_sees_training_lesions_only(runs, table, tmp_path):
    """Other labels of the test lesions change nothing in the network that was fitted without them."""
    test = Predictions.load(runs("dmrn") / "fold-0" / "predictions.npz")
    tested = {int(i.split()[1]) for i in test.lesion_ids[test.split == "test"]}
    lines = table.read_text().splitlines()
    swap = {"bright": "hollow", "hollow": "bright"}
    place = lines[0].split(",").index("kind")
    for number in tested:
        cells = lines[number - 1].split(",")
        cells[place] = swap[cells[place]]
        lines[number - 1] = ",".join(cells)
    # The very same split, by a column, for labels take part in making folds.
    split = {int(i.split()[1]): s for i, s in zip(test.lesion_ids, test.split, strict=True)}
    weights = []
    for name, rows in (("as-it-is", table.read_text().splitlines()), ("swapped", lines)):
        content = [rows[0] + ",split", *(f"{row},{split[n]}" for n, row in enumerate(rows[1:], start=2))]
        changed = table.parent / f"{name}.csv"
        changed.write_text("\n".join(content) + "\n")
        options = ["--config", "tiny/dmrn", "--data.table", str(changed), "--data.folds", "split"]
        assert main(["fit", *options, "--out", str(tmp_path / name)]) == 0
        weights.append((tmp_path / name / "fold-0" / "network.safetensors").read_bytes())
    assert weights[0] == weights[1]


def test_a_model_does_not_travel_without_its_figures(runs, tmp_path, capsys):
    run = runs("cross-entropy")
    copy = tmp_path / "run"
    copy.mkdir()
    (copy / "fold-0").symlink_to(run / "fold-0")
    assert main(["export", str(copy), "--out", str(tmp_path / "m"), "--license", str(LICENSE)]) == 2
    assert "lesiontrain evaluate" in capsys.readouterr().err


def test_all_folds_are_pooled_and_finished_ones_are_left(table, tmp_path, capsys):
    options = ["fit", "--config", "tiny/cross-entropy", "--data.table", str(table), "--out", str(tmp_path / "r")]
    assert main([*options, "--trainer.max_epochs", "1", "--folds", "all"]) == 0
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "r").glob("fold-*/network.safetensors")}
    assert len(before) == 3
    assert main([*options, "--trainer.max_epochs", "1", "--folds", "all"]) == 0
    assert "fold 1 is finished; left as it is" in capsys.readouterr().err
    assert main([*options, "--trainer.max_epochs", "2", "--folds", "0"]) == 2
    assert "trainer.max_epochs: 1 there, 2 now" in capsys.readouterr().err
    assert {p: p.stat().st_mtime_ns for p in before} == before
    main(["evaluate", str(tmp_path / "r"), "--draws", "20"])
    assert json.loads((tmp_path / "r" / "report" / "metrics.json").read_text())["lesions"] == 24


def test_two_random_splits_are_reported_one_by_one(table, tmp_path):
    options = ["--data.folds", "two_random_splits", "--trainer.max_epochs", "1", "--folds", "all"]
    fit = ["fit", "--config", "tiny/cross-entropy", "--data.table", str(table), "--out", str(tmp_path / "r")]
    assert main([*fit, *options]) == 0
    assert main(["evaluate", str(tmp_path / "r"), "--draws", "20"]) == 0
    assert {p.parent.name for p in (tmp_path / "r").glob("report/*/report.html")} == {"split-0", "split-1"}
    assert "| r | mean of both |" in (tmp_path / "r" / "report" / "mean_of_splits.md").read_text()
    page = (tmp_path / "r" / "report" / "mean_of_splits.html").read_text()
    assert "<td>mean of both</td>" in page
    assert not (tmp_path / "r" / "report" / "report.html").exists()  # nothing that is pooled
