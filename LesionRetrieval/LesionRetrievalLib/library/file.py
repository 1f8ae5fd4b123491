"""The SQLite file under a case library: made whole, opened only if ours, its faults in plain English; copies to give away.

Its tables are told version by version, with the way from an older file to the newest; whether all of it is sound.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote

import numpy as np
from LesionLib.errors import CaseLibraryError, OutputError
from LesionLib.io.locks import held
from LesionLib.io.private_files import make_private, open_private, private_folder
from LesionLib.metric import COSINE

if TYPE_CHECKING:
    from LesionRetrievalLib.library.store import LibraryReading

APPLICATION_ID = 0x4C4C636C  # "LLcl", in the file's header: tells our libraries from any other SQLite file
SCHEMA_VERSION = 4

_TABLES_1 = {
    "models": """CREATE TABLE models (
        sha256 TEXT PRIMARY KEY NOT NULL, name TEXT NOT NULL, version TEXT NOT NULL,
        dimension INTEGER NOT NULL CHECK (dimension > 0), segment_margin_mm REAL)""",
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

# Later versions only add tables, so that an older file can be read as it lies (see `complete_for_reading`).
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
_ADDED_IN_3 = {
    # What is true of the library as a whole, such as by which key its patients were hashed.
    "properties": "CREATE {temp} TABLE properties (name TEXT PRIMARY KEY NOT NULL, value TEXT NOT NULL)",
}
_ADDED_IN_4 = {
    # Who did what to which case and when (`cases.Change`); it stays when the case goes, and no copy to give away has it.
    "changes": """CREATE {temp} TABLE changes (
        number INTEGER PRIMARY KEY, case_id TEXT NOT NULL, at TEXT NOT NULL, who TEXT NOT NULL, what TEXT NOT NULL,
        UNIQUE (case_id, at, who, what))""",
}


METRIC_PROPERTY = "searchMetric "  # with a model's SHA-256: how its vectors are compared, where not by cosine
INSERT_PROPERTY = "INSERT OR REPLACE INTO properties (name, value) VALUES (?, ?)"
_INSERT_MODEL = "INSERT INTO models (sha256, name, version, dimension, segment_margin_mm) VALUES (?, ?, ?, ?, ?)"


def model_statements(row: tuple, *, metric: str) -> list[tuple[str, tuple]]:
    """The statements, with their values, that make a model known to a library."""
    named = [] if metric == COSINE else [(INSERT_PROPERTY, (METRIC_PROPERTY + row[0], metric))]
    return [(_INSERT_MODEL, row), *named]


def models_statement(connection: sqlite3.Connection) -> str:
    """Name, version, SHA-256, dimension, whether unfinished, margin and metric of every model, in the order of indexing."""
    margin = "segment_margin_mm" if has_margins(connection) else "NULL"
    metric = f"(SELECT value FROM properties WHERE properties.name = '{METRIC_PROPERTY}' || sha256)"
    unfinished = "sha256 IN (SELECT sha256 FROM unfinished_models)"
    columns = f"name, version, sha256, dimension, {unfinished}, {margin}, coalesce({metric}, '{COSINE}')"
    return f"SELECT {columns} FROM models ORDER BY rowid"


def tables(version: int = SCHEMA_VERSION) -> dict[str, str]:
    """Table name -> the statement that makes it, of a library of ``version``."""
    return _TABLES_1 | _added(1, version, temp="")


def _added(since: int, version: int, *, temp: str) -> dict[str, str]:
    """The tables that came after the version ``since`` up to ``version``."""
    steps = {2: _ADDED_IN_2, 3: _ADDED_IN_3, 4: _ADDED_IN_4}
    added = [steps[number] for number in range(since + 1, version + 1)]
    return {name: statement.format(temp=temp) for each in added for name, statement in each.items()}


def migrate(connection: sqlite3.Connection) -> None:
    """Bring an older file to the newest version, wholly or not at all; the newest stays as it is. `sqlite3.Error`."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Read inside the transaction: another program may have migrated the file a moment ago.
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version < SCHEMA_VERSION:
            for statement in _added(version, SCHEMA_VERSION, temp="").values():
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def has_margins(connection: sqlite3.Connection) -> bool:
    """Whether the models say how far their boxes reach beyond a segment: a column that files of before do not have."""
    return any(row[1] == "segment_margin_mm" for row in connection.execute("PRAGMA table_info(models)").fetchall())


