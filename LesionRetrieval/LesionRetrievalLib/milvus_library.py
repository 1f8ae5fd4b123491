"""A case library on a Milvus server, for a department that outgrows one file; searched exactly, by cosine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from LesionLib.errors import CaseLibraryError

from .library_patch import HuPatch
from .library_schema import Case, CaseEntry, ModelIdentity, stored_vector
from .milvus_connection import ServerAddress, connected, plain_server_errors
from .milvus_entries import rows_of
from .milvus_reading import MilvusReading, unknown_case
from .milvus_schema import FILTER_FIELDS, create_library, create_vectors, row_without_vector


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
        """The library at ``address``, made where it is not there yet. One of another model is refused (`CaseLibraryError`)."""
        where = ServerAddress.parse(address)
        client = connected(where)
        try:
            with plain_server_errors(where):
                create_library(client, where.library)
        finally:
            client.close()
        library = cls(where)
        try:
            if library.has_model():
                library.require_model(model.sha256)
            else:
                library.add_model(model, dimension)
        except BaseException:
            library.close()
            raise
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
        dates = {case.case_id: created} if created and isinstance(case, Case) else None
        self.add_many([CaseEntry(case, vector, pictures, patch)], model_sha256=model_sha256, created=dates)

    def add_many(
        self, entries: Iterable[CaseEntry | tuple], *, model_sha256: str, created: Mapping[str, str] | None = None
    ) -> int:
        """Add up to 2,000 cases, all or none; ``created``: their dates where they were made elsewhere."""
        model = self._indexed(model_sha256)
        rows = rows_of(entries, model, created or {})
        ids = [row["case_id"] for row in rows.cases]
        there = sorted(set(self._cases.having(ids)) | {i for i, times in Counter(ids).items() if times > 1})
        if there:
            msg = f"Case {there[0]!r} is in the library already; remove it first, or give another id."
            raise CaseLibraryError(msg)
        # What an upload before this one left half goes first.
        self._pieces.delete_of_cases(ids)
        self._pieces.write(rows.pieces)
        self._vectors(model_sha256).write(rows.vectors)
        self._cases.write(rows.cases)
        return len(ids)

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
        self._vectors(model.sha256).write(rows)

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
        self._models.write([row_without_vector({**values, "dimension": dimension, "place": place})])
