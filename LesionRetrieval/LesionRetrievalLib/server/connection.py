"""The way to a library server: its address, who is asking, and plain words for what goes wrong.

Credentials come from the environment and stay there: ``LESIONLENS_SERVER_TOKEN``, or ``LESIONLENS_SERVER_USER`` and
``LESIONLENS_SERVER_PASSWORD``. They are in no address, file, log or error.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
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

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host}:{self.port}/{self.library}"


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
    uri = f"{_SCHEMES[address.scheme]}://{address.host}:{address.port}"
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
    if any(word in text for word in ("unauthenticated", "auth check failure", "permission deny", "privilege")):
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
    if any(word in text for word in unreachable):
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
