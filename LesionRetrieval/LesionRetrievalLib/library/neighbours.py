"""The most similar cases of a library for each answered lesion, and their vote beside what the model says.

The vote is what the most similar cases turned out to be.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from LesionLib.errors import WarningName
from LesionLib.inference.results import LesionResult, SimilarCase, abstention_sentence

from LesionRetrievalLib.library.cases import CaseStore, Neighbour
from LesionRetrievalLib.library.store import CaseLibrary


@dataclass(frozen=True)
class NeighbourVote:
    """The share of each label among the cases found, weighted by similarity; strongest first, sums to 1.

    ``counts``: how many cases have each label. Both are empty where nothing was found.
    """

    shares: Mapping[str, float]
    counts: Mapping[str, int]

    @property
    def top(self) -> str:
        """The label with the largest share; "" where nothing was found."""
        return next(iter(self.shares), "")

    @property
    def total(self) -> int:
        """How many cases voted."""
        return sum(self.counts.values())


def neighbour_vote(neighbours: Sequence[Neighbour]) -> NeighbourVote:
    """Every case votes for its label with its cosine similarity; one that is not similar at all (below 0) with nothing.

    Where no case is similar, each counts alike. Of equal shares the label of the more similar case comes first.
    """
    counts = Counter(neighbour.label for neighbour in neighbours)
    weights = [max(neighbour.similarity, 0.0) for neighbour in neighbours]
    if not sum(weights):
        weights = [1.0] * len(neighbours)
    shares = dict.fromkeys(counts, 0.0)
    for neighbour, weight in zip(neighbours, weights, strict=True):
        shares[neighbour.label] += weight / sum(weights)
    ordered = sorted(shares.items(), key=lambda item: -item[1])  # stable: labels come in the order of their best case
    return NeighbourVote(dict(ordered), {label: counts[label] for label, _ in ordered})


def nearest_other_class(
    library: CaseStore, vector: object, label: str, *, model_sha256: str, filters: Mapping[str, object] | None = None
) -> Neighbour | None:
    """The most similar case that is not ``label``: what else this might have been. None where the library has no other.

    ``filters``: those of the search; one by label is passed over.
    """
    kept = {name: value for name, value in (filters or {}).items() if name != "label"}
    best: Neighbour | None = None
    for other in library.labels():
        if other != label:
            found = library.search(vector, k=1, model_sha256=model_sha256, label=other, **kept)
            if found and (best is None or found[0].similarity > best.similarity):
                best = found[0]
    return best


def agreement_text(
    vote: NeighbourVote, probabilities: Mapping[str, float] | None, *, abstention: Sequence[WarningName] = ()
) -> str:
    """Whether the cases found and the model say the same, in plain words.

    ``abstention``: why the model has no answer. Then the cases do not vote either: they are found by the same features.
    """
    if abstention:
        return (
            f"{abstention_sentence(abstention)} So the cases found do not vote: they are only what looks least unlike."
        )
    if not vote.shares:
        return "No case was found, so there is no vote."
    top = vote.top
    among = f"{vote.counts[top]} of the {vote.total} cases are {top}"
    if not probabilities:
        return f"{among}. This model only compares lesions: it gives no probability of its own."
    predicted = max(probabilities, key=probabilities.__getitem__)
    text = f"the model says {predicted} (p = {probabilities[predicted]:.2f})"
    if set(vote.shares).isdisjoint(probabilities):
        return f"{among}; {text}. The library and the model use different names, so the two cannot be compared."
    if predicted == top:
        return f"Cases and model agree: {among}, and {text}."
    return f"Cases and model disagree: {among}, but {text}. Look at both before you believe either."


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
