"""Lesion Search on DeepLesion as it is released: types in the official validation and test parts, none in training."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from lesion_tables import write_rows
from lesiontraining.cli import main
from lesiontraining.data.readers.deeplesion import TYPES
from lesiontraining.evaluation.predictions import Predictions
from PIL import Image

pytestmark = pytest.mark.filterwarnings("ignore")
TRAIN, VAL, TEST = "1", "2", "3"
PARTS = [TRAIN] * 10 + [VAL] * 24 + [TEST] * 16  # a lesion of a patient each
TINY = [
    "--trainer.max_epochs=1", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--data.progress=false",
    "--data.input.size=32", "--model.init_args.batch_size=8",
]  # fmt: skip
SMALL = {"channels": 1, "width": "tiny"}


@pytest.fixture(scope="module")
def released(tmp_path_factory) -> Path:
    """``DL_info.csv`` with the released columns, a key slice of 16 bits a lesion; a type is a row of brightness."""
    folder = tmp_path_factory.mktemp("deeplesion")
    rng = np.random.default_rng(0)
    rows = []
    for patient, part in enumerate(PARTS, start=1):
        number = patient % len(TYPES)
        series = f"{patient:06d}_01_01"
        hu = rng.normal(-100, 10, (40, 40))
        hu[14:26, 14:26] += 40.0 * number
        (folder / "Images_png" / series).mkdir(parents=True)
        stored = (np.round(hu) + 32768).astype(np.uint16)
        Image.fromarray(stored).save(folder / "Images_png" / series / "010.png")
        rows.append(
            {
                "File_name": f"{series}_010.png", "Patient_index": patient, "Study_index": 1, "Series_ID": 1,
                "Key_slice_index": 10, "Measurement_coordinates": "14, 14, 26, 26, 14, 26, 26, 14",
                "Bounding_boxes": "9, 9, 31, 31", "Lesion_diameters_Pixel_": "17, 17",
                "Normalized_lesion_location": "0.5, 0.5, 0.5", "Coarse_lesion_type": -1 if part == TRAIN else number + 1,
                "Possibly_noisy": 0, "Slice_range": "10, 10", "Spacing_mm_px_": "0.8, 0.8, 5", "Image_size": "40, 40",
                "DICOM_windows": "-175,275", "Patient_gender": "F", "Patient_age": 60, "Train_Val_Test": part,
            }
        )  # fmt: skip
    write_rows(folder / "DL_info.csv", rows)
    return folder


def fit(recipe: str, released: Path, out: Path, *options: str, **arguments: object) -> int:
    """The paper's own recipe, narrowed; ``arguments`` of its network."""
    text = json.dumps(SMALL | arguments)
    given = ["--config", f"paper/{recipe}", "--data.table", str(released), f"--model.init_args.arguments={text}"]
    return main(["fit", *given, *TINY, *options, "--out", str(out)])


@pytest.fixture(scope="module")
def pretrained(released, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "pretrain"
    assert fit("lesionsearch-pretrain", released, out) == 0
    return out


def test_pre_training_without_a_single_label_finishes_and_leaves_its_network(pretrained):
    fold = pretrained / "fold-0"
    assert (fold / "network.safetensors").is_file()
    predictions = Predictions.load(fold / "predictions.npz")
    train = predictions.at(predictions.split == "train")
    assert len(train) == PARTS.count(TRAIN)
    assert (train.labels == -1).all()
    np.testing.assert_allclose(predictions.probabilities, 1 / len(TYPES))


def test_its_report_says_that_only_the_search_is_measured(pretrained):
    assert main(["evaluate", str(pretrained), "--draws", "20"]) == 0
    metrics = json.loads((pretrained / "report" / "metrics.json").read_text())
    assert metrics["extra"][0].startswith("No training lesion has a label")
    assert any("no training lesion has a label to fit them on" in note for note in metrics["notes"])
    assert {row["queries"] for row in metrics["search"] if row["rule"] == "all"} == {PARTS.count(TEST)}


@pytest.mark.parametrize("objective", ["triplet", "types"])
def test_the_second_stage_starts_from_the_first_and_is_typed_by_the_official_parts(
    objective, pretrained, released, tmp_path
):
    weights = f"--model.init_args.weights={pretrained / 'fold-0' / 'network.safetensors'}"
    out = tmp_path / objective
    options = [weights, f"--model.init_args.objective={objective}", "--data.validation=0.67"]
    assert fit("lesionsearch", released, out, *options, descriptor="gem") == 0
    predictions = Predictions.load(out / "fold-0" / "predictions.npz")
    counts = {name: int((predictions.split == name).sum()) for name in ("train", "val", "test")}
    assert counts["test"] == PARTS.count(TEST)
    assert counts["train"] + counts["val"] == PARTS.count(VAL)
    assert (predictions.labels >= 0).all()


def test_the_autoencoder_finishes_without_a_label_too(released, tmp_path):
    assert fit("vae", released, tmp_path / "vae", "--model.init_args.size=32", latent_size=8) == 0
    assert (tmp_path / "vae" / "fold-0" / "network.safetensors").is_file()


def test_a_recipe_that_needs_types_says_so_before_its_first_epoch(released, tmp_path, capsys):
    options = ["--data.folds=split", "--data.unlabelled=keep"]
    assert fit("lesionsearch", released, tmp_path / "run", *options) == 2
    said = capsys.readouterr().err
    assert f"0 of {PARTS.count(TRAIN)} training lesions have a label" in said
    assert "typed" in said
    assert not list((tmp_path / "run").rglob("*.ckpt"))


def test_the_typed_protocol_needs_types_in_both_parts(released, tmp_path, capsys):
    lines = (released / "DL_info.csv").read_text().splitlines()
    untyped = released / "untyped.csv"
    untyped.write_text("\n".join([lines[0], *(row for row in lines[1:] if not row.endswith(",3"))]) + "\n")
    options = ["--data.table", str(untyped), f"--data.reader_options.images={released / 'Images_png'}"]
    assert fit("lesionsearch", released, tmp_path / "run", *options) == 2
    assert "there are 24 and 0" in capsys.readouterr().err


def test_too_few_lesions_for_a_triplet_are_said_before_the_first_epoch(released, tmp_path, capsys):
    assert fit("lesionsearch", released, tmp_path / "run", "--data.validation=0.2") == 2
    assert "make no triplet" in capsys.readouterr().err
