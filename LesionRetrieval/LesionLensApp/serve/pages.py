"""The page, its scripts and the page of the API; all of it is the same for everybody and holds nothing of anybody."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, select_autoescape
from LesionLib import __version__
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from LesionLensApp.serve.openapi import Operation

_HERE = Path(__file__).resolve().parent / "web"
_KINDS = {".js": "text/javascript", ".css": "text/css"}


def page_routes(openapi: Callable[[Request], Awaitable[Response]], operations: Sequence[Operation]) -> list[Route]:
    """The page at ``/``, what it loads, ``/openapi.json`` and the page that shows it."""
    pages = Environment(loader=FileSystemLoader(_HERE), autoescape=select_autoescape(default=True))

    async def reference(_request: Request) -> Response:
        text = pages.get_template("reference.html").render(operations=operations, version=__version__)
        return HTMLResponse(text)

    return [
        Route("/openapi.json", openapi, methods=["GET"]),
        Route("/reference", reference, methods=["GET"]),
    ]
