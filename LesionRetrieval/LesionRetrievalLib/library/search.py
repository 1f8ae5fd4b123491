"""Which cases of a library are the most similar: exact search, filtered by patient, study, label and the like."""

from __future__ import annotations

import json
import math
import os
import sqlite3
import zlib
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from LesionLib.errors import CaseLibraryError
from LesionLib.io.private_files import open_private
from LesionLib.metric import COSINE, EUCLIDEAN, points_of, similarity_at

from LesionRetrievalLib.library.cases import (
    CASE_COLUMNS,
    Neighbour,
    Scalar,
    case_fields,
    checked_case_id,
    checked_hash,
    damaged,
)
from LesionRetrievalLib.library.pseudonyms import forms_of

Scope = Literal["all", "same-patient", "cross-patient"]
Range = tuple[float | None, float | None]


@dataclass(frozen=True)
class SearchFilter:
    """Which cases of a library may answer a query: by patient, study, label, organ and attributes.

    All filters must be met. Malformed ones: `CaseLibraryError`.
    ``scope`` is that of the Lesion Search paper: "all" searches every other lesion, "same-patient" those of ``patient``,
    "cross-patient" those of other patients. ``patient``: the hash of the query's patient. ``exclude_patient``,
    ``exclude_study`` (hashes) and ``exclude_case`` (the query itself, where the library holds it) leave cases out;
    ``label`` and ``organ`` keep only theirs. ``attributes``: name to the value wanted, or to a (low, high) range with
    both ends in, None for an open one; a case without the attribute is left out.
    """

    scope: Scope = "all"
    patient: str | None = None
    exclude_patient: str | None = None
    exclude_study: str | None = None
    exclude_case: str | None = None
    label: str | None = None
    organ: str | None = None
    attributes: Mapping[str, Scalar | Range] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        """Check every field; a raw identifier would exclude nothing, and nobody would notice."""
        if self.scope not in get_args(Scope):
            msg = f"The scope is {self.scope!r}; give one of {', '.join(get_args(Scope))}."
            raise CaseLibraryError(msg)
        for name in ("patient", "exclude_patient", "exclude_study"):
            if getattr(self, name) is not None:
                checked_hash(getattr(self, name), name)
        if self.scope != "all" and self.patient is None:
            msg = f"A {self.scope} search needs the patient's hash; give patient."
            raise CaseLibraryError(msg)
        if self.exclude_case is not None:
            checked_case_id(self.exclude_case)
        for name in ("label", "organ"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                msg = f"{name} is a {type(value).__name__}; give text, or None for all."
                raise CaseLibraryError(msg)
        object.__setattr__(self, "attributes", _checked_attributes(self.attributes))

    def without(self) -> list[tuple[str, str]]:
        """(column, value) pairs whose cases are left out; of a hash every form that it may have in a library."""
        patients = dict.fromkeys((self.exclude_patient, self.patient if self.scope == "cross-patient" else None))
        pairs = [("patient_hash", patient) for patient in patients]
        pairs += [("study_hash", self.exclude_study), ("case_id", self.exclude_case)]
        return [(column, form) for column, value in pairs if value is not None for form in forms_of(value)]

    def only(self) -> list[tuple[str, tuple[str, ...]]]:
        """(column, values) to one of which cases are kept."""
        pairs = [("label", self.label), ("organ", self.organ)]
        pairs += [("patient_hash", self.patient if self.scope == "same-patient" else None)]
        return [(column, forms_of(value)) for column, value in pairs if value is not None]


def _checked_attributes(attributes: object) -> dict[str, Scalar | Range]:
    if not isinstance(attributes, Mapping) or not all(isinstance(name, str) for name in attributes):
        msg = (
            f"attributes is a {type(attributes).__name__}; give a mapping from name to a value or a (low, high) range."
        )
        raise CaseLibraryError(msg)
    for name, wanted in attributes.items():
        scalars = wanted if isinstance(wanted, tuple) else (wanted,)
        is_range = len(scalars) == 2 and all(s is None or _is_number(s) for s in scalars)
        if isinstance(wanted, tuple) and not is_range:
            msg = f"The range of attribute {name!r} is {wanted!r}; give (low, high) numbers, None for an open end."
            raise CaseLibraryError(msg)
        if not isinstance(wanted, tuple) and not (wanted is None or isinstance(wanted, str | int | float)):
            msg = f"Attribute {name!r} cannot be compared with a {type(wanted).__name__}; give a value or (low, high)."
            raise CaseLibraryError(msg)
    return dict(attributes)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)


