"""What every case library can do, wherever its cases lie; `CaseLibrary` keeps them in one file on this computer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from .library_patch import HuPatch
from .library_schema import Case, CaseEntry, IndexedModel, ModelIdentity, Neighbour


@runtime_checkable
class CaseStore(Protocol):
    """Known lesions with their vectors, searched exactly by cosine. Faults are `LesionLib.errors.CaseLibraryError`."""

    @property
    def model(self) -> ModelIdentity:
        """The model that its vectors are by; of several, the last."""

    def __len__(self) -> int:
        """How many cases it holds."""

    def models(self) -> list[IndexedModel]:
        """Every model it was indexed with."""

    def require_model(self, sha256: str) -> ModelIdentity:
        """The model ``sha256``, or an error naming those it can be searched with."""

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

    def add_many(
        self, entries: Iterable[CaseEntry | tuple], *, model_sha256: str, created: Mapping[str, str] | None = None
    ) -> int:
        """Add several cases, all or none; how many. ``created``: dates by case id, for cases from another library."""

    def remove(self, case_id: str) -> None:
        """Remove a case with all that belongs to it."""

    def case(self, case_id: str) -> Case:
        """One case."""

    def cases(self) -> list[Case]:
        """All cases, ordered by case id."""

    def created(self) -> dict[str, str]:
        """The date on which each case was entered, by case id."""

    def contents(self) -> dict[str, tuple[str, ...]]:
        """What the cases have besides their fields, such as pictures, by case id."""

    def labels(self) -> dict[str, int]:
        """How many cases there are of each label."""

    def pictures(self, case_id: str) -> dict[str, np.ndarray]:
        """The case's pictures, plane to uint8 grey (height, width)."""

    def patch(self, case_id: str) -> HuPatch | None:
        """The CT around the case's lesion, if it holds one."""

    def vector(self, case_id: str, *, model_sha256: str) -> np.ndarray:
        """The case's vector by one model."""

    def vectors(self, case_ids: Sequence[str], *, model_sha256: str) -> dict[str, np.ndarray]:
        """Those of these cases' vectors by one model that there are, float32, by case id."""

    def search(self, vector: Any, *, k: int = 9, model_sha256: str, **filters: Any) -> list[Neighbour]:
        """The ``k`` most similar cases that the filters (fields of `SearchFilter`) leave, best first, ties by case id."""

    def __enter__(self) -> CaseStore:
        """Itself."""

    def __exit__(self, *exception: object) -> None:
        """Close it."""

    def close(self) -> None:
        """Let go of it."""
