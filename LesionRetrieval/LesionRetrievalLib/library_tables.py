"""The tables of a case library, version by version, and the way from an older file to the newest."""

from __future__ import annotations

import sqlite3

APPLICATION_ID = 0x4C4C636C  # "LLcl", in the file's header: tells our libraries from any other SQLite file
SCHEMA_VERSION = 2

_TABLES_1 = {
    "models": """CREATE TABLE models (
        sha256 TEXT PRIMARY KEY NOT NULL, name TEXT NOT NULL, version TEXT NOT NULL,
        dimension INTEGER NOT NULL CHECK (dimension > 0))""",
    "cases": """CREATE TABLE cases (
        case_id TEXT PRIMARY KEY NOT NULL, label TEXT NOT NULL, label_source TEXT NOT NULL,
        organ TEXT NOT NULL, patient_hash TEXT NOT NULL, study_hash TEXT NOT NULL,
        attributes TEXT NOT NULL, note TEXT NOT NULL, created TEXT NOT NULL)""",
    "vectors": """CREATE TABLE vectors (
        case_id TEXT NOT NULL REFERENCES cases ON DELETE CASCADE,
        model_sha256 TEXT NOT NULL REFERENCES models, vector BLOB NOT NULL,
        PRIMARY KEY (case_id, model_sha256))""",
    "pictures": """CREATE TABLE pictures (
        case_id TEXT NOT NULL REFERENCES cases ON DELETE CASCADE,
        plane TEXT NOT NULL CHECK (plane IN ('axial', 'coronal', 'sagittal')),
        height INTEGER NOT NULL CHECK (height > 0), width INTEGER NOT NULL CHECK (width > 0),
        grey BLOB NOT NULL CHECK (length(grey) = height * width),
        PRIMARY KEY (case_id, plane))""",
}

# Version 2 only adds tables, so that a file of version 1 can be read as it lies (see `complete_for_reading`).
_ADDED_IN_2 = {
    # A model stands here while a reindex with it has not reached its end.
    "unfinished_models": """CREATE {temp} TABLE unfinished_models (
        sha256 TEXT PRIMARY KEY NOT NULL REFERENCES models)""",
    # ijk_to_ras, center_ras, size_mm, axes_ras: JSON lists of numbers, row by row, RAS mm.
    "patch_boxes": """CREATE {temp} TABLE patch_boxes (
        case_id TEXT PRIMARY KEY NOT NULL REFERENCES cases ON DELETE CASCADE,
        center_ras TEXT NOT NULL, size_mm TEXT NOT NULL, axes_ras TEXT NOT NULL,
        open_faces INTEGER NOT NULL CHECK (open_faces BETWEEN 0 AND 63))""",
    "patches": """CREATE {temp} TABLE patches (
        case_id TEXT NOT NULL REFERENCES cases ON DELETE CASCADE,
        part TEXT NOT NULL CHECK (part IN ('ct', 'segment')),
        slices INTEGER NOT NULL CHECK (slices > 0), height INTEGER NOT NULL CHECK (height > 0),
        width INTEGER NOT NULL CHECK (width > 0),
        dtype TEXT NOT NULL CHECK (dtype IN ('int16', 'float32', 'uint8')),
        ijk_to_ras TEXT NOT NULL, zlib BLOB NOT NULL,
        PRIMARY KEY (case_id, part))""",
}


def tables(version: int = SCHEMA_VERSION) -> dict[str, str]:
    """Table name -> the statement that makes it, of a library of ``version``."""
    added = {name: statement.format(temp="") for name, statement in _ADDED_IN_2.items()}
    return _TABLES_1 | (added if version >= 2 else {})


def migrate(connection: sqlite3.Connection) -> None:
    """Bring an older file to the newest version, wholly or not at all; the newest stays as it is. `sqlite3.Error`."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Read inside the transaction: another program may have migrated the file a moment ago.
        if connection.execute("PRAGMA user_version").fetchone()[0] == 1:
            for statement in _ADDED_IN_2.values():
                connection.execute(statement.format(temp=""))
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def complete_for_reading(connection: sqlite3.Connection) -> None:
    """Give an older file, opened to read, the tables it lacks, empty and in memory: the file itself stays as it is."""
    connection.execute("PRAGMA temp_store = MEMORY")
    for statement in _ADDED_IN_2.values():
        connection.execute(statement.format(temp="TEMP"))
