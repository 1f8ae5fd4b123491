"""A case library on a Milvus server, for a department that outgrows one file; searched exactly."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Self

import numpy as np
from LesionLib.errors import CaseLibraryError
from LesionLib.metric import COSINE
from LesionLib.model.folder import MAX_MARGIN_MM

from LesionRetrievalLib.library.cases import (
    ADDED,
    CASE_COLUMNS,
    REMOVED,
    Case,
    CaseEntry,
    Change,
    IndexedModel,
    ModelIdentity,
    Neighbour,
    case_of,
    changed_fields,
    checked_case_id,
    checked_code,
    checked_thumbnails,
    is_dimension,
    loaded_vector,
    require_same_margin,
    stored_vector,
    unit_vector,
)
from LesionRetrievalLib.library.file import METRIC_PROPERTY
from LesionRetrievalLib.library.patches import HuPatch
from LesionRetrievalLib.library.search.filters import SearchFilter
from LesionRetrievalLib.server.connection import (
    FILTER_FIELDS,
    ServerAddress,
    cases_of,
    connected,
    create_library,
    create_properties,
    create_vectors,
    models_of,
    pieces_of,
    plain_server_errors,
    properties_of,
    row_without_vector,
    vectors_of,
)
from LesionRetrievalLib.server.records import (
    PATCH,
    PICTURE,
    PIECES_AT_ONCE,
    Collection,
    batches,
    ids_in,
    patch_from,
    pictures_from,
    pieces_of_case,
    problems_of,
    quoted,
)
from LesionRetrievalLib.server.search import IDS_AT_ONCE, MAX_ANSWERS, MilvusSearch, case_columns

_CASES_OF_PIECES = 50


class MilvusReading:
    """What can be asked of a library on a server without changing it: the reading half of `MilvusLibrary`."""

    def __init__(self, address: ServerAddress) -> None:
        self.address = address
        self._client = connected(address)
        library = address.library
        with plain_server_errors(address):
            if not self._client.has_collection(cases_of(library)):
                msg = f"There is no library {library!r} on {address.authority}; push one there, or check its name."
                raise CaseLibraryError(msg)
            create_library(self._client, library)
        self._models = Collection(self._client, address, models_of(library), "sha256")
        self._cases = Collection(self._client, address, cases_of(library), "case_id")
        self._pieces = Collection(self._client, address, pieces_of(library), "piece_id")
        self._properties = Collection(self._client, address, properties_of(library), "name")
        self._metrics: dict[str, str] = {}

    def close(self) -> None:
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __len__(self) -> int:
        return self._cases.count()

    def __bool__(self) -> bool:
        return True

    @property
    def model(self) -> ModelIdentity:
        """The model whose vectors it holds; of several, the last."""
        models = self.models()
        if not models:
            msg = f"{self.address} holds no case and no model yet; push a library there."
            raise CaseLibraryError(msg)
        return models[-1].identity

    def models(self) -> list[IndexedModel]:
        """Every model it holds vectors of, in the order in which they came."""
        rows = sorted(
            self._models.all(["sha256", "name", "version", "dimension", "place"]), key=lambda row: row["place"]
        )
        margins, properties = self._margins(), self.properties()
        return [
            IndexedModel(
                _identity(row, margins, properties.get(METRIC_PROPERTY + row["sha256"], COSINE)),
                _dimension(row),
                self._vectors(row["sha256"]).count(),
                False,
            )
            for row in rows
        ]

    def require_model(self, sha256: str) -> ModelIdentity:
        """The model ``sha256``; `CaseLibraryError` naming it and the library's where it cannot be searched with."""
        margin_mm = self._margins().get(sha256)
        return replace(self._indexed(sha256).identity, segment_margin_mm=margin_mm, metric=self._metric(sha256))

    def case(self, case_id: str) -> Case:
        found = self._whole([checked_case_id(case_id)])
        if not found:
            raise unknown_case(case_id)
        return found[0]

    def cases(self) -> list[Case]:
        """All cases, ordered by case id."""
        return [_as_case(row) for row in sorted(self._cases.all(list(CASE_COLUMNS)), key=lambda row: row["case_id"])]

    def created(self) -> dict[str, str]:
        """The date on which each case was entered."""
        return {row["case_id"]: row["created"] for row in self._cases.all(["case_id", "created"])}

    def contents(self) -> dict[str, tuple[str, ...]]:
        """For every case, in order of ids, which of ``thumbnails`` and ``patch`` it has."""
        kinds: dict[str, set[str]] = {row["case_id"]: set() for row in self._cases.all(["case_id"])}
        for row in self._pieces.where("place == 0", ["case_id", "kind"]):
            kinds.get(row["case_id"], set()).add("pictures" if row["kind"].startswith("picture") else "patch")
        return {i: tuple(kind for kind in ("pictures", "patch") if kind in kinds[i]) for i in sorted(kinds)}

    def labels(self) -> dict[str, int]:
        """How many cases there are of each label, ordered by label."""
        found = [row["label"] for row in self._cases.all(["label"])]
        return {label: found.count(label) for label in sorted(set(found))}

    def properties(self) -> dict[str, str]:
        """What is noted of the library as a whole, by name."""
        with plain_server_errors(self.address):
            if not self._client.has_collection(properties_of(self.address.library)):
                return {}
            create_properties(self._client, self.address.library)  # lets it be read
        return {row["name"]: row["value"] for row in self._properties.all(["name", "value"])}

    def changes(self, case_id: str | None = None) -> list[Change]:
        """What was done to a case ("": to the library as a whole), or to all of it, in the order of time."""
        within = f'case_id == "" and piece_id >= {quoted(_CHANGE if case_id is None else f"{_CHANGE}{case_id} ")}'
        if case_id is not None:
            within += f" and piece_id < {quoted(f'{_CHANGE}{case_id}!')}"
        found = [_change(row["about"], self.address) for row in self._pieces.where(within, ["about"])]
        return sorted(found, key=lambda change: change.at)

    def thumbnails(self, case_id: str) -> dict[str, np.ndarray]:
        """The case's pictures, plane to uint8 grey (height, width)."""
        return self.thumbnails_of([checked_case_id(case_id)])[case_id]

    def patch(self, case_id: str) -> HuPatch | None:
        """The CT around the case's lesion, if it holds one."""
        return self.patches_of([checked_case_id(case_id)])[case_id]

    def thumbnails_of(self, case_ids: Sequence[str]) -> dict[str, dict[str, np.ndarray]]:
        """The pictures of several cases, by case id; one question for all, for each takes the server a moment."""
        return {
            i: pictures_from(i, rows) for i, rows in self._pieces.of_cases(self._require(case_ids), PICTURE).items()
        }

    def patches_of(self, case_ids: Sequence[str]) -> dict[str, HuPatch | None]:
        """The CTs around the lesions of several cases, by case id."""
        return {i: patch_from(i, rows) for i, rows in self._pieces.of_cases(self._require(case_ids), PATCH).items()}

    def vector(self, case_id: str, *, model_sha256: str) -> np.ndarray:
        """The case's vector by one model, float32, of length 1."""
        self.case(case_id)
        model = self._indexed(model_sha256)
        rows = self._vectors(model_sha256).get([case_id], ["vector"])
        if not rows:
            msg = f"Case {case_id!r} was never embedded by {model.identity}; reindex the library it came from, and push it again."
            raise CaseLibraryError(msg)
        return loaded_vector(case_id, rows[0]["vector"], model.dimension)

    def vectors(self, case_ids: Sequence[str], *, model_sha256: str) -> dict[str, np.ndarray]:
        """Those of these cases' vectors by one model that there are, float32, by case id."""
        dimension = self._indexed(model_sha256).dimension
        rows = self._vectors(model_sha256).get(list(case_ids), ["vector"])
        return {row["case_id"]: loaded_vector(row["case_id"], row["vector"], dimension) for row in rows}

    def integrity_problems(self) -> tuple[str, ...]:
        """Read the whole library; return what is wrong with it, one line each. Empty: all is well."""
        problems: list[str] = []
        rows = {row["case_id"]: row for row in self._cases.all([*CASE_COLUMNS, "pieces"])}
        for row in rows.values():
            problems += problems_of(lambda _, row=row: _as_case(row), [row["case_id"]])
        embedded: set[str] = set()
        for model in self.models():
            sha256 = model.identity.sha256
            for ids in batches(sorted(rows), IDS_AT_ONCE):
                problems += problems_of(lambda part, of=sha256: self.vectors(part, model_sha256=of), ids)
                embedded.update(self._vectors(sha256).having(ids))
        problems += [f"case {case_id}: it has no vector" for case_id in sorted(rows.keys() - embedded)]
        for ids in batches(sorted(rows), _CASES_OF_PIECES):
            fields = ["case_id", "kind", "about", "place", "data"]
            pieces = self._pieces.where(ids_in("case_id", ids), fields, page=PIECES_AT_ONCE)
            for case_id in ids:
                own = [piece for piece in pieces if piece["case_id"] == case_id]
                if len(own) != rows[case_id]["pieces"]:
                    problems.append(f"case {case_id}: a part of its pictures or of its patch is missing")
                for read in (pictures_from, patch_from):
                    problems += problems_of(lambda _, read=read, i=case_id, own=own: read(i, own), [case_id])
        return tuple(dict.fromkeys(problems))

    def search(self, vector: Any, *, k: int = 9, model_sha256: str, **filters: Any) -> list[Neighbour]:
        """The ``k`` most similar cases that the filters leave, best first, equal ones in the order of their ids.

        The server's float32 order is only a first one: similarities are computed again here, in float64, as a library in a
        file does. Of more than 16,000 equally similar cases at the ``k``-th place, which come is the server's choice; by a
        Euclidean model, of more than 16,000 whose directions are as near as that of the ``k``-th.
        """
        model = self._indexed(model_sha256)
        if not isinstance(k, int) or isinstance(k, bool) or not 1 <= k <= MAX_ANSWERS:
            msg = f"k is {k!r}; give a whole number from 1 to {MAX_ANSWERS}: more the server does not answer."
            raise CaseLibraryError(msg)
        wanted = SearchFilter(**filters)
        query = unit_vector(vector, model.dimension)
        return MilvusSearch(self._cases, self._vectors(model_sha256), self._metric(model_sha256)).nearest(
            query, k, wanted
        )

    def _indexed(self, sha256: str) -> IndexedModel:
        rows = self._models.all(["sha256", "name", "version", "dimension", "place"])
        for row in rows:
            if row["sha256"] == sha256:
                return IndexedModel(_identity(row, {}), _dimension(row), 0, False)
        known = " and ".join(str(ModelIdentity(row["name"], row["version"], row["sha256"])) for row in rows)
        msg = (
            f"This library was made with {known or 'no model yet'}, not with the model sha256 {str(sha256)[:12]}…; "
            "search with that model, reindex the library with this one, or build the library again."
        )
        raise CaseLibraryError(msg)

    def _metric(self, sha256: str) -> str:
        """How a model's vectors are compared; it never changes, so it is asked for once."""
        if sha256 not in self._metrics:
            self._metrics[sha256] = self.properties().get(METRIC_PROPERTY + sha256, COSINE)
        return self._metrics[sha256]

    def _margins(self) -> dict[str, float]:
        """How far the boxes of segments reach beyond them, mm, by the model of the vectors. Raises `CaseLibraryError`."""
        found = {}
        for name, value in self.properties().items():
            if name.startswith(_MARGIN):
                found[name.removeprefix(_MARGIN)] = _margin_mm(value, self.address)
        return found

    def _require(self, case_ids: Sequence[str]) -> list[str]:
        missing = set(case_ids) - {case.case_id for case in self._whole(case_ids)}
        if missing:
            raise unknown_case(min(missing))
        return list(case_ids)

    def _whole(self, ids: Sequence[str]) -> list[Case]:
        return [_as_case(row) for row in self._cases.get(ids, list(CASE_COLUMNS))]

    def _vectors(self, sha256: str) -> Collection:
        return Collection(self._client, self.address, vectors_of(self.address.library, sha256), "case_id")


