"""DICOM codes that a model's manifest names: of a score, of the place in the body that its lesions lie in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

_SHORT = {"type": "string", "pattern": r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,15}\Z"}
CODE_SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["scheme", "value", "meaning"],
    "properties": {
        "scheme": _SHORT,
        "value": _SHORT,
        # One line with something on it, and nothing that moves a terminal's cursor.
        "meaning": {
            "type": "string",
            "maxLength": 64,
            "pattern": r"^[^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*\Z",
        },
    },
}


@dataclass(frozen=True)
class DicomCode:
    """A DICOM code: coding scheme designator, code value and code meaning."""

    scheme: str
    value: str
    meaning: str

    def to_json(self) -> dict[str, str]:
        """As a manifest has it."""
        return asdict(self)


def code_from_json(values: Mapping[str, Any] | None) -> DicomCode | None:
    """An entry of a checked manifest; None where it has none. Raises TypeError for what is no code."""
    return None if values is None else DicomCode(**values)
