"""Rows of a library's collections on the server, and pictures and HU patches as pieces of text in them.

Rows are written in bites that the server takes, read to the end, in plain errors. Pieces are the very rows of a library in
a file (`library.patches.part_rows`), in base64.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from LesionLib.errors import CaseLibraryError

from LesionRetrievalLib.library.arrays import PackedArrayError, packed, unpacked
from LesionRetrievalLib.library.cases import MAX_THUMBNAIL_SIDE, PLANES, is_picture_shape
from LesionRetrievalLib.library.patches import HuPatch, box_row, decoded_patch, part_rows
from LesionRetrievalLib.server.connection import (
    TEXT_BYTES,
    ServerAddress,
    ServerUnreachableError,
    plain_server_errors,
    row_without_vector,
)

if TYPE_CHECKING:
    from pymilvus import MilvusClient


PATCH, PICTURE = "patch ", "picture "  # what the kinds of pieces begin with
_PATCH_BOX = f"{PATCH}box"


def pieces_of_case(case_id: str, thumbnails: Mapping[str, np.ndarray], patch: HuPatch | None) -> list[dict[str, Any]]:
    """The rows of all that a case has besides its fields."""
    rows = []
    for plane, grey in thumbnails.items():
        rows += _pieces(case_id, PICTURE + plane, list(grey.shape), packed(grey))
    if patch is not None:
        rows += _pieces(case_id, _PATCH_BOX, list(box_row(patch)), b"")
        for part, *about, content in part_rows(patch):
            rows += _pieces(case_id, PATCH + part, about, content)
    return rows


def pictures_from(case_id: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Plane to uint8 grey (height, width). Raises `CaseLibraryError` where pieces are missing or damaged."""
    found = {}
    for kind, about, content in _joined(case_id, rows):
        if kind.startswith(PICTURE):
            plane = kind.removeprefix(PICTURE)
            if plane not in PLANES or not is_picture_shape(about):
                raise _damaged(case_id)
            try:
                found[plane] = unpacked(content, dtype="uint8", shape=about, most=MAX_THUMBNAIL_SIDE**2)
            except PackedArrayError as error:
                raise _damaged(case_id) from error
    return dict(sorted(found.items()))


def patch_from(case_id: str, rows: Sequence[Mapping[str, Any]]) -> HuPatch | None:
    """The CT around the lesion, None where there is none. Raises `CaseLibraryError`."""
    box, parts = None, []
    for kind, about, content in _joined(case_id, rows):
        if kind.startswith(PATCH):  # the box, too
            if not isinstance(about, list):
                raise _damaged(case_id)
            if kind == _PATCH_BOX:
                box = tuple(about)
            else:
                parts.append((kind.removeprefix(PATCH), *about, content))
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


_MESSAGE_BYTES = 24 << 20  # the server takes 64 MB a message
_ROWS_AT_ONCE = 2_000
PIECES_AT_ONCE = 200  # of 64 KB each
_CASES_AT_ONCE = 50  # whose pieces are read together
_TIMEOUT_S = 60.0


