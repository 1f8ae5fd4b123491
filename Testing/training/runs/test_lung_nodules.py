"""A frozen network with a linear head, end to end on phantoms; and the cards of the models that ship."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
import yaml
from lesion_tables import write_lesion_table
from LesionLib.geometry import CTVolume
from LesionLib.inference.classifier import Classifier
from LesionLib.model.bundle import load_bundle
from LesionLib.model.folder import CARD, LICENSE, find_bundle, golden_case
from LesionLib.networks import build_network
from LesionLib.phantom.nodules import nodule_patch
from lesiontraining.cli import main
from lesiontraining.commands.export import write_bundle
from lesiontraining.commands.plans import PlanError
from lesiontraining.commands.probe import probe
from lesiontraining.commands.probe_card import card, manifest_head, manifest_section
from lesiontraining.commands.probe_plan import BoxJitter, read_plan
from lesiontraining.data.contents import content_of_folder
from lesiontraining.nodules.plan import read_nodule_plan
from repository import ROOT

NAME = "lung-nodule-probe"
SHIPPED = ("lung-nodule-malignancy", "lung-nodule-kind", "lung-nodule-description", "lung-nodule-retrieval")
PLAN = ROOT / "training" / "models" / f"{NAME}.yaml"
SMALL = {"width": 0.25, "stem_stride": 2, "output_stride": 16}


def written(path: Path, array: np.ndarray, volume: CTVolume) -> None:
    """A NIfTI file on the lattice of the phantom, whose axes are parallel to the body's."""
    image = sitk.GetImageFromArray(array)
    to_lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ volume.ijkToRAS
    image.SetSpacing(volume.spacingMm)
    image.SetOrigin(to_lps[:3, 3].tolist())
    image.SetDirection((to_lps[:3, :3] / np.array(volume.spacingMm)).ravel().tolist())
    sitk.WriteImage(image, str(path))


def phantom_row(folder: Path, number: int) -> dict[str, object]:
    """Malignant is spiculated here; two nodules a patient, four patients a fold; one patient stands in two folds."""
    kind = ("spiculated", "round")[number % 2]
    volume, truth = nodule_patch(
        kind=kind, diameter_mm=8 + number % 7, seed=number, spacing_mm=(0.9, 0.9, 2.0), size_mm=40
    )
    name, patient = f"nodule{number}.nii.gz", number // 2
    written(folder / "image" / name, volume.array, volume)
    written(folder / "mask" / name, (volume.array > -500).astype(np.uint8), volume)
    size = float(truth.diameter_mm)
    return {
        "file": name, "patient_id": f"P{patient}", "luna16_subset": 3 if number == 1 else patient % 4,
        "diameter_mm": size, "malignant": int(kind == "spiculated"), "volume_mm3": size**3 / 2,
    }  # fmt: skip


