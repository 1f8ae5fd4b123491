"""Models on another computer: a runner that asks a server (``lesionlens serve``), over TLS, with a token.

Nothing but Python's own library is needed, and no torch: a laptop without a GPU, or without any model, uses the department's.
What is sent is the part of the CT around the boxes; the server keeps nothing of it once the answer is fetched.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any, NoReturn
from urllib.parse import quote, urlsplit

from LesionLib import __version__
from LesionLib.errors import LesionLensError
from LesionLib.inference.messages import (
    Embedding,
    EmbeddingRequest,
    ModelDescription,
    Progress,
    RunnerCancelled,
    RunnerError,
    RunOptions,
    RunRequest,
    RunResponse,
    WireError,
    error_from_json,
    reply_from_frame,
)
from LesionLib.inference.model_description import description_from_json
from LesionLib.inference.runner import InferenceRunner
from LesionLib.model.folder import find_bundle, is_model_path, unchecked_manifest
from LesionLib.remote.messages import (
    API_HEADER,
    API_VERSION,
    DIGEST_HEADER,
    FRAME_TYPE,
    VERSION_HEADER,
    digest_of,
    frame_of_bytes,
    question_to_bytes,
    with_warnings_of,
)
from LesionLib.sampling.inputs import Reach

_CONNECT_S, _ANSWER_S = 10.0, 60.0
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.02, 0.25
_MAX_ANSWER = 2**31
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
_CLOSED = "the runner was closed; make a new one."
_BUSY = "the runner is busy with another request; wait for its answer or cancel it."
_CANCELLED = "the request was cancelled."


@dataclass(frozen=True)
class ServerAddress:
    """Where a server is. ``certificate``: a file with its certificate, or with that of who signed it; None: those that this
    computer trusts anyway.
    """

    scheme: str
    host: str
    port: int
    certificate: Path | None = None

    @classmethod
    def parsed(cls, text: str, *, certificate: str | Path | None = None) -> tuple[ServerAddress, str]:
        """The address that ``lesionlens serve`` prints, with or without ``#token=...``, and that token. Raises `RunnerError`."""
        try:
            parts = urlsplit(text.strip())
            port = parts.port
        except ValueError as error:
            parts, port, problem = None, None, str(error)
        else:
            problem = "it is no https:// address" if parts.scheme not in ("http", "https") or not parts.hostname else ""
        if problem:
            msg = f"{_shown(text)!r} is no address of a server: {problem}; give https://computer:port, as lesionlens serve prints it."
            raise RunnerError(msg)
        if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
            msg = (
                f"{parts.hostname} is another computer: what is sent there has to be encrypted; give its https:// address "
                "(lesionlens serve --host needs a certificate)."
            )
            raise RunnerError(msg)
        token = parts.fragment.removeprefix("token=") if parts.fragment.startswith("token=") else ""
        default = 443 if parts.scheme == "https" else 80
        return cls(parts.scheme, parts.hostname, port or default, Path(certificate) if certificate else None), token

    def __str__(self) -> str:
        """Without the token."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


def _shown(text: str) -> str:
    """An address without its token, for messages."""
    return text.strip().partition("#")[0]


class RemoteRunner:
    """Answers on a server; an `InferenceRunner` like any other. Connects when it is first asked.

    ``address``: as the server prints it. ``token``: where the address holds none. ``certificate``: see `ServerAddress`.
    ``sends_whole``: send whole CTs instead of the parts that the model looks at. Raises `RunnerError` for what is no address.
    """

    def __init__(
        self,
        address: str,
        token: str = "",
        *,
        certificate: str | Path | None = None,
        sends_whole: bool = False,
    ) -> None:
        self.address, found = ServerAddress.parsed(address, certificate=certificate)
        self._token, self._sends_whole = token or found, sends_whole
        self._busy, self._stop = Lock(), Event()
        self._closed = False
        self._models: dict[str, Mapping[str, Any]] = {}

    def start(self, model: str | Path | None = None, options: RunOptions | None = None) -> None:
        """Let the server load ``model``; returns at once. What goes wrong there is told by the next request."""
        if self._closed:
            raise RunnerError(_CLOSED)
        if model is not None:
            Thread(target=self._warm, args=(model,), name="LesionLens server", daemon=True).start()

    def models(self) -> list[str]:
        """The names of the models that the server has. Raises `RunnerError`."""
        with _Connection(self.address, self._token) as server:
            return [entry["name"] for entry in server.json("GET", "/api/models")["models"]]

    def describe(self, model: str | Path, options: RunOptions | None = None) -> ModelDescription:
        """Let the server load ``model``, and say who it is; ``folder`` and ``device`` are the server's. Raises `RunnerError`."""
        with _Connection(self.address, self._token) as server:
            return description_from_json(self._model(server, model)["description"])

    def run(
        self, request: RunRequest | EmbeddingRequest, *, progress: Progress | None = None
    ) -> RunResponse | Embedding:
        """See `InferenceRunner.run`."""
        if self._closed:
            raise RunnerError(_CLOSED)
        if not self._busy.acquire(blocking=False):
            raise RunnerError(_BUSY)
        try:
            self._stop.clear()
            with _Connection(self.address, self._token) as server:
                return self._answer(server, request, progress)
        finally:
            self._busy.release()

    def cancel(self) -> bool:
        """Tell the server that the answer is not wanted any more."""
        self._stop.set()
        return self._busy.locked()

    def restart(self) -> None:
        """Ask the server anew about its models; a request that is running is cancelled."""
        self.cancel()
        self._models = {}

    def close(self) -> None:
        """A running request is cancelled, the next one refused."""
        self._closed = True
        self.restart()

    def _warm(self, model: str | Path) -> None:
        with suppress(LesionLensError), _Connection(self.address, self._token) as server:
            self._model(server, model)

    def _model(self, server: _Connection, model: str | Path) -> Mapping[str, Any]:
        name = _name_of(model)
        if name not in self._models:
            self._models[name] = server.json("GET", f"/api/models/{quote(name, safe='')}")
        return self._models[name]

    def _answer(
        self, server: _Connection, request: RunRequest | EmbeddingRequest, progress: Progress | None
    ) -> RunResponse | Embedding:
        known = self._model(server, request.model)
        reach = None if known["reach"] is None or self._sends_whole else Reach(**known["reach"])
        named = replace(request, model=known["name"])
        content = question_to_bytes(named, reach)
        self._stop_if_cancelled()
        headers = {"Content-Type": FRAME_TYPE, DIGEST_HEADER: digest_of(content)}
        run = server.json("POST", "/api/runs", content, headers)
        path = f"/api/runs/{quote(run['id'], safe='')}"
        try:
            self._wait(server, path, run, progress)
            frame = server.frame(f"{path}/answer")
        finally:  # nothing stays there, however it ended
            with suppress(LesionLensError):
                server.json("DELETE", path)
        return with_warnings_of(request.volume, reply_from_frame(frame, request))

    def _wait(self, server: _Connection, path: str, run: Mapping[str, Any], progress: Progress | None) -> None:
        wait, told = _FIRST_WAIT_S, None
        while True:
            now = (run["done"], run["total"], run["name"])
            if progress is not None and run["state"] in ("running", "done") and now != told:
                progress(*now)
                told = now
            if run["state"] == "done":
                return
            if run["state"] == "cancelled":
                raise RunnerCancelled(_CANCELLED)
            if run["state"] == "failed":
                raise error_from_json(run["error"])
            self._stop.wait(wait)
            self._stop_if_cancelled()
            wait = min(wait * 1.5, _LONGEST_WAIT_S)
            run = server.json("GET", path)

    def _stop_if_cancelled(self) -> None:
        if self._stop.is_set():
            raise RunnerCancelled(_CANCELLED)


