"""How a model's answers are explained: for which class its maps are, how they are made, and what has to be said of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

MapMethod = Literal["grad_cam", "occlusion"]
PREDICTED_CLASS = "predicted"
EXPLANATION_SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "class": {
            "type": "string", "minLength": 1, "maxLength": 64,
            "description": f"whose map is shown unasked: a class, or {PREDICTED_CLASS!r}, which is also meant where it is left out",
        },
        "method": {"enum": ["grad_cam", "occlusion"], "description": "left out: grad_cam"},
        "note": {
            "type": "string", "maxLength": 500, "pattern": r"^[^\x00-\x1f\x7f-\x9f]*\Z",
            "description": "said beside every map by this method: that it is no better than chance, where it is not",
        },
    },
}  # fmt: skip
METHOD_NAMES: Mapping[str, str] = {"grad_cam": "Grad-CAM", "occlusion": "occlusion map"}


@dataclass(frozen=True)
class Explanation:
    """``class_name``: whose map is shown unasked; None: of the class that is answered. ``note``: "" where none is needed."""

    class_name: str | None = None
    method: MapMethod = "grad_cam"
    note: str = ""


def explanation_of(section: Mapping[str, Any], class_names: Sequence[str]) -> Explanation:
    """From the ``explanation`` of a checked manifest; without one, Grad-CAM of the answer. Raises ValueError."""
    chosen = section.get("class", PREDICTED_CLASS)
    if chosen not in (PREDICTED_CLASS, *class_names):
        msg = (
            f"its maps are to explain the class {chosen!r}; it knows {', '.join(class_names) or 'none'}, "
            f"or write {PREDICTED_CLASS!r}"
        )
        raise ValueError(msg)
    name = None if chosen == PREDICTED_CLASS else chosen
    return Explanation(name, section.get("method", "grad_cam"), section.get("note", ""))
