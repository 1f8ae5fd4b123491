"""The file of a library: read only, foreign, newer, damaged."""

import os
import sqlite3
import tempfile
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest
from case_libraries import MODEL, OTHER_SHA256, a_case, a_library_at, ids, random_cases, search
from LesionLib.errors import CaseLibraryError
from LesionRetrievalLib.library.file import SCHEMA_VERSION
from LesionRetrievalLib.library.store import CaseLibrary


@contextmanager
def as_ordinary_user():
    """Root may write anywhere; step down while in here, where there is something to step down from."""
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@pytest.mark.skipif(os.name != "posix", reason="folder permissions of POSIX")
def test_a_library_in_a_read_only_folder_can_be_searched_and_not_written():
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with a_library_at(folder / "l.sqlite") as library:
            library.add(a_case(), np.ones(4), model_sha256=MODEL.sha256)
        (folder / "l.sqlite").chmod(0o444)
        folder.chmod(0o555)
        try:
            with as_ordinary_user():
                with CaseLibrary.open(folder / "l.sqlite") as library:
                    assert ids(search(library)) == ["case-1"]
                    assert [file.name for file in folder.iterdir()] == ["l.sqlite"]
                    with pytest.raises(CaseLibraryError, match="read_only=False"):
                        library.remove("case-1")
                library = CaseLibrary.open(folder / "l.sqlite", read_only=False)
                with library, pytest.raises(CaseLibraryError, match="cannot be written here"):
                    library.remove("case-1")
        finally:
            folder.chmod(0o755)


def test_what_is_not_a_library_is_refused_with_the_reason(tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("not a database at all, but long enough to hold a header" * 10)
    foreign = tmp_path / "foreign.sqlite"
    with closing(sqlite3.connect(foreign)) as connection:
        connection.execute("CREATE TABLE cases (x)")
    (tmp_path / "empty.sqlite").touch()
    for path in (text, foreign, tmp_path / "empty.sqlite"):
        before = path.read_bytes()
        with pytest.raises(CaseLibraryError, match="not a LesionLens case library"):
            CaseLibrary.open(path)
        with pytest.raises(CaseLibraryError, match="not a LesionLens case library"):
            CaseLibrary.create(path, model=MODEL, dimension=4, overwrite=True)
        assert path.read_bytes() == before
    for path in (tmp_path, tmp_path / "absent.sqlite"):
        with pytest.raises(CaseLibraryError, match="no such file"):
            CaseLibrary.open(path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (f"PRAGMA user_version = {SCHEMA_VERSION + 1}", f"schema {SCHEMA_VERSION + 1}.*update LesionLens"),
        ("PRAGMA user_version = 0", "changed by another program"),
        ("PRAGMA user_version = 1", "changed by another program"),
        ("DROP TABLE pictures", "changed by another program"),
        ("DROP TABLE patches", "changed by another program"),
        ("CREATE VIEW more AS SELECT 1", "changed by another program"),
        ("DELETE FROM models", "changed by another program"),
    ],
)
def test_a_newer_or_changed_schema_is_refused(library, change, reason):
    library.close()
    with closing(sqlite3.connect(library.path)) as connection, connection:
        connection.execute(change)
    with pytest.raises(CaseLibraryError, match=reason):
        CaseLibrary.open(library.path)


def test_a_damaged_vector_is_found_and_named(library):
    for name in ("good", "short", "nan"):
        library.add(a_case(name), np.ones(4), model_sha256=MODEL.sha256)
    with closing(sqlite3.connect(library.path)) as other, other:
        nan = np.full(4, np.nan, "<f4").tobytes()
        other.execute("UPDATE vectors SET vector = ? WHERE case_id = 'nan'", (nan,))
        other.execute("INSERT INTO vectors VALUES ('ghost', ?, ?)", (OTHER_SHA256, nan))
    with pytest.raises(CaseLibraryError, match="'nan': its vector is damaged"):
        search(library)
    with closing(sqlite3.connect(library.path)) as other, other:
        other.execute("UPDATE vectors SET vector = x'00' WHERE case_id = 'short'")
    with pytest.raises(CaseLibraryError, match="'short': its vector is damaged"):
        search(library)
    problems = library.integrity_problems()
    assert "case short: its vector is damaged" in problems
    assert "table vectors: a row points nowhere" in problems


def test_a_file_damaged_in_the_middle_is_reported_not_trusted(path):
    with a_library_at(path, 64) as library:
        library.add_many(random_cases(200, 64), model_sha256=MODEL.sha256)
    content = bytearray(path.read_bytes())
    content[4096 * 6 : 4096 * 20] = b"\xa5" * (4096 * 14)
    path.write_bytes(content)
    with CaseLibrary.open(path) as library:
        assert library.integrity_problems()


def test_an_existing_library_is_only_replaced_when_asked(library):
    library.add(a_case(), np.ones(4), model_sha256=MODEL.sha256)
    library.close()
    with pytest.raises(CaseLibraryError, match="exists"):
        CaseLibrary.create(library.path, model=MODEL, dimension=4)
    with CaseLibrary.create(library.path, model=MODEL, dimension=8, overwrite=True) as replaced:
        assert (len(replaced), replaced.dimension) == (0, 8)
    assert [file.name for file in library.path.parent.iterdir()] == [library.path.name]


def test_a_closed_library_says_so_in_the_house_exception(library):
    library.close()
    library.close()
    with pytest.raises(CaseLibraryError, match="closed"):
        search(library)


@pytest.mark.parametrize("dimension", [-3, 0, 10**12, "three", None, 2.5])
def test_a_number_of_dimensions_that_no_vector_has_is_refused_before_anything_is_made_of_it(path, library, dimension):
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("UPDATE sqlite_master SET sql = replace(sql, 'dimension INTEGER NOT NULL', 'dimension')")
        connection.execute("PRAGMA writable_schema = RESET")
        connection.execute("UPDATE models SET dimension = ?", (dimension,))
    for read in (CaseLibrary.models, lambda opened: opened.dimension, lambda opened: opened.model):
        with (
            CaseLibrary.open(path) as opened,
            pytest.raises(CaseLibraryError, match="what it says of its models is damaged"),
        ):
            read(opened)
