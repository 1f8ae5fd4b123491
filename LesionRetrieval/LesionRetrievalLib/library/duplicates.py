"""The same lesion a second time, found by its content: what it is called says nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from LesionLib.errors import CaseLibraryError

from LesionRetrievalLib.library.arrays import array_bytes
from LesionRetrievalLib.library.cases import CaseEntry, CaseStore, stored_vector
from LesionRetrievalLib.library.patches import HuPatch

# The same box on the same CT, embedded on another machine, differs in the last bits only.
_SAME = 1.0 - 1e-6
_LOOKED_AT = 5


def require_new(library: CaseStore, entries: Sequence[CaseEntry], *, model_sha256: str) -> None:
    """Refuse lesions that the library holds already, or that are given twice (`CaseLibraryError`).

    Of two lesions that the model embeds alike, the CT around them decides, where the library keeps it.
    """
    for place, entry in enumerate(entries):
        twin = next((other for other in entries[:place] if _are_same(other, entry)), None)
        if twin is not None:
            msg = f"Two of the lesions are the very same ({twin.case.case_id} and {entry.case.case_id}); give it once."
            raise CaseLibraryError(msg)
        there = same_lesion(library, entry, model_sha256=model_sha256)
        if there is not None:
            case = library.case(there)
            answer = "" if case.label == entry.case.label else ", with another answer"
            msg = (
                f"This very lesion is in the library already, as case {there} ({case.label}){answer}; nothing was added. "
                "Leave it out, or remove that case first (lesionlens library add --allow-duplicates adds it all the same)."
            )
            raise CaseLibraryError(msg)


def same_lesion(library: CaseStore, entry: CaseEntry, *, model_sha256: str) -> str | None:
    """The id of the case that is this very lesion, if the library holds it. Raises `CaseLibraryError`."""
    if not len(library):
        return None
    for found in library.search(entry.vector, k=_LOOKED_AT, model_sha256=model_sha256):
        if found.similarity >= _SAME and not _differ(library.patch(found.case_id), entry.patch):
            return found.case_id
    return None


@dataclass(frozen=True)
class LesionDigests:
    """What two lesions of one process have in common where they are the same: ``vector`` and, where it is kept, ``ct``."""

    vector: str
    ct: str | None

    @classmethod
    def of(cls, entry: CaseEntry) -> LesionDigests:
        """Digests: patches would not fit into memory."""
        ct = None if entry.patch is None else _digest(entry.patch.volume.array)
        return cls(_digest(stored_vector(entry.vector, len(entry.vector))), ct)


class Repeats:
    """Lesions in their order, to find one that comes again: the same lesion has the same vector to the last bit."""

    def __init__(self) -> None:
        self._known: dict[str, list[tuple[str, str | None]]] = {}

    def earlier(self, digests: LesionDigests) -> str | None:
        """The id of the case that is the same lesion, if there was one."""
        alike = self._known.get(digests.vector, ())
        return next((i for i, ct in alike if None in (ct, digests.ct) or ct == digests.ct), None)

    def take(self, case_id: str, digests: LesionDigests) -> None:
        """One more, to be told from those that come."""
        self._known.setdefault(digests.vector, []).append((case_id, digests.ct))


def _digest(array: np.ndarray) -> str:
    return hashlib.sha256(array_bytes(array)).hexdigest()


def _are_same(one: CaseEntry, other: CaseEntry) -> bool:
    vectors = (stored_vector(each.vector, len(each.vector)).astype(np.float64) for each in (one, other))
    return float(np.dot(*vectors)) >= _SAME and not _differ(one.patch, other.patch)


def _differ(one: HuPatch | None, other: HuPatch | None) -> bool:
    """Whether two patches show different CTs; where one is missing, that is not known."""
    return one is not None and other is not None and not np.array_equal(one.volume.array, other.volume.array)
