"""A case library on a Milvus server, for a department that outgrows one file; searched exactly, by cosine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np
from LesionLib.errors import CaseLibraryError

from .library_patch import HuPatch
from .library_schema import CASE_COLUMNS, Case, CaseEntry, ModelIdentity, checked_pictures, stored_vector
from .milvus_connection import ServerAddress, connected, plain_server_errors
from .milvus_reading import MilvusReading, unknown_case
from .milvus_records import pieces_of_case
from .milvus_schema import FILTER_FIELDS, create_library, create_vectors, row_without_vector

MOST_CASES_AT_ONCE = 2_000


class MilvusLibrary(MilvusReading):
    """`library_protocol.CaseStore` on a server. Faults are `CaseLibraryError`; use it as a context manager.

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
            create_library(client, where.library)
        library = cls(where)
        library.add_model(model, dimension)
        return library

    def add_model(self, model: ModelIdentity, dimension: int) -> None:
        """Make room for vectors of a model; nothing where there is."""
        if not self._models.having([model.sha256]):
            with plain_server_errors(self.address):
                create_vectors(self._client, self.address.library, model.sha256, dimension)
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
        pictures: Mapping[str, np.ndarray] | None = None,
        patch: HuPatch | None = None,
        created: str | None = None,
    ) -> None:
        """Add one case, wholly or not at all; ``created``: its date, for one from another library."""
        dates = {case.case_id: created} if created else None
        self.add_many([CaseEntry(case, vector, pictures, patch)], model_sha256=model_sha256, created=dates)

    def add_many(
        self, entries: Iterable[CaseEntry | tuple], *, model_sha256: str, created: Mapping[str, str] | None = None
    ) -> int:
        """Add up to 2,000 cases, all or none; ``created``: their dates where they were made elsewhere."""
        model = self._indexed(model_sha256)
        given = [CaseEntry(*entry) for entry in entries]
        ids = [entry.case.case_id for entry in given]
        if len(given) > MOST_CASES_AT_ONCE:
            msg = f"{len(given)} cases at once are too many for the server; give at most {MOST_CASES_AT_ONCE}."
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
            parts = pieces_of_case(entry.case.case_id, checked_pictures(entry.pictures), entry.patch)
            date = (created or {}).get(entry.case.case_id, today)
            rows.append(row_without_vector({**fields, "created": date, "pieces": len(parts)}))
            vectors.append(
                {"case_id": entry.case.case_id, **{n: fields[n] for n in FILTER_FIELDS}, "vector": unit.tolist()}
            )
            pieces += parts
        # What an upload before this one left half goes first.
        self._pieces.delete_of_cases(ids)
        self._pieces.insert(pieces)
        self._vectors(model_sha256).upsert(vectors)
        self._cases.insert(rows)
        return len(given)

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
        self._vectors(model.sha256).upsert(rows)

    def remove(self, case_id: str) -> None:
        """Remove a case with all that belongs to it; from the first step on nobody sees it any more."""
        self.case(case_id)
        self._cases.delete([case_id])
        for model in self.models():
            self._vectors(model.identity.sha256).delete([case_id])
        self._pieces.delete_of_cases([case_id])

    def _put_last(self, model: ModelIdentity, dimension: int) -> None:
        place = max((int(row["place"]) for row in self._models.all(["place"])), default=0) + 1
        values = {"sha256": model.sha256, "name": model.name, "version": model.version}
        self._models.upsert([row_without_vector({**values, "dimension": dimension, "place": place})])
