"""The way to a library server: its address, who is asking, plain words for what goes wrong; and a library's collections.

Credentials come from the environment and stay there: ``LESIONLENS_SERVER_TOKEN``, or ``LESIONLENS_SERVER_USER`` and
``LESIONLENS_SERVER_PASSWORD``. They are in no address, file, log or error.

The collections that one library is on a server, and what a row of each holds. ``…_models``: one row a model. ``…_cases``:
one row a case, written last: a case is there when this row is. ``…_pieces``: pictures and HU patches in pieces, for a field
holds 65,535 bytes at most and there is no type for bytes. ``…_m_<sha256>``: the vectors of one model, with what searches are
filtered by, under an exact (FLAT) index with cosine.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from LesionLib.errors import CaseLibraryError

if TYPE_CHECKING:
    from pymilvus import MilvusClient


TOKEN, USER, PASSWORD = "LESIONLENS_SERVER_TOKEN", "LESIONLENS_SERVER_USER", "LESIONLENS_SERVER_PASSWORD"
TIMEOUT_S = 5.0
_PORT = 19530
_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
_SCHEMES = {"milvus": "http", "milvus+tls": "https"}


class ServerUnreachableError(CaseLibraryError):
    """The server does not answer; what was written before is kept."""


@dataclass(frozen=True)
class ServerAddress:
    """``milvus://host:port/library``, or ``milvus+tls://`` for an encrypted connection; port 19530 unless it is given."""

    scheme: str
    host: str
    port: int
    library: str

    @classmethod
    def parse(cls, text: str) -> ServerAddress:
        """Raises `CaseLibraryError`, without repeating an address that holds a password."""
        try:
            parts = urlsplit(text)
            port = parts.port or _PORT
        except ValueError as error:
            msg = "The address of the server cannot be read; give milvus://host:port/library."
            raise CaseLibraryError(msg) from error
        if parts.username or parts.password or parts.query or "@" in parts.netloc:
            msg = f"The address holds credentials; leave them out and set {TOKEN}, or {USER} and {PASSWORD}."
            raise CaseLibraryError(msg)
        library = parts.path.strip("/")
        if parts.scheme not in _SCHEMES or not parts.hostname or not _NAME.fullmatch(library):
            msg = (
                f"{text!r} is no address of a library; give milvus://host:port/library, where library is 1 to 40 of a-z 0-9 _ "
                "and begins with a letter."
            )
            raise CaseLibraryError(msg)
        return cls(parts.scheme, parts.hostname, port, library)

    @property
    def authority(self) -> str:
        """``host:port``, an IPv6 address in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}/{self.library}"


def is_server_address(text: str) -> bool:
    """Whether a library's place is a server rather than a file."""
    return str(text).split("://", maxsplit=1)[0] in _SCHEMES and "://" in str(text)


def connected(address: ServerAddress) -> MilvusClient:
    """A client that answers, as the environment says who is asking. Raises `CaseLibraryError`."""
    try:
        from pymilvus import MilvusClient
    except ImportError as error:
        msg = "A library on a server needs pymilvus; install it by pip install 'lesionlens[server]'."
        raise CaseLibraryError(msg) from error
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # it logs requests; what goes wrong is raised anyway
    token = os.environ.get(TOKEN, "")
    if not token and os.environ.get(USER):
        token = f"{os.environ[USER]}:{os.environ.get(PASSWORD, '')}"
    uri = f"{_SCHEMES[address.scheme]}://{address.authority}"
    with plain_server_errors(address):
        client = MilvusClient(uri=uri, token=token, timeout=TIMEOUT_S)
        client.list_collections(timeout=TIMEOUT_S)
    return client


@contextmanager
def plain_server_errors(address: ServerAddress) -> Iterator[None]:
    """Whatever the client raises as `CaseLibraryError` in plain words; its own text may hold anything and is left out."""
    try:
        yield
    except CaseLibraryError:
        raise
    except Exception as error:
        from grpc import RpcError
        from pymilvus.exceptions import MilvusException

        if not isinstance(error, MilvusException | RpcError | ConnectionError | TimeoutError):
            raise
        raise _in_plain_words(address, error) from None


