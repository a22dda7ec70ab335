"""`Client` and `AsyncClient`: two shells that drive the same flows, one blocking, one not."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import random
import sys
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Generator, Iterable
from contextlib import AsyncExitStack
from typing import Any, TypeVar

import httpx2

from tapehead.client.answers import Answer
from tapehead.client.asking import ModelEntry, describe, list_models
from tapehead.client.calls import Flow, Manner
from tapehead.client.carriers import HTTP, AsyncHTTP, Carrier, options
from tapehead.client.inprocess import InProcess, Models, serving
from tapehead.client.many import Answers, AsyncAnswers, Ending, Many
from tapehead.client.models import Model
from tapehead.client.progress import INPUTS, Progress, reporter
from tapehead.errors import BadParameter
from tapehead.version import VERSION

T = TypeVar("T")

DEFAULT_URL = "http://127.0.0.1:8000"


class _Shell:
    """Where the server is and how it is asked. Environment, clock and randomness are read here, and no deeper."""

    def __init__(
        self,
        url: str | None = None,
        *,
        api_key: str | None = None,
        models: Models | None = None,
        timeout: float | None = 60.0,
        retries: int = 2,
        progress: bool | Progress | None = None,
    ) -> None:
        if models is not None and url is not None:
            raise BadParameter("give url or models, not both: models are served in this process")
        self._models = models
        self._url = _checked(url or os.environ.get("TAPEHEAD_URL") or DEFAULT_URL)
        self._timeout = timeout
        self._progress = reporter(progress, sys.stderr)
        self._manner = Manner(
            headers=_headers(api_key or os.environ.get("TAPEHEAD_API_KEY")),
            timeout=timeout,
            retries=retries,
            make_id=lambda: uuid.uuid4().hex,
            random=random.random,
            clock=time.time,
        )
        self._state = "closed"
        self._start()

    def _start(self) -> None:
        raise NotImplementedError

    def _check_open(self) -> None:
        if self._state != "open":
            raise RuntimeError(f"{self!r} cannot be asked: it is opened by `with` or `async with`, once")

    def _many(
        self, flows: Iterable[Flow[Answer]], concurrency: int, total: int | None, progress: bool | Progress | None
    ) -> Many:
        self._check_open()
        return Many(flows, concurrency, total, reporter(progress, sys.stderr, INPUTS))

    def __repr__(self) -> str:
        where = self._url if self._models is None else f"in process, {_described(self._models)}"
        return f"<{type(self).__name__} {where}: {self._state}>"


class Client(_Shell):
    """A connection to a Tapehead server, or to the same server in this process; `with` closes it.

        with tapehead.Client("http://127.0.0.1:8000") as client:
            j = client.model("sunspots").jacobian(x, of="lstm.h[-1]", wrt="inputs")

    Args:
        url: the server; else TAPEHEAD_URL, else http://127.0.0.1:8000.
        api_key: sent as a bearer token; else TAPEHEAD_API_KEY, else none.
        models: a folder of models, or live Keras models by name, to be served in this process.
        timeout: seconds that each attempt has, as far as the server allows; None leaves it to the server.
        retries: how often a call that failed in passing is made again.
        progress: called with (bytes so far, bytes in all) while a large answer comes; True shows a bar on standard
            error, False nothing, None a bar in a terminal.

    Raises:
        TapeheadError: in process, where the server cannot start or a model cannot be served.
    """

    _carrier: Carrier

    def models(self) -> list[ModelEntry]:
        """Every version of every model that the server knows, with its state."""
        return self._run(list_models(self._manner))

    def model(self, name: str, version: int | None = None) -> Model[Answer]:
        """The model of that name, in its highest version where none is named.

        Raises:
            UnknownModel: there is none.
        """
        return Model(self._run(describe(name, version, self._manner)), self._manner, self._run, self._run_many)

    def close(self) -> None:
        """Closes the connections; in process, shuts the server down."""
        if self._state == "open":
            self._state = "closed"
            self._carrier.close()

    def _start(self) -> None:
        if self._models is None:
            self._carrier = HTTP(options(self._url, self._timeout), self._progress)
        else:
            self._carrier = InProcess(self._models, self._timeout)
        self._state = "open"

    def _run(self, flow: Flow[T]) -> T:
        self._check_open()
        try:
            call = next(flow)
            while True:
                if call.wait:
                    self._carrier.sleep(call.wait)
                call = flow.send(self._carrier.send(call))
        except StopIteration as done:
            result: T = done.value
            return result

    def _run_many(self, *given: Any, return_exceptions: bool, **options: Any) -> Answers[Any]:
        return Answers(self._endings(self._many(*given, **options)), return_exceptions=return_exceptions)

    def _endings(self, many: Many) -> Generator[Ending]:
        asked: dict[concurrent.futures.Future[Answer], int] = {}
        pool = concurrent.futures.ThreadPoolExecutor(many.concurrency, "tapehead")
        try:
            while not many.over:
                asked |= {pool.submit(self._run, flow): index for index, flow in many.due()}
                if many.ready:
                    yield many.give()
                    continue
                for ended in concurrent.futures.wait(asked, return_when=concurrent.futures.FIRST_COMPLETED).done:
                    many.settle(asked.pop(ended), ended)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncClient(_Shell):
    """`Client` on an asyncio event loop: the same arguments, and the same methods, awaited.

        async with tapehead.AsyncClient("http://127.0.0.1:8000") as client:
            model = await client.model("sunspots")
            j = await model.jacobian(x, of="lstm.h[-1]", wrt="inputs")

    With `models`, the server starts as the `async with` is entered.
    """

    _carrier: AsyncHTTP

    async def models(self) -> list[ModelEntry]:
        """Every version of every model that the server knows, with its state."""
        return await self._run(list_models(self._manner))

    async def model(self, name: str, version: int | None = None) -> Model[Awaitable[Answer]]:
        """The model of that name, in its highest version where none is named.

        Raises:
            UnknownModel: there is none.
        """
        return Model(await self._run(describe(name, version, self._manner)), self._manner, self._run, self._run_many)

    async def close(self) -> None:
        """Closes the connections; in process, shuts the server down."""
        self._state = "closed"
        await self._opened.aclose()

    def _start(self) -> None:
        self._opened = AsyncExitStack()
        if self._models is None:
            self._carrier = AsyncHTTP(options(self._url, self._timeout), self._progress)
            self._opened.push_async_callback(self._carrier.close)
            self._state = "open"

    async def _run(self, flow: Flow[T]) -> T:
        self._check_open()
        try:
            call = next(flow)
            while True:
                if call.wait:
                    await self._carrier.sleep(call.wait)
                call = flow.send(await self._carrier.send(call))
        except StopIteration as done:
            result: T = done.value
            return result

    def _run_many(self, *given: Any, return_exceptions: bool, **options: Any) -> AsyncAnswers[Any]:
        return AsyncAnswers(self._endings(self._many(*given, **options)), return_exceptions=return_exceptions)

    async def _endings(self, many: Many) -> AsyncGenerator[Ending]:
        asked: dict[asyncio.Task[Answer], int] = {}
        try:
            while not many.over:
                asked |= {asyncio.create_task(self._run(flow)): index for index, flow in many.due()}
                if many.ready:
                    yield many.give()
                    continue
                if asked:
                    for ended in (await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED))[0]:
                        many.settle(asked.pop(ended), ended)
        finally:
            for unneeded in asked:
                unneeded.cancel()
            await asyncio.gather(*asked, return_exceptions=True)

    async def __aenter__(self) -> AsyncClient:
        if self._models is not None:
            self._carrier = await self._opened.enter_async_context(serving(self._models, self._timeout))
            self._state = "open"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _headers(api_key: str | None) -> dict[str, str]:
    key = {"authorization": f"Bearer {api_key}"} if api_key else {}
    return {"user-agent": f"tapehead/{VERSION}", **key}


def _checked(url: str) -> str:
    try:
        parsed = httpx2.URL(url)
    except httpx2.InvalidURL as error:
        raise BadParameter(f"{url!r} is no URL: {error}") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise BadParameter(f"{url!r} is no server's URL; expected one such as {DEFAULT_URL}")
    return url


def _described(models: Models) -> str:
    return os.fspath(models) if isinstance(models, str | os.PathLike) else f"{len(models)} models"
