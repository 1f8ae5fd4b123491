"""A model folder that says more of itself than before, and the measurement of a margin around segments."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import SimpleITK as sitk
from lesion_tables import write_lesion_table
from LesionLib.errors import BundleError
from LesionLib.model.bundle import load_bundle, read_manifest
from LesionLib.model.codes import DicomCode
from LesionLib.model.folder import MANIFEST, WEIGHTS, find_bundle
from LesionLib.phantom.nodules import nodule_patch
from LesionLib.sampling.content_hash import TrainingContent
from lesiontraining.cli import main
from lesiontraining.commands.annotate import Annotation, annotate
from lesiontraining.commands.box_margin import AskedLesions, as_text, asked, compared
from lesiontraining.data.contents import content_of_folder, content_of_rows
from lesiontraining.data.readers.registry import read_with

MODEL = "lung-nodule-malignancy"


@pytest.fixture
def model(tmp_path):
    return shutil.copytree(find_bundle(MODEL), tmp_path / MODEL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Four phantom nodules of four patients as a folder of cases."""
    path = tmp_path_factory.mktemp("cases")
    lines = ["file,patient_id,malignant"]
    for part in ("image", "mask"):
        (path / part).mkdir()
    for number in range(4):
        volume, nodule = nodule_patch(kind=("round", "spiculated")[number % 2], diameter_mm=10.0, seed=number)
        k, j, i = np.indices(volume.array.shape)
        points = np.stack([i, j, k], axis=-1) @ volume.ijkToRAS[:3, :3].T + volume.ijkToRAS[:3, 3]
        mask = np.linalg.norm(points - nodule.box.centerRAS, axis=-1) < 5.0
        for part, array in (("image", volume.array), ("mask", mask.astype(np.uint8))):
            image = sitk.GetImageFromArray(array)
            image.SetSpacing(volume.spacingMm.tolist())
            sitk.WriteImage(image, str(path / part / f"n{number}.nii.gz"))
        lines.append(f"n{number}.nii.gz,P{number},{number % 2}")
    (path / "cases.csv").write_text("\n".join(lines) + "\n")
    return path


def test_a_model_folder_says_more_and_its_weights_and_figures_stay(model):
    before = read_manifest(model)
    content = TrainingContent(np.array([7, 9], np.uint64))
    sha256 = annotate(model, Annotation("9.0.0", "says more", 1.5, (0.25, 0.75), content))
    after = load_bundle(model)
    assert (after.sha256, after.version) == (sha256, "9.0.0")
    assert sha256 != before["sha256"]
    assert after.segment_margin_mm == 1.5
    assert after.manifest["lesionlens"]["class_prior"] == [0.25, 0.75]
    np.testing.assert_array_equal(after.training_content.hashes, [7, 9])
    assert after.manifest["changelog"]["9.0.0"] == "says more"
    for key in ("training", "golden_logits", "box_size_mm", "input"):
        assert after.manifest["lesionlens"][key] == before["lesionlens"][key]
    assert after.manifest["lesionlens"]["files"][WEIGHTS] == before["lesionlens"]["files"][WEIGHTS]


def test_where_its_lesions_lie_is_said_later_by_the_command_and_what_is_no_code_changes_nothing(model, capsys):
    assert main(["annotate", str(model), "--finding-site", "SCT", "39607008", "Lung"]) == 0
    assert load_bundle(model).finding_site == DicomCode("SCT", "39607008", "Lung")
    text = (model / MANIFEST).read_bytes()
    capsys.readouterr()
    assert main(["annotate", str(model), "--finding-site", "SCT", "left lung", "Lung"]) == 2
    assert "finding_site" in capsys.readouterr().err
    assert (model / MANIFEST).read_bytes() == text


@pytest.mark.parametrize("prior", [(1.0,), (0.5, 0.6)])
def test_a_prior_that_does_not_fit_the_classes_is_refused_and_nothing_changed(model, prior):
    text = (model / MANIFEST).read_bytes()
    with pytest.raises(BundleError, match="2 classes"):
        annotate(model, Annotation(class_prior=prior))
    assert (model / MANIFEST).read_bytes() == text


def test_a_margin_that_a_manifest_may_not_hold_is_refused_and_the_manifest_put_back(model):
    text = (model / MANIFEST).read_bytes()
    with pytest.raises(BundleError, match="segment_margin_mm"):
        annotate(model, Annotation(segment_margin_mm=-1.0))
    assert (model / MANIFEST).read_bytes() == text


def test_every_lesion_of_a_table_is_recognised_by_what_it_was_learned_from(tmp_path):
    table = read_with("table", write_lesion_table(tmp_path, patients=4), label="kind", classes=None)
    content = content_of_rows(table.rows[:4])
    held = [content.holds(volume := row.source.read(), row.source.lesion(volume, name="x")) for row in table.rows]
    assert held == [True] * 4 + [False] * 4


def test_a_folder_of_cases_gives_one_hash_a_lesion(folder):
    assert len(content_of_folder(folder).hashes) == 4


def test_with_the_model_s_own_margin_a_lesion_finds_itself(folder):
    lesions = asked(folder, load_bundle(MODEL), margins_mm=[2.0], label="malignant")
    assert lesions.margins_mm == (0.0, 2.0)
    found = compared(lesions, draws=20)
    assert found[0.0]["itself_first"].value == 1.0
    assert found[0.0]["class_changes"].value == 0.0
    assert "0 mm (default)" in as_text(found)


def test_the_figures_of_a_margin_are_those_counted_by_hand():
    angles = np.arange(20) * 0.1
    library = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    moved = library.copy()
    moved[:5] = library[5:10]  # five lesions now look like others
    lesions = AskedLesions(
        margins_mm=(0.0, 2.0),
        embeddings=np.stack([library, moved]),
        answers=np.array([["a"] * 20, ["b"] * 4 + ["a"] * 16]),
        usable=np.array([[True] * 20, [False] * 2 + [True] * 18]),
        labels=np.array(["a", "b"] * 10),
        patients=np.array([f"P{n}" for n in range(20)]),
    )
    found = compared(lesions, draws=50)[2.0]
    assert [found[name].value for name in ("itself_first", "class_changes", "no_answer")] == [0.75, 0.2, 0.1]
    assert found["same_nine"].value < 1.0
    assert found["itself_first"].low < 0.75 < found["itself_first"].high
