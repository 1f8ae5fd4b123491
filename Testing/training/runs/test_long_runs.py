"""Runs that are killed, run out of numbers or of files: they go on as if nothing had been, or say plainly what was kept."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest
import torch
from lesion_tables import write_lesion_table
from lesiontraining.cli import main
from lesiontraining.runs.folder import FoldFolder
from lesiontraining.tasks.base import LesionTask
from lesiontraining.tasks.cross_entropy import CrossEntropyTask
from safetensors.torch import load_file
from slow_fit import fit_slowly

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Path:
    return write_lesion_table(tmp_path_factory.mktemp("table"))


def options(recipe: str, table: Path, out: Path, epochs: int) -> list[str]:
    data = ["--data.table", str(table), "--trainer.max_epochs", str(epochs)]
    return ["fit", "--config", f"tiny/{recipe}", *data, "--out", str(out)]


@pytest.fixture(scope="module")
def start_slowly() -> Callable[[list[str]], BaseProcess]:
    """Start a fit in a process of its own, slow enough to be killed in the third epoch: after the second checkpoint,
    before the end. The processes are forked from one that has imported everything and done nothing else."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["lesiontraining.commands.fit", "monai"])

    def start(arguments: list[str]) -> BaseProcess:
        process = context.Process(target=fit_slowly, args=(arguments,), daemon=True)
        process.start()
        return process

    return start


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "fold-0" / "network.safetensors")


@pytest.mark.parametrize("recipe", ["cross-entropy", "dmrn", "vae"])
def test_a_run_that_was_killed_ends_as_one_that_was_not(recipe, table, start_slowly, tmp_path):
    assert main(options(recipe, table, tmp_path / "whole", 4)) == 0
    started = options(recipe, table, tmp_path / "killed", 4)
    running = start_slowly(started)
    fold = tmp_path / "killed" / "fold-0"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and _epoch(fold) < 2:
        time.sleep(0.02)
    running.kill()
    running.join()
    assert 2 <= _epoch(fold) < 4
    assert not (fold / "done.json").exists()
    assert main(started) == 0
    require_same(tmp_path / "whole", tmp_path / "killed")


def test_a_run_goes_on_from_what_a_kill_leaves_on_disk_and_ends_as_one_that_was_not(table, tmp_path, monkeypatch):
    """Its folder as it is on disk in the third epoch, which is what a kill at that moment leaves of it."""
    out, left = tmp_path / "run", tmp_path / "left"
    started = options("vae", table, out, 4)

    def leave(task: LesionTask, *_: object) -> None:
        if task.current_epoch == 2 and not left.exists():
            shutil.copytree(out, left)

    with monkeypatch.context() as patched:
        patched.setattr(LesionTask, "on_train_batch_end", leave)
        assert main(started) == 0
    out.rename(tmp_path / "whole")
    left.rename(out)
    assert _epoch(out / "fold-0") == 2
    assert not (out / "fold-0" / "done.json").exists()
    shown: list[int] = []
    monkeypatch.setattr(LesionTask, "on_train_batch_end", lambda task, *_: shown.append(task.current_epoch))
    assert main(started) == 0
    assert set(shown) == {2, 3}
    require_same(tmp_path / "whole", out)


def require_same(one: Path, other: Path) -> None:
    """Two runs came to the same weights and say the same."""
    first, second = weights(one), weights(other)
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=1e-5, atol=1e-6)
    said = (np.load(run / "fold-0" / "predictions.npz")["probabilities"] for run in (one, other))
    np.testing.assert_allclose(*said, atol=1e-5)


def _epoch(fold: Path) -> int:
    """Epochs that the last whole checkpoint has behind it."""
    last = FoldFolder(fold, 0).last_checkpoint
    return 0 if last is None else int(last.stem.partition("=")[2]) + 1


def test_a_loss_that_is_no_number_stops_with_what_was_kept(table, tmp_path, capsys, monkeypatch):
    entropy = CrossEntropyTask.loss
    monkeypatch.setattr(
        CrossEntropyTask, "loss", lambda self, x, y: entropy(self, x, y) * (float("nan") if self.current_epoch else 1.0)
    )
    assert main(options("cross-entropy", table, tmp_path / "r", 3)) == 2
    said = capsys.readouterr().err
    assert "the loss is nan in epoch 1, step 0; lower the learning rate" in said
    assert _epoch(tmp_path / "r" / "fold-0") == 1
    monkeypatch.setattr(CrossEntropyTask, "loss", entropy)
    assert main(options("cross-entropy", table, tmp_path / "r", 3)) == 0


def test_out_of_memory_says_what_to_lower(table, tmp_path, capsys, monkeypatch):
    def full(self, x, y):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(CrossEntropyTask, "loss", full)
    assert main(options("cross-entropy", table, tmp_path / "r", 1)) == 2
    assert "smaller batches (--model.init_args.batch_size)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--data.label", "diagnosis"], "diagnosis"),
        (["--data.table", "nowhere.csv"], "nowhere.csv"),
        (["--model.init_args.lr", "fast"], "lr"),
        (["--model.init_args.speed", "1"], "speed"),
        (["--model.init_args.arguments.channels", "1"], "the images have 3 channels, the network takes 1"),
        (["--folds", "first"], "--folds is 'first'"),
        (["--config", "quux"], "there is no recipe 'quux'; give a YAML file, or one of"),
    ],
)
def test_a_wrong_option_is_named_before_anything_is_fitted(more, said, table, tmp_path, capsys):
    assert main([*options("cross-entropy", table, tmp_path / "r", 1), *more]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "r" / "fold-0" / "done.json").exists()


def test_a_row_that_is_wrong_is_named_with_its_line(table, tmp_path, capsys):
    lines = table.read_text().splitlines()
    lines[3] = lines[3].replace("ct1.nii.gz", "gone.nii.gz")
    bad = table.parent / "bad.csv"
    bad.write_text("\n".join(lines) + "\n")
    assert main(options("cross-entropy", bad, tmp_path / "r", 1)) == 2
    said = capsys.readouterr().err
    assert "gone.nii.gz" in said
    assert "line 4" in said
