"""What readers think of the cases they were shown: "not similar", kept as lines of JSON, without whose lesion it was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from LesionLib.errors import OutputError
from LesionLib.io.private_files import open_private, private_folder

from LesionRetrievalLib.library.pseudonyms import settings_folder

_SUFFIX = ".feedback.jsonl"
_NOT_SIMILAR, _WITHDRAWN = "not similar", "withdrawn"


def query_fingerprint(embedding: np.ndarray) -> str:
    """32 hexadecimal characters that are the same for the same box, CT and model, and lead back to none of them.

    Rounded to a thousandth, so that the last bits of another computer's arithmetic hardly ever change it.
    """
    rounded = np.round(np.asarray(embedding, dtype=np.float64), 3) + 0.0
    return hashlib.sha256(rounded.astype("<f4").tobytes()).hexdigest()[:32]


@dataclass(frozen=True)
class Query:
    """What was asked: the lesion's fingerprint, the model's SHA-256 and the library's file name."""

    fingerprint: str
    model_sha256: str
    library: str


class FeedbackLog:
    """A file to which lines are only ever added: what is taken back gets a line that says so.

    It lies beside the library, or in the user's own folder where nothing can be written there.
    """

    def __init__(self, library_path: Path, *, own_folder: Path | None = None) -> None:
        own = (own_folder or settings_folder() / "feedback") / (library_path.name + _SUFFIX)
        self._paths = (library_path.with_name(library_path.name + _SUFFIX), own)

    @property
    def paths(self) -> tuple[Path, ...]:
        return tuple(path for path in self._paths if path.is_file())

    def mark(self, query: Query, case_id: str) -> Path:
        """Note that a case is not similar; returns the file. Raises `OutputError` where neither place can be written."""
        return self._append(query, case_id, _NOT_SIMILAR)

    def withdraw(self, query: Query, case_id: str) -> Path:
        """Take `mark` back."""
        return self._append(query, case_id, _WITHDRAWN)

    def marked(self, query: Query) -> set[str]:
        """The ids of the cases that are marked for this query. Lines that are damaged are passed over."""
        found: set[str] = set()
        for entry in sorted(self._of(query), key=lambda entry: entry["step"]):
            (found.add if entry["verdict"] == _NOT_SIMILAR else found.discard)(entry["case"])
        return found

    def _append(self, query: Query, case_id: str, verdict: str) -> Path:
        entry = {
            # A date without a time: the minute could be matched with a hospital's logs. So steps tell the order.
            "date": datetime.now(UTC).date().isoformat(),
            "step": 1 + max((entry["step"] for entry in self._of(query)), default=0),
            "verdict": verdict,
            "query": query.fingerprint,
            "case": case_id,
            "library": query.library,
            "modelSha256": query.model_sha256,
        }
        line = (json.dumps(entry) + "\n").encode()
        for path in self._paths:
            try:
                private_folder(path.parent)
                with open_private(path, "ab") as file:
                    file.write(line)
            except OSError:
                continue
            return path
        msg = f"the feedback can be written neither to {self._paths[0]} nor to {self._paths[1]}."
        raise OutputError(msg)

    def _of(self, query: Query) -> list[dict[str, Any]]:
        wanted = (query.fingerprint, query.model_sha256)
        return [entry for entry in self._entries() if (entry["query"], entry["modelSha256"]) == wanted]

    def _entries(self) -> Iterator[dict[str, Any]]:
        for path in self.paths:
            try:
                lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            except OSError:
                continue
            for line in lines:
                entry = _entry(line)
                if entry is not None:
                    yield entry


def _entry(line: str) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    names = ("date", "verdict", "query", "case", "modelSha256")
    is_whole = isinstance(entry, dict) and all(isinstance(entry.get(name), str) for name in names)
    return entry if is_whole and isinstance(entry.get("step"), int) else None