def _add_margins(connection: sqlite3.Connection) -> None:
    """Give an older file the column; who reads without knowing of it reads as before. `sqlite3.Error`."""
    if has_margins(connection):
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        if not has_margins(connection):  # another program may have added it a moment ago
            connection.execute("ALTER TABLE models ADD COLUMN segment_margin_mm REAL")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def complete_for_reading(connection: sqlite3.Connection) -> None:
    """Give an older file, opened to read, the tables it lacks, empty and in memory: the file itself stays as it is."""
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    connection.execute("PRAGMA temp_store = MEMORY")
    for statement in _added(version, SCHEMA_VERSION, temp="TEMP").values():
        connection.execute(statement)


_SPILL_PAGES = 65_536  # of 4 kB
_PLAIN_REASONS = {
    sqlite3.SQLITE_BUSY: "another program is writing to it; try again in a moment",
    sqlite3.SQLITE_LOCKED: "another program is writing to it; try again in a moment",
    sqlite3.SQLITE_READONLY: "it cannot be written here; copy it to a folder where you may write",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened; check its path and permissions",
    sqlite3.SQLITE_FULL: "the disk is full; make room and try again",
    sqlite3.SQLITE_CORRUPT: "the file is damaged; restore it from a copy",
    sqlite3.SQLITE_IOERR: "this drive does not let it be read or locked; copy it to a local folder",
    sqlite3.SQLITE_PROTOCOL: "this drive does not let it be locked; copy it to a local folder",
    sqlite3.SQLITE_NOTADB: "it is not a LesionLens case library; choose another file",
}


@contextmanager
def plain_errors(path: Path) -> Iterator[None]:
    """Turn SQLite's errors about the file at ``path`` into `CaseLibraryError`."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the low byte is the kind, the rest a detail
        msg = f"{path}: {_PLAIN_REASONS.get(code, f'the library cannot be used (SQLite: {error})')}."
        raise CaseLibraryError(msg) from error


def connect(path: Path, mode: Literal["ro", "rw"]) -> sqlite3.Connection:
    """Open the library at ``path``; `CaseLibraryError` with the reason if it is missing or not a library.

    Transactions are begun by hand. An older file is brought to the newest schema when it is opened to write, and read as
    it lies when it is opened to read. Where a writer was killed half-way, its leftovers are undone first.
    """
    if not os.path.isfile(path):  # unlike Path.is_file, False where the folder may not be looked into
        msg = f"{path}: there is no such file; check the path, or create a library there."
        raise CaseLibraryError(msg)
    with plain_errors(path):
        try:
            return _connect(path, mode)
        except sqlite3.OperationalError as error:
            # Undoing a killed writer's half transaction is itself a write, which read-only may not do.
            if mode == "rw" or error.sqlite_errorcode != sqlite3.SQLITE_READONLY_ROLLBACK:
                raise
        try:
            _connect(path, "rw", as_it_lies=True).close()
        except sqlite3.OperationalError as error:
            msg = f"{path}: a writer was interrupted; open it once from where it can be written, to mend it."
            raise CaseLibraryError(msg) from error
        return _connect(path, mode)


def write_new(path: Path, fill: Callable[[sqlite3.Connection], None]) -> None:
    """Put a new library at ``path``, replacing what is there; `CaseLibraryError` if it can't be.

    ``fill`` is given the connection, with all tables and inside a transaction, and adds at least one model.
    """
    # Made beside and moved into place: at ``path`` there is never anything but a whole library.
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}.new")
    try:
        open_private(draft, "xb").close()  # SQLite gives a journal the mode of its file
        with plain_errors(path), closing(_raw_connection(draft, "rw")) as connection:
            connection.execute("BEGIN")
            for statement in tables().values():
                connection.execute(statement)
            fill(connection)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            connection.execute("COMMIT")
        put_in_place(draft, path)
    except OSError as error:
        msg = f"{path}: no library can be put here ({error.strerror}); close it, or take another place."
        raise CaseLibraryError(msg) from error
    finally:
        discard(draft)


def put_in_place(draft: Path, path: Path) -> None:
    """Move a whole library to ``path``, replacing what is there; it is its owner's only. Raises `OSError`."""
    # SQLite would take an old file's left-over journal for the new one's, and "restore" it to rubbish.
    _remove_leftovers(path)
    make_private(draft)
    os.replace(draft, path)
    with suppress(FileNotFoundError):  # the rounded vectors of a large library
        os.replace(draft.with_name(f"{draft.name}.vectors"), path.with_name(f"{path.name}.vectors"))


