"""The most similar cases of a large library with half the memory: 16 of the 32 bits of each number, mapped from a file beside it."""

from __future__ import annotations

import json
import os
import sqlite3
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path

import numpy as np
from LesionLib.io.private_files import open_private
from LesionLib.metric import COSINE

from LesionRetrievalLib.library.cases import CASE_COLUMNS, Neighbour, Scalar, case_fields
from LesionRetrievalLib.library.search.exact import contenders, cosines, product_error, require_unit_length, vector_in
from LesionRetrievalLib.library.search.filters import Filtering

MIN_VECTORS_IN_A_FILE = 200_000
_HEADER_BYTES, _CHUNK, _BLOCK = 4096, 8192, 1024
_JOINED = "cases c JOIN vectors v ON v.case_id = c.case_id AND v.model_sha256 = ?"


class RoundedVectorsError(Exception):
    """The file of rounded vectors is not that of its library; search without it."""


def vector_file_of(library: Path) -> Path:
    """Where the rounded vectors of a large library lie. It can be deleted: the next who writes to the library makes it again."""
    return library.with_name(f"{library.name}.vectors")


def write_vector_file(connection: sqlite3.Connection, library: Path, *, model_sha256: str, dimension: int) -> None:
    """Write the vectors of one model, rounded to bfloat16, beside the library. Raises `CaseLibraryError`, `OSError`, `sqlite3.Error`.

    A header of JSON, then the numbers of the cases' rows (int64), then the vectors: two numbers a word, the even one in the
    lower half, little-endian.
    """
    draft = library.with_name(f".{library.name}.vectors.partial")
    state, error, checksum, row_numbers = _state_of(library), 0.0, 0, []
    try:
        with (
            open_private(draft) as file,
            closing(
                connection.execute(
                    f"SELECT c.rowid, c.case_id, v.vector FROM {_JOINED} ORDER BY c.rowid", (model_sha256,)
                )
            ) as cursor,
        ):
            (count,) = connection.execute(f"SELECT count(*) FROM {_JOINED}", (model_sha256,)).fetchone()
            file.seek(_HEADER_BYTES + 8 * count)
            while chunk := cursor.fetchmany(_CHUNK):
                exact = np.stack([vector_in(blob, dimension, case_id) for _, case_id, blob in chunk])
                require_unit_length(exact, [case_id for _, case_id, _ in chunk])
                rounded = _rounded(exact)
                error = max(error, float(np.linalg.norm(exact.astype(float) - _exact(rounded), axis=1).max()))
                file.write(content := _words(rounded).tobytes())
                checksum = zlib.crc32(content, checksum)
                row_numbers += [number for number, _, _ in chunk]
            numbers = np.array(row_numbers, "<i8").tobytes()
            header = {
                "library": state, "model": model_sha256, "count": len(row_numbers), "dimension": dimension, "error": error,
                "checksum": zlib.crc32(numbers, checksum),
            }  # fmt: skip
            file.seek(0)
            file.write(json.dumps(header).encode().ljust(_HEADER_BYTES))
            file.write(numbers)
        if len(row_numbers) == count:  # else somebody wrote to the library meanwhile
            os.replace(draft, vector_file_of(library))
    finally:
        draft.unlink(missing_ok=True)


def _state_of(library: Path) -> str:
    """What changes with every write to a library: the header of the file with SQLite's change counter, size and time."""
    with library.open("rb") as file:
        header, state = file.read(100), os.fstat(file.fileno())
    return sha256(header + f"{state.st_size} {state.st_mtime_ns}".encode()).hexdigest()


def _rounded(exact: np.ndarray) -> np.ndarray:
    """To bfloat16, the nearest: its bits as uint16."""
    bits = exact.astype("<f4").view("<u4")
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")


def _exact(rounded: np.ndarray) -> np.ndarray:
    return (rounded.astype("<u4") << 16).view("<f4")


def _words(rounded: np.ndarray) -> np.ndarray:
    padded = np.pad(rounded, ((0, 0), (0, rounded.shape[1] % 2))).astype("<u4")
    return padded[:, 0::2] | padded[:, 1::2] << 16


