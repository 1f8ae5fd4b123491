"""A build that is killed at any moment goes on where it was: nothing is lost but a second or two, nothing is there twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from LesionLensApp.library.building import started_build
from LesionLib.errors import CaseLibraryError, OutputError
from LesionLib.io.leftovers import unfinished_build
from LesionRetrievalLib.library.cases import Case, CaseEntry, ModelIdentity
from LesionRetrievalLib.library.store import CaseLibrary

MODEL = ModelIdentity("tested", "1.0.0", "a" * 64)


def entry(number: int, vector=None) -> CaseEntry:
    case = Case(f"c{number:04}", "cyst", "histology", "liver", "0" * 32, "1" * 32)
    return CaseEntry(case, np.random.default_rng(number).standard_normal(8) if vector is None else vector)


def build(out, numbers, *, digests=None, vectors=None, fails_at=None, overwrite=False):
    """Which were embedded; ``fails_at``: before which the build is broken off."""
    embedded = []
    with started_build(out, MODEL, overwrite=overwrite, total=len(numbers)) as started:
        for number in numbers:
            case_id, digest = f"c{number:04}", (digests or {}).get(number, "d")
            if started.confirms(case_id, digest):
                continue
            if number == fails_at:
                raise KeyboardInterrupt
            embedded.append(number)
            started.take(entry(number, (vectors or {}).get(number)), digest)
        started.finish({"credit": "nobody"}, by="")
    return embedded, started.repeats


def ids(out):
    with CaseLibrary.open(out) as library:
        assert library.integrity_problems() == ()
        assert library.properties() == {"credit": "nobody"}
        return [int(case.case_id[1:]) for case in library.cases()]


KILLED = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import LesionLensApp.library.building as building
from test_started_build import MODEL, entry
building._SECONDS_BETWEEN_COMMITS = 0.0
with building.started_build(Path(sys.argv[1]), MODEL, overwrite=False, total=400) as started:
    for number in range(400):
        if not started.confirms(f"c{number:04}", "d"):
            started.take(entry(number), "d")
            print(number, flush=True)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs kill -9")
def test_killing_a_build_again_and_again_loses_no_case_that_was_committed(tmp_path):
    out = tmp_path / "l"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    last = -1
    for _ in range(3):
        arguments = [sys.executable, "-c", KILLED, str(out), os.path.dirname(__file__)]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, env=environment) as process:
            first = int(process.stdout.readline())
            assert last < first <= last + 2  # the one that was told last may have been on its way to the disk
            for _ in range(15):
                last = int(process.stdout.readline())
            process.kill()
            last = int(([last, *process.stdout.read().split()])[-1])
    embedded, _ = build(out, range(last + 5))
    assert embedded[-4:] == list(range(last + 1, last + 5))
    assert len(embedded) <= 6
    assert ids(out) == list(range(last + 5))
    assert [path.name for path in tmp_path.iterdir()] == ["l"]


def test_a_row_that_is_gone_from_the_table_is_gone_from_the_library(tmp_path):
    with pytest.raises(KeyboardInterrupt, match="4 of 5 cases are embedded and kept"):
        build(tmp_path / "l", range(5), fails_at=4)
    assert build(tmp_path / "l", [0, 1, 3]) == ([], ())
    assert ids(tmp_path / "l") == [0, 1, 3]


def test_a_lesion_that_came_twice_is_judged_anew_when_the_first_has_changed(tmp_path):
    same = np.ones(8)
    vectors = {0: same, 2: same}
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "l", range(4), vectors=vectors, fails_at=3)
    embedded, repeats = build(tmp_path / "l", range(4), vectors={2: same}, digests={0: "another"})
    assert embedded == [0, 2, 3]
    assert repeats == ()
    assert ids(tmp_path / "l") == [0, 1, 2, 3]


def test_one_that_was_alone_is_a_repeat_of_what_an_earlier_row_became(tmp_path):
    same = np.ones(8)
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "l", range(4), vectors={2: same}, fails_at=3)
    embedded, repeats = build(tmp_path / "l", range(4), vectors={0: same}, digests={0: "another"})
    assert embedded == [0, 3]
    assert repeats == (("c0002", "c0000"),)
    assert ids(tmp_path / "l") == [0, 1, 3]


@pytest.mark.parametrize("left", [b"", b"half a library", None])
def test_what_cannot_be_gone_on_with_is_no_hindrance(tmp_path, left):
    path = unfinished_build(tmp_path / "l")
    if left is None:  # of another model
        CaseLibrary.create(path, model=ModelIdentity("other", "1", "b" * 64), dimension=8).close()
    else:
        path.write_bytes(left)
    assert build(tmp_path / "l", range(3))[0] == [0, 1, 2]
    assert [path.name for path in tmp_path.iterdir()] == ["l"]


def test_a_build_without_a_case_leaves_nothing(tmp_path):
    with pytest.raises(CaseLibraryError, match="there is no case to put into"):
        build(tmp_path / "l", [])
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "l", range(3), fails_at=0)
    assert list(tmp_path.iterdir()) == []


def test_a_library_that_came_meanwhile_is_not_replaced_unasked(tmp_path):
    build(tmp_path / "l", range(2))
    with pytest.raises(OutputError, match="--overwrite"):
        build(tmp_path / "l", range(3))
    assert build(tmp_path / "l", range(3), overwrite=True)[0] == [0, 1, 2]
