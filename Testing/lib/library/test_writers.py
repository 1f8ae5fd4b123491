"""Writers that are killed, and readers that look on."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing

import numpy as np
import pytest
from case_libraries import MODEL
from LesionRetrievalLib.library.cases import Case
from LesionRetrievalLib.library.store import CaseLibrary

needs_kill = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs kill -9")

PREAMBLE = """
import sys, time
import numpy as np
from LesionLib.geometry import CTVolume, LesionBox
from LesionRetrievalLib.library.cases import Case, ModelIdentity
from LesionRetrievalLib.library.store import CaseLibrary
from LesionRetrievalLib.library.patches import lesion_patch
model = ModelIdentity("orthopatch", "1.2.0", "a" * 64)
thumbnails = {plane: np.full((64, 64), 7, np.uint8) for plane in ("axial", "coronal", "sagittal")}
patch = lesion_patch(CTVolume(np.arange(4096, dtype=np.int16).reshape(16, 16, 16), np.eye(4)), LesionBox([8] * 3, [4] * 3))
def case(i):
    return Case(f"c{i:05}", "cyst", "histology", "liver", "0" * 32, "1" * 32)
def vector(i):
    return np.random.default_rng(i).standard_normal(64)
"""

ADDER = """
library = CaseLibrary.open(sys.argv[1], read_only=False)
for i in range(len(library), 1000):
    library.add(case(i), vector(i), model_sha256=model.sha256, thumbnails=thumbnails, patch=patch)
    print(i, flush=True)
"""

READER = """
library = CaseLibrary.open(sys.argv[1])
print("open", flush=True)
seen = 0
while seen < 60:
    found = library.search(vector(seen), k=5, model_sha256=model.sha256)
    cases = library.cases()
    assert len(cases) >= seen, (len(cases), seen)
    seen = len(cases)
    for neighbour in found:
        assert set(library.thumbnails(neighbour.case_id)) == set(thumbnails)
        assert library.patch(neighbour.case_id) is not None
print("done", flush=True)
"""


def a_process(script, *arguments) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", PREAMBLE + script, *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "cases.lesionlib"
    CaseLibrary.create(path, model=MODEL, dimension=64).close()
    return path


def require_whole_cases(path) -> int:
    with CaseLibrary.open(path) as library:
        assert library.integrity_problems() == ()
        cases = library.cases()
        assert [case.case_id for case in cases] == [f"c{i:05}" for i in range(len(cases))]
        assert library.ids_without_vector(MODEL.sha256) == []
        contents = library.contents()
        assert all(contents[case.case_id] == ("pictures", "patch") for case in cases)
        assert all(len(library.thumbnails(case.case_id)) == 3 for case in cases)
        return len(cases)


@needs_kill
def test_killing_a_writer_that_adds_a_thousand_cases_leaves_whole_cases_only(path):
    rng, added = np.random.default_rng(), 0
    for _ in range(5):
        with a_process(ADDER, path) as writer:
            reported = [int(writer.stdout.readline()) for _ in range(rng.integers(20, 120))][-1]
            time.sleep(rng.uniform(0.0, 0.01))
            writer.kill()
            reported = int(([reported, *writer.stdout.read().split()])[-1])
        before, added = added, require_whole_cases(path)
        assert before < reported < added < 1000
        assert added - reported <= 2  # what was said to be added is there; one more may have been on its way


WRITER = """
library = CaseLibrary.open(sys.argv[1], read_only=False)
with library.transaction():
    for i in range(20, 1020):
        library.add(case(i), vector(i), model_sha256=model.sha256, thumbnails=thumbnails, patch=patch)
    print("half-way", flush=True)
    time.sleep(60)
"""


@needs_kill
def test_killing_a_writer_inside_a_transaction_leaves_what_was_there_before(path):
    with a_process(ADDER.replace("1000", "20"), path) as writer:
        writer.stdout.read()
    with a_process(WRITER, path) as writer:
        assert writer.stdout.readline() == "half-way\n"
        # Readers are not locked out while it goes on.
        assert require_whole_cases(path) == 20
        writer.kill()
    assert require_whole_cases(path) == 20
    with CaseLibrary.open(path, read_only=False) as library:
        library.remove("c00019")


SPILLER = """
import sqlite3
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA cache_size = 10")
connection.execute("BEGIN")
for i in range(1000):
    connection.execute("UPDATE cases SET note = ?", ("x" * 20000,))
    connection.execute("INSERT INTO cases SELECT 'new' || ?, label, label_source, organ, patient_hash, study_hash,"
                       "attributes, ?, created FROM cases WHERE case_id = 'c00000'", (i, "y" * 5000))
    if i == 200:
        print("half-way", flush=True)
        time.sleep(60)
"""


@needs_kill
def test_what_a_killed_writer_left_in_the_file_is_undone_at_the_next_opening(path):
    with a_process(ADDER.replace("1000", "20"), path) as writer:
        writer.stdout.read()
    with a_process(SPILLER, path) as writer:
        assert writer.stdout.readline() == "half-way\n"
        writer.kill()
    journal = path.with_name(f"{path.name}-journal")
    assert journal.stat().st_size > 0
    assert path.stat().st_size > 2e6  # much of the unfinished work is in the file already
    assert require_whole_cases(path) == 20
    assert not journal.exists()


def test_several_readers_see_whole_cases_while_one_writer_adds(path):
    with a_process(ADDER.replace("1000", "1"), path) as first:
        first.stdout.read()
    readers = [a_process(READER, path) for _ in range(3)]
    try:
        assert [reader.stdout.readline() for reader in readers] == ["open\n"] * 3
        with a_process(ADDER.replace("1000", "60"), path) as writer:
            writer.stdout.read()
        assert writer.returncode == 0
        assert [reader.stdout.read() for reader in readers] == ["done\n"] * 3
    finally:
        for reader in readers:
            reader.kill()
            reader.wait()
            reader.stdout.close()


def test_two_writers_take_turns(path):
    with CaseLibrary.open(path, read_only=False) as one, CaseLibrary.open(path, read_only=False) as other:
        for number, library in enumerate((one, other, one, other)):
            case = Case(f"c{number:05}", "cyst", "histology", "liver", "0" * 32, "1" * 32)
            library.add(case, np.ones(64), model_sha256=MODEL.sha256)
        assert [case.case_id for case in one.cases()] == [f"c{n:05}" for n in range(4)]
        assert len(other.search(np.ones(64), model_sha256=MODEL.sha256)) == 4


def test_a_second_writer_is_told_that_the_first_is_at_work(path):
    with CaseLibrary.open(path, read_only=False) as one, closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        one._connection.execute("PRAGMA busy_timeout = 50")
        with pytest.raises(Exception, match="another program is writing to it"):
            one.add(Case("c", "cyst", "x", "liver", "0" * 32, "1" * 32), np.ones(64), model_sha256=MODEL.sha256)
        assert len(one) == 0
