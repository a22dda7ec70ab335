"""Calls carried over HTTP by httpx2, blocking or not. All that differs is here: who sends, and who sleeps."""

from __future__ import annotations

import asyncio
import ipaddress
import time
from typing import Protocol, TypedDict, cast

import httpx2
import numpy as np

from tapehead.client.calls import Call, Outcome, Received
from tapehead.client.progress import LARGE, Progress
from tapehead.errors import Deadline, TapeheadError, Unreachable

CONNECT_TIMEOUT = 10.0
GRACE = 5.0
"""Seconds that the server has, after the request's own time is over, to say that it is."""

KEEP_ALIVE = 60.0
"""Seconds a connection lies idle: under the server's 65, so that it is never used just as the server closes it."""


class Carrier(Protocol):
    """Sends calls and waits, holding up its thread."""

    def send(self, call: Call) -> Outcome: ...
    def sleep(self, seconds: float) -> None: ...
    def close(self) -> None: ...


class Options(TypedDict):
    """What httpx2's two clients are made with."""

    base_url: str
    timeout: httpx2.Timeout
    limits: httpx2.Limits
    trust_env: bool


def options(url: str, timeout: float | None) -> Options:
    """The settings of an HTTP client for a server at `url`."""
    reading = None if timeout is None else timeout + GRACE
    return {
        "base_url": url,
        "timeout": httpx2.Timeout(reading, connect=CONNECT_TIMEOUT),
        "limits": httpx2.Limits(keepalive_expiry=KEEP_ALIVE),
        # No proxy that the environment names stands between a machine and itself.
        "trust_env": not _loopback(httpx2.URL(url).host),
    }


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class HTTP:
    """Carries calls and holds up its thread."""

    def __init__(self, settings: Options, progress: Progress | None) -> None:
        self._client = httpx2.Client(**settings)
        self._progress = progress

    def send(self, call: Call) -> Outcome:
        """The response to a call, or why there is none."""
        try:
            response = self._client.send(_request(self._client, call), stream=True)
            try:
                download = _Download(response, None if call.quiet else self._progress)
                for chunk in response.iter_bytes():
                    download.take(chunk)
                return download.received
            finally:
                response.close()
        except httpx2.RequestError as error:
            return _lost(error, call)

    def sleep(self, seconds: float) -> None:
        """Waits."""
        time.sleep(seconds)

    def close(self) -> None:
        """Closes the connections."""
        self._client.close()


class AsyncHTTP:
    """Carries calls on an event loop."""

    def __init__(
        self, settings: Options, progress: Progress | None, transport: httpx2.AsyncBaseTransport | None = None
    ) -> None:
        self._client = httpx2.AsyncClient(**settings, transport=transport)
        self._progress = progress

    async def send(self, call: Call) -> Outcome:
        """The response to a call, or why there is none."""
        try:
            response = await self._client.send(_request(self._client, call), stream=True)
            try:
                download = _Download(response, None if call.quiet else self._progress)
                async for chunk in response.aiter_bytes():
                    download.take(chunk)
                return download.received
            finally:
                await response.aclose()
        except httpx2.RequestError as error:
            return _lost(error, call)

    async def sleep(self, seconds: float) -> None:
        """Waits."""
        await asyncio.sleep(seconds)

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.aclose()


def _request(client: httpx2.Client | httpx2.AsyncClient, call: Call) -> httpx2.Request:
    headers = {**call.headers, "content-length": str(len(call.body))} if call.method == "POST" else call.headers
    request = client.build_request(call.method, call.path, headers=headers)
    # A body that is a view is sent as it lies; httpx2's own `content` would take it for an iterable of numbers.
    request.stream = httpx2.ByteStream(cast(bytes, call.body))
    return request


class _Download:
    """A response while it comes. One that says how long it is comes into memory of that size, and is never moved."""

    def __init__(self, response: httpx2.Response, progress: Progress | None) -> None:
        self._response = response
        length = response.headers.get("content-length", "")
        self._total = int(length) if length.isdecimal() else None
        self._known = _room(self._total or 0)
        self._unknown = bytearray()
        self._done = 0
        self._progress = progress if self._total is None or self._total >= LARGE else None

    def take(self, chunk: bytes) -> None:
        """One more piece has come."""
        end = self._done + len(chunk)
        if end <= len(self._known):
            self._known[self._done : end] = chunk
        else:
            self._unknown += chunk
        self._done = end
        if self._progress is not None:
            self._progress(self._done, self._total)

    @property
    def received(self) -> Received:
        """The whole response."""
        whole = self._known if self._done == len(self._known) else self._known[: self._done - len(self._unknown)]
        body = whole if not self._unknown else bytes(whole) + self._unknown
        return Received(self._response.status_code, dict(self._response.headers), body)


def _room(size: int) -> memoryview:
    """Memory for a body; none where a server claims more than there is, and what really comes is then gathered."""
    try:
        return np.empty(size, np.uint8).data
    except (MemoryError, ValueError, OverflowError):
        return memoryview(bytearray())


def _lost(error: httpx2.RequestError, call: Call) -> TapeheadError:
    """Why there is no response, in our words."""
    what = f"{call.method} {error.request.url}: {str(error) or type(error).__name__}"
    if isinstance(error, httpx2.ReadTimeout | httpx2.WriteTimeout):
        return Deadline(f"no answer in time; {what}")
    return Unreachable(f"no answer; {what}")
