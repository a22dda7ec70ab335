"""Large answers on their way out: sent in pieces from where they lie, without a copy, and while they are computed.

Either way Content-Length says beforehand how long the body is. Where the rest of it cannot come any more, the
connection is closed before that many bytes were sent: what a client has then is no answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from tapehead.errors import TapeheadError
from tapehead.operations import Request, Result
from tapehead.wire.plain import Bytes
from tapehead.wire.streams import closing, opening
from tapehead.worker.protocol import Growth, ModelRef

PIECE = 2**18
"""The bytes that are handed on at once: as many as are copied should the connection not take them."""

_LOOK = 2**24
"""The bytes that are looked at before they are let go: what an answer that is passed on adds to this process."""

_CLOSING_BYTES = 2**14

Answered = tuple[Result, ModelRef]


class CutShort(Exception):
    """A body that was begun cannot be ended."""


class Streamed(Response):
    """A body of known length in views of memory, each sent in pieces."""

    def __init__(self, views: Iterable[Bytes], media_type: str, headers: Mapping[str, str]) -> None:
        self._views = list(views)
        length = sum(len(view) for view in self._views)
        super().__init__(None, headers={**headers, "content-length": str(length)}, media_type=media_type)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  # ASGI's signature
        """Sends it."""
        await self._send(send, _each(self._views))

    async def _send(self, send: Send, views: AsyncIterator[Bytes]) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async for view in views:
            for start in range(0, len(view), PIECE):
                await send({"type": "http.response.body", "body": view[start : start + PIECE], "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class Growing(Streamed):
    """An answer that is sent while it is computed; `working` gives it whole, `growth` tells how far it is."""

    def __init__(
        self,
        working: asyncio.Future[Answered],
        growth: Growth,
        finish: Callable[[Result], Result],
        kept: int,
        media_type: str,
        headers: Mapping[str, str],
    ) -> None:
        assert growth.array is not None
        assert growth.model is not None
        self._working, self._growth, self._finish, self._kept = working, growth, finish, kept
        self._head, data = opening(growth.name, growth.array, growth.model.name, growth.model.version)
        self._data = memoryview(data)
        super().__init__((), media_type, headers)
        self.headers["content-length"] = str(len(self._head) + len(self._data) + kept)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  # ASGI's signature
        """Sends what there is as it comes.

        Raises:
            CutShort: the rest does not come.
            starlette.requests.ClientDisconnect: nobody waits for it.
        """
        await while_connected(receive, self._send(send, self._as_it_grows()), self._working)

    async def _as_it_grows(self) -> AsyncIterator[Bytes]:
        yield self._head
        sent = 0
        while sent < len(self._data):
            filled = min(await self._filled(sent), sent + _LOOK)
            yield self._data[sent:filled]
            sent = filled
            self._growth.let_go(sent)
        yield await self._end()

    async def _filled(self, sent: int) -> int:
        """How much is there, once that is more than was sent."""
        growing = asyncio.ensure_future(self._growth.beyond(sent))
        try:
            await asyncio.wait((growing, self._working), return_when=asyncio.FIRST_COMPLETED)
            if not self._working.done():
                return growing.result()
        finally:
            growing.cancel()
        await self._answer()
        return len(self._data)

    async def _answer(self) -> Result:
        try:
            result, _ = await self._working
        except TapeheadError as error:
            raise CutShort(f"{error.code}: {error.detail}") from None
        return result

    async def _end(self) -> bytes:
        result = self._finish(await self._answer())
        try:
            return closing(result.axes, result.meta, self._kept)
        except ValueError as error:
            raise CutShort(str(error)) from None


def closing_bytes(request: Request) -> int:
    """The bytes kept for what follows the numbers: enough for `meta` with a number for every timestep of a sample."""
    steps = max((array.shape[1] for array in request.inputs.values() if array.ndim > 1), default=0)
    return _CLOSING_BYTES + 9 * request.batch * (steps + 1)


async def while_connected(receive: Receive, work: Awaitable[None], *others: asyncio.Future[Answered]) -> None:
    """Sees `work` through; it and `others` are cancelled when the client goes away, or the caller is.

    Raises:
        starlette.requests.ClientDisconnect: the client went away.
    """
    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(disconnected(receive))
    ended: list[asyncio.Future[Any]] = [working, leaving, *others]
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        working.result()
    finally:
        for task in ended:
            task.cancel()
        await asyncio.gather(*ended, return_exceptions=True)


async def disconnected(receive: Receive) -> None:
    """Waits until the client has gone away."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _each(views: Iterable[Bytes]) -> AsyncIterator[Bytes]:
    for view in views:
        yield view
