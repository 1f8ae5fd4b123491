"""What a kill leaves in a run: damaged predictions are a line, and checkpoints do not pile up."""

from __future__ import annotations

import io
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from lesion_tables import write_lesion_table
from LesionLib.io.locks import held
from lesiontraining.cli import main
from lesiontraining.evaluation.predictions import Predictions, PredictionsError
from lesiontraining.runs.folder import FoldFolder
from repository import FILES_OF_0_1

RUN = FILES_OF_0_1 / "run"
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def predictions(tmp_path) -> Path:
    return Path(shutil.copytree(RUN, tmp_path / "run")) / "fold-0" / "predictions.npz"


def rewrite(path: Path, **changes: object) -> None:
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in stored.files}
    for name, value in changes.items():
        if value is None:
            del arrays[name]
        else:
            arrays[name] = np.asarray(value)
    np.savez(path, **arrays)


CHANGES = {
    "one array less": {"labels": None},
    "rows that are missing": {"mean_hu": np.zeros(3)},
    "labels of no class": {"labels": np.full(9, 7)},
    "labels that are no whole numbers": {"labels": np.zeros(9)},
    "probabilities that are text": {"probabilities": np.full((9, 2), "x")},
    "probabilities without classes": {"probabilities": np.zeros(9)},
    "labels that are a number": {"labels": 3},
    "sizes of two edges": {"size_mm": np.zeros((9, 2))},
}


@pytest.mark.parametrize("name", CHANGES)
def test_predictions_that_do_not_belong_together_are_refused(name, predictions, capsys):
    rewrite(predictions, **CHANGES[name])
    with pytest.raises(PredictionsError, match="does not hold predictions of lesiontrain"):
        Predictions.load(predictions)
    assert main(["evaluate", str(predictions.parents[1]), "--draws", "10"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_damaged_predictions_are_one_line(predictions, capsys):
    content = predictions.read_bytes()
    pickled = io.BytesIO()
    with zipfile.ZipFile(pickled, "w") as archive:
        buffer = io.BytesIO()
        np.save(buffer, np.array([{}]), allow_pickle=True)
        archive.writestr("labels.npy", buffer.getvalue())
    for damaged in (b"", b"PK", content[: len(content) // 2], content[:-40], b"hello" * 100, pickled.getvalue()):
        predictions.write_bytes(damaged)
        assert main(["evaluate", str(predictions.parents[1]), "--draws", "10"]) == 2
        error = capsys.readouterr().err
        assert error.startswith("lesiontrain: error: ")
        assert error.count("\n") == 1
    random = np.random.default_rng(0)
    for _ in range(40):
        damaged = bytearray(content)
        for place in random.integers(0, len(content), 5):
            damaged[place] = random.integers(256)
        predictions.write_bytes(damaged)
        try:
            Predictions.load(predictions)
        except PredictionsError as error:
            assert "\n" not in str(error)


def test_checkpoints_of_killed_fits_do_not_pile_up(tmp_path, capsys):
    table = write_lesion_table(tmp_path / "table")
    fit = ["fit", "--config", "tiny/cross-entropy", "--data.table", str(table), "--out", str(tmp_path / "run")]
    assert main([*fit, "--trainer.max_epochs", "3"]) == 0
    fold = FoldFolder(tmp_path / "run" / "fold-0", 0)
    (fold.path / "done.json").unlink()
    last = fold.last_checkpoint
    best = next(fold.checkpoints.glob("best-epoch=*.ckpt"))
    for name in ("last-epoch=0.ckpt", "best-epoch=9.ckpt", "best-epoch=9-v1.ckpt"):
        shutil.copy(last, fold.checkpoints / name)
    (fold.checkpoints / "last-epoch=7.ckpt").write_bytes(b"PK torn by a kill")
    mine = fold.checkpoints / "mine.ckpt"
    mine.write_bytes(b"not ours")
    fold.remove_leftovers()
    assert {path.name for path in fold.checkpoints.iterdir()} == {last.name, best.name, mine.name}
    assert main([*fit, "--trainer.max_epochs", "3"]) == 0
    names = [path.name for path in fold.checkpoints.iterdir()]
    assert sum(name.startswith("last-") for name in names) == 1
    assert sum(name.startswith("best-") for name in names) == 1
    last.unlink(missing_ok=True)


def test_without_a_whole_checkpoint_none_is_kept(tmp_path):
    fold = FoldFolder(tmp_path, 0)
    fold.remove_leftovers()
    fold.checkpoints.mkdir()
    torch.save({"state_dict": {}}, fold.checkpoints / "best-epoch=0.ckpt")
    fold.remove_leftovers()
    assert list(fold.checkpoints.iterdir()) == []


def test_a_checkpoint_that_lightning_gave_a_version_is_the_later_one_of_its_epoch(tmp_path):
    fold = FoldFolder(tmp_path, 0)
    fold.checkpoints.mkdir()
    for name in ("last-epoch=9.ckpt", "last-epoch=10.ckpt", "last-epoch=10-v1.ckpt", "last-epoch=mine.ckpt"):
        torch.save({"state_dict": {}}, fold.checkpoints / name)
    assert fold.last_checkpoint == fold.checkpoints / "last-epoch=10-v1.ckpt"


def test_ctrl_c_in_a_fit_says_what_is_kept(tmp_path, capsys, monkeypatch):
    from lesiontraining.tasks.cross_entropy import CrossEntropyTask

    table = write_lesion_table(tmp_path / "table")
    entropy = CrossEntropyTask.loss

    def loss(self, x, y):
        if self.current_epoch:
            raise KeyboardInterrupt
        return entropy(self, x, y)

    monkeypatch.setattr(CrossEntropyTask, "loss", loss)
    fit = ["fit", "--config", "tiny/cross-entropy", "--data.table", str(table), "--out", str(tmp_path / "run")]
    assert main(fit) == 2
    assert "stopped by hand. The last good state is kept" in capsys.readouterr().err


def test_a_fold_that_another_program_fits_is_left_to_it(tmp_path, capsys):
    table = write_lesion_table(tmp_path / "table")
    fold = tmp_path / "run" / "fold-0"
    fold.mkdir(parents=True)
    fit = ["fit", "--config", "tiny/cross-entropy", "--data.table", str(table), "--out", str(tmp_path / "run")]
    with held(fold / ".fit.lock") as is_ours:
        assert is_ours
        assert main(fit) == 2
    assert "fold-0 is being fitted by another program; wait until that is done" in capsys.readouterr().err
    assert list(fold.iterdir()) == []