def discard(draft: Path) -> None:
    """Remove a library that was not finished, with all that SQLite put beside it."""
    with suppress(OSError):
        draft.unlink(missing_ok=True)
    with suppress(OSError):
        _remove_leftovers(draft)


def _remove_leftovers(path: Path) -> None:
    for ending in ("-journal", "-wal", "-shm", ".vectors"):
        path.with_name(path.name + ending).unlink(missing_ok=True)


@contextmanager
def place_of_new_library(path: Path, *, overwrite: bool) -> Iterator[None]:
    """Hold the place of a library that is to be built there, its folder made.

    Raises `CaseLibraryError` where another program builds the same library; `OutputError` where nothing can be written, also while
    it is held, or a file is there and may not be replaced.
    """
    try:
        private_folder(path.parent)
        with only_builder(path):
            if not overwrite and path.exists():  # another program may have been done a moment ago
                msg = f"{path} exists; give another name, or ask for it to be overwritten (--overwrite)."
                raise OutputError(msg)
            yield
    except OSError as error:
        msg = f"{path} cannot be written ({error.strerror}); choose another place."
        raise OutputError(msg) from error


@contextmanager
def only_builder(path: Path) -> Iterator[None]:
    """Hold the place of a library that is being built; a second program that wants to is refused (`CaseLibraryError`).

    The place is free again when this one ends, however it ends. Raises `OSError` where the folder cannot be written.
    """
    with held(path.with_name(f".{path.name}.lock")) as is_ours:
        if not is_ours:
            msg = f"{path} is being built by another program; wait until that is done, or give another name."
            raise CaseLibraryError(msg)
        yield


