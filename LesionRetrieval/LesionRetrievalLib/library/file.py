"""The SQLite file under a case library: made whole, opened only if ours, its faults in plain English."""

from __future__ import annotations

import os
import secrets
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from LesionLib.errors import CaseLibraryError

from .library_tables import APPLICATION_ID, SCHEMA_VERSION, complete_for_reading, migrate, tables

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
        with plain_errors(path), closing(_raw_connection(draft, "rwc")) as connection:
            connection.execute("BEGIN")
            for statement in tables().values():
                connection.execute(statement)
            fill(connection)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            connection.execute("COMMIT")
        # SQLite would take an old file's left-over journal for the new one's, and "restore" it to rubbish.
        path.with_name(f"{path.name}-journal").unlink(missing_ok=True)
        os.replace(draft, path)
    except OSError as error:
        msg = f"{path}: no library can be put here ({error.strerror}); close it, or take another place."
        raise CaseLibraryError(msg) from error
    finally:
        for name in (draft, draft.with_name(f"{draft.name}-journal")):
            with suppress(OSError):
                name.unlink()


def _connect(path: Path, mode: str, *, as_it_lies: bool = False) -> sqlite3.Connection:
    connection = _raw_connection(path, mode)
    try:
        version = _require_library(connection, path)
        if version < SCHEMA_VERSION and not as_it_lies:
            (complete_for_reading if mode == "ro" else migrate)(connection)
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