def _in_plain_words(address: ServerAddress, error: Exception) -> CaseLibraryError:
    text = " ".join(_texts(error)).lower()
    if any(phrase in text for phrase in ("unauthenticated", "auth check failure", "permission deny", "privilege")):
        msg = (
            f"{address} refuses this user; set {TOKEN}, or {USER} and {PASSWORD}, or ask who runs the server for the right to "
            "use this library."
        )
        return CaseLibraryError(msg)
    unreachable = (
        "unavailable",
        "connect",
        "deadline",
        "timeout",
        "timed out",
        "not ready",
        "not loaded",
        "channel",
        "recovering",
    )
    if any(phrase in text for phrase in unreachable):
        msg = (
            f"{address} does not answer; check that the server runs and can be reached from here. Libraries on this computer "
            "can be used all the same."
        )
        return ServerUnreachableError(msg)
    code = getattr(error, "code", "")
    msg = f"{address}: the server could not do this (code {code}, {type(error).__name__}); its log says more."
    return CaseLibraryError(msg)


def _texts(error: BaseException | None) -> Iterator[str]:
    """Of an error and all that led to it: why a connection failed is often said far below."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield str(error)
        error = error.__cause__ or error.__context__


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


def properties_of(library: str) -> str:
    """The collection of what is noted of the library as a whole; an older library has none."""
    return f"{library}_properties"


def vectors_of(library: str, sha256: str) -> str:
    """The collection of a model's vectors."""
    return f"{library}_m_{sha256[:32]}"


def create_library(client: MilvusClient, library: str, *, vectors: Mapping[str, int] | None = None) -> None:
    """The three collections that every library has; those that are there stay. ``vectors``: with them those for the vectors
    of models, as `create_vectors` makes them, from a model's SHA-256 to the vectors' length.
    """
    of_models = ({"name": 400, "version": 400}, {"dimension": "INT64", "place": "INT64"})
    of_pieces = ({"case_id": 64, "kind": 64, "about": 4_000, "data": TEXT_BYTES}, {"place": "INT64"})
    _create(
        client,
        _Form(models_of(library), "sha256", *of_models),
        _Form(cases_of(library), "case_id", CASE_FIELDS, {"pieces": "INT64"}),
        _Form(pieces_of(library), "piece_id", *of_pieces),
        *(_form_of_vectors(library, sha256, dimension) for sha256, dimension in (vectors or {}).items()),
    )


def create_properties(client: MilvusClient, library: str) -> None:
    """The collection of properties; it stays where it is there."""
    _create(client, _Form(properties_of(library), "name", {"value": 4_000}, {}))


def create_vectors(client: MilvusClient, library: str, sha256: str, dimension: int) -> None:
    """The collection for a model's vectors."""
    _create(client, _form_of_vectors(library, sha256, dimension))


def row_without_vector(values: dict[str, Any]) -> dict[str, Any]:
    """A row of a collection whose vector means nothing."""
    return {**values, "vector": _NO_VECTOR}


@dataclass(frozen=True)
class _Form:
    """A collection: its name, its primary key, its texts with their longest length, its numbers with their kind."""

    name: str
    key: str
    texts: Mapping[str, int]
    numbers: Mapping[str, str]
    dimension: int = len(_NO_VECTOR)


def _form_of_vectors(library: str, sha256: str, dimension: int) -> _Form:
    texts = {name: CASE_FIELDS[name] for name in FILTER_FIELDS}
    return _Form(vectors_of(library, sha256), "case_id", texts, {}, dimension)


def _create(client: MilvusClient, *forms: _Form) -> None:
    """Make the collections that are not there yet, and load all of them."""
    from pymilvus import DataType

    for form in forms:
        if client.has_collection(form.name):
            continue
        schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field(form.key, DataType.VARCHAR, is_primary=True, max_length=_KEY)
        for field, length in form.texts.items():
            schema.add_field(field, DataType.VARCHAR, max_length=length)
        for field, kind in form.numbers.items():
            schema.add_field(field, getattr(DataType, kind))
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=form.dimension)
        index = client.prepare_index_params()
        index.add_index("vector", index_type="FLAT", metric_type="COSINE")
        # Strong: whoever asks sees all that was written before, from wherever.
        client.create_collection(form.name, schema=schema, consistency_level="Strong", num_shards=1)
        client.create_index(form.name, index, sync=False)  # of no rows yet: there is nothing to wait for
    # The server takes two seconds to load a collection, and as long for several at once.
    for form in forms[1:]:
        client.load_collection(form.name, _async=True)
    for form in forms:
        client.load_collection(form.name)
