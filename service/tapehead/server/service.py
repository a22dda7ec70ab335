"""What the routes serve: made once with the application, found again from a request."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

from starlette.requests import Request
from starlette.types import Scope

from tapehead.scheduling import Fleet
from tapehead.server.easel import Easel
from tapehead.server.metrics import Metrics
from tapehead.server.settings import Settings


@dataclass(frozen=True)
class Service:
    """The parts an endpoint works with."""

    settings: Settings
    fleet: Fleet
    metrics: Metrics
    version: str
    clock: Callable[[], float]
    easel: Easel


def header_fields(scope: Scope) -> dict[str, str]:
    """The first value of each header by its name in lower case: read once, since a request is asked for many."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in reversed(scope["headers"])}


def headers_of(request: Request) -> Mapping[str, str]:
    """The request's headers as the envelope read them."""
    return cast(Mapping[str, str], request.scope["header_fields"])


def serving(request: Request) -> Service:
    """The service that `request` was sent to."""
    return cast(Service, request.app.state.service)
