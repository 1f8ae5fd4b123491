"""The server as a Starlette app: the API, the page on it, and what begins and ends with it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

from LesionLib.errors import LesionLensError
from LesionLib.faults import details_of
from LesionLib.inference.runner import InferenceRunner, WorkerRunner
from LesionLib.model.folder import find_bundle
from LesionLib.terminal import notify
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from LesionLensApp.serve.access import FAILED, LOOPBACK_NAMES, AllowedFolder, ApiError, Guard
from LesionLensApp.serve.api import Api, Runs
from LesionLensApp.serve.jobs import Queue
from LesionLensApp.serve.openapi import document, routes
from LesionLensApp.serve.pages import page_routes
from LesionLensApp.serve.served_models import ServedModels
from LesionLensApp.serve.sessions import Sessions

_SWEEP_S = 5.0


@dataclass(frozen=True)
class Settings:
    """What the server is started with. ``names``: by which it may be reached beside those of loopback.

    ``folder``: whose files may be opened; ``library``: the case library, ``key``: its pseudonymisation key. ``idle_s``: after so
    long a session that nobody uses ends. ``max_upload``: bytes of all files of a session.
    """

    token: str
    model: str
    device: str = "auto"
    folder: Path | None = None
    library: Path | str | None = None
    key: Path | None = None
    names: Sequence[str] = ()
    idle_s: float = 600.0
    max_sessions: int = 16
    max_upload: int = 2 * 1024**3


class Service:
    """All that the app works with; made when it starts, gone when it ends."""

    def __init__(self, settings: Settings, *, runners: Sequence[InferenceRunner] = ()) -> None:
        self.settings = settings
        self.queue = Queue(runners or [WorkerRunner()], device=settings.device, on_error=report)
        self.sessions = Sessions(self.queue, idle_s=settings.idle_s, most=settings.max_sessions)
        self.models, self.runs = ServedModels(self.queue), Runs(self.queue)
        self.loading: Future[tuple[Any, Any]] = Future()
        self.api = Api(
            self.queue, self.sessions, self.models, self.loading, AllowedFolder(settings.folder) if settings.folder else None,
            settings.model, settings.max_upload, self.runs, has_library=settings.library is not None,
        )  # fmt: skip

    def warm(self) -> None:
        """Load what answers, and the model that is asked, while the page is up already."""
        Thread(target=self._load, name="LesionLens loading", daemon=True).start()
        with suppress(ApiError):  # what goes wrong is told by the first request
            self.models.queued(self.settings.model)

    def _load(self) -> None:
        try:
            from LesionLensApp.serve import opening
            from LesionLensApp.serve.answers import Answers

            settings = self.settings
            answers = Answers(self.queue, self.models, library=settings.library, key=settings.key)
            self.loading.set_result((opening, answers))
        except Exception as error:  # for whoever waits
            self.loading.set_exception(error)

    async def sweep(self) -> None:
        """End what nobody uses any more, again and again."""
        while True:
            await asyncio.sleep(_SWEEP_S)
            await run_in_threadpool(self.sessions.end_idle)
            self.runs.forget_idle()

    def close(self) -> None:
        """End all; nothing of a session stays."""
        self.queue.close()
        self.sessions.end_all()


class ServedApp(Guard):
    """The app, and the ``service`` that it works with."""

    service: Service


def build_app(settings: Settings, *, runners: Sequence[InferenceRunner] = ()) -> ServedApp:
    """The app; ``runners``: what answers (none: a worker of this computer). Raises `BundleError` for a model that is not there."""
    find_bundle(settings.model)
    service = Service(settings, runners=runners)
    operations = service.api.operations()
    described = document(operations)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        service.warm()
        sweeping = asyncio.create_task(service.sweep())
        try:
            yield
        finally:
            sweeping.cancel()
            await run_in_threadpool(service.close)

    async def openapi(_request: Request) -> Response:
        return JSONResponse(described)

    app = Starlette(
        routes=[*routes(operations), *page_routes(openapi, operations)],
        lifespan=lifespan,
        exception_handlers={HTTPException: _http_error, Exception: _unforeseen},
    )
    app.state.max_frame = settings.max_upload
    guarded = ServedApp(app, token=settings.token, names=(*LOOPBACK_NAMES, *settings.names), on_error=report)
    guarded.service = service
    return guarded


async def _http_error(_request: Request, error: Exception) -> Response:
    """Starlette's own refusals, in the form of ours."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    text = {404: "there is nothing at this address.", 405: "this cannot be asked in this way."}
    headers = error.headers if isinstance(error, HTTPException) else None
    return JSONResponse(ApiError(status, text.get(status, "refused.")).to_json(), status, headers=headers)


async def _unforeseen(_request: Request, _error: Exception) -> Response:
    """What Starlette answers before it raises the error again, for `Guard` to report."""
    return JSONResponse(ApiError(500, FAILED).to_json(), 500)


def report(error: BaseException) -> None:
    """To the owner of the server: what happened and where in the code, and nothing of a patient."""
    if not isinstance(error, LesionLensError):
        notify(f"lesionlens: unforeseen: {details_of(error)}", sys.stderr)