class SwitchableRunner:
    """A runner that asks ``here``, or the server that `use` names; an `InferenceRunner` like any other.

    Switching cancels what runs. ``here`` is kept, and closed with this one.
    """

    def __init__(self, here: InferenceRunner) -> None:
        self._here, self._server = here, None

    @property
    def server(self) -> RemoteRunner | None:
        """Where it asks; None: on this computer."""
        return self._server

    def use(self, server: RemoteRunner | None) -> None:
        """Ask there from now on; None: here again."""
        before, self._server = self._server, server
        self._here.cancel()
        if before is not None:
            before.close()

    def start(self, model: str | Path | None = None, options: RunOptions | None = None) -> None:
        """See `InferenceRunner.start`."""
        self._now.start(model, options)

    def run(
        self, request: RunRequest | EmbeddingRequest, *, progress: Progress | None = None
    ) -> RunResponse | Embedding:
        """See `InferenceRunner.run`."""
        return self._now.run(request, progress=progress)

    def cancel(self) -> bool:
        """See `InferenceRunner.cancel`."""
        return self._now.cancel()

    def restart(self) -> None:
        """See `InferenceRunner.restart`."""
        self._now.restart()

    def close(self) -> None:
        """Both."""
        if self._server is not None:
            self._server.close()
        self._here.close()

    @property
    def pid(self) -> int | None:
        """Process id of the worker of this computer, None where there is none."""
        return getattr(self._here, "pid", None)

    @property
    def _now(self) -> InferenceRunner:
        return self._server or self._here


def _name_of(model: str | Path) -> str:
    """By which the server knows it: a folder of this computer is not the server's. Raises `BundleError`."""
    if not is_model_path(model):
        return str(model)
    folder = find_bundle(model)
    return str(unchecked_manifest(folder).get("name") or folder.name)


