"""A small, seeded slice of `make fuzz` and `make chaos`: damaged files are read or refused, killed writers leave what was there."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from LesionLib.io.leftovers import leftovers_note
from LesionLib.io.swap import put_folder
from repository import ROOT

FUZZ = ROOT / "Testing" / "fuzz"
posix_only = pytest.mark.skipif(sys.platform != "linux", reason="forks, and asks /proc for memory")
# Quick ones, of every kind of damage; their readers belong to nobody's operating system.
SLICE = (
    "boxes csv",
    "case table",
    "lesion table",
    "library",
    "feedback",
    "pseudonym key",
    "quiz",
    "attempts",
    "run",
    "frames",
)


@posix_only
def test_a_damaged_file_is_read_or_refused():
    """In a process of its own: the memory it may have is limited, and damage can end a process."""
    code = (
        "import json, sys, tempfile; from pathlib import Path; from trial import Trial\n"
        "folder = Path(tempfile.mkdtemp())\n"
        f"for name in {SLICE!r}:\n"
        "    trial = Trial(name, folder / name)\n"
        "    for number in range(6):\n"
        "        print(json.dumps({'reader': name, 'number': number, **trial.outcome(7, number)}))\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=FUZZ, capture_output=True, text=True, check=False)
    outcomes = [json.loads(line) for line in ran.stdout.splitlines() if line.startswith("{")]
    assert len(outcomes) == 6 * len(SLICE), ran.stderr[-2000:]
    failed = [outcome for outcome in outcomes if outcome["outcome"] not in ("read", "refused")]
    assert failed == []
    counts = Counter(outcome["outcome"] for outcome in outcomes)
    assert counts["refused"] >= 20, counts
    assert counts["read"] >= 5, counts


@posix_only
def test_a_killed_writer_leaves_what_was_there():
    code = (
        "import chaos\n"
        "counts, failures = chaos.run(6, 3, ['library build', 'quiz', 'results'])\n"
        "print(sum(counts.values())); print(failures)"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=FUZZ, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-2000:]
    # Six kills; four full disks and a read-only folder for each of three writers.
    assert ran.stdout.splitlines()[-2:] == ["21", "[]"], ran.stdout


def test_the_same_seed_makes_the_same_damage(monkeypatch):
    monkeypatch.syspath_prepend(FUZZ)
    mutations = importlib.import_module("mutations")
    text = json.dumps({"a": [1, 2, {"b": "c"}], "d": None})
    made = [
        [mutations.damaged_json(text, np.random.default_rng([5, number])) for number in range(50)] for _ in range(2)
    ]
    assert made[0] == made[1]
    assert len(set(made[0])) > 40
    assert text not in made[0][:1]


@pytest.mark.parametrize("exchanges", [True, False])
def test_a_folder_takes_the_place_of_another(tmp_path, monkeypatch, exchanges):
    from LesionLib.io import swap

    if not exchanges:
        monkeypatch.setattr(swap, "_exchanged", lambda *_: False)
    new, place, aside = (tmp_path / name for name in ("new", "place", "aside"))
    for folder, text in ((new, "new"), (place, "old")):
        folder.mkdir()
        (folder / "file").write_text(text)
    put_folder(new, place, aside)
    assert (place / "file").read_text() == "new"
    assert (aside / "file").read_text() == "old"
    assert not new.exists()
    with pytest.raises(FileNotFoundError):
        put_folder(tmp_path / "absent", place, tmp_path / "elsewhere")
    assert (place / "file").read_text() == "new"
    put_folder(aside, tmp_path / "free", tmp_path / "elsewhere")
    assert (tmp_path / "free" / "file").read_text() == "old"


@pytest.mark.skipif(sys.platform != "linux", reason="another system has its own call")
def test_linux_exchanges_two_folders_in_one_step(tmp_path):
    from LesionLib.io import swap

    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    assert swap._exchanged(tmp_path / "a", tmp_path / "b")
    assert os.listdir(tmp_path / "a") == ["b"]
    assert os.listdir(tmp_path / "b") == ["a"]


def test_a_folder_that_was_moved_aside_by_a_killed_run_is_not_called_useless(tmp_path):
    left, out = tmp_path / ".out-abc", tmp_path / "out"
    left.mkdir()
    assert "look before you delete it" in leftovers_note(left, out)
    out.mkdir()
    assert "nothing needs it, delete it" in leftovers_note(left, out)
