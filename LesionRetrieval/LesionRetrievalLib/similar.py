"""The most similar cases of a library for each answered lesion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from LesionLib.results import LesionResult, SimilarCase

from .library import CaseLibrary, Neighbour


def find_similar(
    results: Sequence[LesionResult],
    library: CaseLibrary,
    *,
    model_sha256: str,
    k: int = 9,
    exclude_patient: str | None = None,
) -> tuple[list[LesionResult], list[list[Neighbour]]]:
    """The results with their similar cases, and the neighbours in full, one list a result, best first.

    Raises `CaseLibraryError` where the library was made with another model.
    """
    library.require_model(model_sha256)
    neighbours = [
        library.search(result.embedding, k=k, model_sha256=model_sha256, exclude_patient=exclude_patient)
        for result in results
    ]
    with_cases = [
        replace(result, similar_cases=tuple(SimilarCase(n.case_id, n.label, n.similarity) for n in found))
        for result, found in zip(results, neighbours, strict=True)
    ]
    return with_cases, neighbours