@dataclass(frozen=True, eq=False)
class AttributeColumn:
    """One attribute of all cases: a column each, so that a filter by them costs no more than one by label.

    ``by_value`` maps (is a bool, value) to the numbers of the cases that have it, (n,): True == 1 in Python, but a yes is no
    number here. ``numbers`` has shape (cases,), NaN where the case has no number.
    """

    by_value: dict[tuple[bool, Scalar], np.ndarray]
    numbers: np.ndarray

    def meets(self, wanted: Scalar | Range) -> np.ndarray:
        """Bool, shape (cases,): which cases have the value, or lie in the range (both ends in, None for an open one)."""
        if not isinstance(wanted, tuple):
            found = np.zeros(len(self.numbers), bool)
            found[self.by_value.get(_key(wanted), [])] = True
            return found
        low, high = (end if end is not None else sign * np.inf for end, sign in zip(wanted, (-1, 1), strict=True))
        return (self.numbers >= low) & (self.numbers <= high)


def attribute_columns(cases: Sequence[Mapping[str, Scalar]]) -> dict[str, AttributeColumn]:
    """Attribute name -> its column."""
    by_value: dict[str, dict] = defaultdict(lambda: defaultdict(list))
    numbers: dict[str, np.ndarray] = defaultdict(lambda: np.full(len(cases), np.nan))
    for position, attributes in enumerate(cases):
        for name, value in attributes.items():
            by_value[name][_key(value)].append(position)
            if isinstance(value, int | float) and not isinstance(value, bool):
                numbers[name][position] = value
    return {
        name: AttributeColumn({key: np.array(found) for key, found in values.items()}, numbers[name])
        for name, values in by_value.items()
    }


def _key(value: Scalar) -> tuple[bool, Scalar]:
    return isinstance(value, bool), value


class _Filtering(ABC):
    """Which rows of an index a filter leaves; a subclass says which have a value in a column, and what attributes there are."""

    @abstractmethod
    def __len__(self) -> int:
        """How many cases."""

    def allowed(self, wanted: SearchFilter) -> np.ndarray:
        """Return the numbers of the rows that the filter leaves, ascending."""
        without, only = wanted.without(), wanted.only()
        if not (without or only or wanted.attributes):
            return self._all_rows
        keep = np.ones(len(self), bool)
        for column, value in without:
            keep[self._rows_with(column, value)] = False
        for column, values in only:
            inside = np.zeros(len(self), bool)
            for value in values:
                inside[self._rows_with(column, value)] = True
            keep &= inside
        for name, value in wanted.attributes.items():
            column = self._columns.get(name)
            keep &= False if column is None else column.meets(value)
        return np.flatnonzero(keep)

    @cached_property
    def _all_rows(self) -> np.ndarray:
        return np.arange(len(self))

    @cached_property
    def _columns(self) -> dict[str, AttributeColumn]:
        return attribute_columns(self._attributes())

    @abstractmethod
    def _rows_with(self, column: str, value: str) -> np.ndarray:
        """The numbers of the rows that have the value in the column, (n,)."""

    @abstractmethod
    def _attributes(self) -> list[Mapping[str, Scalar]]:
        """Those of every case, in the order of the rows."""


