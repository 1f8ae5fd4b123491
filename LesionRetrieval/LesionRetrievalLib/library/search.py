"""Which cases of a library are the most similar: exact search, filtered by patient, study, label and the like."""

from __future__ import annotations

import math
import sqlite3
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
from LesionLib.errors import CaseLibraryError
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


@dataclass(frozen=True, eq=False)
class SearchIndex:
    """Exact search: a library's unit vectors in memory, by cosine one matrix product a query.

    All of a library in memory, rows ordered by case id.

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
        # One statement is one snapshot: another connection can't change the file in the middle of it.
        buffer, rows = bytearray(), []
        with closing(connection.execute(statement, (model_sha256,))) as cursor:
            for *fields, blob in cursor:
                if not isinstance(blob, bytes) or len(blob) != 4 * dimension:
                    raise _damaged(fields[0])
                buffer += blob
                rows.append(tuple(fields))
        matrix = np.frombuffer(buffer, "<f4").reshape(len(rows), dimension)
        _require_unit_length(matrix, rows)
        return cls(model_sha256, data_version, matrix, rows)

    def allowed(self, wanted: SearchFilter) -> np.ndarray:
        """Return the numbers of the rows that the filter leaves, ascending."""
        keep = np.ones(len(self.rows), bool)
        for column, value in wanted.without():
            keep[self._where(column).get(value, [])] = False
        for column, values in wanted.only():
            inside = np.zeros(len(self.rows), bool)
            for value in values:
                inside[self._where(column).get(value, [])] = True
            keep &= inside
        for name, value in wanted.attributes.items():
            column = self._columns.get(name)
            keep &= False if column is None else column.meets(value)
        return np.flatnonzero(keep)

    def nearest(self, query: np.ndarray, k: int, rows: np.ndarray, *, metric: str = COSINE) -> list[Neighbour]:
        """Return the ``k`` of ``rows`` nearest to ``query`` by ``metric``, best first.

        ``query``: float64, (dimension,), length 1. ``rows``: numbers of rows, (n,), ascending.
        """
        if metric == EUCLIDEAN:
            distance = euclidean_distances(self.matrix, query, rows)
            order = np.argsort(distance, kind="stable")[:k]
            return [distant_neighbour(self.rows[rows[i]], float(distance[i])) for i in order]
        scores = (self.matrix @ query.astype(np.float32))[rows]
        rows = rows[_contenders(scores, k, self.matrix.shape[1])]
        similarity = self._similarity(query, rows)
        order = np.argsort(-similarity, kind="stable")[:k]  # stable: rows are in the order of case ids
        return [Neighbour(similarity=float(similarity[i]), **case_fields(self.rows[rows[i]])) for i in order]

    @cached_property
    def _columns(self) -> dict[str, AttributeColumn]:
        return attribute_columns([case_fields(row)["attributes"] for row in self.rows])

    @cached_property
    def _rows_of(self) -> dict[str, dict[str, np.ndarray]]:
        return {}

    def _where(self, column: str) -> dict[str, np.ndarray]:
        """Value -> numbers of the rows that have it, found when a column is first asked for."""
        if column not in self._rows_of:
            position, numbers = CASE_COLUMNS.index(column), defaultdict(list)
            for number, row in enumerate(self.rows):
                numbers[row[position]].append(number)
            self._rows_of[column] = {value: np.array(found) for value, found in numbers.items()}
        return self._rows_of[column]

    def _similarity(self, query: np.ndarray, rows: np.ndarray) -> np.ndarray:
        # A float32 product depends on a row's place in the matrix, so equal vectors would not always tie;
        # summing each row by itself does not. In parts, as many equal cases make many contenders.
        parts = np.array_split(rows, len(rows) // 4096 + 1)
        sums = [(self.matrix[part].astype(np.float64) * query).sum(axis=1) for part in parts]
        return np.concatenate(sums).clip(-1.0, 1.0)


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


def _contenders(scores: np.ndarray, k: int, dimension: int) -> np.ndarray:
    if k >= len(scores):
        return np.arange(len(scores))
    at_k = scores[np.argpartition(scores, -k)[-k]]
    # Twice the largest rounding error of a float32 product of unit vectors: no true neighbour can be missed.
    margin = (dimension + 4) * float(np.finfo(np.float32).eps)
    return np.flatnonzero(scores >= at_k - margin)


def _require_unit_length(matrix: np.ndarray, rows: list[tuple]) -> None:
    lengths = np.einsum("ij,ij->i", matrix, matrix)
    # "Not near 1" rather than "far from 1": NaN is neither.
    wrong = np.flatnonzero(~(np.abs(lengths - 1) < 1e-3))
    if len(wrong):
        raise _damaged(rows[wrong[0]][0])


def _damaged(case_id: str) -> CaseLibraryError:
    return damaged(case_id, "its vector is damaged")


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