_MARGIN = "segmentMarginMm "  # a property of this name and the model's SHA-256
# What was done to a case is a piece of no case, so that it stays when the case goes: named by this, the case's id, the time and a
# digest.
_CHANGE = "~"


def _change_name(change: Change) -> str:
    """The same change has the same name: it is not there twice."""
    digest = sha256("\0".join(vars(change).values()).encode()).hexdigest()[:16]
    return f"{_CHANGE}{change.case_id} {change.at} {digest}"


def _change(text: str, address: ServerAddress) -> Change:
    try:
        return Change(*json.loads(text))
    except (CaseLibraryError, ValueError, TypeError, RecursionError) as error:
        msg = f"{address}: what it says of a change to a case is damaged; push the library there again."
        raise CaseLibraryError(msg) from error


def _margin_mm(text: str, address: ServerAddress) -> float:
    try:
        margin = float(text)
    except ValueError:
        margin = math.nan
    if not 0 <= margin <= MAX_MARGIN_MM:
        msg = f"{address}: what it says of the margin around its segments is damaged; push the library there again."
        raise CaseLibraryError(msg)
    return margin


def _dimension(row: Mapping[str, Any]) -> int:
    dimension = int(row["dimension"])
    if not is_dimension(dimension):
        msg = "What the library says of its models is damaged; push it to the server again."
        raise CaseLibraryError(msg)
    return dimension