class _Connection:
    """One connection to a server, kept for the requests of one answer. Raises `RunnerError` for all that goes wrong on the way."""

    def __init__(self, address: ServerAddress, token: str) -> None:
        self._address, self._token = address, token
        self._http: http.client.HTTPConnection | None = None

    def __enter__(self) -> _Connection:
        return self

    def __exit__(self, *_exception: object) -> None:
        if self._http is not None:
            self._http.close()

    def json(self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> Any:
        """What the server says, as JSON; {} where it says nothing."""
        content, _ = self._asked(method, path, body, headers)
        try:
            return json.loads(content) if content else {}
        except ValueError as error:
            msg = f"{self._address} answers with something that is no JSON; is it a server of LesionLens? Check the address."
            raise RunnerError(msg) from error

    def frame(self, path: str) -> Any:
        """The frame that the server gives."""
        content, headers = self._asked("GET", path)
        try:
            if headers.get(DIGEST_HEADER) != digest_of(content):
                msg = "its digest is another"
                raise WireError(msg)
            return frame_of_bytes(content)
        except WireError as error:
            msg = f"the answer of {self._address} did not arrive whole ({error}); try again."
            raise RunnerError(msg) from error

    def _asked(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[bytes, Mapping[str, str]]:
        sent = {"Authorization": f"Bearer {self._token}", API_HEADER: API_VERSION, **(headers or {})}
        try:
            response, content = self._exchanged(method, path, body, sent)
        except (ssl.SSLError, OSError, http.client.HTTPException) as error:
            self._lost(error)
        self._require_ours(response)
        if response.status >= 400:
            _refused(self._address, response.status, content)
        return content, response.headers

    def _exchanged(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
    ) -> tuple[http.client.HTTPResponse, bytes]:
        if self._http is None:
            self._http = self._opened()
        try:
            self._http.request(method, path, body, dict(headers))
            response = self._http.getresponse()
        except (BrokenPipeError, ConnectionResetError):
            # A server that refuses a large message answers before it has read it, and closes.
            response = self._http.getresponse()
        content = response.read(_MAX_ANSWER + 1)
        if len(content) > _MAX_ANSWER:
            msg = "its answer is larger than any answer is"
            raise http.client.HTTPException(msg)
        return response, content

    def _opened(self) -> http.client.HTTPConnection:
        address = self._address
        if address.scheme == "http":
            connection = http.client.HTTPConnection(address.host, address.port, timeout=_CONNECT_S)
        else:
            context = self._context()
            connection = http.client.HTTPSConnection(address.host, address.port, timeout=_CONNECT_S, context=context)
        connection.connect()
        connection.sock.settimeout(_ANSWER_S)
        return connection

    def _context(self) -> ssl.SSLContext:
        certificate = self._address.certificate
        try:
            context = ssl.create_default_context(cafile=None if certificate is None else str(certificate))
        except (OSError, ssl.SSLError) as error:
            msg = (
                f"{certificate} cannot be read as a certificate; give the .pem file that the server's owner handed out."
            )
            raise RunnerError(msg) from error
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        return context

    def _lost(self, error: Exception) -> NoReturn:
        where = self._address
        if isinstance(error, ssl.SSLCertVerificationError):
            msg = (
                f"the certificate of {where} is not trusted here ({error.verify_message or 'unknown'}): nothing was sent. Give the "
                "server's certificate file, or check the address."
            )
        elif isinstance(error, ssl.SSLError):
            msg = f"{where} does not speak TLS as it should ({error.reason or error}); check the address and its port."
        elif isinstance(error, socket.gaierror):
            msg = f"there is no computer {where.host!r}; check the address of the server."
        elif isinstance(error, TimeoutError):
            msg = f"{where} does not answer; check that the server runs and that no firewall lies between, or run here."
        elif self._http is None:
            msg = f"no server listens at {where} ({error}); start it by lesionlens serve, or run on this computer."
        else:
            msg = f"the connection to {where} broke ({error or type(error).__name__}): the server may have ended. Try again."
        raise RunnerError(msg) from error

    def _require_ours(self, response: http.client.HTTPResponse) -> None:
        api, version = response.headers.get(API_HEADER), response.headers.get(VERSION_HEADER)
        if api is None:
            msg = f"{self._address} is no server of LesionLens (status {response.status}); check the address."
            raise RunnerError(msg)
        if api != API_VERSION:
            msg = (
                f"the server runs LesionLens {version or '?'}, this computer {__version__}, and they do not understand each "
                "other; install the same version on both."
            )
            raise RunnerError(msg)


def _refused(address: ServerAddress, status: int, content: bytes) -> NoReturn:
    """Raises the server's error as it was raised there."""
    try:
        values = json.loads(content)
        text = str(values["message"])
    except (ValueError, LookupError, TypeError):
        values, text = {}, f"status {status}"
    if status == 401:
        msg = f"{address} does not know this token; copy the address that the server printed again, for each start has its own."
        raise RunnerError(msg)
    if values.get("error"):
        raise error_from_json({"error": str(values["error"]), "message": text})
    msg = f"{address} refused: {text}"
    raise RunnerError(msg)


def reach_to_json(reach: Reach | None) -> dict[str, float] | None:
    """For a server's list of models; the client makes a `Reach` of it again."""
    return None if reach is None else asdict(reach)
