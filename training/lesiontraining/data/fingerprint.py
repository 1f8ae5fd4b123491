"""A short name of a set of lesions and its split, for manifests: the same data and split, the same 64 digits."""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import sha256


def data_fingerprint(lesion_ids: Sequence[str], labels: Sequence[str], splits: Sequence[str]) -> str:
    """SHA-256 of the sorted (lesion, label, split): the order of rows and where files lie make no difference."""
    rows = sorted([str(a), str(b), str(c)] for a, b, c in zip(lesion_ids, labels, splits, strict=True))
    return sha256(json.dumps(rows, separators=(",", ":")).encode()).hexdigest()
