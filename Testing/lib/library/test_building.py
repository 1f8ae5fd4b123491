"""A new library in its place: one builder at a time, no left-overs of a killed writer, its owner's only."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys

import numpy as np
import pytest
from LesionLib.errors import CaseLibraryError, OutputError
from LesionRetrievalLib.library.cases import Case, CaseEntry, ModelIdentity
from LesionRetrievalLib.library.file import only_builder
from LesionRetrievalLib.library.intake import write_library
from LesionRetrievalLib.library.store import CaseLibrary

MODEL = ModelIdentity("tested", "1.0.0", "a" * 64)
ENDINGS = ("-journal", "-wal", "-shm")


def entries(count: int, label: str = "cyst"):
    for number in range(count):
        case = Case(f"c{number}", label, "histology", "liver", "0" * 32, "1" * 32)
        yield CaseEntry(case, np.eye(4)[number % 4])


HOLDER = """
import sys
from pathlib import Path
from LesionRetrievalLib.library.file import only_builder
with only_builder(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def builder(tmp_path):
    """Another program that builds the same library."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "l")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()


def test_a_second_builder_is_refused_before_its_first_case(builder, tmp_path):
    asked = []

    def given():
        asked.append(1)
        yield from entries(2)

    with pytest.raises(CaseLibraryError, match="is being built by another program; wait until that is done"):
        write_library(tmp_path / "l", MODEL, given())
    assert asked == []
    assert not (tmp_path / "l").exists()


@pytest.mark.skipif(os.name == "nt", reason="kill -9")
def test_the_place_of_a_builder_that_was_killed_is_free(builder, tmp_path):
    builder.kill()
    builder.wait()
    assert (tmp_path / ".l.lock").exists()
    assert write_library(tmp_path / "l", MODEL, entries(2)) == 2
    assert [p.name for p in tmp_path.iterdir()] == ["l"]


def test_the_lock_is_gone_when_the_builder_is_done(tmp_path):
    for _ in range(2):
        with only_builder(tmp_path / "l"):
            assert [p.name for p in tmp_path.iterdir()] == [".l.lock"]
    assert list(tmp_path.iterdir()) == []


def test_a_library_that_came_meanwhile_is_not_replaced_unasked(tmp_path):
    write_library(tmp_path / "l", MODEL, entries(2))
    with pytest.raises(OutputError, match="exists"):
        write_library(tmp_path / "l", MODEL, entries(3), overwrite=False)
    with CaseLibrary.open(tmp_path / "l") as library:
        assert len(library) == 2


def leave_behind(path):
    """What a writer that was killed half-way leaves beside its library, of other content than any new one."""
    other = path.with_name("other")
    connection = sqlite3.connect(other, isolation_level=None)
    connection.execute("PRAGMA cache_size = 5")
    connection.execute("CREATE TABLE t (x)")
    connection.executemany("INSERT INTO t VALUES (?)", [("a" * 900,)] * 200)
    connection.execute("BEGIN")
    connection.execute("UPDATE t SET x = ?", ("b" * 900,))
    journal = other.with_name("other-journal").read_bytes()
    connection.execute("ROLLBACK")
    connection.close()
    other.unlink()
    assert len(journal) > 10_000
    for ending in ENDINGS:
        path.with_name(path.name + ending).write_bytes(journal)


@pytest.mark.parametrize("way", ["built", "created", "exported"])
def test_a_new_library_never_meets_the_left_overs_of_an_old_one(tmp_path, way):
    folder = tmp_path / "place"
    folder.mkdir()
    path = folder / "l"
    with CaseLibrary.create(tmp_path / "source", model=MODEL, dimension=4) as source:
        source.add_many(entries(4), model_sha256=MODEL.sha256)
        leave_behind(path)
        if way == "built":
            write_library(path, MODEL, entries(4))
        elif way == "created":
            with CaseLibrary.create(path, model=MODEL, dimension=4) as made:
                made.add_many(entries(4), model_sha256=MODEL.sha256)
        else:
            source.export(path)
    assert [p.name for p in folder.iterdir()] == ["l"]
    with CaseLibrary.open(path) as library:
        assert len(library) == 4
        assert library.integrity_problems() == ()


def test_left_overs_of_an_unfinished_build_do_not_hinder_the_next(tmp_path):
    (tmp_path / ".l.partial").write_bytes(b"half a library")
    leave_behind(tmp_path / ".l.partial")
    assert write_library(tmp_path / "l", MODEL, entries(3)) == 3
    assert [p.name for p in tmp_path.iterdir()] == ["l"]


@pytest.mark.skipif(os.name != "posix", reason="modes of POSIX")
def test_libraries_are_their_owner_s_only_as_are_the_folders_made_for_them(tmp_path):
    before = os.umask(0)
    try:
        write_library(tmp_path / "a" / "b" / "built", MODEL, entries(2))
        with CaseLibrary.create(tmp_path / "created", model=MODEL, dimension=4, overwrite=True) as library:
            library.add_many(entries(2), model_sha256=MODEL.sha256)
            library.export(tmp_path / "exported")
    finally:
        os.umask(before)
    for file in ("a/b/built", "created", "exported"):
        assert stat.S_IMODE((tmp_path / file).stat().st_mode) == 0o600, file
    for folder in ("a", "a/b"):
        assert stat.S_IMODE((tmp_path / folder).stat().st_mode) == 0o700, folder
