"""A run knows with what it was fitted: other settings or data are refused, not taken for finished."""

from __future__ import annotations

import json

import pytest
from lesiontraining.runs.folder import FoldFolder, RunError
from lesiontraining.runs.settings import keep_settings, kept_settings, require_same_settings, settings_of

CONFIG = {
    "seed_everything": 0,
    "model": {"class_path": "lesiontraining.tasks.DMRNTask", "init_args": {"lr": 0.001, "weights": "/home/me/a.pth"}},
    "data": {"table": "/data/a.csv", "held_out": 0, "workers": 2, "folds": 5},
    "trainer": {"max_epochs": 3, "accelerator": "cpu", "logger": [{"class_path": "x"}]},
}


@pytest.fixture
def fold(tmp_path):
    fold = FoldFolder(tmp_path / "fold-0", 0)
    keep_settings(fold, settings_of(CONFIG, data="abc"))
    return fold


def changed(**values):
    config = json.loads(json.dumps(CONFIG))
    for name, value in values.items():
        *rooms, last = name.split("__")
        inside = config
        for room in rooms:
            inside = inside[room]
        inside[last] = value
    return config


def test_the_same_settings_go_on_wherever_files_lie_and_on_whatever_they_run(fold):
    elsewhere = changed(
        data__table="/other/place/a.csv", data__held_out=3, data__workers=8, trainer__accelerator="gpu",
        model__init_args__weights="a.pth",
    )  # fmt: skip
    require_same_settings(fold, settings_of(elsewhere, data="abc"))


@pytest.mark.parametrize(
    ("config", "data", "message"),
    [
        (changed(model__init_args__lr=0.01), "abc", r"model\.init_args\.lr: 0\.001 there, 0\.01 now"),
        (
            changed(model__class_path="lesiontraining.tasks.VAETask"),
            "abc",
            "DMRNTask there, lesiontraining.tasks.VAETask",
        ),
        (changed(trainer__max_epochs=4), "abc", "max_epochs: 3 there, 4 now"),
        (CONFIG, "abd", "lesions, labels and patients: abc there, abd now"),
        (changed(data__table="b.csv"), "abc", r"data\.table: a\.csv there, b\.csv now"),
    ],
)
def test_what_differs_is_named_with_both_values(fold, config, data, message):
    with pytest.raises(RunError, match=message):
        require_same_settings(fold, settings_of(config, data=data))


def test_no_folder_of_the_user_is_kept(fold):
    assert "/home/me" not in (fold.path / "settings.json").read_text()


def test_a_fold_of_before_settings_were_kept_is_not_compared_and_a_damaged_file_is_refused(tmp_path, fold):
    assert kept_settings(FoldFolder(tmp_path / "fold-1", 1)) is None
    require_same_settings(FoldFolder(tmp_path / "fold-1", 1), {"a": "b"})
    for text in ("{", "[]", "[" * 100_000):
        (fold.path / "settings.json").write_text(text)
        with pytest.raises(RunError, match="another --out"):
            kept_settings(fold)