def _connect(path: Path, mode: str, *, as_it_lies: bool = False) -> sqlite3.Connection:
    connection = _raw_connection(path, mode)
    try:
        version = _require_library(connection, path)
        if version < SCHEMA_VERSION and not as_it_lies:
            (complete_for_reading if mode == "ro" else migrate)(connection)
        if mode != "ro" and not as_it_lies:
            _add_margins(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _raw_connection(path: Path, mode: str) -> sqlite3.Connection:
    posix = path.absolute().as_posix()
    # SQLite takes only an empty host: file:///C:/… for a drive, file:////server/… for a share.
    uri = f"file://{'' if posix.startswith('/') else '/'}{quote(os.fsencode(posix), safe='/:')}?mode={mode}"
    connection = sqlite3.connect(uri, uri=True, isolation_level=None)
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA trusted_schema = OFF")  # libraries are passed on: their views may not call functions
    if mode != "ro":
        # A rollback journal, not WAL: WAL needs shared memory and a second writable file beside the library,
        # even for readers, so it fails on read-only folders and is unsafe on network shares.
        connection.execute("PRAGMA journal_mode = DELETE")
        connection.execute("PRAGMA secure_delete = ON")  # what is removed is to be gone from the file, too
        # A transaction that outgrows the memory for it is written early and locks readers out until its end.
        connection.execute(f"PRAGMA cache_spill = {_SPILL_PAGES}")
    return connection


def _require_library(connection: sqlite3.Connection, path: Path) -> int:
    """The schema version of the file; `CaseLibraryError` if it is not a library that can be used here."""
    if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        msg = f"{path} is not a LesionLens case library; choose another file."
        raise CaseLibraryError(msg)
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > SCHEMA_VERSION:
        msg = f"{path} has schema {version}, this LesionLens reads up to {SCHEMA_VERSION}; update LesionLens."
        raise CaseLibraryError(msg)
    objects = connection.execute("SELECT name FROM sqlite_master WHERE name NOT LIKE 'sqlite%'").fetchall()
    models = connection.execute("SELECT count(*) FROM models").fetchone()[0] if ("models",) in objects else 0
    if version < 1 or {name for (name,) in objects} != set(tables(version)) or models < 1:
        msg = f"{path} was changed by another program (tables are missing or foreign); restore it from a copy."
        raise CaseLibraryError(msg)
    return version


_FINISHED = "sha256 NOT IN (SELECT sha256 FROM unfinished_models)"
_CASE_COLUMNS = "case_id, label, label_source, organ, patient_hash, study_hash, attributes, note, created"
# Cases that only an unfinished model has embedded cannot be searched for: they stay behind.
_CASES = f"case_id IN (SELECT case_id FROM vectors JOIN models ON sha256 = model_sha256 WHERE {_FINISHED})"


@dataclass(frozen=True)
class ExportPlan:
    """What goes into a copy besides cases and vectors. ``notes`` are free text: read them before they leave the house.

    Who added or changed a case, and at what hour, never goes along.
    """

    thumbnails: bool = False
    patches: bool = False
    notes: bool = True


def export_library(
    source: sqlite3.Connection, source_path: Path, path: Path, plan: ExportPlan, *, overwrite: bool = False
) -> int:
    """A copy of a case library to give away: what is left out never enters the new file.

    Copy the library of ``source`` to ``path`` by ``plan``; returns how many cases. Raises `CaseLibraryError`.

    The hashes stay as they are; the key that made them is no part of a library, so whoever gets the copy cannot make
    them of a name. An existing file is refused; with ``overwrite`` it is replaced, if it is a LesionLens library.
    """
    if os.path.exists(path):
        if os.path.samefile(path, source_path):
            msg = f"{path} is the library itself; give the copy another name."
            raise CaseLibraryError(msg)
        if not overwrite:
            msg = f"{path} exists; give another name, or ask for it to be overwritten."
            raise CaseLibraryError(msg)
        connect(path, "ro").close()
    with plain_errors(source_path):
        source.execute("BEGIN")  # one snapshot, whatever a writer does meanwhile
    try:
        write_new(path, lambda target: _copy(source, target, plan))
        with plain_errors(source_path):
            return source.execute(f"SELECT count(*) FROM cases WHERE {_CASES}").fetchone()[0]
    finally:
        with plain_errors(source_path):
            source.execute("ROLLBACK")


def _copy(source: sqlite3.Connection, target: sqlite3.Connection, plan: ExportPlan) -> None:
    margin = ", segment_margin_mm" if has_margins(source) else ""
    _copy_table(source, target, "models", f"sha256, name, version, dimension{margin}", where=_FINISHED)
    _copy_table(source, target, "cases", _CASE_COLUMNS, where=_CASES, blank=() if plan.notes else ("note",))
    _copy_table(source, target, "properties", "name, value", where="1")
    finished = f"model_sha256 IN (SELECT sha256 FROM models WHERE {_FINISHED})"
    _copy_table(source, target, "vectors", "case_id, model_sha256, vector", where=finished)
    if plan.thumbnails:
        _copy_table(source, target, "pictures", "case_id, plane, height, width, grey", where=_CASES)
    if plan.patches:
        _copy_table(source, target, "patch_boxes", "case_id, center_ras, size_mm, axes_ras, open_faces", where=_CASES)
        columns = "case_id, part, slices, height, width, dtype, ijk_to_ras, zlib"
        _copy_table(source, target, "patches", columns, where=_CASES)


def _copy_table(
    source: sqlite3.Connection,
    target: sqlite3.Connection,
    table: str,
    columns: str,
    *,
    where: str,
    blank: tuple[str, ...] = (),
) -> None:
    names = columns.split(", ")
    chosen = ", ".join("''" if name in blank else name for name in names)
    marks = ", ".join("?" * len(names))
    with closing(source.execute(f"SELECT {chosen} FROM {table} WHERE {where} ORDER BY rowid")) as rows:
        target.executemany(f"INSERT INTO {table} ({columns}) VALUES ({marks})", rows)


Rows = Callable[..., list[tuple]]

_CHECKS = {
    "SELECT * FROM pragma_integrity_check WHERE integrity_check != 'ok'": "{}",
    "PRAGMA foreign_key_check": "table {}: a row points nowhere",
    "SELECT case_id FROM cases EXCEPT SELECT case_id FROM vectors": "case {}: it has no vector",
    """SELECT case_id FROM pictures WHERE typeof(grey) != 'blob' OR length(grey) != height * width""":
        "case {}: a picture of it is damaged",
    "SELECT case_id FROM patches EXCEPT SELECT case_id FROM patch_boxes": "case {}: its HU patch lacks the box",
}  # fmt: skip


def problems_of(library: LibraryReading, rows: Rows) -> tuple[str, ...]:
    """Whether a case library is whole: every page, row, vector, picture and patch is read.

    What is wrong, one line each; empty: all is well. ``rows`` runs a statement on the library's file.
    """
    problems: list[str] = []
    for statement, text in _CHECKS.items():
        try:
            problems += [text.format(row[0]) for row in rows(statement)]
        except CaseLibraryError as error:  # too damaged to be read to its end
            problems.append(str(error))
    for check in (_vectors, _cases, _patches, _changes):
        try:
            problems += check(library, rows)
        except CaseLibraryError as error:
            problems.append(str(error))
    return tuple(dict.fromkeys(problems))


def _vectors(_library: LibraryReading, rows: Rows) -> Iterator[str]:
    # One at a time: a library may be larger than memory.
    one = "SELECT vector, dimension FROM vectors JOIN models ON sha256 = model_sha256 WHERE case_id = ? AND sha256 = ?"
    for case_id, sha256 in rows("SELECT case_id, model_sha256 FROM vectors ORDER BY case_id"):
        found = rows(one, (case_id, sha256))
        if found and not _is_unit(*found[0]):
            yield f"case {case_id}: its vector is damaged"


def _is_unit(blob: object, dimension: int) -> bool:
    if not isinstance(blob, bytes) or len(blob) != 4 * dimension:
        return False
    return abs(float(np.linalg.norm(np.frombuffer(blob, "<f4").astype(float))) - 1.0) < 1e-3


def _cases(library: LibraryReading, rows: Rows) -> Iterator[str]:
    for (case_id,) in rows("SELECT case_id FROM cases ORDER BY case_id"):
        try:
            library.case(case_id)
        except CaseLibraryError as error:
            yield f"case {case_id}: {error}"


def _patches(library: LibraryReading, rows: Rows) -> Iterator[str]:
    for (case_id,) in rows("SELECT case_id FROM patch_boxes ORDER BY case_id"):
        try:
            library.patch(case_id)
        except CaseLibraryError as error:
            yield str(error)


def _changes(library: LibraryReading, _rows: Rows) -> Iterator[str]:
    try:
        library.changes()
    except CaseLibraryError as error:
        yield f"what was changed when: {error}"
