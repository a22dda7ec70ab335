"""The application: routes, the envelope around them, and the fleet's life, put together.

    Envelope (id, key, last resort, log, figures)
      -> Direct (a model's operations), or FastAPI's router -> routes/ (one short function an endpoint)
        -> asking.py (read, ask the fleet, write, within the request's time)
"""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI

from tapehead.scheduling import Fleet
from tapehead.server.direct import Direct
from tapehead.server.easel import Easel
from tapehead.server.envelope import Envelope
from tapehead.server.metrics import Metrics
from tapehead.server.openapi import PROBLEMS
from tapehead.server.problems import HANDLERS
from tapehead.server.routes import ROUTERS
from tapehead.server.service import Service
from tapehead.server.settings import Settings
from tapehead.version import VERSION

_DESCRIPTION = (
    "Bodies are application/vnd.msgpack or application/json in the same schema; the reply follows Accept, else the "
    "request's own type. Errors are application/problem+json. The paths under /v2 are the Open Inference Protocol's; "
    "operations are an extension of it."
)


def create_app(
    settings: Settings,
    fleet: Fleet,
    *,
    patient: bool = False,
    clock: Callable[[], float] = time.perf_counter,
    make_id: Callable[[], str] = lambda: secrets.token_hex(16),
) -> FastAPI:
    """The ASGI application that serves `fleet`, which lives as long as the application's lifespan.

    A `patient` one has started only when its workers have, or fails with why they cannot.
    """
    metrics = fleet.observer = Metrics(fleet)
    easel = Easel()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await fleet.start()
        try:
            if patient:
                await fleet.settled()
            yield
        finally:
            await easel.close()
            await fleet.close()

    app = FastAPI(
        title="Tapehead",
        version=VERSION,
        description=_DESCRIPTION,
        openapi_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
        exception_handlers=HANDLERS,
        responses=PROBLEMS,
    )
    app.state.service = Service(settings, fleet, metrics, VERSION, clock, easel)
    app.add_middleware(Direct)
    app.add_middleware(Envelope, settings=settings, metrics=metrics, clock=clock, make_id=make_id)
    for router in ROUTERS:
        app.include_router(router)
    return app
