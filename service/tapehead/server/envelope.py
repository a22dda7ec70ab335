"""What every exchange gets, whatever its path: an id, a check of its key, an answer even when something breaks, a line
in the log, and its figures. Plain ASGI, around the whole application."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tapehead.errors import BadParameter, Internal, TapeheadError
from tapehead.server.keys import admit
from tapehead.server.metrics import Metrics
from tapehead.server.problems import respond
from tapehead.server.service import header_fields
from tapehead.server.settings import Settings
from tapehead.server.streaming import CutShort

CLIENT_GONE = 499
_ALWAYS = ((b"x-content-type-options", b"nosniff"),)
_access = logging.getLogger("tapehead.access")
_faults = logging.getLogger("tapehead.server")


@dataclass
class Exchange:
    """One request and how it went. `status` is 0 until the reply has started."""

    scope: Scope
    started: float
    request_id: str
    status: int = 0
    headers: Mapping[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.headers = self.scope["header_fields"] = header_fields(self.scope)

    def stamping(self, send: Send) -> Send:
        """`send`, which also puts the request's id on the reply and notes its status."""

        async def stamped(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", self.request_id.encode()), *_ALWAYS]
            await send(message)

        return stamped

    @property
    def route(self) -> str:
        """The path as it is routed, `/v2/models/{model}`; `unknown` where nothing is served."""
        return getattr(self.scope.get("route"), "path", "unknown")


class Envelope:
    """The outermost layer of the application."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        settings: Settings,
        metrics: Metrics,
        clock: Callable[[], float],
        make_id: Callable[[], str],
    ) -> None:
        self.app = app
        self.settings = settings
        self.metrics = metrics
        self.clock = clock
        self.make_id = make_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange = Exchange(scope, self.clock(), self.make_id())
        stamping = exchange.stamping(send)
        with self.metrics.in_flight.track_inprogress():
            try:
                error = await self._answer(exchange, receive, stamping)
                if error is not None:
                    problem = respond(error, exchange.request_id, exchange.headers.get("accept"))
                    await problem(scope, receive, stamping)
            finally:
                # Soon, not now: the last bytes go out first.
                asyncio.get_running_loop().call_soon(self._record, exchange, self.clock() - exchange.started)

    async def _answer(self, exchange: Exchange, receive: Receive, send: Send) -> TapeheadError | None:
        """Lets the application answer; what it could not, and why."""
        scope = exchange.scope
        try:
            exchange.request_id = request_id(exchange.headers.get("x-request-id")) or exchange.request_id
            scope["request_id"] = exchange.request_id
            admit(self.settings, scope["path"], exchange.headers)
            await self.app(scope, receive, send)
        except ClientDisconnect:
            exchange.status = CLIENT_GONE
        except TapeheadError as error:
            return error
        except CutShort as cut:
            _faults.warning("the answer to request %s was cut short: %s", exchange.request_id, cut)
            raise
        except Exception:  # the last boundary before the wire: the client is told, and told no more
            _faults.exception("unhandled error in request %s", exchange.request_id)
            if exchange.status:
                raise
            return Internal(f"an unexpected error; the server's log has it under request id {exchange.request_id}")
        return None

    def _record(self, exchange: Exchange, seconds: float) -> None:
        self.metrics.request(exchange.scope["method"], exchange.route, exchange.status, seconds)
        _access.info(
            '%s "%s %s" %d %.1fms id=%s',
            (exchange.scope.get("client") or ("-",))[0],
            exchange.scope["method"],
            quote(exchange.scope["path"]),
            exchange.status,
            seconds * 1e3,
            exchange.request_id,
        )


def request_id(given: str | None) -> str | None:
    """The request's id as the client named it; None where it did not.

    Raises:
        BadParameter: it is too long, or cannot stand in a log.
    """
    if given is None:
        return None
    if 0 < len(given) <= 128 and given.isascii() and given.isprintable():
        return given
    raise BadParameter(f"X-Request-Id holds {len(given)} characters; send 1 to 128 printable ASCII ones, or none")


