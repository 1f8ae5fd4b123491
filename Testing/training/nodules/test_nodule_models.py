"""``lesiontrain lung-nodules``, end to end on phantoms with readers: each question becomes a verified model folder with its card."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import lesiontraining.nodules.build as build_module
import numpy as np
import pytest
import SimpleITK as sitk
import torch
import yaml
from LesionLib.explain import occlusion
from LesionLib.geometry import CTVolume
from LesionLib.inference.classifier import Classifier
from LesionLib.model.bundle import load_bundle
from LesionLib.model.folder import CARD, golden_case
from LesionLib.networks import build_network
from LesionLib.networks.weights import load_pretrained
from LesionLib.phantom.nodules import nodule_patch
from lesiontraining.cli import main
from lesiontraining.commands.plans import PLANS, PlanError
from lesiontraining.data.readers.lidc import read_nodule_set
from lesiontraining.data.readers.lidc_ratings import ATTRIBUTES, read_ratings
from lesiontraining.nodules import described as described_module
from lesiontraining.nodules.plan import read_nodule_plan
from lesiontraining.runs import heat_maps

COUNT, READERS = 24, 4
pytestmark = pytest.mark.timeout(1200)  # two dozen nodules, each described in five drawings
KINDS = ("spiculated", "calcified", "ground-glass")
SMALL = {
    "components": 10, "penalties": [0.01], "steadiness": [0, 2], "draws": 20, "alpha": 0.4, "quantile": 0.8, "heat_every": 18,
}  # fmt: skip


def written(path: Path, array: np.ndarray, volume: CTVolume) -> None:
    image = sitk.GetImageFromArray(array)
    to_lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ volume.ijkToRAS
    image.SetSpacing(volume.spacingMm)
    image.SetOrigin(to_lps[:3, 3].tolist())
    image.SetDirection((to_lps[:3, :3] / np.array(volume.spacingMm)).ravel().tolist())
    sitk.WriteImage(image, str(path))


def said_of(kind: str, reader: int, rng: np.random.Generator) -> dict[str, int]:
    """Ratings that fit the phantom, with readers who differ by a step."""
    usual = {
        "spiculation": 1,
        "lobulation": 1,
        "margin": 5,
        "sphericity": 4,
        "subtlety": 4,
        "texture": 5,
        "calcification": 6,
    }
    usual |= {
        "spiculated": {"spiculation": 4, "malignancy": 5},
        "calcified": {"calcification": 3, "malignancy": 1},
        "ground-glass": {"texture": 1, "malignancy": 3},
    }[kind]
    differs = {name: int(np.clip(v + rng.integers(-1, 2), 1, 5)) for name, v in usual.items()}
    return differs | {"calcification": usual["calcification"], "texture": usual["texture"]}


@pytest.fixture(scope="module")
def sets(tmp_path_factory) -> tuple[Path, Path]:
    """Nodules and their readers: three nodules a patient, two patients a fold."""
    folder, rng = tmp_path_factory.mktemp("sets"), np.random.default_rng(0)
    data, readers = folder / "lung_nodules", folder / "lidc_readers"
    for path in (data / "image", data / "mask", readers):
        path.mkdir(parents=True)
    nodules, ratings, summary = [], [], []
    for number in range(COUNT):
        kind, name = KINDS[number % 3], f"nodule{number}.nii.gz"
        diameter = 5 + number % 10
        volume, truth = nodule_patch(
            kind=kind, diameter_mm=diameter, seed=number, spacing_mm=(0.9, 0.9, 2.0), size_mm=40
        )
        written(data / "image" / name, volume.array, volume)
        inside = (volume.array > (-500 if kind != "ground-glass" else -740)).astype(np.uint8)
        written(data / "mask" / name, inside, volume)
        size = float(truth.diameter_mm)
        nodules.append({
            "file": name, "patient_id": f"P{number // 3}", "luna16_subset": number // 3 % 4, "diameter_mm": size,
            "malignant": int(kind == "spiculated"), "volume_mm3": size**3 / 2,
        })  # fmt: skip
        center = np.diag([-1, -1, 1]) @ truth.box.centerRAS
        for reader in range(READERS):
            low, high = center - size / 2, center + size / 2
            edges = {f"lps_{a}{e}": (low, high)[e][i] for i, a in enumerate("xyz") for e in (0, 1)}
            ratings.append({"file": name, "match": "yes", **edges, **said_of(kind, reader, rng)})
        summary.append({"file": name, "dx_nodule_unambiguous": {0: 2, 1: 1}.get(number % 3, 0)})
    for path, rows in (
        (data / "nodules.csv", nodules),
        (readers / "reader_ratings_train.csv", ratings),
        (readers / "nodule_summary_train.csv", summary),
    ):
        with path.open("w", newline="", encoding="utf-8") as handle:
            writer = csv.DictWriter(handle, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return data, readers


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    network = build_network("mobilenet_v2", {"classes": 1000})
    path = tmp_path_factory.mktemp("weights") / "published.pth"
    torch.save({name.replace("features_.", "features."): t for name, t in network.state_dict().items()}, path)
    return path


@pytest.fixture(scope="module")
def body(tmp_path_factory) -> Path:
    """A CT without lung."""
    path = tmp_path_factory.mktemp("body") / "body.nii.gz"
    hu = np.random.default_rng(1).normal(40, 20, (30, 60, 60)).astype(np.int16)
    written(path, hu, CTVolume(hu, np.diag([0.9, 0.9, 2.0, 1.0])))
    return path


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def make(sets, weights, body, cache, tmp_path_factory):
    """Makes the model of a question once, with `SMALL` settings, and returns its folder."""
    made: dict[str, Path] = {}

    def folder(question: str) -> Path:
        if question not in made:
            out = tmp_path_factory.mktemp(question)
            values = yaml.safe_load((PLANS / f"lung-nodule-{question}.yaml").read_text(encoding="utf-8"))
            (out / "plan.yaml").write_text(yaml.safe_dump(values | SMALL, sort_keys=False), encoding="utf-8")
            given = [
                "--data",
                sets[0],
                "--imagenet",
                weights,
                "--cache",
                cache,
                "--elsewhere",
                body,
            ]
            options = ["lung-nodules", "--model", out / "plan.yaml", *given, "--out", out / "model"]
            with pytest.MonkeyPatch.context() as patched:
                patched.setattr(build_module, "_ELSEWHERE_BOXES", 6)
                patched.setattr(occlusion, "_CELLS", {2: (3, 1), 3: (3, 1)})  # 27 windows in the place of 343
                patched.setattr(heat_maps, "_FORGETFUL_NETWORKS", 1)
                assert main(list(map(str, options))) == 0
            made[question] = out / "model"
        return made[question]

    return folder


@pytest.mark.parametrize("question", ["malignancy", "kind", "description", "retrieval"])
def test_a_question_becomes_a_model_that_answers_and_a_card_without_gaps(make, question):
    folder = make(question)
    bundle = load_bundle(folder)
    text = (folder / CARD).read_text()
    assert "24 nodules of 8 patients" in text
    assert not re.search(r"\bP\d+\b|\$|\{|\bnan\b", text)
    volume, box = golden_case()
    embedding = Classifier(bundle, volume).embed(box)
    assert np.linalg.norm(embedding) == pytest.approx(1.0, abs=1e-4)
    assert bundle.ood.score(embedding) > 0
    if question == "retrieval":
        assert bundle.class_names == ()
        return
    result = Classifier(bundle, volume).classify(box)
    assert sum(result.probabilities.values()) == pytest.approx(1.0, abs=1e-5)
    assert result.reliability.target_coverage == pytest.approx(0.6)
    assert len(bundle.conformal.band_scores) == 3


def test_what_the_network_says_is_what_was_fitted(make):
    """The malignancy of phantoms is told by their spiculation: the folder answers so, out of the table."""
    bundle = load_bundle(make("malignancy"))
    found = {}
    for kind in ("spiculated", "calcified"):
        volume, truth = nodule_patch(kind=kind, diameter_mm=11, seed=99, spacing_mm=(0.9, 0.9, 2.0), size_mm=40)
        found[kind] = Classifier(bundle, volume).classify(truth.box).probabilities["malignant"]
    assert found["spiculated"] > found["calcified"]
    assert bundle.explanation.class_name == "malignant"


def test_scores_carry_the_readers_errors_and_stand_on_their_scales(make):
    section = json.loads((make("description") / "configs" / "metadata.json").read_text())["lesionlens"]
    assert [score["name"] for score in section["scores"]] == list(ATTRIBUTES)
    for score in section["scores"]:
        assert set(score["error"]) == {"model", "reader", "n"}
        assert score["error"]["n"] == COUNT
    assert section["scores"][6]["error"]["reader"] == 0.0  # the phantom's readers agree on calcium
    assert section["scores"][0]["error"]["reader"] > 0.3


def test_a_plan_s_finding_site_stands_in_the_manifest(make):
    site = load_bundle(make("kind")).finding_site
    assert (site.scheme, site.value, site.meaning) == ("SCT", "39607008", "Lung")


def test_what_the_network_saw_is_kept_for_the_next_model(make, cache):
    make("kind")
    before = {path: path.stat().st_mtime_ns for path in cache.glob("*given.npy")}
    make("retrieval")
    assert before
    assert {path: path.stat().st_mtime_ns for path in cache.glob("*given.npy")} == before


def test_nothing_is_shown_to_the_network_again_when_what_it_saw_of_these_nodules_is_kept(
    make, sets, weights, cache, monkeypatch
):
    make("kind")
    kept = {path: path.read_bytes() for path in cache.glob("*.npy")}
    monkeypatch.setattr(described_module, "_look", None)  # whoever looks again fails
    network = build_network("nodule", {"classes": 2})
    load_pretrained(network, weights)
    table, ratings = read_nodule_set(sets[0], label="malignant", classes=("benign", "malignant")), read_ratings(sets[1])
    of = described_module.describe(table, ratings, network, cache=cache, notify=lambda text: None)
    assert {name: array.shape for name, array in of.seen.items()} == dict.fromkeys(
        described_module.DRAWINGS, (COUNT, network.numbers)
    )
    assert kept
    assert {path: path.read_bytes() for path in cache.glob("*.npy")} == kept


def test_an_unknown_plan_is_refused_with_those_there_are():
    with pytest.raises(PlanError, match="lung-nodule-description, lung-nodule-kind, lung-nodule-malignancy"):
        read_nodule_plan("liver")


def test_a_plan_with_other_values_is_refused(tmp_path):
    values = yaml.safe_load((PLANS / "lung-nodule-kind.yaml").read_text(encoding="utf-8"))
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump(values | {"question": "weather"}), encoding="utf-8")
    with pytest.raises(PlanError, match="question"):
        read_nodule_plan(path)
