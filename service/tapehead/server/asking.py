"""One question on its way through the server: read, asked of the fleet, answered, all within its time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect
from starlette.requests import Request as HTTPRequest

from tapehead.errors import BadParameter, Deadline, UnknownModel
from tapehead.operations import Request, Result, what_was_asked
from tapehead.server import bodies
from tapehead.server.pictures import Wish
from tapehead.server.service import Service, serving
from tapehead.server.streaming import disconnected
from tapehead.worker.protocol import Growth, ModelRef

T = TypeVar("T")

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
        with self._stage("decode"):
            return await bodies.off_loop(len(body), lambda: decode(body))

    async def ask(self, model: str, version: str | None, request: Request) -> tuple[Result, ModelRef]:
        """What the fleet answers; given up when the client goes away."""
        result, ref = (await self.begin(model, version, request)).result()
        return self.timed(result), ref

    async def begin(
        self, model: str, version: str | None, request: Request, growth: Growth | None = None
    ) -> asyncio.Future[tuple[Result, ModelRef]]:
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
        return await _begun(self.http, asyncio.ensure_future(asked), growth)

    def timed(self, result: Result) -> Result:
        """The result with the seconds of every stage so far in its meta."""
        self.timings.update(result.meta.get("timings", {}))
        return replace(result, meta={**result.meta, "timings": dict(self.timings)})

    async def write(self, result: Result, encode: Callable[[], T]) -> T:
        """The answer, encoded."""
        size = sum(tensor.nbytes for tensor in result.tensors.values())
        with self._stage("encode"):
            return await bodies.off_loop(size, encode)

    async def draw(self, parameters: Mapping[str, Any], result: Result, ref: ModelRef, wish: Wish) -> bytes:
        """The answer, drawn."""
        with self._stage("draw"):
            return await self.service.easel.draw(what_was_asked(self.operation, parameters), result, ref, wish)

    @property
    def server_timing(self) -> dict[str, str]:
        """The stages' times as a header, in milliseconds (W3C Server Timing)."""
        return {"Server-Timing": ", ".join(f"{stage};dur={t * 1e3:.3f}" for stage, t in self.timings.items())}

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        started = self.service.clock()
        yield
        self.timings[name] = self.service.clock() - started
        self.service.metrics.stage(self.operation, name, self.timings[name])


@asynccontextmanager
async def asking(http: HTTPRequest, operation: str) -> AsyncIterator[Asking]:
    """The question that `http` asks; what is not over in the request's time ends here.

    Raises:
        Deadline: the time is over.
    """
    service = serving(http)
    seconds = time_limit(http.headers.get("x-request-timeout"), service.settings.deadline)
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


async def _begun(http: HTTPRequest, working: asyncio.Future[T], growth: Growth | None) -> asyncio.Future[T]:
    """`working`, done or growing; it is cancelled when the client goes away before that, or the caller is."""
    waits: list[asyncio.Future[Any]] = [asyncio.ensure_future(disconnected(http.receive))]
    if growth is not None:
        waits.append(asyncio.ensure_future(growth.opened()))
    begun = False
    try:
        await asyncio.wait([working, *waits], return_when=asyncio.FIRST_COMPLETED)
        begun = working.done() or (growth is not None and growth.array is not None)
        if not begun:
            raise ClientDisconnect
        return working
    finally:
        waits += [] if begun else [working]
        for task in waits:
            task.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
