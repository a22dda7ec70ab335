"""The short way to a model's operations: found by their path alone, ahead of FastAPI's routing.

What a router with dependencies, exit stacks and handlers of its own does for every request takes longer than a small
derivative. Whatever is not answered here goes on to FastAPI, where the same functions stand for the same paths.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from tapehead.operations import INFER
from tapehead.server.routes.infer import infer
from tapehead.server.routes.operations import operate

_PATH = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?/([^/]+)")


@dataclass(frozen=True)
class Route:
    """What the log and the figures call a path."""

    path: str


_INFER = Route("/v2/models/{model}/infer"), Route("/v2/models/{model}/versions/{version}/infer")
_OPERATE = Route("/v2/models/{model}/{operation}"), Route("/v2/models/{model}/versions/{version}/{operation}")


class Direct:
    """Answers what is asked of a model by POST, and passes the rest on."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = _PATH.fullmatch(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        if found is None:
            await self.app(scope, receive, send)
            return
        model, version, operation = found.groups()
        request = Request(scope, receive, send)
        if operation == INFER.name:
            scope["route"] = _INFER[version is not None]
            response = await infer(request, model, version)
        else:
            scope["route"] = _OPERATE[version is not None]
            response = await operate(request, model, operation, version)
        await response(scope, receive, send)
