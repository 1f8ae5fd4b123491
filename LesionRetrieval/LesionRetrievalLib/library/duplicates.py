"""The same lesion a second time, found by its content: what it is called says nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence

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


def without_repeats(entries: Iterable[CaseEntry], notify: Callable[[str, str], None]) -> Iterator[CaseEntry]:
    """The entries but those that are an earlier one again; ``notify(case id, id of the earlier one)`` is called for each."""
    known: dict[bytes, list[tuple[str, bytes | None]]] = {}
    for entry in entries:
        # In one process the same lesion has the same vector to the last bit. Digests: patches would not fit into memory.
        alike = known.setdefault(_digest(stored_vector(entry.vector, len(entry.vector))), [])
        ct = None if entry.patch is None else _digest(entry.patch.volume.array)
        earlier = next((case_id for case_id, other in alike if None in (ct, other) or ct == other), None)
        if earlier is not None:
            notify(entry.case.case_id, earlier)
            continue
        alike.append((entry.case.case_id, ct))
        yield entry


def _digest(array: np.ndarray) -> bytes:
    return hashlib.sha256(array_bytes(array)).digest()


def _are_same(one: CaseEntry, other: CaseEntry) -> bool:
    vectors = (stored_vector(each.vector, len(each.vector)).astype(np.float64) for each in (one, other))
    return float(np.dot(*vectors)) >= _SAME and not _differ(one.patch, other.patch)


def _differ(one: HuPatch | None, other: HuPatch | None) -> bool:
    """Whether two patches show different CTs; where one is missing, that is not known."""
    return one is not None and other is not None and not np.array_equal(one.volume.array, other.volume.array)
