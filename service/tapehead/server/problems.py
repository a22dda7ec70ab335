"""Errors as replies: RFC 9457 problems, whoever raised them."""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from tapehead.errors import (
    BadParameter,
    BadRequest,
    Internal,
    MethodNotAllowed,
    TapeheadError,
    Unauthorized,
    UnknownPath,
    problem,
)
from tapehead.server import media
from tapehead.wire.messages import encode_problem

_BY_STATUS: dict[int, type[TapeheadError]] = {404: UnknownPath, 405: MethodNotAllowed}


def respond(error: TapeheadError, request_id: str, accept: str | None) -> Response:
    """The reply that tells of `error`."""
    members = {**problem(error), "request_id": request_id}
    name = media.problem_type(accept)
    return Response(encode_problem(members, name), error.status, _headers(error), media_type=name)


def _headers(error: TapeheadError) -> dict[str, str]:
    headers = {}
    if error.retry_after is not None or error.status in (429, 503):
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after or 1)))
    if isinstance(error, Unauthorized):
        headers["WWW-Authenticate"] = 'Bearer realm="tapehead"'
    return headers


async def _ours(request: Request, error: Exception) -> Response:
    assert isinstance(error, TapeheadError)
    return respond(error, request.scope["request_id"], request.headers.get("accept"))


async def _frameworks(request: Request, error: Exception) -> Response:
    """What Starlette's router raises: no such path, not with this method."""
    assert isinstance(error, HTTPException)
    kind = _BY_STATUS.get(error.status_code, BadRequest if error.status_code < 500 else Internal)
    response = await _ours(request, kind(f"{request.method} {request.url.path}: {error.detail}"))
    response.headers.update(error.headers or {})
    return response


async def _validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return await _ours(request, BadParameter("; ".join(f"{one['loc']}: {one['msg']}" for one in error.errors())))


HANDLERS: dict[int | type[Exception], Callable[[Request, Any], Coroutine[Any, Any, Response]]] = {
    TapeheadError: _ours,
    HTTPException: _frameworks,
    RequestValidationError: _validation,
}
