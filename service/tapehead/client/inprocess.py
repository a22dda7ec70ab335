"""The server's own application in this process: the same code and the same answers, without a socket.

httpx2's in-process transport is asynchronous and runs no lifespan, so the lifespan is run here; a blocking client keeps
an event loop in a thread of its own, in which both live.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from concurrent.futures import Future
from contextlib import ExitStack, asynccontextmanager
from typing import Any, TypeVar

import httpx2
from anyio.from_thread import start_blocking_portal

from tapehead.client.calls import Call, Outcome
from tapehead.client.carriers import AsyncHTTP, options
from tapehead.errors import Internal

Models = str | os.PathLike[str] | Mapping[str, object]
"""A folder of models, or live Keras models by name."""

S = TypeVar("S")
T = TypeVar("T")
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]

_URL = "http://in-process"


class InProcess:
    """Carries calls to an application on an event loop in a thread of its own, and holds up the caller's."""

    def __init__(self, models: Models, timeout: float | None) -> None:
        with ExitStack() as opened:
            self._portal = opened.enter_context(start_blocking_portal(name="tapehead"))
            self._inner = opened.enter_context(self._portal.wrap_async_context_manager(serving(models, timeout)))
            self._opened = opened.pop_all()

    def send(self, call: Call) -> Outcome:
        """The response to a call."""
        return self._wait(self._inner.send, call)

    def sleep(self, seconds: float) -> None:
        """Waits."""
        self._wait(self._inner.sleep, seconds)

    def close(self) -> None:
        """Shuts the application down and ends the thread."""
        self._opened.close()

    def _wait(self, work: Callable[[S], Awaitable[T]], argument: S) -> T:
        future: Future[T] = self._portal.start_task_soon(work, argument)
        try:
            return future.result()
        except BaseException:  # Ctrl-C while waiting: what nobody waits for is not computed.
            future.cancel()
            raise


@asynccontextmanager
async def serving(models: Models, timeout: float | None) -> AsyncIterator[AsyncHTTP]:
    """What carries calls to an application over `models`, as long as the application lives.

    Raises:
        TapeheadError: the application cannot start, a model cannot be served.
        ImportError: the server is not installed.
    """
    async with lifespan(_application(models)) as alive:
        carrier = AsyncHTTP(options(_URL, timeout), None, _Timed(alive, raise_app_exceptions=False))
        try:
            yield carrier
        finally:
            await carrier.close()


def _application(models: Models) -> Application:
    try:
        # A door upwards: only who works in process needs the server, and TensorFlow.
        from tapehead.server.inprocess import application
    except ModuleNotFoundError as error:
        raise ImportError(f"{error}: to serve models in this process, pip install 'tapehead[server]'") from error
    return application(models)


@asynccontextmanager
async def lifespan(application: Application) -> AsyncIterator[Application]:
    """An ASGI application between its startup and its shutdown.

    https://asgi.readthedocs.io/en/latest/specs/lifespan.html
    """
    state: dict[str, Any] = {}
    said: asyncio.Queue[Message] = asyncio.Queue()
    heard: asyncio.Queue[Message] = asyncio.Queue()
    scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": state}
    life = asyncio.ensure_future(application(scope, said.get, heard.put))

    async def tell(event: str) -> None:
        await said.put({"type": f"lifespan.{event}"})
        hearing = asyncio.ensure_future(heard.get())
        await asyncio.wait((hearing, life), return_when=asyncio.FIRST_COMPLETED)
        if hearing.done() and hearing.result()["type"] == f"lifespan.{event}.complete":
            return
        hearing.cancel()
        await life
        raise Internal(f"the application did not come through its {event}")

    async def within(scope: Message, receive: Receive, send: Send) -> None:
        await application({**scope, "state": dict(state)}, receive, send)

    try:
        await tell("startup")
        yield within
        await tell("shutdown")
    finally:
        life.cancel()


class _Timed(httpx2.ASGITransport):
    """The in-process transport with the timeout that its requests ask for, which httpx2 leaves to sockets."""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        seconds = request.extensions["timeout"]["read"]
        try:
            async with asyncio.timeout(seconds):
                return await super().handle_async_request(request)
        except TimeoutError:
            raise httpx2.ReadTimeout(f"nothing within {seconds:g} s") from None
