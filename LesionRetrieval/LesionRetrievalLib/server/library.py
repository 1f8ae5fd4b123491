"""What can be asked of a library on a server without changing it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from LesionLib.errors import CaseLibraryError

from .library_filter import SearchFilter
from .library_patch import HuPatch
from .library_schema import (
    CASE_COLUMNS,
    Case,
    IndexedModel,
    ModelIdentity,
    Neighbour,
    case_fields,
    checked_case_id,
    unit_vector,
)
from .milvus_connection import ServerAddress, connected, plain_server_errors
from .milvus_records import patch_from, pictures_from
from .milvus_rows import Collection
from .milvus_schema import cases_of, create_library, models_of, pieces_of, vectors_of
from .milvus_search import MOST_ANSWERS, MilvusSearch


class MilvusReading:
    """The reading half of `MilvusLibrary`."""

    def __init__(self, address: ServerAddress) -> None:
        self.address = address
        self._client = connected(address)
        library = address.library
        with plain_server_errors(address):
            if not self._client.has_collection(cases_of(library)):
                msg = f"There is no library {library!r} on {address.host}:{address.port}; push one there, or check its name."
                raise CaseLibraryError(msg)
            create_library(self._client, library)
        self._models = Collection(self._client, address, models_of(library), "sha256")
        self._cases = Collection(self._client, address, cases_of(library), "case_id")
        self._pieces = Collection(self._client, address, pieces_of(library), "piece_id")

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
        return [
            IndexedModel(
                ModelIdentity(row["name"], row["version"], row["sha256"]),
                int(row["dimension"]),
                self._vectors(row["sha256"]).count(),
                False,
            )
            for row in rows
        ]

    def require_model(self, sha256: str) -> ModelIdentity:
        """The model ``sha256``; `CaseLibraryError` naming it and the library's where it cannot be searched with."""
        return self._indexed(sha256).identity

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
        """For every case, in order of ids, which of ``pictures`` and ``patch`` it has."""
        kinds: dict[str, set[str]] = {row["case_id"]: set() for row in self._cases.all(["case_id"])}
        for row in self._pieces.where("place == 0", ["case_id", "kind"]):
            kinds.get(row["case_id"], set()).add("pictures" if row["kind"].startswith("picture") else "patch")
        return {i: tuple(kind for kind in ("pictures", "patch") if kind in kinds[i]) for i in sorted(kinds)}

    def labels(self) -> dict[str, int]:
        """How many cases there are of each label, ordered by label."""
        found = [row["label"] for row in self._cases.all(["label"])]
        return {label: found.count(label) for label in sorted(set(found))}

    def pictures(self, case_id: str) -> dict[str, np.ndarray]:
        """The case's pictures, plane to uint8 grey (height, width)."""
        self.case(case_id)
        return pictures_from(case_id, self._pieces.of_case(case_id))

    def patch(self, case_id: str) -> HuPatch | None:
        """The CT around the case's lesion, if it holds one."""
        self.case(case_id)
        return patch_from(case_id, self._pieces.of_case(case_id))

    def vector(self, case_id: str, *, model_sha256: str) -> np.ndarray:
        """The case's vector by one model, float32, of length 1."""
        self.case(case_id)
        model = self._indexed(model_sha256)
        rows = self._vectors(model_sha256).get([case_id], ["vector"])
        if not rows:
            msg = f"Case {case_id!r} was never embedded by {model.identity}; reindex the library it came from, and push it again."
            raise CaseLibraryError(msg)
        return np.array(rows[0]["vector"], dtype=np.float32)

    def vectors(self, case_ids: Sequence[str], *, model_sha256: str) -> dict[str, np.ndarray]:
        """Those of these cases' vectors by one model that there are, float32, by case id."""
        self._indexed(model_sha256)
        rows = self._vectors(model_sha256).get(list(case_ids), ["vector"])
        return {row["case_id"]: np.array(row["vector"], dtype=np.float32) for row in rows}

    def search(self, vector: Any, *, k: int = 9, model_sha256: str, **filters: Any) -> list[Neighbour]:
        """The ``k`` most similar cases that the filters leave, best first, equal ones in the order of their ids.

        The server's float32 order is only a first one: similarities are computed again here, in float64, as a library in a
        file does. Of more than 16,000 equally similar cases at the ``k``-th place, which come is the server's choice.
        """
        model = self._indexed(model_sha256)
        if not isinstance(k, int) or isinstance(k, bool) or not 1 <= k <= MOST_ANSWERS:
            msg = f"k is {k!r}; give a whole number from 1 to {MOST_ANSWERS}: more the server does not answer."
            raise CaseLibraryError(msg)
        wanted = SearchFilter(**filters)
        query = unit_vector(vector, model.dimension)
        return MilvusSearch(self._cases, self._vectors(model_sha256)).nearest(query, k, wanted)

    def _indexed(self, sha256: str) -> IndexedModel:
        rows = self._models.all(["sha256", "name", "version", "dimension", "place"])
        for row in rows:
            if row["sha256"] == sha256:
                return IndexedModel(ModelIdentity(row["name"], row["version"], sha256), int(row["dimension"]), 0, False)
        known = " and ".join(str(ModelIdentity(row["name"], row["version"], row["sha256"])) for row in rows)
        msg = (
            f"This library was made with {known or 'no model yet'}, not with the model sha256 {str(sha256)[:12]}…; "
            "search with that model, reindex the library with this one, or build the library again."
        )
        raise CaseLibraryError(msg)

    def _whole(self, ids: Sequence[str]) -> list[Case]:
        return [_as_case(row) for row in self._cases.get(ids, list(CASE_COLUMNS))]

    def _vectors(self, sha256: str) -> Collection:
        return Collection(self._client, self.address, vectors_of(self.address.library, sha256), "case_id")


def _as_case(row: Mapping[str, Any]) -> Case:
    return Case(**case_fields(tuple(row[name] for name in CASE_COLUMNS)))


def unknown_case(case_id: str) -> CaseLibraryError:
    """The error for a case that is not there."""
    return CaseLibraryError(f"Case {case_id!r} is not in this library; cases() lists what is.")
