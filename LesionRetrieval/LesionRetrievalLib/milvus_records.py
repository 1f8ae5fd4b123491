"""Pictures and HU patches as pieces of text, and back: `library_codec`'s very rows, in base64."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from LesionLib.errors import CaseLibraryError

from .library_codec import box_row, decoded_patch, part_rows
from .library_patch import HuPatch
from .library_schema import MAX_PICTURE_SIDE, PLANES
from .milvus_schema import TEXT_BYTES, row_without_vector
from .packed_arrays import PackedArrayError, packed, unpacked

_PATCH_BOX, _PATCH, _PICTURE = "patch box", "patch ", "picture "


def pieces_of_case(case_id: str, pictures: Mapping[str, np.ndarray], patch: HuPatch | None) -> list[dict[str, Any]]:
    """The rows of all that a case has besides its fields."""
    rows = []
    for plane, grey in pictures.items():
        rows += _pieces(case_id, _PICTURE + plane, list(grey.shape), packed(grey))
    if patch is not None:
        rows += _pieces(case_id, _PATCH_BOX, list(box_row(patch)), b"")
        for part, *about, content in part_rows(patch):
            rows += _pieces(case_id, _PATCH + part, about, content)
    return rows


def pictures_from(case_id: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Plane to uint8 grey (height, width). Raises `CaseLibraryError` where pieces are missing or damaged."""
    found = {}
    for kind, about, content in _joined(case_id, rows):
        if kind.startswith(_PICTURE):
            plane, (height, width) = kind.removeprefix(_PICTURE), about
            if plane not in PLANES or not (0 < height <= MAX_PICTURE_SIDE and 0 < width <= MAX_PICTURE_SIDE):
                raise _damaged(case_id)
            try:
                found[plane] = unpacked(content, dtype="uint8", shape=(height, width), most=MAX_PICTURE_SIDE**2)
            except PackedArrayError as error:
                raise _damaged(case_id) from error
    return dict(sorted(found.items()))


def patch_from(case_id: str, rows: Sequence[Mapping[str, Any]]) -> HuPatch | None:
    """The CT around the lesion, None where there is none. Raises `CaseLibraryError`."""
    box, parts = None, []
    for kind, about, content in _joined(case_id, rows):
        if kind == _PATCH_BOX:
            box = tuple(about)
        elif kind.startswith(_PATCH):
            parts.append((kind.removeprefix(_PATCH), *about, content))
    return None if box is None else decoded_patch(case_id, box, parts)


def _pieces(case_id: str, kind: str, about: list[Any], content: bytes) -> list[dict[str, Any]]:
    text = base64.b64encode(content).decode("ascii")
    parts = [text[start : start + TEXT_BYTES] for start in range(0, len(text), TEXT_BYTES)] or [""]
    header = json.dumps({"about": about, "parts": len(parts)})
    return [
        row_without_vector(
            {
                "piece_id": f"{case_id} {kind} {place}",
                "case_id": case_id,
                "kind": kind,
                "about": header,
                "place": place,
                "data": part,
            }
        )
        for place, part in enumerate(parts)
    ]


def _joined(case_id: str, rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[Any], bytes]]:
    kinds: dict[str, dict[int, Mapping[str, Any]]] = {}
    for row in rows:
        kinds.setdefault(row["kind"], {})[row["place"]] = row
    found = []
    try:
        for kind, parts in sorted(kinds.items()):
            header = json.loads(parts[0]["about"])
            text = "".join(parts[place]["data"] for place in range(header["parts"]))
            found.append((kind, header["about"], base64.b64decode(text, validate=True)))
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise _damaged(case_id) from error
    return found


def _damaged(case_id: str) -> CaseLibraryError:
    return CaseLibraryError(
        f"Case {case_id!r}: its pictures or patch on the server are damaged; remove it and push it again."
    )
