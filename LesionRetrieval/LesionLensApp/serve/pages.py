"""The page, its scripts and the page of the API; all of it is the same for everybody and holds nothing of anybody."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, select_autoescape
from LesionLib import __version__
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from LesionLensApp.serve.openapi import Operation
from LesionLensApp.web.viewer import ViewerMissingError, niivue_path, niivue_script, viewer_script, viewer_style

_HERE = Path(__file__).resolve().parent / "web"
_SCRIPT, _STYLE = "text/javascript", "text/css"


def page_routes(openapi: Callable[[Request], Awaitable[Response]], operations: Sequence[Operation]) -> list[Route]:
    """The page at ``/``, what it loads, ``/openapi.json`` and the page that shows it."""
    pages = Environment(loader=FileSystemLoader(_HERE), autoescape=select_autoescape(default=True))

    def page(name: str, **values: Any) -> Callable[[Request], Awaitable[Response]]:
        async def answer(_request: Request) -> Response:
            return HTMLResponse(pages.get_template(name).render(version=__version__, **values))

        return answer

    def file(read: Callable[[], str], kind: str) -> Callable[[Request], Awaitable[Response]]:
        async def answer(_request: Request) -> Response:
            try:
                return Response(read(), media_type=kind)
            except ViewerMissingError as error:
                return PlainTextResponse(str(error), 404)

        return answer

    def own(name: str) -> Callable[[], str]:
        return lambda: (_HERE / name).read_text(encoding="utf-8")

    return [
        Route("/openapi.json", openapi, methods=["GET"]),
        Route("/reference", page("reference.html", operations=operations), methods=["GET"]),
        Route("/", page("page.html"), methods=["GET"]),
        Route("/serve.js", file(own("serve.js"), _SCRIPT), methods=["GET"]),
        Route("/serve.css", file(own("serve.css"), _STYLE), methods=["GET"]),
        Route("/viewer.js", file(viewer_script, _SCRIPT), methods=["GET"]),
        Route("/viewer.css", file(viewer_style, _STYLE), methods=["GET"]),
        Route("/niivue.js", file(niivue_script, _SCRIPT), methods=["GET"]),
    ]


def missing_viewer() -> str:
    """Why the page can show no slices; "" where it can."""
    try:
        niivue_path()
    except ViewerMissingError as error:
        return str(error)
    return ""