@pytest.fixture(scope="module")
def nodules(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("nodules")
    for name in ("image", "mask"):
        (folder / name).mkdir()
    rows = [phantom_row(folder, number) for number in range(32)]
    with (folder / "nodules.csv").open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    network = build_network("mobilenet_v2", {"classes": 1000, "width": 0.25})
    path = tmp_path_factory.mktemp("weights") / "published.pth"
    torch.save({name.replace("features_.", "features."): t for name, t in network.state_dict().items()}, path)
    return path


@pytest.fixture(scope="module")
def plan():
    """The one that comes along, with a narrow network and a few drawings."""
    return replace(
        read_plan(NAME), arguments=SMALL, jitter=BoxJitter(drawings=1), strengths=[1e-3, 1e-2], draws=50,
        alpha=0.25, sanity_patches=4,
    )  # fmt: skip


@pytest.fixture(scope="module")
def probed(nodules, weights, plan):
    return probe(plan, nodules, weights, lambda _text: None)


def small_plan(folder: Path, **changes: object) -> Path:
    """The plan that comes along as a file, small, with other values at its top."""
    values = yaml.safe_load(PLAN.read_text(encoding="utf-8"))
    small = {
        "arguments": SMALL, "jitter": {"drawings": 1}, "strengths": [0.01], "draws": 20, "sanity_patches": 2,
        "alpha": 0.25,
    }  # fmt: skip
    path = folder / "plan.yaml"
    path.write_text(yaml.safe_dump(values | small | changes, sort_keys=False), encoding="utf-8")
    return path


def test_a_patient_in_two_folds_is_moved_whole_into_one(probed):
    assert probed.moved_patients == ("P0",)
    assert probed.methods["this model"].folds[:2].tolist() == [0, 0]


def test_every_group_has_the_baselines_beside_the_model(probed):
    for rows in probed.groups.values():
        assert list(rows) == ["this model", "volume only", "size + mean HU", "this model, loose boxes"]
        for row in rows.values():
            assert set(row.figures) == {"auc", "balanced_accuracy", "sensitivity", "specificity"}
    everyone = probed.groups["all nodules"]["this model"]
    assert (everyone.lesions, everyone.patients) == (32, 16)
    assert probed.class_counts("all nodules") == [16, 16]
    assert 0 < probed.groups["nodules of 5-12 mm"]["this model"].lesions < 32


def test_what_tells_how_far_to_rely_on_it_is_checked_on_nodules_that_took_no_part(probed):
    fit = probed.reliability
    assert {group: share.covered.n for group, share in fit.coverage.items()} == {
        "all": 32,
        "benign": 16,
        "malignant": 16,
    }
    assert fit.coverage["all"].target_coverage == 0.75
    assert fit.warned.n == 32
    assert probed.sanity.patches + probed.sanity.left_out == 4
    assert {name.partition(".")[0] for name in fit.tensors()} == {"conformal", "ood"}


def test_where_the_heat_lies_is_counted_beside_chance(probed):
    everyone = probed.heat["all"]
    assert everyone.peak_inside.n == 32 == sum(f.peak_inside.n for name, f in probed.heat.items() if name != "all")
    assert 0 < everyone.chance < 1
    assert 0 <= everyone.energy <= 1


def test_the_exported_model_answers_the_same_where_there_is_no_sklearn(probed, plan, tmp_path):
    folder = tmp_path / "model"
    write_bundle(
        folder,
        head=manifest_head(plan),
        lesionlens=manifest_section(plan, probed),
        network=probed.network,
        spec=plan.spec,
        calibration=probed.calibration(),
        card=card(plan, probed),
        license_text=plan.text.license,
    )
    volume, box = golden_case()
    result = Classifier(load_bundle(folder), volume).classify(box)
    here = result.probabilities["malignant"]
    assert result.reliability.target_coverage == 0.75
    assert result.reliability.distance > 0
    code = f"""
import sys
from LesionLib.model.bundle import load_bundle
from LesionLib.inference.classifier import Classifier
from LesionLib.model.folder import golden_case
volume, box = golden_case()
print(Classifier(load_bundle({str(folder)!r}), volume).classify(box).probabilities["malignant"])
assert not {{"sklearn", "lightning", "lesiontraining", "monai"}} & set(sys.modules)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=False)
    assert float(ran.stdout) == pytest.approx(here, abs=1e-5), ran.stderr


def test_the_manifest_says_margin_prior_and_which_nodules_it_learned_from(probed, plan, nodules):
    section = manifest_section(plan, probed)
    assert (section["segment_margin_mm"], section["class_prior"]) == (0.0, [0.5, 0.5])
    assert section["training_content"] == content_of_folder(nodules).to_manifest()


def test_the_manifest_says_where_in_the_body_its_lesions_lie(probed, plan):
    assert manifest_section(plan, probed)["finding_site"] == {"scheme": "SCT", "value": "39607008", "meaning": "Lung"}


def test_the_card_prints_what_was_measured_and_names_no_patient(probed, plan):
    text = card(plan, probed)
    for group in manifest_section(plan, probed)["training"]["groups"]:
        for figures in group["figures"].values():
            for figure in figures.values():
                assert is_printed(figure, text)
    assert "32 nodules of 16 patients, LIDC-IDRI." in text
    assert "(1 patient scanned twice was moved into one fold)" in text
    assert not re.search(r"\bP\d+\b|\$", text)


def test_another_table_becomes_a_model_by_a_plan_alone_with_its_report(weights, tmp_path, capsys):
    table = write_lesion_table(tmp_path / "t", patients=16)
    path = small_plan(
        tmp_path, name="spheres", reader="table", label="kind", folds=4, table_sizes=False, groups=[{"name": "all spheres"}],
        classes=[{"name": n, "description": "", "color": [0.5, 0.5, 0.5]} for n in ("bright", "hollow")],
    )  # fmt: skip
    options = ["--data", str(table), "--weights", str(weights), "--out", str(tmp_path / "spheres")]
    assert main(["probe", str(path), *options, "--report", str(tmp_path / "report")]) == 0
    bundle = load_bundle(tmp_path / "spheres")
    assert bundle.class_names == ("bright", "hollow")
    assert "32 nodules of 16 patients" in capsys.readouterr().out
    metrics = json.loads((tmp_path / "report" / "metrics.json").read_text())
    assert list(metrics["figures"]) == ["this model", "volume only", "size + mean HU", "this model, loose boxes"]
    shipped = bundle.manifest["lesionlens"]["training"]["groups"][0]["figures"]["this model"]["AUC"]
    assert metrics["figures"]["this model"]["auc"]["value"] == pytest.approx(shipped["value"], abs=1e-4)
    assert metrics["leaks"] == []
    assert (tmp_path / "report" / "pictures" / "reliability.png").is_file()
    left = [file for file in tmp_path.glob("[rs][ep]*/**/*") if file.suffix in (".json", ".md", ".html")]
    assert not any("Secret" in file.read_text(encoding="utf-8") for file in left)


def test_a_table_with_too_few_lesions_is_refused_in_plain_words(weights, tmp_path, capsys):
    table = write_lesion_table(tmp_path / "t", patients=8)
    path = small_plan(
        tmp_path, reader="table", label="kind", folds=4, table_sizes=False, groups=[{"name": "all"}], jitter={"drawings": 0},
        classes=[{"name": n, "description": "", "color": [0.5, 0.5, 0.5]} for n in ("bright", "hollow")],
    )  # fmt: skip
    options = ["--data", str(table), "--weights", str(weights), "--out", str(tmp_path / "m")]
    assert main(["probe", str(path), *options]) == 2
    assert "lesions.csv has too few lesions or folds" in capsys.readouterr().err
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"colour": "red"}, "colour"),
        ({"baselines": {"age": ["age"]}}, r"baselines know volume_mm3, diameter_mm, mean_hu, not age"),
        ({"classes": []}, r"0 class\(es\)"),
        ({"input": {"kind": "photograph"}}, "kind 'photograph' is no CT"),
        ({"strengths": "many"}, "strengths"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused_with_what_is_wrong(changes, said, tmp_path):
    with pytest.raises(PlanError, match=said):
        read_plan(small_plan(tmp_path, **changes))
    with pytest.raises(PlanError, match="there is no plan 'nowhere'; give a YAML file, or one of lung-nodule-probe"):
        read_plan("nowhere")


def is_printed(figure: dict[str, float], text: str) -> bool:
    """Whether the text has it; the manifest has four digits, a text three."""
    printed = re.findall(r"(\d\.\d{3}) \((\d\.\d{3})-(\d\.\d{3})\)", text)
    wanted = (figure["value"], figure["low"], figure["high"])
    return any(np.allclose([float(v) for v in row], wanted, atol=6e-4) for row in printed)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_card_that_ships_prints_the_figures_of_its_manifest(name):
    folder = find_bundle(name)
    manifest = json.loads((folder / "configs" / "metadata.json").read_text())
    text = (folder / CARD).read_text()
    groups = manifest["lesionlens"]["training"]["groups"]
    assert groups
    for group in groups:
        for figures in group["figures"].values():
            for figure in figures.values():
                assert is_printed(figure, text)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_plan_that_comes_along_is_that_of_the_model_that_ships(name):
    plan, folder = read_nodule_plan(name), find_bundle(name)
    manifest = json.loads((folder / "configs" / "metadata.json").read_text())
    assert (folder / LICENSE).read_text() == plan.text.license
    head = manifest_head(plan)
    assert head == {key: manifest[key] for key in head}
    section = manifest["lesionlens"]
    assert section["architecture"] == "nodule"
    assert [c["name"] for c in section["classes"]] == list(plan.class_names)
    assert [score["name"] for score in section.get("scores", [])] == [score["name"] for score in plan.scores]
    assert section.get("explanation", {}).get("class", "") == plan.explained
    assert load_bundle(name).spec == plan.spec
    text = (folder / CARD).read_text()
    for part in (plan.text.question, plan.text.how, plan.text.lead, plan.text.credit):
        assert part.strip() in text
    low, high = section["box_size_mm"]
    for limit in plan.text.limits:
        assert f"- {plan.filled(limit, low_mm=low, high_mm=high)}" in text


def test_the_readme_quotes_the_card_that_ships():
    folder = find_bundle("lung-nodule-malignancy")
    groups = json.loads((folder / "configs" / "metadata.json").read_text())["lesionlens"]["training"]["groups"]
    readme = (folder.parents[2] / "README.md").read_text()
    quoted = [group for group in groups if group["name"] in ("all nodules", "nodules of 5-12 mm")]
    assert len(quoted) == 2
    for group in quoted:
        for row in ("this model", "volume only", "size + mean HU"):
            assert is_printed(group["figures"][row]["AUC"], readme)
