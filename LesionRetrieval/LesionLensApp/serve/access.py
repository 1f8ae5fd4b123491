"""Who may ask the server, and for what: the token, the names by which it is reached, the one folder that it opens files of."""

from __future__ import annotations

import hmac
import json
import os
import secrets
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from LesionLib import __version__
from LesionLib.remote.messages import API_HEADER, API_VERSION, VERSION_HEADER
from starlette.types import ASGIApp, Message, Receive, Scope, Send

API = "/api/"
LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")
FAILED = "the server failed; its owner finds the place in its output."
_MAX_ENTRIES = 20_000
_MAX_DEPTH = 32
CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self' blob:; "
    "font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": CONTENT_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    API_HEADER.lower(): API_VERSION,
    VERSION_HEADER.lower(): __version__,
}


class ApiError(Exception):
    """What is answered in place of what was asked for: a status, and a sentence for the user."""

    def __init__(self, status: int, message: str, *, error: str = "") -> None:
        super().__init__(message)
        self.status, self.message, self.error = status, message, error

    def to_json(self) -> dict[str, str]:
        """``error``: the kind of error that a runner raises of it; "" for those of the server alone."""
        return {"error": self.error, "message": self.message}


def new_token() -> str:
    """256 bits nobody can guess."""
    return secrets.token_urlsafe(32)


class Guard:
    """Lets through what comes by a name of this server and, below ``/api/``, with its token; gives every answer its headers.

    A page of somebody else's cannot reach the server under a name that it bends to this computer (DNS rebinding), for the name
    is none of ours; and it has no token. ``cors`` is nowhere allowed.
    """

    def __init__(
        self, app: ASGIApp, *, token: str, names: Iterable[str], on_error: Callable[[BaseException], None]
    ) -> None:
        self._app, self._token, self._on_error = app, token.encode(), on_error
        self._names = {name.lower() for name in names}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                ours = {name for name, _ in message["headers"]}
                extra = [(k.encode(), v.encode()) for k, v in _HEADERS.items() if k.encode() not in ours]
                message = {**message, "headers": [*message["headers"], *extra]}
            await send(message)

        try:
            refusal = self._refusal(scope)
            if refusal is not None:
                await _respond(with_headers, refusal)
                return
            await self._app(scope, receive, with_headers)
        except Exception as error:
            # Never to the log of the server: what it prints of an error may name a file, and with it a patient.
            self._on_error(error)
            if not started:
                await _respond(with_headers, ApiError(500, FAILED))

    def _refusal(self, scope: Scope) -> ApiError | None:
        headers = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1").lower()
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() and not host.endswith("]") else host
        if name not in self._names:
            return ApiError(421, "this server is not reached by that name; use the address that it printed.")
        if scope["path"].startswith(API) and not self._knows(headers.get(b"authorization", b"")):
            return ApiError(401, "the token is missing or wrong; open the address that lesionlens serve printed.")
        return None

    def _knows(self, authorization: bytes) -> bool:
        scheme, _, given = authorization.partition(b" ")
        return hmac.compare_digest(given.strip(), self._token) and scheme.lower() == b"bearer"


async def _respond(send: Send, error: ApiError) -> None:
    body = json.dumps(error.to_json()).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if error.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@dataclass(frozen=True)
class Entry:
    """A file or folder that may be opened; ``path`` is relative to the allowed folder, with ``/`` between."""

    name: str
    path: str
    is_folder: bool


class AllowedFolder:
    """The folder of this computer whose files may be opened; nothing above it, beside it, or behind a link in it."""

    def __init__(self, root: Path) -> None:
        self.root = Path(os.path.realpath(root))

    def entries(self, path: str) -> list[Entry]:
        """What is in a folder, folders first; hidden files and links are left out. Raises `ApiError`."""
        folder = self.path_of(path)
        if not folder.is_dir():
            raise ApiError(404, "there is no such folder.")
        try:
            with os.scandir(folder) as found:
                listed = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in found if _is_plain(entry)]
        except OSError as error:
            raise ApiError(403, "this folder cannot be read.") from error
        base = path.strip("/")
        shown = [
            Entry(name, f"{base}/{name}" if base else name, is_folder) for name, is_folder in listed[:_MAX_ENTRIES]
        ]
        return sorted(shown, key=lambda entry: (not entry.is_folder, entry.name.casefold()))

    def path_of(self, path: str) -> Path:
        """The file or folder at a relative path. Raises `ApiError` for one that leads out, or by way of a link."""
        parts = [part for part in path.split("/") if part]
        bad = "\0" in path or "\\" in path or path.startswith("/") or len(parts) > _MAX_DEPTH
        if bad or any(part in (".", "..") or part.startswith(".") or ":" in part for part in parts):
            raise ApiError(403, "this path leads out of the folder that may be opened; choose from the list.")
        at = self.root
        for part in parts:
            at = at / part
            try:
                is_link = stat.S_ISLNK(os.lstat(at).st_mode)
            except (OSError, ValueError) as error:
                raise ApiError(404, "there is no such file or folder.") from error
            if is_link:
                raise ApiError(403, "this is a link, and links are not followed; open what it points to.")
        if os.path.realpath(at) != str(at):
            raise ApiError(403, "this path leads out of the folder that may be opened; choose from the list.")
        return at

    def openable(self, path: str) -> Path:
        """The same for what is to be read: a file, or a folder without a link anywhere in it. Raises `ApiError`."""
        found = self.path_of(path)
        if found == self.root:
            raise ApiError(403, "choose a file, or a folder in the list, not the whole of it.")
        if found.is_dir():
            _require_no_links(found)
        elif not found.is_file():
            raise ApiError(403, "this is neither a file nor a folder.")
        return found


def _is_plain(entry: os.DirEntry) -> bool:
    if entry.name.startswith("."):
        return False
    try:
        return entry.is_dir(follow_symlinks=False) or entry.is_file(follow_symlinks=False)
    except OSError:
        return False


def _require_no_links(folder: Path) -> None:
    count = 0
    for above, folders, files in os.walk(folder, followlinks=False):
        count += len(folders) + len(files)
        if count > _MAX_ENTRIES:
            raise ApiError(403, f"this folder holds more than {_MAX_ENTRIES} files; open the folder of one series.")
        for name in (*folders, *files):
            mode = os.lstat(os.path.join(above, name)).st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                raise ApiError(403, "this folder holds a link, and links are not followed; open what it points to.")