@dataclass(frozen=True, eq=False)
class SearchIndex(_Filtering):
    """Exact search: all of a library's unit vectors in memory, ordered by case id, by cosine one matrix product a query.

    ``matrix`` is float32 (cases, dimension), each row of length 1; ``rows`` are the values of `CASE_COLUMNS`;
    ``data_version`` is SQLite's, to see that another connection has changed the file since.
    """

    model_sha256: str
    data_version: int
    matrix: np.ndarray
    rows: list[tuple]

    @classmethod
    def load(
        cls, connection: sqlite3.Connection, *, model_sha256: str, dimension: int, data_version: int
    ) -> SearchIndex:
        """Read all vectors of one model; `CaseLibraryError` for a damaged one, else `sqlite3.Error`."""
        columns = ", ".join(f"c.{name}" for name in CASE_COLUMNS)
        statement = (
            f"SELECT {columns}, v.vector FROM cases c JOIN vectors v ON v.case_id = c.case_id "
            "WHERE v.model_sha256 = ? ORDER BY c.case_id"
        )
        rows: list[tuple] = []
        (count,) = connection.execute("SELECT count(*) FROM cases").fetchone()
        # numpy's own memory, in large pages: a product over bytes that were joined takes longer.
        matrix = np.empty((count, dimension), np.float32)
        # One statement is one snapshot: another connection can't change the file in the middle of it.
        with closing(connection.execute(statement, (model_sha256,))) as cursor:
            for *fields, blob in cursor:
                if len(rows) == len(matrix):  # cases that came since they were counted
                    matrix = np.concatenate([matrix, np.empty((len(rows) // 8 + 1, dimension), np.float32)])
                matrix[len(rows)] = _vector_in(blob, dimension, fields[0])
                rows.append(tuple(fields))
        matrix = matrix[: len(rows)]
        _require_unit_length(matrix, [row[0] for row in rows])
        return cls(model_sha256, data_version, matrix, rows)

    def __len__(self) -> int:
        """How many cases."""
        return len(self.rows)

    @property
    def dimension(self) -> int:
        """How many numbers a vector has."""
        return self.matrix.shape[1]

    def nearest(self, query: np.ndarray, k: int, rows: np.ndarray, *, metric: str = COSINE) -> list[Neighbour]:
        """Return the ``k`` of ``rows`` nearest to ``query`` by ``metric``, best first.

        ``query``: float64, (dimension,), length 1. ``rows``: numbers of rows, (n,), ascending.
        """
        if metric == EUCLIDEAN:
            distance = euclidean_distances(self.matrix, query, rows)
            order = np.argsort(distance, kind="stable")[:k]
            return [distant_neighbour(self.rows[rows[i]], float(distance[i])) for i in order]
        scores = self.matrix @ query.astype(np.float32)
        if len(rows) < len(scores):
            scores = scores[rows]
        # Twice the largest rounding error of a float32 product of unit vectors: no true neighbour can be missed.
        rows = rows[_contenders(scores, k, 2 * _product_error(self.matrix.shape[1]))]
        similarity = self._similarity(query, rows)
        order = np.argsort(-similarity, kind="stable")[:k]  # stable: rows are in the order of case ids
        return [Neighbour(similarity=float(similarity[i]), **case_fields(self.rows[rows[i]])) for i in order]

    def _attributes(self) -> list[Mapping[str, Scalar]]:
        return [case_fields(row)["attributes"] for row in self.rows]

    @cached_property
    def _rows_of(self) -> dict[str, dict[str, np.ndarray]]:
        return {}

    def _rows_with(self, column: str, value: str) -> np.ndarray:
        """Those that have a value, found when a column is first asked for."""
        if column not in self._rows_of:
            position, numbers = CASE_COLUMNS.index(column), defaultdict(list)
            for number, row in enumerate(self.rows):
                numbers[row[position]].append(number)
            self._rows_of[column] = {value: np.array(found) for value, found in numbers.items()}
        return self._rows_of[column].get(value, _NO_ROWS)

    def _similarity(self, query: np.ndarray, rows: np.ndarray) -> np.ndarray:
        # In parts, as many equal cases make many contenders.
        parts = np.array_split(rows, len(rows) // 4096 + 1)
        return np.concatenate([_cosines(self.matrix[part], query) for part in parts])


_NO_ROWS = np.array([], dtype=np.intp)


def _cosines(vectors: np.ndarray, query: np.ndarray) -> np.ndarray:
    """Exact: a float32 product depends on a row's place in the matrix, so equal vectors would not always tie; summing each row by
    itself does not.
    """
    return (vectors.astype(np.float64) * query).sum(axis=1).clip(-1.0, 1.0)


def euclidean_distances(matrix: np.ndarray, query: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Of the points of ``rows`` of ``matrix`` (n, d + 1) to that of ``query`` (d + 1,), float64, (row,).

    `CaseLibraryError` for embeddings that are none of a Euclidean model.
    """
    try:
        asked = points_of(query)
        # In parts: as float64 points a large library would need three times its memory.
        parts = np.array_split(rows, len(rows) // 4096 + 1)
        return np.concatenate([np.linalg.norm(points_of(matrix[part]) - asked, axis=1) for part in parts])
    except ValueError as error:
        msg = f"The vectors cannot be compared: {error}; embed the lesion with the model of the library."
        raise CaseLibraryError(msg) from error


def distant_neighbour(row: tuple, distance: float) -> Neighbour:
    """The case of a row of `CASE_COLUMNS` at a Euclidean distance."""
    return Neighbour(similarity=float(similarity_at(distance)), distance=distance, **case_fields(row))


def _contenders(scores: np.ndarray, k: int, margin: float) -> np.ndarray:
    if k >= len(scores):
        return np.arange(len(scores))
    at_k = np.partition(scores, len(scores) - k)[len(scores) - k]
    return np.flatnonzero(scores >= at_k - margin)


def _product_error(dimension: int) -> float:
    """The largest that a float32 product of unit vectors is off."""
    return (dimension + 4) * float(np.finfo(np.float32).eps) / 2


def _vector_in(blob: object, dimension: int, case_id: str) -> np.ndarray:
    if not isinstance(blob, bytes) or len(blob) != 4 * dimension:
        raise _damaged(case_id)
    return np.frombuffer(blob, "<f4")


def _require_unit_length(matrix: np.ndarray, case_ids: Sequence[str]) -> None:
    lengths = np.einsum("ij,ij->i", matrix, matrix)
    # "Not near 1" rather than "far from 1": NaN is neither.
    wrong = np.flatnonzero(~(np.abs(lengths - 1) < 1e-3))
    if len(wrong):
        raise _damaged(case_ids[wrong[0]])


def _damaged(case_id: str) -> CaseLibraryError:
    return damaged(case_id, "its vector is damaged")


# --- large libraries: 16 of the 32 bits of each number, mapped from a file beside the library

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
                exact = np.stack([_vector_in(blob, dimension, case_id) for _, case_id, blob in chunk])
                _require_unit_length(exact, [case_id for _, case_id, _ in chunk])
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
class RoundedIndex(_Filtering):
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
        off = self.error + 2 * _product_error(self.dimension)
        rows = rows[_contenders(scores if len(rows) == len(scores) else scores[rows], k, 2 * off)]
        found: list[tuple[float, tuple]] = []
        for part in np.array_split(rows, len(rows) // 512 + 1):
            fields, vectors = self._looked_up(part)
            similarity = _cosines(vectors, query)
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
        vectors = [_vector_in(found[number][-1], self.dimension, found[number][0]) for number in numbers]
        _require_unit_length(matrix := np.stack(vectors), [row[0] for row in fields])
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


@dataclass(frozen=True)
class SearchPlan:
    """What a search leaves out and keeps, and how that is said.

    ``label`` and ``organ``: "" for any. ``leave_out_patient``: no other lesions of the same patient, where it is known.
    """

    scope: Scope = "all"
    label: str = ""
    organ: str = ""
    attributes: Mapping[str, Scalar | Range] = field(default_factory=dict, hash=False)
    leave_out_patient: bool = True

    def filters(self, patient: str | None) -> dict[str, Any]:
        """For `CaseLibrary.search`; ``patient``: the hash of whose lesion it is, None where not known. `CaseLibraryError`."""
        if self.scope != "all" and patient is None:
            msg = (
                f"A search for {'cases of the same patient' if self.scope == 'same-patient' else 'other patients'} needs to "
                "know whose CT this is, and the key that the library was made with."
            )
            raise CaseLibraryError(msg)
        leaves_out = self.leave_out_patient and self.scope == "all"
        return {
            "scope": self.scope,
            "patient": patient if self.scope != "all" else None,
            "exclude_patient": patient if leaves_out else None,
            "label": self.label or None,
            "organ": self.organ or None,
            "attributes": dict(self.attributes),
        }

    def text(self, patient: str | None, *, has_key: bool, has_foreign_key: bool = False) -> str:
        """Whether cases of the same patient are left out, in plain words. ``has_foreign_key``: not that of the library."""
        if self.scope == "same-patient":
            return "Only other lesions of the same patient are searched."
        if self.scope == "all" and not self.leave_out_patient:
            return "Cases of the same patient are not left out."
        if patient is not None:
            return "Cases of the same patient are left out."
        if has_foreign_key:
            reason = "The key on this computer is not the one that this library was made with"
        elif has_key:
            reason = "It is not known whose CT this is"
        else:
            reason = "There is no key to recognise patients by on this computer"
        return f"{reason}: cases of the same patient could not be left out and may be among those found."
