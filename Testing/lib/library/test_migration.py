"""Libraries of the first schema are read as they lie, and brought to the newest when they are written."""

import sqlite3
from contextlib import closing

import numpy as np
import pytest
from case_libraries import MODEL
from LesionLib.errors import CaseLibraryError
from LesionLib.geometry import CTVolume, LesionBox
from LesionRetrievalLib.library import file as library_tables
from LesionRetrievalLib.library.cases import Case
from LesionRetrievalLib.library.patches import lesion_patch
from LesionRetrievalLib.library.store import CaseLibrary

# What LesionLens 0.1 wrote, as it wrote it.
VERSION_1 = """
CREATE TABLE models (
    sha256 TEXT PRIMARY KEY NOT NULL, name TEXT NOT NULL, version TEXT NOT NULL,
    dimension INTEGER NOT NULL CHECK (dimension > 0));
CREATE TABLE cases (
    case_id TEXT PRIMARY KEY NOT NULL, label TEXT NOT NULL, label_source TEXT NOT NULL,
    organ TEXT NOT NULL, patient_hash TEXT NOT NULL, study_hash TEXT NOT NULL,
    attributes TEXT NOT NULL, note TEXT NOT NULL, created TEXT NOT NULL);
CREATE TABLE vectors (
    case_id TEXT NOT NULL REFERENCES cases ON DELETE CASCADE,
    model_sha256 TEXT NOT NULL REFERENCES models, vector BLOB NOT NULL,
    PRIMARY KEY (case_id, model_sha256));
CREATE TABLE pictures (
    case_id TEXT NOT NULL REFERENCES cases ON DELETE CASCADE,
    plane TEXT NOT NULL CHECK (plane IN ('axial', 'coronal', 'sagittal')),
    height INTEGER NOT NULL CHECK (height > 0), width INTEGER NOT NULL CHECK (width > 0),
    grey BLOB NOT NULL CHECK (length(grey) = height * width),
    PRIMARY KEY (case_id, plane));
PRAGMA application_id = 0x4C4C636C;
PRAGMA user_version = 1;
"""


@pytest.fixture
def old(tmp_path):
    path = tmp_path / "old.lesionlib"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript(VERSION_1)
        connection.execute("INSERT INTO models VALUES (?, ?, ?, 4)", (MODEL.sha256, MODEL.name, MODEL.version))
        for name, vector in (("a", [1, 0, 0, 0]), ("b", [0, 1, 0, 0])):
            row = (name, "cyst", "histology", "liver", "0" * 32, "1" * 32, '{"size": 3.0}', "a note", "2026-01-02")
            connection.execute(f"INSERT INTO cases VALUES ({', '.join('?' * 9)})", row)
            connection.execute(
                "INSERT INTO vectors VALUES (?, ?, ?)", (name, MODEL.sha256, np.array(vector, "<f4").tobytes())
            )
        connection.execute("INSERT INTO pictures VALUES ('a', 'axial', 2, 2, ?)", (b"\1\2\3\4",))
    return path


def schema_of(path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("PRAGMA user_version").fetchone()[0]


def require_old_contents(library):
    assert library.model == MODEL
    assert [model.cases for model in library.models()] == [2]
    assert [case.case_id for case in library.cases()] == ["a", "b"]
    assert library.case("a").attributes == {"size": 3.0}
    assert library.thumbnails("a")["axial"].tolist() == [[1, 2], [3, 4]]
    assert library.patch("a") is None
    assert library.contents() == {"a": ("pictures",), "b": ()}
    assert [n.case_id for n in library.search([1, 0.1, 0, 0], model_sha256=MODEL.sha256)] == ["a", "b"]
    assert library.integrity_problems() == ()


def test_an_old_library_is_read_and_exported_without_being_changed(old, tmp_path):
    before = old.read_bytes()
    with CaseLibrary.open(old) as library:
        require_old_contents(library)
        assert library.export(tmp_path / "copy.lesionlib") == 2
    assert old.read_bytes() == before
    assert schema_of(tmp_path / "copy.lesionlib") == library_tables.SCHEMA_VERSION


def test_opening_an_old_library_to_write_brings_it_to_the_newest_schema(old):
    with CaseLibrary.open(old, read_only=False) as library:
        require_old_contents(library)
        patch = lesion_patch(CTVolume(np.zeros((9, 9, 9), np.int16), np.eye(4)), LesionBox([4, 4, 4], [3, 3, 3]))
        case = Case("c", "cyst", "histology", "liver", "0" * 32, "1" * 32)
        library.add(case, np.ones(4), model_sha256=MODEL.sha256, patch=patch)
        library.remove("b")
    assert schema_of(old) == library_tables.SCHEMA_VERSION
    with CaseLibrary.open(old) as library:
        assert library.contents() == {"a": ("pictures",), "c": ("patch",)}
        assert library.integrity_problems() == ()


def test_a_migrated_library_has_the_tables_of_a_new_one(old, tmp_path):
    CaseLibrary.open(old, read_only=False).close()
    CaseLibrary.create(tmp_path / "new.lesionlib", model=MODEL, dimension=4).close()
    shapes = []
    for path in (old, tmp_path / "new.lesionlib"):
        with closing(sqlite3.connect(path)) as connection:
            names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name").fetchall()
            shapes.append({name: connection.execute(f"PRAGMA table_xinfo({name})").fetchall() for (name,) in names})
            assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    assert shapes[0] == shapes[1]


def test_a_migration_that_fails_leaves_the_old_library_as_it_was(old, monkeypatch):
    broken = {**library_tables._ADDED_IN_2, "last": "CREATE {temp} TABLE nonsense ("}
    with monkeypatch.context() as patched:
        patched.setattr(library_tables, "_ADDED_IN_2", broken)
        with pytest.raises(CaseLibraryError):
            CaseLibrary.open(old, read_only=False)
    assert schema_of(old) == 1
    with CaseLibrary.open(old) as library:
        require_old_contents(library)


def test_a_reader_of_the_old_form_is_told_to_open_it_again(old):
    with CaseLibrary.open(old) as reader:
        require_old_contents(reader)
        CaseLibrary.open(old, read_only=False).close()
        with pytest.raises(CaseLibraryError, match="open it again"):
            reader.search([1, 0, 0, 0], model_sha256=MODEL.sha256)