@dataclass(frozen=True, eq=False)
class Collection:
    """Rows of one collection on the server: written in bites that it takes, read to the end, in plain errors.

    ``key``: the name of its primary key.
    """

    client: MilvusClient
    address: ServerAddress
    name: str
    key: str

    def count(self) -> int:
        with plain_server_errors(self.address):
            found = self.client.query(self.name, filter="", output_fields=["count(*)"], timeout=_TIMEOUT_S)
        return int(found[0]["count(*)"])

    def insert(self, rows: Sequence[dict[str, Any]]) -> None:
        """Write rows, in the place of those that have their keys; those of one message together or not at all.

        A message whose answer was lost may be sent again: nothing is there twice.
        """
        with plain_server_errors(self.address):
            for bite in _bites(rows):
                self.client.upsert(self.name, bite, timeout=_TIMEOUT_S)

    def delete(self, keys: Sequence[str]) -> None:
        """Remove the rows with these keys; those that are not there do not matter."""
        with plain_server_errors(self.address):
            for start in range(0, len(keys), _ROWS_AT_ONCE):
                self.client.delete(self.name, ids=list(keys[start : start + _ROWS_AT_ONCE]), timeout=_TIMEOUT_S)

    def delete_of_cases(self, case_ids: Sequence[str]) -> None:
        """Remove every row that belongs to one of these cases."""
        for start in range(0, len(case_ids), _ROWS_AT_ONCE):
            found = self.where(ids_in("case_id", case_ids[start : start + _ROWS_AT_ONCE]), [self.key])
            if found:
                self.delete([row[self.key] for row in found])

    def get(self, keys: Sequence[str], fields: list[str]) -> list[dict[str, Any]]:
        """The rows with these keys, as far as they are there, in no order."""
        found: list[dict[str, Any]] = []
        for start in range(0, len(keys), _ROWS_AT_ONCE):
            found += self._page(ids_in(self.key, keys[start : start + _ROWS_AT_ONCE]), fields, _ROWS_AT_ONCE)
        return found

    def having(self, keys: Sequence[str]) -> list[str]:
        """Which of these keys there are."""
        return [row[self.key] for row in self.get(keys, [self.key])]

    def of_cases(self, case_ids: Sequence[str], kind: str) -> dict[str, list[dict[str, Any]]]:
        """The pieces of each of these cases, of the kinds that begin so; fifty cases a question."""
        found: dict[str, list[dict[str, Any]]] = {case_id: [] for case_id in case_ids}
        ids = list(found)
        for start in range(0, len(ids), _CASES_AT_ONCE):
            condition = f"{ids_in('case_id', ids[start : start + _CASES_AT_ONCE])} and kind like {quoted(kind + '%')}"
            for row in self.where(condition, ["case_id", "kind", "about", "place", "data"], page=PIECES_AT_ONCE):
                found[row["case_id"]].append(row)
        return found

    def all(self, fields: list[str]) -> list[dict[str, Any]]:
        return self.where("", fields)

    def where(self, condition: str, fields: list[str], *, page: int = _ROWS_AT_ONCE) -> list[dict[str, Any]]:
        """The rows that meet a condition, by key, read page by page: the server gives the lowest keys first."""
        found: list[dict[str, Any]] = []
        last = ""
        while True:
            beyond = f"{self.key} > {quoted(last)}"
            rows = self._page(f"({condition}) and {beyond}" if condition else beyond, fields, page)
            found += rows
            if len(rows) < page:
                return found
            last = max(row[self.key] for row in rows)

    def _page(self, condition: str, fields: list[str], limit: int) -> list[dict[str, Any]]:
        wanted = list(dict.fromkeys([self.key, *fields]))
        with plain_server_errors(self.address):
            return self.client.query(
                self.name,
                filter=condition,
                output_fields=wanted,
                limit=limit,
                consistency_level="Strong",
                timeout=_TIMEOUT_S,
            )

    def search(self, query: np.ndarray, limit: int, condition: str) -> list[tuple[str, float, list[float]]]:
        """(case id, cosine, vector) of the nearest rows that meet the condition, best first."""
        with plain_server_errors(self.address):
            (hits,) = self.client.search(
                self.name, [query.tolist()], filter=condition, limit=limit, output_fields=["vector"],
                search_params={"metric_type": "COSINE"}, consistency_level="Strong", timeout=_TIMEOUT_S,
            )  # fmt: skip
        return [(hit["id"], float(hit["distance"]), hit["entity"]["vector"]) for hit in hits]


def quoted(text: str) -> str:
    """A string in the server's language of conditions."""
    return json.dumps(text, ensure_ascii=False)


def ids_in(field: str, values: Sequence[str]) -> str:
    """The condition that a field has one of these values."""
    return f"{field} in {json.dumps(list(values), ensure_ascii=False)}"


def _bites(rows: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    bites: list[list[dict[str, Any]]] = []
    size = _MESSAGE_BYTES
    for row in rows:
        weight = sum(len(v) * 4 if isinstance(v, list) else len(v) if isinstance(v, str) else 8 for v in row.values())
        if size + weight > _MESSAGE_BYTES:
            bites.append([])
            size = 0
        bites[-1].append(row)
        size += weight
    return bites


def problems_of(read: Callable[[list[str]], object], case_ids: list[str]) -> list[str]:
    """What is wrong with these cases when they are read: asked for together, and by halves where something is."""
    try:
        read(case_ids)
    except ServerUnreachableError:
        raise
    except CaseLibraryError as error:
        if len(case_ids) == 1:
            return [str(error)]
        middle = len(case_ids) // 2
        return [problem for half in (case_ids[:middle], case_ids[middle:]) for problem in problems_of(read, half)]
    return []


def batches(ids: list[str], size: int) -> list[list[str]]:
    """Ids in lists of so many."""
    return [ids[start : start + size] for start in range(0, len(ids), size)]