@dataclass(frozen=True, eq=False)
class RoundedIndex(Filtering):
    """The same search with half the memory, by cosine: rounded vectors say which cases may be among the nearest, the library's own
    decide. Rows in the order in which cases came.

    ``words``: uint32 (cases, half the dimension), mapped from the file; ``error``: the largest length that rounding took from or
    gave to a vector. So a score is off by no more than that, and what is nearer than the k-th by twice as much is looked up.
    """

    connection: sqlite3.Connection
    model_sha256: str
    data_version: int
    dimension: int
    error: float
    row_numbers: np.ndarray
    words: np.ndarray

    @classmethod
    def open(
        cls, connection: sqlite3.Connection, library: Path, *, model_sha256: str, dimension: int, data_version: int
    ) -> RoundedIndex | None:
        """Map the file beside a library; None where there is none, or it is of another state or model."""
        path = vector_file_of(library)
        try:
            with path.open("rb") as file:
                header = json.loads(file.read(_HEADER_BYTES))
            count, error, width = int(header["count"]), float(header["error"]), (dimension + 1) // 2
            expected = (_state_of(library), model_sha256, dimension)
            if (header["library"], header["model"], header["dimension"]) != expected or not 0 <= error < 1 or count < 1:
                return None
            if path.stat().st_size != _HEADER_BYTES + count * (8 + 4 * width):
                return None
            words = np.memmap(path, "<u4", "r", _HEADER_BYTES + 8 * count, (count, width))
            row_numbers = np.fromfile(path, "<i8", count, offset=_HEADER_BYTES)
            if zlib.crc32(row_numbers, zlib.crc32(words)) != header["checksum"]:
                return None
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return None
        return cls(connection, model_sha256, data_version, dimension, error, row_numbers, words)

    def __len__(self) -> int:
        """How many cases."""
        return len(self.row_numbers)

    def nearest(self, query: np.ndarray, k: int, rows: np.ndarray, *, metric: str = COSINE) -> list[Neighbour]:
        """As `SearchIndex.nearest`, by cosine only. Raises `RoundedVectorsError` where the file does not fit the library."""
        if metric != COSINE:
            raise RoundedVectorsError
        if not len(rows):
            return []
        scores = self._scores(query.astype(np.float32))
        if not np.isfinite(scores).all():
            raise RoundedVectorsError
        off = self.error + 2 * product_error(self.dimension)
        rows = rows[contenders(scores if len(rows) == len(scores) else scores[rows], k, 2 * off)]
        found: list[tuple[float, tuple]] = []
        for part in np.array_split(rows, len(rows) // 512 + 1):
            fields, vectors = self._looked_up(part)
            similarity = cosines(vectors, query)
            if not (np.abs(similarity - scores[part]) <= off).all():
                raise RoundedVectorsError
            found += zip(similarity.tolist(), fields, strict=True)
        found.sort(key=lambda each: (-each[0], each[1][0]))
        return [Neighbour(similarity=similarity, **case_fields(row)) for similarity, row in found[:k]]

    def _scores(self, query: np.ndarray) -> np.ndarray:
        """Of all rows, float32. In blocks that stay near the processor, by as many threads as it has."""
        halves = np.pad(query, (0, len(query) % 2)).reshape(-1, 2).T.copy()
        scores = np.empty(len(self), np.float32)

        @np.errstate(invalid="ignore", over="ignore")
        def fill(starts: Sequence[int]) -> None:
            bits = np.empty((_BLOCK, self.words.shape[1]), "<u4")
            product = np.empty(_BLOCK, np.float32)
            for start in starts:
                words = self.words[start : start + _BLOCK]
                part, target = bits[: len(words)], scores[start : start + _BLOCK]
                np.left_shift(words, 16, out=part)
                np.dot(part.view("<f4"), halves[0], out=target)
                np.bitwise_and(words, 0xFFFF0000, out=part)
                target += np.dot(part.view("<f4"), halves[1], out=product[: len(words)])

        starts = range(0, len(self), _BLOCK)
        threads = min(os.cpu_count() or 1, len(starts))
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(fill, [starts[first::threads] for first in range(threads)]))
        return scores

    def _looked_up(self, rows: np.ndarray) -> tuple[list[tuple], np.ndarray]:
        """The values of `CASE_COLUMNS` and the vectors, float32 (row, dimension), in the order of the rows."""
        columns, numbers = ", ".join(f"c.{name}" for name in CASE_COLUMNS), self.row_numbers[rows].tolist()
        statement = (
            f"SELECT c.rowid, {columns}, v.vector FROM {_JOINED} WHERE c.rowid IN ({', '.join('?' * len(numbers))})"
        )
        found = {row[0]: row[1:] for row in self.connection.execute(statement, (self.model_sha256, *numbers))}
        if len(found) != len(numbers):  # somebody has just removed one
            raise RoundedVectorsError
        fields = [found[number][:-1] for number in numbers]
        vectors = [vector_in(found[number][-1], self.dimension, found[number][0]) for number in numbers]
        require_unit_length(matrix := np.stack(vectors), [row[0] for row in fields])
        return fields, matrix

    @cached_property
    def _found(self) -> dict[tuple[str, str], np.ndarray]:
        return {}

    def _rows_with(self, column: str, value: str) -> np.ndarray:
        """Those that have a value: the first time one reading of the table of cases, without the vectors."""
        if (column, value) not in self._found:
            if column not in CASE_COLUMNS:
                raise KeyError(column)
            numbers = self.connection.execute(f"SELECT rowid FROM cases WHERE {column} = ?", (value,)).fetchall()
            self._found[column, value] = np.flatnonzero(np.isin(self.row_numbers, np.array(numbers, "<i8")))
        return self._found[column, value]

    def _attributes(self) -> list[Mapping[str, Scalar]]:
        columns = ", ".join(CASE_COLUMNS)
        read = self.connection.execute(f"SELECT rowid, {columns} FROM cases ORDER BY rowid")
        wanted, found = iter(self.row_numbers.tolist()), []
        number = next(wanted, None)
        for row in read:
            if row[0] == number:
                found.append(case_fields(row[1:])["attributes"])
                number = next(wanted, None)
        if len(found) != len(self):
            raise RoundedVectorsError
        return found
