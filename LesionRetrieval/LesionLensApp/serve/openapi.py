"""What the server can be asked, as one table: routes, checks of what is sent, and the OpenAPI document are made of it."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jsonschema
from LesionLib import __version__
from LesionLib.errors import LesionLensError
from LesionLib.inference.messages import error_to_json
from LesionLib.remote.messages import DIGEST_HEADER, FRAME_TYPE
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from LesionLensApp.serve.access import ApiError

_MAX_JSON = 2 * 1024**2
BINARY = "application/octet-stream"
Handler = Callable[["Asking"], "Awaitable[Response | Any] | Response | Any"]
_ERROR = {
    "type": "object",
    "required": ["error", "message"],
    "properties": {
        "error": {
            "type": "string",
            "description": "the kind of error of a runner; empty for those of the server alone",
        },
        "message": {"type": "string", "description": "one sentence: what was given, what was expected, what to do"},
    },
}
_STATUSES = {
    400: "not as the schema says",
    401: "no token, or a wrong one",
    403: "outside the folder that may be opened",
    404: "not there, or not any more",
    409: "something has to come first",
    413: "too large",
    415: "of a kind that is not taken",
    421: "not a name of this server",
    422: "read and refused: the message says why",
    503: "too many at once",
}


@dataclass(frozen=True)
class Operation:
    """One thing that can be asked for. ``body``: the JSON schema of what is sent, or its media type; None: nothing is.

    ``answer``: the schema of what is answered, or its media type; None: nothing is (204). ``refuses``: statuses beside those of
    all operations. ``blocks``: the handler is plain code that is to run on another thread.
    """

    method: str
    path: str
    summary: str
    handler: Handler
    body: Mapping[str, Any] | str | None = None
    answer: Mapping[str, Any] | str | None = None
    refuses: Sequence[int] = ()
    query: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    status: int = 200
    blocks: bool = True


@dataclass(frozen=True, eq=False)
class Asking:
    """What a handler gets: the request, the parts of its path, and its body as JSON or as bytes."""

    request: Request
    body: Any = None

    def path(self, name: str) -> str:
        """A part of the path."""
        return self.request.path_params[name]

    def query(self, name: str, default: str = "") -> str:
        """A parameter behind the ``?``."""
        return self.request.query_params.get(name, default)


def routes(operations: Sequence[Operation]) -> list[Route]:
    """One route a path, which answers all methods of its operations."""
    paths: dict[str, dict[str, Operation]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method] = operation
    return [Route(path, _endpoint(methods), methods=list(methods)) for path, methods in paths.items()]


def _endpoint(methods: Mapping[str, Operation]) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        operation = methods["GET" if request.method == "HEAD" else request.method]
        try:
            body = await _checked_body(operation, request)
            asking = Asking(request, body)
            if operation.blocks:
                value = await run_in_threadpool(operation.handler, asking)
            else:
                value = await operation.handler(asking)
        except ApiError as error:
            return JSONResponse(error.to_json(), error.status)
        except LesionLensError as error:
            return JSONResponse(error_to_json(error), 422)
        except ClientDisconnect:
            return Response(status_code=400)
        if isinstance(value, Response):
            return value
        return Response(status_code=204) if operation.answer is None else JSONResponse(value, operation.status)

    return answer


async def _checked_body(operation: Operation, request: Request) -> Any:
    """The body where it is JSON, as its schema says, or text; None where a handler reads it itself. Raises `ApiError`."""
    for name, schema in operation.query.items():
        if name in request.query_params:
            _require(request.query_params[name], schema, name)
    if operation.body is None or operation.body == BINARY:
        return None
    most = _MAX_JSON if operation.body != FRAME_TYPE else request.app.state.max_frame
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    wanted = operation.body if isinstance(operation.body, str) else "application/json"
    if kind != wanted:
        raise ApiError(415, f"the body is {kind[:80] or 'of no kind'}; send {wanted}.")
    content = await body_of(request, most=most)
    if isinstance(operation.body, str):
        return content
    try:
        values = json.loads(content, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise ApiError(400, "the body is not JSON.") from error
    _require(values, operation.body, "the body")
    return values


def _no_number(name: str) -> None:
    msg = f"{name} is no JSON"
    raise ValueError(msg)


def _require(value: Any, schema: Mapping[str, Any], what: str) -> None:
    error = jsonschema.exceptions.best_match(jsonschema.Draft202012Validator(schema).iter_errors(value))
    if error is not None:
        raise ApiError(400, f"{what} is not as it should be at {error.json_path}: {error.message[:200]}.")


async def body_of(request: Request, *, most: int) -> bytes:
    """All of the body. Raises `ApiError` for one that is larger, as soon as that is known."""
    given = request.headers.get("content-length", "")
    if given.isdecimal() and int(given) > most:
        raise ApiError(413, f"the message has more than {most // 1024**2} MB.")
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            raise ApiError(413, f"the message has more than {most // 1024**2} MB.")
        parts.append(part)
    return b"".join(parts)


def document(operations: Sequence[Operation]) -> dict[str, Any]:
    """The OpenAPI document."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _described(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "LesionLens",
            "version": __version__,
            "description": "A CT in, boxes in, answers out: what a lesion is, why, and what similar ones turned out to be. Research "
            "use only, not for diagnosis. The token stands in the address that lesionlens serve prints.",
        },
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": {"Error": _ERROR},
        },
    }


def _described(operation: Operation) -> dict[str, Any]:
    names = [part[1:-1].partition(":")[0] for part in operation.path.split("/") if part.startswith("{")]
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}} for name in names
    ]
    parameters += [{"name": name, "in": "query", "schema": dict(schema)} for name, schema in operation.query.items()]
    statuses = {401, 421, 503, *operation.refuses}
    statuses |= {404} if names else set()
    statuses |= {400} if operation.query else set()
    if operation.body is not None:
        statuses |= {400, 413, 415}
    refused = {str(status): _refusal(_STATUSES[status]) for status in sorted(statuses)}
    said: dict[str, Any] = {"description": operation.summary}
    if operation.answer is not None:
        said["content"] = _content(operation.answer)
    if operation.answer == FRAME_TYPE:
        said["headers"] = {DIGEST_HEADER: {"schema": {"type": "string"}, "description": "SHA-256, RFC 9530"}}
    status = "204" if operation.answer is None else str(operation.status)
    described: dict[str, Any] = {
        "operationId": f"{operation.method.lower()}{operation.path.title().translate(_NO_SIGNS)}",
        "summary": operation.summary,
        "responses": {status: said, **refused},
    }
    if parameters:
        described["parameters"] = parameters
    if operation.body is not None:
        described["requestBody"] = {"required": True, "content": _content(operation.body)}
    return described


_NO_SIGNS = str.maketrans("", "", "/{}._-:")


def _content(kind: Mapping[str, Any] | str) -> dict[str, Any]:
    if isinstance(kind, str):
        return {kind: {"schema": {"type": "string", **({"format": "binary"} if not kind.startswith("text/") else {})}}}
    return {"application/json": {"schema": dict(kind)}}


def _refusal(text: str) -> dict[str, Any]:
    return {
        "description": text,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
    }