def _identity(row: Mapping[str, Any], margins: Mapping[str, float], metric: str = COSINE) -> ModelIdentity:
    return ModelIdentity(row["name"], row["version"], row["sha256"], margins.get(row["sha256"]), metric=metric)


def _as_case(row: Mapping[str, Any]) -> Case:
    return case_of(case_columns(row))


def unknown_case(case_id: str) -> CaseLibraryError:
    """The error for a case that is not there."""
    return CaseLibraryError(f"Case {case_id!r} is not in this library; cases() lists what is.")


MAX_CASES_AT_ONCE = 2_000


class MilvusLibrary(MilvusReading):
    """A `CaseStore` on a server. Faults are `CaseLibraryError`; use it as a context manager.

    A case is visible when its row among the cases is written, which comes last: what an upload left half is seen by nobody,
    and overwritten by the next.
    """

    @classmethod
    def open(cls, address: str) -> MilvusLibrary:
        """The library at ``milvus://host:port/library``."""
        return cls(ServerAddress.parse(address))

    @classmethod
    def create(cls, address: str, *, model: ModelIdentity, dimension: int) -> MilvusLibrary:
        """The library at ``address``, made where it is not there yet, ready for vectors of ``model``."""
        where = ServerAddress.parse(address)
        client = connected(where)
        with plain_server_errors(where):
            create_library(client, where.library, vectors={model.sha256: dimension})
        library = cls(where)
        library.add_model(model, dimension)
        return library

    def add_model(self, model: ModelIdentity, dimension: int) -> None:
        """Make room for vectors of a model; nothing where there is. `CaseLibraryError` where its boxes are drawn otherwise."""
        margin_mm = model.segment_margin_mm
        if self._models.having([model.sha256]):
            require_same_margin(self.require_model(model.sha256), model)
            if margin_mm is None or self._vectors(model.sha256).count():
                return  # what is there is older than the margin's being stored, or has it
        else:
            with plain_server_errors(self.address):
                create_vectors(self._client, self.address.library, model.sha256, dimension)
        if margin_mm is not None:
            self.set_property(_MARGIN + model.sha256, repr(float(margin_mm)))
        if not self._models.having([model.sha256]):
            if model.metric != COSINE:
                self.set_property(METRIC_PROPERTY + model.sha256, model.metric)
            self._put_last(model, dimension)

    def prefer_model(self, sha256: str) -> None:
        """Make a model that cases are embedded by the one the library goes by."""
        model = self._indexed(sha256)
        if self.model != model.identity:
            self._put_last(model.identity, model.dimension)

    def add(
        self,
        case: Case,
        vector: Any,
        *,
        model_sha256: str,
        thumbnails: Mapping[str, np.ndarray] | None = None,
        patch: HuPatch | None = None,
        created: str | None = None,
        by: str | None = "",
    ) -> None:
        """Add one case, wholly or not at all; ``created``: its date, for one from another library."""
        dates = {case.case_id: created} if created else None
        self.add_many([CaseEntry(case, vector, thumbnails, patch)], model_sha256=model_sha256, created=dates, by=by)

    def add_many(
        self,
        entries: Iterable[CaseEntry | tuple],
        *,
        model_sha256: str,
        created: Mapping[str, str] | None = None,
        by: str | None = "",
    ) -> int:
        """Add up to 2,000 cases, all or none; ``created``: their dates where they were made elsewhere.

        ``by``: the code of who adds them, kept with the time; None: not kept.
        """
        checked_code(by or "")
        model = self._indexed(model_sha256)
        given = [CaseEntry(*entry) for entry in entries]
        ids = [entry.case.case_id for entry in given]
        if len(given) > MAX_CASES_AT_ONCE:
            msg = f"{len(given)} cases at once are too many for the server; give at most {MAX_CASES_AT_ONCE}."
            raise CaseLibraryError(msg)
        there = sorted(set(self._cases.having(ids)) | {i for i in ids if ids.count(i) > 1})
        if there:
            msg = f"Case {there[0]!r} is in the library already; remove it first, or give another id."
            raise CaseLibraryError(msg)
        today = datetime.now(UTC).date().isoformat()
        rows, vectors, pieces = [], [], []
        for entry in given:
            fields = dict(zip(CASE_COLUMNS, entry.case.as_row(), strict=True))
            unit = stored_vector(entry.vector, model.dimension)
            parts = pieces_of_case(entry.case.case_id, checked_thumbnails(entry.thumbnails), entry.patch)
            date = (created or {}).get(entry.case.case_id, today)
            rows.append(row_without_vector({**fields, "created": date, "pieces": len(parts)}))
            vectors.append(
                {"case_id": entry.case.case_id, **{n: fields[n] for n in FILTER_FIELDS}, "vector": unit.tolist()}
            )
            pieces += parts
        # What an upload before this one left half goes first.
        self._pieces.delete_of_cases(ids)
        self._pieces.insert(pieces)
        self._vectors(model_sha256).insert(vectors)
        if by is not None:
            self.note_changes([Change.now(case_id, by, ADDED) for case_id in ids])
        self._cases.insert(rows)
        return len(given)

    def update(self, case: Case, *, by: str = "") -> str:
        """Put other texts and attributes in the place of a case's; which they are, as `changed_fields` says it.

        Written again as a whole even where nothing differs, so that one that was broken off is mended by doing it again.
        """
        changed = changed_fields(self.case(case.case_id), case)
        (row,) = self._cases.get([case.case_id], ["created", "pieces"])
        fields = dict(zip(CASE_COLUMNS, case.as_row(), strict=True))
        if changed:
            self.note_changes([Change.now(case.case_id, by, changed)])
        for model in self.models():  # searches are filtered by what stands beside the vectors
            vectors = self._vectors(model.identity.sha256)
            filtered = {name: fields[name] for name in FILTER_FIELDS}
            vectors.insert([{**found, **filtered} for found in vectors.get([case.case_id], ["vector"])])
        self._cases.insert([row_without_vector({**fields, "created": row["created"], "pieces": row["pieces"]})])
        return changed

    def note_changes(self, changes: Iterable[Change]) -> None:
        """Keep what was done to cases where they were before; what is kept already is not kept twice."""
        rows = [{"piece_id": _change_name(change), "about": json.dumps([*vars(change).values()])} for change in changes]
        same = {"case_id": "", "kind": "change", "place": -1, "data": ""}
        self._pieces.insert([row_without_vector({**row, **same}) for row in rows])

    def set_property(self, name: str, value: str) -> None:
        """Note something of the library as a whole, in the place of what was noted under that name."""
        with plain_server_errors(self.address):
            create_properties(self._client, self.address.library)
        self._properties.insert([row_without_vector({"name": name, "value": value})])

    def add_vectors(self, vectors: Mapping[str, Any], *, model: ModelIdentity) -> None:
        """The vectors of cases that are there by another model, by case id."""
        found = {case.case_id: case for case in self._whole(list(vectors))}
        if set(found) != set(vectors):
            raise unknown_case(sorted(set(vectors) - set(found))[0])
        dimension = len(next(iter(vectors.values())))
        self.add_model(model, dimension)
        rows = [
            {
                "case_id": case_id,
                **{name: getattr(found[case_id], name) for name in FILTER_FIELDS},
                "vector": stored_vector(vector, dimension).tolist(),
            }
            for case_id, vector in vectors.items()
        ]
        self._vectors(model.sha256).insert(rows)

    def remove(self, case_id: str, *, by: str | None = "") -> None:
        """Remove a case with all that belongs to it; from the first step on nobody sees it any more."""
        self.case(case_id)
        if by is not None:
            self.note_changes([Change.now(case_id, by, REMOVED)])
        self._cases.delete([case_id])
        for model in self.models():
            self._vectors(model.identity.sha256).delete([case_id])
        self._pieces.delete_of_cases([case_id])

    def remove_many(self, case_ids: Sequence[str], *, by: str = "") -> None:
        """Remove several cases; none where one of them is not there."""
        for case_id in case_ids:
            self.case(case_id)
        for case_id in case_ids:
            self.remove(case_id, by=by)

    def _put_last(self, model: ModelIdentity, dimension: int) -> None:
        place = max((int(row["place"]) for row in self._models.all(["place"])), default=0) + 1
        values = {"sha256": model.sha256, "name": model.name, "version": model.version}
        self._models.insert([row_without_vector({**values, "dimension": dimension, "place": place})])
