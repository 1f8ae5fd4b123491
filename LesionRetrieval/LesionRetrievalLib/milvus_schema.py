"""The collections that one library is on a server, and what a row of each holds.

``…_models``: one row a model. ``…_cases``: one row a case, written last: a case is there when this row is. ``…_pieces``: pictures
and HU patches in pieces, for a field holds 65,535 bytes at most and there is no type for bytes. ``…_m_<sha256>``: the vectors of one
model, with what searches are filtered by, under an exact (FLAT) index with cosine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pymilvus import MilvusClient

TEXT_BYTES = 65_535
_KEY = 200
CASE_FIELDS = {
    "label": 400, "label_source": 400, "organ": 400, "patient_hash": 32, "study_hash": 32, "attributes": TEXT_BYTES,
    "note": 8_000, "created": 10,
}  # fmt: skip
FILTER_FIELDS = ("label", "organ", "patient_hash", "study_hash")
_NO_VECTOR = [0.0, 1.0]  # every collection of this server needs a vector field


def models_of(library: str) -> str:
    """The collection of models."""
    return f"{library}_models"


def cases_of(library: str) -> str:
    """The collection of cases."""
    return f"{library}_cases"


def pieces_of(library: str) -> str:
    """The collection of pieces."""
    return f"{library}_pieces"


def vectors_of(library: str, sha256: str) -> str:
    """The collection of a model's vectors."""
    return f"{library}_m_{sha256[:32]}"


def create_library(client: MilvusClient, library: str) -> None:
    """The three collections that every library has; those that are there stay."""
    _create(
        client, models_of(library), "sha256", {"name": 400, "version": 400}, {"dimension": "INT64", "place": "INT64"}
    )
    _create(client, cases_of(library), "case_id", CASE_FIELDS, {"pieces": "INT64"})
    numbers = {"place": "INT64"}
    _create(
        client, pieces_of(library), "piece_id", {"case_id": 64, "kind": 64, "about": 4_000, "data": TEXT_BYTES}, numbers
    )


def create_vectors(client: MilvusClient, library: str, sha256: str, dimension: int) -> None:
    """The collection for a model's vectors."""
    texts = {name: CASE_FIELDS[name] for name in FILTER_FIELDS}
    _create(client, vectors_of(library, sha256), "case_id", texts, {}, dimension=dimension)


def row_without_vector(values: dict[str, Any]) -> dict[str, Any]:
    """A row of a collection whose vector means nothing."""
    return {**values, "vector": _NO_VECTOR}


def _create(
    client: MilvusClient,
    name: str,
    key: str,
    texts: dict[str, int],
    numbers: dict[str, str],
    *,
    dimension: int | None = None,
) -> None:
    from pymilvus import DataType

    if client.has_collection(name):
        client.load_collection(name)
        return
    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field(key, DataType.VARCHAR, is_primary=True, max_length=_KEY)
    for field, length in texts.items():
        schema.add_field(field, DataType.VARCHAR, max_length=length)
    for field, kind in numbers.items():
        schema.add_field(field, getattr(DataType, kind))
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=dimension or len(_NO_VECTOR))
    index = client.prepare_index_params()
    index.add_index("vector", index_type="FLAT", metric_type="COSINE")
    # Strong: whoever asks sees all that was written before, from wherever.
    client.create_collection(name, schema=schema, index_params=index, consistency_level="Strong", num_shards=1)
    client.load_collection(name)
