"""What the routes serve: made once with the application, found again from a request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from starlette.requests import Request

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


def serving(request: Request) -> Service:
    """The service that `request` was sent to."""
    return cast(Service, request.app.state.service)
