"""The data module as a recipe uses it: three sets without a common patient, found leaks, and Lightning's loaders."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch
from LesionLib.errors import BundleError
from lesiontraining.data.data_module import LeakError, LesionDataModule
from lesiontraining.data.messages import TableError
from lesiontraining.data.splits import SplitError
from lightning import LightningModule, Trainer
from phantom_cases import write_cases
from torch.utils.data import DataLoader

INPUT = {"kind": "axial_stack", "size": 24, "spacing_mm": 1.0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Sixteen patients with two nodules each, boxes in RAS mm."""
    folder = tmp_path_factory.mktemp("set")
    rows = []
    for number, case in enumerate(write_cases(folder, patients=16, of_each=2)):
        box = {
            f"{what}_{axis}": value
            for what, v in (("center", case.box.centerRAS), ("size", case.box.sizeMm))
            for axis, value in zip("xyz", v, strict=True)
        }
        patient = number // 2
        rows.append(
            {"volume": f"image/case{number}.nii.gz", **box, "frame": "RAS", "kind": case.kind, "patient": case.patient,
             "split": ("train", "train", "val", "test")[patient // 4], "fold": "abcd"[patient % 4 // 2 + patient // 8 * 2]}
        )  # fmt: skip
    _write(folder / "lesions.csv", rows)
    return folder


def _write(path, rows):
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def rows_of(folder):
    with (folder / "lesions.csv").open(newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


@pytest.fixture(scope="module")
def cut_once(tmp_path_factory):
    return tmp_path_factory.mktemp("cut")


@pytest.fixture
def a_module(folder, cut_once):
    def make(path=None, **options):
        module = LesionDataModule(
            path or folder / "lesions.csv",
            **{"input": INPUT, "label": "kind", "folds": 4, "progress": False, "cache": cut_once, **options},
        )
        module.setup()
        return module

    return make


def test_three_sets_hold_every_lesion_once_and_no_patient_twice(a_module):
    module = a_module(held_out=1, validation=0.25)
    sets = (module.train, module.val, module.test)
    assert sum(map(len, sets)) == 32
    patients = [set(images.patients) for images in sets]
    assert len(patients[0] | patients[1] | patients[2]) == sum(map(len, patients)) == 16
    assert (module.test.folds == 1).all()
    assert 1 not in module.train.folds
    assert module.class_names == ("round", "spiculated")
    assert all(set(images.labels) == {0, 1} for images in sets)
    assert module.leaks.leaks == ()


def test_the_folds_together_hold_out_every_lesion_once(a_module, tmp_path):
    held_out = np.concatenate([a_module(held_out=f, cache=tmp_path).test.lesion_ids for f in range(4)])
    assert sorted(held_out) == sorted(f"row{line}" for line in range(2, 34))


def test_a_column_says_the_split(a_module):
    module = a_module(folds="split")
    assert module.table.column("split")[module.fold_split.split.val].tolist() == ["val"] * 8
    assert [len(images) for images in (module.train, module.val, module.test)] == [16, 8, 8]
    assert set(module.test.folds) == {0}
    assert set(module.train.folds) == {-1}


def test_a_column_says_the_folds(a_module):
    module = a_module(folds="fold", held_out=2, validation="next")
    assert module.fold_split.fold_names == ("a", "b", "c", "d")
    assert set(module.test.patients) == {"P8", "P9", "P12", "P13"}
    assert set(module.val.folds) == {3}


def test_the_two_random_splits_of_dadrn_are_chosen_by_name(a_module):
    first, second = (a_module(folds="two_random_splits", held_out=n) for n in (0, 1))
    assert set(first.test.patients) != set(second.test.patients)
    assert first.description()["split_by"] == "patient"
    with pytest.raises(SplitError, match="choose 0 or 1"):
        a_module(folds="two_random_splits", held_out=2)


def test_the_leaky_split_is_marked_in_all_that_is_written(a_module):
    module = a_module(folds="leaky_lesion_split", seed=1)
    assert any(leak.check != "pictures" for leak in module.leaks.leaks)
    assert module.description()["split_by"] == "lesion (leaky)"


def test_the_description_is_plain_json_and_names_no_patient(a_module):
    text = json.dumps(a_module().description())
    assert json.loads(text)["patients"] == {"train": 10, "val": 2, "test": 4}
    assert "P1" not in text
    assert "row" not in text


def test_the_fingerprint_is_of_the_data_and_the_split(a_module, folder):
    first, again, other = a_module(), a_module(input={**INPUT, "size": 16}), a_module(held_out=1)
    assert first.fingerprint() == again.fingerprint() != other.fingerprint()


def test_the_same_picture_under_two_patients_is_a_leak_and_fails(a_module, folder):
    rows = rows_of(folder)
    copy = {**rows[0], "patient": "P99", "split": "test"}
    copy["volume"] = "image/copy.nii.gz"
    (folder / "image" / "copy.nii.gz").write_bytes((folder / rows[0]["volume"]).read_bytes())
    _write(folder / "leaky.csv", [*rows, copy])
    with pytest.raises(LeakError, match=r"identical to one of another split \(row\d+ and row\d+\)"):
        a_module(folder / "leaky.csv", folds="split")
    assert len(a_module(folder / "leaky.csv", folds="split", leaks="report").leaks.leaks) == 1
    assert a_module(folder / "leaky.csv", folds="split", leaks="off").leaks is None


def test_lesions_without_a_label_are_refused_dropped_or_kept(a_module, folder):
    rows = rows_of(folder)
    _write(folder / "some.csv", [{**row, "kind": row["kind"] if n > 3 else ""} for n, row in enumerate(rows)])
    with pytest.raises(TableError, match="line 2: the label is empty"):
        a_module(folder / "some.csv")
    assert len(a_module(folder / "some.csv", unlabelled="drop").images) == 28
    assert (a_module(folder / "some.csv", unlabelled="keep").images.labels == -1).sum() == 4


def test_problems_of_table_and_split_are_said_before_anything_is_cut(a_module, folder):
    rows = rows_of(folder)
    rows[0]["split"], rows[3]["volume"] = "test", "image/gone.nii.gz"
    _write(folder / "wrong.csv", rows)
    with pytest.raises(TableError) as caught:
        a_module(folder / "wrong.csv", folds="split")
    assert len(caught.value.problems) == 2
    with pytest.raises(TableError, match="too few for 9 folds"):
        a_module(folds=9)
    with pytest.raises(BundleError):
        LesionDataModule(folder / "lesions.csv", input={"kind": "?"})


def test_credit_notes_and_counts_are_said_on_stderr(a_module, folder, capsys):
    a_module(progress=True, reader_options={"credit": "Hospital X, CC0."})
    said = capsys.readouterr()
    assert "Hospital X, CC0." in said.err
    assert "MB of images in memory" in said.err
    assert "test: 4 round, 4 spiculated" in said.err
    assert said.out == ""


class Task(LightningModule):
    """The least that a task has to be."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 2)
        self.asked = []

    def train_loader(self, images, *, workers, seed):
        self.asked.append(("train", len(images), workers, seed))
        return self._loader(images)

    def val_loader(self, images, *, workers):
        self.asked.append(("val", len(images), workers))
        return self._loader(images)

    @staticmethod
    def _loader(images):
        features = [
            (torch.from_numpy(p.mean(axis=(0, 2, 3))), int(k))
            for p, k in zip(images.images, images.labels, strict=True)
        ]
        return DataLoader(features, batch_size=4)

    def training_step(self, batch, _):
        return torch.nn.functional.cross_entropy(self.layer(batch[0]), batch[1])

    def validation_step(self, batch, _):
        self.log("val_loss", self.training_step(batch, 0))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def test_lightning_fits_with_the_batches_that_the_task_makes(folder, tmp_path):
    module = LesionDataModule(
        folder / "lesions.csv", input=INPUT, label="kind", folds=4, seed=5, cache=tmp_path / "cache", progress=False
    )
    task = Task()
    trainer = Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(task, datamodule=module)
    assert ("train", len(module.train), 0, 5) in task.asked
    assert ("val", len(module.val), 0) in task.asked
    assert "val_loss" in trainer.callback_metrics
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] > 0


def test_all_arguments_come_from_yaml(folder):
    from jsonargparse import ArgumentParser

    parser = ArgumentParser()
    parser.add_class_arguments(LesionDataModule, "data")
    given = {
        "data": {
            "table": str(folder / "lesions.csv"),
            "input": INPUT,
            "label": "kind",
            "folds": "split",
            "validation": 0.2,
        }
    }
    module = parser.instantiate(parser.parse_object(given)).data
    assert module.asked.folds == "split"
    assert module.asked.validation == 0.2
