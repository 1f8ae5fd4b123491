"""The phantom models that come along: each answers what it was made for, and says everywhere that it is for teaching only."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import yaml
from LesionLib.errors import WarningName
from LesionLib.geometry import LPS_TO_RAS, CTVolume, LesionBox
from LesionLib.inference.classifier import Classifier
from LesionLib.model.bundle import Bundle, load_bundle
from LesionLib.model.card import figure_sentences, heat_sentence
from LesionLib.model.folder import CARD, LICENSE, WEIGHTS
from LesionLib.phantom.masses import MassKnobs, PhantomMass, mass_ct
from LesionLib.phantom.nodules import nodule_patch

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("phantom-adrenal5", "phantom-liver5", "phantom-metastasis-cyst")
UNKNOWN_SEED = 9_000_000  # of the tables that the models learned from none has such seeds
LARGEST = 2e6


@dataclass(frozen=True)
class PhantomModel:
    """A model that comes along, and what its plan says of the lesions that it was made for."""

    bundle: Bundle
    place: str
    kinds: dict[str, str]
    knobs: MassKnobs

    def mass(self, class_name: str, number: int) -> PhantomMass:
        """A computed lesion that no training had."""
        seed = UNKNOWN_SEED + number
        return mass_ct(
            kind=self.kinds[class_name], place=self.place, seed=seed, style_seed=seed, knobs=self.knobs
        )  # fmt: skip

    def answer(self, mass: PhantomMass):
        """By its box alone, as the model learned it."""
        box = LesionBox(mass.box.centerRAS, mass.box.sizeMm, mass.box.axesRAS, mass.box.name)
        return Classifier(self.bundle, mass.volume).classify(box, map_method="none")


def pair(value) -> object:
    return tuple(value) if isinstance(value, list) else value


@pytest.fixture(scope="module")
def models() -> dict[str, PhantomModel]:
    found = {}
    for name in NAMES:
        asked = yaml.safe_load((ROOT / "training" / "models" / f"{name}.yaml").read_text("utf-8"))["phantom"]
        knobs = MassKnobs(**{key: pair(value) for key, value in asked["knobs"].items()})
        found[name] = PhantomModel(load_bundle(name), asked["place"], asked["classes"], knobs)
    return found


def written(folder: Path, volume: CTVolume, box: LesionBox) -> tuple[Path, Path]:
    """The CT as NIfTI, and its box as a table."""
    to_lps = LPS_TO_RAS @ volume.ijkToRAS
    spacing = np.linalg.norm(to_lps[:3, :3], axis=0)
    image = sitk.GetImageFromArray(volume.array)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(to_lps[:3, 3].tolist())
    image.SetDirection((to_lps[:3, :3] / spacing).ravel().tolist())
    sitk.WriteImage(image, str(folder / "ct.nii.gz"))
    numbers = ",".join(f"{value:.4f}" for value in (*box.centerRAS, *box.sizeMm))
    (folder / "boxes.csv").write_text(
        f"name,center_x,center_y,center_z,size_x,size_y,size_z,frame\nL,{numbers},RAS\n", encoding="utf-8"
    )
    return folder / "ct.nii.gz", folder / "boxes.csv"


@pytest.mark.parametrize("name", NAMES)
def test_a_phantom_model_is_small_and_its_card_names_the_weights_that_lie_there(models, name):
    folder = models[name].bundle.folder
    assert folder == ROOT / "Resources" / "Models" / name
    assert sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) < LARGEST
    digest = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
    assert models[name].bundle.manifest["lesionlens"]["files"][WEIGHTS] == digest
    assert digest in (folder / CARD).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_a_phantom_model_says_everywhere_that_it_is_one(models, name):
    bundle = models[name].bundle
    manifest = bundle.manifest
    assert bundle.phantom_hu is not None
    assert manifest["description"].startswith("PHANTOM model for teaching")
    assert manifest["task"].startswith("PHANTOM")
    assert "mean nothing" in " ".join(manifest["intended_use"].split())
    assert all(one["name"].startswith("phantom ") for one in manifest["lesionlens"]["classes"])
    assert all("no disease" in one["description"] for one in manifest["lesionlens"]["classes"])
    assert "PHANTOM model" in (bundle.folder / CARD).read_text(encoding="utf-8")
    assert "no patient data took part" in (bundle.folder / LICENSE).read_text(encoding="utf-8")
    assert "computed lesions of" in figure_sentences(manifest)[0]
    assert "phantom patients" in figure_sentences(manifest)[0]


@pytest.mark.parametrize("name", NAMES)
def test_its_figures_stand_beside_those_of_size_and_density_which_only_guess(models, name):
    metrics = models[name].bundle.manifest["lesionlens"]["training"]["metrics"]
    own, size, density = (
        next(iter(metrics["figures"].values())), metrics["figures"]["size alone"], metrics["figures"]["size and mean HU"],
    )  # fmt: skip
    classes = len(models[name].bundle.class_names)
    assert own["auc"]["low"] > 0.9
    assert own["balanced_accuracy"]["value"] > 0.8
    assert max(size["auc"]["value"], density["auc"]["value"]) < 0.62
    assert max(size["balanced_accuracy"]["value"], density["balanced_accuracy"]["value"]) < 1 / classes + 0.12


@pytest.mark.parametrize("name", NAMES)
def test_it_knows_computed_lesions_that_it_never_saw(models, name):
    """All of five, or of four, but one at most: by chance it would be one of five, or two of four."""
    model = models[name]
    asked = [(label, number) for label in model.bundle.class_names for number in range(max(1, 4 // len(model.kinds)))]
    answers = [model.answer(model.mass(label, 100 * c + n)) for c, (label, n) in enumerate(asked)]
    right = [
        max(a.probabilities, key=a.probabilities.get) == label for a, (label, _) in zip(answers, asked, strict=True)
    ]
    assert sum(right) >= len(right) - 1


@pytest.mark.parametrize("name", NAMES)
def test_the_command_line_answers_a_computed_lesion_rightly_and_its_report_says_phantom(models, name, run, tmp_path):
    model = models[name]
    label = model.bundle.class_names[-1]
    mass = model.mass(label, 0)
    ct, boxes = written(tmp_path, mass.volume, mass.box)
    done = run("classify", ct, "--boxes", boxes, "--model", name, "--out", tmp_path / "out")
    assert done.code == 0, done.err
    (result,) = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))["results"]
    assert result["label"] == label
    assert any(text.startswith("A PHANTOM model, for teaching") for text in result["warnings"])
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert f"{name} 1.0.0: PHANTOM model for teaching" in page
    assert "On a real CT its answer means nothing" in page


@pytest.mark.parametrize("name", NAMES)
def test_a_lesion_that_is_none_of_its_own_is_warned_of_and_refused(models, name):
    """A nodule in lung stands for a real CT: whatever the model says of it, the reader is told what that is worth."""
    volume, nodule = nodule_patch(kind="lobulated", diameter_mm=20.0, seed=3, size_mm=60.0)
    result = Classifier(models[name].bundle, volume).classify(nodule.box, map_method="none")
    assert WarningName.PHANTOM in {warning.name for warning in result.warnings}
    assert not result.usable
    assert result.label == ""


def test_a_model_of_patients_carries_no_such_warning():
    bundle = load_bundle("lung-nodule-kind")
    volume, nodule = nodule_patch(kind="lobulated", diameter_mm=14.0, seed=3, size_mm=44.0)
    assert bundle.phantom_hu is None
    result = Classifier(bundle, volume).classify(nodule.box, map_method="none")
    assert WarningName.PHANTOM not in {warning.name for warning in result.warnings}


def test_the_list_of_models_says_which_are_phantoms(run):
    listed = {one["name"]: one["description"] for one in json.loads(run("models", "list", "--json").out)}
    assert {name for name, text in listed.items() if text.startswith("PHANTOM model for teaching")} == set(NAMES)


def test_the_liver_phantom_says_how_often_its_map_lies_on_the_lesion(models):
    bundle = models["phantom-liver5"].bundle
    found = bundle.manifest["lesionlens"]["training"]["figures"]["localisation"]
    share = found["pointing"]["hits"] / found["pointing"]["n"]
    assert found["pointing"]["low"] > 3 * found["pointing_by_chance"]
    assert f"the hottest place lay in the lesion in {share:.0%}" in heat_sentence(bundle.manifest)
    assert "the hottest place is in the lesion's box" in (bundle.folder / CARD).read_text(encoding="utf-8")
