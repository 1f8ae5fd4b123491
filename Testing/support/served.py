"""A real server of the lesion page in this process, on a free port of loopback, and one who asks it as a browser does."""

from __future__ import annotations

import http.client
import json
import ssl
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import quote

import uvicorn
from LesionLensApp.serve.app import Service, Settings, build_app
from LesionLib.inference.runner import InferenceRunner, WorkerRunner

TOKEN = "a-token-of-the-tests"
_ENDED = ("done", "failed", "cancelled")


@dataclass(frozen=True)
class Served:
    """``address`` is as the command prints it."""

    port: int
    service: Service
    tls: Path | None = None
    token: str = TOKEN

    @property
    def address(self) -> str:
        scheme = "https" if self.tls else "http"
        return f"{scheme}://127.0.0.1:{self.port}/#token={self.token}"

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        token: str | None = None,
        kind: str = "",
        headers: dict | None = None,
    ) -> tuple[int, Any, Any]:
        """Status, body (JSON where it is some) and headers."""
        content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"Authorization": f"Bearer {self.token if token is None else token}", **(headers or {})}
        if content is not None:
            sent.setdefault(
                "Content-Type", kind or ("application/octet-stream" if isinstance(body, bytes) else "application/json")
            )
        if self.tls:
            context = ssl.create_default_context(cafile=str(self.tls))
            connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=60, context=context)
        else:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, content, sent)
            response = connection.getresponse()
            raw = response.read()
        finally:
            connection.close()
        is_json = response.headers.get("content-type", "").startswith("application/json") and raw
        return response.status, json.loads(raw) if is_json else raw, response.headers

    def session(self) -> Visitor:
        """A new session."""
        status, values, _ = self.ask("POST", "/api/sessions")
        assert status == 201, values
        return Visitor(self, values["id"])


@dataclass(frozen=True)
class Visitor:
    """One who uses the page."""

    served: Served
    id: str

    def ask(self, method: str, path: str, body: Any = None, **options: Any) -> tuple[int, Any]:
        status, values, _ = self.served.ask(method, f"/api/sessions/{self.id}/{path}".rstrip("/"), body, **options)
        return status, values

    def got(self, method: str, path: str, body: Any = None, **options: Any) -> Any:
        """The same where all goes well."""
        status, values = self.ask(method, path, body, **options)
        assert status < 300, (status, values)
        return values

    def drop(self, path: Path, name: str | None = None) -> Any:
        return self.got("PUT", f"files/{quote(name or path.name, safe='')}", path.read_bytes())

    def waited(self, seconds: float = 60.0) -> dict[str, Any]:
        """Its job when that has ended."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            job = self.got("GET", "job")
            if job["state"] in _ENDED:
                return job
            time.sleep(0.02)
        raise AssertionError(job)

    def classified(self, **options: Any) -> dict[str, Any]:
        """The answer to the boxes there are."""
        self.got("POST", "job", options)
        job = self.waited()
        assert job["state"] == "done", job
        return self.got("GET", "answer")


@contextmanager
def serving(
    model: str,
    *,
    runner: WorkerRunner | None = None,
    runners: Sequence[InferenceRunner] = (),
    tls: tuple[Path, Path] | None = None,
    **options: Any,
) -> Iterator[Served]:
    """A server while the block runs."""
    app = build_app(Settings(TOKEN, model, **options), runners=runners or ([runner] if runner else []))
    files = {"ssl_certfile": tls[0], "ssl_keyfile": tls[1]} if tls else {}
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical", access_log=False, ws="none", **files))
    thread = Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield Served(port, app.service, tls[0] if tls else None)
    finally:
        server.should_exit = True
        thread.join(15)


def self_signed(folder: Path, name: str = "127.0.0.1") -> tuple[Path, Path]:
    """A certificate for loopback, and its key."""
    certificate, key = folder / "cert.pem", folder / "key.pem"
    kind = "IP" if name[0].isdigit() else "DNS"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
    ]
    command += [
        "-keyout",
        str(key),
        "-out",
        str(certificate),
        "-subj",
        "/CN=lesionlens-test",
        "-addext",
        f"subjectAltName={kind}:{name}",
    ]
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key
