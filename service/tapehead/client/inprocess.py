"""The server's own application in this process: the same code and the same answers, without a socket.

httpx2's in-process transport is asynchronous and runs no lifespan, so the lifespan is run here; a blocking client keeps
an event loop in a thread of its own, in which both live.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, MutableMapping
from concurrent.futures import Future
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, TypeVar

import httpx2

from tapehead.client.calls import Call, Outcome
from tapehead.client.carriers import AsyncHTTP, options
from tapehead.errors import Internal

Models = str | os.PathLike[str] | Mapping[str, object]
"""A folder of models, or live Keras models by name."""

T = TypeVar("T")
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]

_URL = "http://in-process"


class InProcess:
    """Carries calls to an application on an event loop in a thread of its own, and holds up the caller's.

    The thread is a daemon and nothing waits for it unasked: a process that forgets to close its client still ends.
    """

    def __init__(self, models: Models, timeout: float | None) -> None:
        started: Future[_Running] = Future()
        self._ended: Future[None] = Future()
        threading.Thread(target=self._live, args=(models, timeout, started), name="tapehead", daemon=True).start()
        self._running = started.result()

    def send(self, call: Call) -> Outcome:
        """The response to a call."""
        return self._wait(self._running.carrier.send(call))

    def sleep(self, seconds: float) -> None:
        """Waits."""
        time.sleep(seconds)

    def close(self) -> None:
        """Shuts the application down and ends the thread."""
        self._running.loop.call_soon_threadsafe(self._running.stop.set)
        self._ended.result()

    def _live(self, models: Models, timeout: float | None, started: Future[_Running]) -> None:
        try:
            asyncio.run(_run(models, timeout, started))
        except BaseException as error:  # noqa: BLE001  # the thread's boundary: whoever waits for it is told
            (self._ended if started.done() else started).set_exception(error)
        else:
            self._ended.set_result(None)

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._running.loop)
        try:
            return future.result()
        except BaseException:  # Ctrl-C while waiting: what nobody waits for any more is not computed
            future.cancel()
            raise


class _Running(NamedTuple):
    """An application that has started: its event loop, what carries calls to it, and what tells it to stop."""

    loop: asyncio.AbstractEventLoop
    carrier: AsyncHTTP
    stop: asyncio.Event


async def _run(models: Models, timeout: float | None, started: Future[_Running]) -> None:
    async with serving(models, timeout) as carrier:
        stop = asyncio.Event()
        started.set_result(_Running(asyncio.get_running_loop(), carrier, stop))
        await stop.wait()


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
        await asyncio.wait((life,))


class _Timed(httpx2.ASGITransport):
    """The in-process transport with the timeout that its requests ask for, which httpx2 leaves to sockets."""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        seconds = request.extensions["timeout"]["read"]
        try:
            async with asyncio.timeout(seconds):
                return await super().handle_async_request(request)
        except TimeoutError:
            raise httpx2.ReadTimeout(f"nothing within {seconds:g} s") from None
