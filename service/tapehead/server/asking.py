"""One question on its way through the server: read, asked of the fleet, answered, all within its time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect
from starlette.requests import Request as HTTPRequest
from starlette.types import Receive

from tapehead.errors import BadParameter, Deadline, UnknownModel
from tapehead.operations import Request, Result, what_was_asked
from tapehead.server import bodies
from tapehead.server.pictures import Wish
from tapehead.server.service import Service, headers_of, serving
from tapehead.server.streaming import disconnected
from tapehead.worker.protocol import Growth, ModelRef

T = TypeVar("T")

AT_ONCE_S = 0.02
"""What is answered within this time is computed also for a client that went away meanwhile."""

GRACE_S = 0.25
"""What the whole exchange has over the fleet, which knows best what it waited for in vain and so speaks first."""


@dataclass(frozen=True)
class Asking:
    """One question while it is being answered.

    `ends` is when its time is over, on the event loop's clock; `timings` holds the seconds of each stage so far.
    """

    http: HTTPRequest
    operation: str
    service: Service
    ends: float
    timings: dict[str, float] = field(default_factory=dict)

    async def read(self, decode: Callable[[bytes], T]) -> T:
        """The body, decoded."""
        body = await bodies.read(self.http, self.service.settings.body_limit)
        began = self.service.clock()
        found = decode(body) if len(body) <= bodies.LARGE else await bodies.off_loop(lambda: decode(body))
        self._lap("decode", began)
        return found

    async def ask(self, model: str, version: str | None, request: Request) -> tuple[Result, ModelRef]:
        """What the fleet answers; given up when the client goes away."""
        result, ref = (await self.begin(model, version, request)).result()
        return self.timed(result), ref

    async def begin(
        self, model: str, version: str | None, request: Request, growth: Growth | None = None
    ) -> asyncio.Task[tuple[Result, ModelRef]]:
        """What the fleet answers, once it is there, or its memory is: the rest then comes to `growth`.

        Given up when the client goes away.
        """
        asked = self.service.fleet.ask(
            model,
            read_version(model, version),
            self.operation,
            request,
            id=self.http.scope["request_id"],
            deadline_s=max(0.0, self.ends - asyncio.get_running_loop().time()),
            growth=growth,
        )
        return await _begun(self.http, asyncio.create_task(asked), growth)

    def timed(self, result: Result) -> Result:
        """The result with the seconds of every stage so far in its meta."""
        self.timings.update(result.meta.get("timings", {}))
        return Result(result.tensors, result.axes, {**result.meta, "timings": self.timings.copy()}, result.plans)

    async def write(self, result: Result, encode: Callable[[], T]) -> T:
        """The answer, encoded."""
        size = sum(tensor.nbytes for tensor in result.tensors.values())
        began = self.service.clock()
        found = encode() if size <= bodies.LARGE else await bodies.off_loop(encode)
        self._lap("encode", began)
        return found

    async def draw(self, parameters: Mapping[str, Any], result: Result, ref: ModelRef, wish: Wish) -> bytes:
        """The answer, drawn."""
        began = self.service.clock()
        found = await self.service.easel.draw(what_was_asked(self.operation, parameters), result, ref, wish)
        self._lap("draw", began)
        return found

    @property
    def server_timing(self) -> dict[str, str]:
        """The stages' times as a header, in milliseconds (W3C Server Timing)."""
        return {"Server-Timing": ", ".join(f"{stage};dur={t * 1e3:.3f}" for stage, t in self.timings.items())}

    def _lap(self, stage: str, began: float) -> None:
        seconds = self.timings[stage] = self.service.clock() - began
        self.service.metrics.stage(self.operation, stage, seconds)


@asynccontextmanager
async def asking(http: HTTPRequest, operation: str) -> AsyncIterator[Asking]:
    """The question that `http` asks; what is not over in the request's time ends here.

    Raises:
        Deadline: the time is over.
    """
    service = serving(http)
    seconds = time_limit(headers_of(http).get("x-request-timeout"), service.settings.deadline)
    ends = asyncio.get_running_loop().time() + seconds
    timer = asyncio.timeout_at(ends + GRACE_S)
    try:
        async with timer:
            yield Asking(http, operation, service, ends)
    except TimeoutError:
        if not timer.expired():
            raise
        raise Deadline(f"not answered within {seconds:g} s") from None


def time_limit(asked: str | None, longest: float) -> float:
    """The seconds a request has: as many as it asks for, at most `longest`.

    Raises:
        BadParameter: it asks for no such number.
    """
    if asked is None:
        return longest
    try:
        seconds = float(asked)
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        raise BadParameter(f"X-Request-Timeout is {asked!r}; send seconds, over 0")
    return min(seconds, longest)


def read_version(model: str, version: str | None) -> int | None:
    """A version as a path names it; None, the highest, where it does not.

    Raises:
        UnknownModel: it is no version.
    """
    if version is None:
        return None
    if not (version.isascii() and version.isdecimal() and len(version) <= 18):
        raise UnknownModel(f"{model!r} has no version {version!r}; versions are whole numbers")
    return int(version)


async def _begun(http: HTTPRequest, working: asyncio.Task[T], growth: Growth | None) -> asyncio.Task[T]:
    """`working`, done or growing; it is cancelled when the client goes away before that, or the caller is."""
    begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def begin(_: object = None) -> None:
        if not begun.done():
            begun.set_result(None)

    working.add_done_callback(begin)
    if growth is not None:
        growth.when_open(begin)
    leaving, there = _Leaving(http.receive, begin), False
    try:
        await begun
        there = working.done() or (growth is not None and growth.array is not None)
        if not there:
            raise ClientDisconnect
        return working
    finally:
        await leaving.forget()
        if not there:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)


class _Leaving:
    """Tells when the client goes away. What is answered at once is not watched for: watching takes a task."""

    def __init__(self, receive: Receive, tell: Callable[[object], None]) -> None:
        self._receive, self._tell = receive, tell
        self._watching: asyncio.Task[None] | None = None
        self._timer = asyncio.get_running_loop().call_later(AT_ONCE_S, self._watch)

    async def forget(self) -> None:
        """It does not matter any more."""
        self._timer.cancel()
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)

    def _watch(self) -> None:
        self._watching = asyncio.create_task(disconnected(self._receive))
        self._watching.add_done_callback(self._tell)
