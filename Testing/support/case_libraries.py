"""Case libraries of four numbers a vector, and cases to fill them with: what tests of the library share."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
from LesionRetrievalLib.library.cases import Case, ModelIdentity, Neighbour
from LesionRetrievalLib.library.pseudonyms import Pseudonymiser
from LesionRetrievalLib.library.store import CaseLibrary

MODEL = ModelIdentity("orthopatch", "1.2.0", "a" * 64)
OTHER_SHA256 = "b" * 64
PSEUDONYMISER = Pseudonymiser(bytes(range(32)))


def a_case(case_id: str = "case-1", *, patient: str = "P1", label: str = "metastasis", **changes) -> Case:
    """A case of the liver with hashed patient and study, changed as wanted."""
    case = Case(
        case_id=case_id,
        label=label,
        label_source="histology",
        organ="liver",
        patient_hash=PSEUDONYMISER.hash(patient),
        study_hash=PSEUDONYMISER.hash(f"{patient}-study", domain="study"),
    )
    return replace(case, **changes)


def a_library_at(path: Path, dimension: int = 4) -> CaseLibrary:
    """A new, empty library of `MODEL`."""
    return CaseLibrary.create(path, model=MODEL, dimension=dimension)


def random_cases(count: int, dimension: int, *, seed: int = 0) -> list[tuple[Case, np.ndarray]]:
    """Cases of three a patient, each with its vector."""
    vectors = np.random.default_rng(seed).standard_normal((count, dimension)).astype(np.float32)
    return [(a_case(f"c{i:05}", patient=f"P{i // 3}"), vectors[i]) for i in range(count)]


def ids(neighbours: Iterable[Neighbour]) -> list[str]:
    """The case ids, in their order."""
    return [neighbour.case_id for neighbour in neighbours]


def search(library: CaseLibrary, vector: object = (1, 0, 0, 0), **options) -> list[Neighbour]:
    """A search with vectors of `MODEL`."""
    return library.search(vector, model_sha256=MODEL.sha256, **options)
