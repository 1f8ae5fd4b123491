"""The models that recipes made and that come along: each verifies, answers what it was made for, and says what it is."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from LesionLensApp.cli import main
from LesionLib.errors import BoxError
from LesionLib.geometry import CTVolume, LesionBox
from LesionLib.inference.classifier import Classifier
from LesionLib.io.boxes import segment_boxes
from LesionLib.model.bundle import load_bundle
from LesionLib.model.card import figure_sentences
from LesionLib.model.folder import CARD, find_bundle

MODELS = Path(__file__).resolve().parents[2] / "Resources" / "Models"


def test_all_models_that_come_along_stay_small():
    sizes = {path.parent: 0 for path in MODELS.glob("*/LICENSE")}
    for folder in sizes:
        sizes[folder] = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    assert sum(sizes.values()) < 60e6
    assert all(size < 3e6 for folder, size in sizes.items() if folder.name in ("adrenal-shape",))


# adrenal-shape --------------------------------------------------------------------------------------------------------


@pytest.fixture
def gland() -> tuple[CTVolume, CTVolume]:
    """A CT and a computed segment in it, two limbs that meet, about as large as a gland."""
    k, j, i = np.indices((40, 60, 60))
    x, y, z = i - 30.0, j - 30.0, (k - 20.0) * 1.5
    limbs = ((np.abs(x - 0.4 * y) < 2.5) | (np.abs(x + 0.4 * y) < 2.5)) & (np.abs(y - 2) < 11) & (np.abs(z) < 17)
    to_ras = np.diag([-1.0, -1.0, 1.5, 1.0])
    volume = CTVolume(np.full(limbs.shape, 30, np.int16), to_ras, name="ct")
    return volume, CTVolume(limbs.astype(np.uint8), to_ras, name="gland")


def test_the_shape_model_answers_a_segment_and_its_mirror_image_alike(gland):
    volume, segment = gland
    bundle = load_bundle("adrenal-shape")
    assert bundle.class_names == ("normal", "mass or hyperplasia")
    assert bundle.conformal is not None
    (box,) = segment_boxes([segment], margin_mm=bundle.segment_margin_mm)
    mirrored = CTVolume(np.ascontiguousarray(segment.array[:, :, ::-1]), segment.ijkToRAS, name="gland")
    (other,) = segment_boxes([mirrored], margin_mm=bundle.segment_margin_mm)
    classifier = Classifier(bundle, volume)
    given, turned = classifier.classify(box), classifier.classify(other)
    assert sum(given.probabilities.values()) == pytest.approx(1)
    assert given.reliability.prediction_set
    assert turned.probabilities == pytest.approx(given.probabilities, abs=0.02)


def test_the_shape_model_takes_no_box_without_a_segment(gland):
    volume, _ = gland
    with pytest.raises(BoxError, match="the model looks at the shape of a segment; give the segment"):
        Classifier(load_bundle("adrenal-shape"), volume).classify(LesionBox([-30, -30, 30], [30, 30, 30], name="L"))


def written(path: Path, volume: CTVolume) -> Path:
    image = sitk.GetImageFromArray(volume.array)
    image.SetSpacing([float(mm) for mm in volume.spacingMm])
    sitk.WriteImage(image, str(path))
    return path


def test_the_command_line_answers_a_segmentation_and_refuses_a_box(gland, tmp_path, capsys):
    ct, mask = (written(tmp_path / f"{v.name}.nii.gz", v) for v in gland)
    given = ["classify", str(ct), "--model", "adrenal-shape", "--out", str(tmp_path / "out")]
    assert main([*given, "--segmentation", str(mask)]) == 0
    (result,) = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))["results"]
    shown = result["probabilities"] or result["details"]["probabilities"]  # no answer, where it is unlike training
    assert set(shown) == {"normal", "mass or hyperplasia"}
    boxes = tmp_path / "boxes.csv"
    boxes.write_text(
        "name,center_x,center_y,center_z,size_x,size_y,size_z,frame\nL,30,30,30,30,30,30,LPS\n", encoding="utf-8"
    )
    capsys.readouterr()
    main(["classify", str(ct), "--model", "adrenal-shape", "--out", str(tmp_path / "no"), "--boxes", str(boxes)])
    said = capsys.readouterr()
    assert "the model looks at the shape of a segment; give the segment" in said.out + said.err


def test_the_shape_model_says_on_what_it_was_measured_and_what_is_assumed():
    bundle = load_bundle("adrenal-shape")
    training = bundle.manifest["lesionlens"]["training"]
    assert training["metrics"]["lesions"] == 98
    assert len(training["seeds"]["auc"]) == 5
    assert "AUC" in figure_sentences(bundle.manifest)[0]
    card = (find_bundle("adrenal-shape") / CARD).read_text(encoding="utf-8")
    for said in (
        "official val cubes",
        "chosen on the very val cubes",
        "is untested",
        "CC BY 4.0",
        "64 mm",
        "size alone",
    ):
        assert said in card
    assert bundle.manifest["lesionlens"]["class_prior"] == pytest.approx([0.78, 0.22], abs=0.01)


def test_the_shape_model_has_its_figure_on_the_cubes_themselves():
    folder = os.environ.get("LESIONLENS_DATA")
    archive = Path(folder or ".", "adrenal_shape", "adrenalmnist3d_trainval.npz")
    if not folder or not archive.exists():
        pytest.skip("AdrenalMNIST3D is not here; LESIONLENS_DATA must name the folder that holds adrenal_shape")
    from lesiontraining.data.crops import input_spec
    from lesiontraining.data.dataset import lesion_dataset
    from lesiontraining.data.readers.registry import read_with
    from lesiontraining.runs.inference import lesion_features, lesion_probabilities
    from sklearn.metrics import roc_auc_score

    bundle = load_bundle("adrenal-shape")
    options = {"centred": True, "measure_on_val": True, "is_xyz": True}
    table = read_with("medmnist3d", archive, label="label", classes=None, **options)
    val = lesion_dataset(
        table.where(lambda row: row.split == "test"), input_spec(bundle.manifest["lesionlens"]["input"]), progress=False
    )
    logits, _ = lesion_features(bundle.network, val.images)
    probabilities = lesion_probabilities(bundle.network, logits, bundle.temperature)
    metrics = bundle.manifest["lesionlens"]["training"]["metrics"]
    listed = next(iter(metrics["figures"].values()))["auc"]["value"]
    assert roc_auc_score(val.labels, probabilities[:, 1]) == pytest.approx(listed, abs=2e-3)
