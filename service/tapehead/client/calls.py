"""What is sent and what comes back, as plain values; and how one call is tried until it is answered. No I/O.

A `Flow` is a generator that yields calls and is sent their outcomes: everything the client does is written once as a
flow, and driven by a blocking client or an asynchronous one.
"""

from __future__ import annotations

import email.utils
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar
from urllib.parse import quote

from tapehead.errors import Deadline, QueueFull, TapeheadError, TryAgain, Unreachable, from_problem
from tapehead.wire.messages import JSON, MSGPACK, PROBLEM_JSON, decode_problem
from tapehead.wire.plain import Bytes

T = TypeVar("T")

MAX_RETRY_AFTER = 60.0


@dataclass(frozen=True)
class Call:
    """One HTTP request.

    `wait` is how many seconds to let pass before it is sent, `quiet` that nobody is told how far its answer has come.
    """

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Bytes = b""
    wait: float = 0.0
    quiet: bool = False


@dataclass(frozen=True)
class Received:
    """One HTTP response, whole; the names of its headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: Bytes


Outcome = Received | TapeheadError
"""A response, or why there is none: `Unreachable`, or `Deadline` where the time passed."""

Flow = Generator[Call, Outcome, T]


@dataclass(frozen=True)
class Manner:
    """How calls are made. `clock` gives the time of day in seconds, `random` numbers in [0, 1).

    `timeout` is the seconds each attempt has, `retries` how many attempts may follow the first; between them pass
    `first_wait` seconds, then twice as many each time, up to `longest_wait`, shortened by up to half at random.
    `patience` is how many more attempts may follow where the server's queue is full; `quiet` as in `Call`.
    """

    headers: Mapping[str, str]
    timeout: float | None
    retries: int
    make_id: Callable[[], str]
    random: Callable[[], float]
    clock: Callable[[], float]
    first_wait: float = 0.5
    longest_wait: float = 8.0
    patience: int = 0
    quiet: bool = False


def model_path(name: str, version: int | None, *rest: str) -> str:
    """The path of a model, of one version of it where one is named, or of what is below."""
    versioned = () if version is None else ("versions", str(version))
    return "/".join(("/v2/models", *(quote(part, safe="") for part in (name, *versioned, *rest))))


def get(path: str) -> Call:
    """A call that asks for plain values."""
    return Call("GET", path, {"accept": JSON})


def post(path: str, body: Bytes = b"", media: str = JSON) -> Call:
    """A call that sends a body of `media` and wants one like it."""
    return Call("POST", path, {"accept": f"{media}, {PROBLEM_JSON}", "content-type": media}, body)


def exchange(call: Call, manner: Manner) -> Flow[Received]:
    """Makes a call, again where that may help, until it is answered.

    Every call is pure (asking twice changes nothing), so one that was cut off is safely repeated.

    Raises:
        TapeheadError: as the server says, or `Unreachable`.
    """
    call = replace(call, headers={**_headers(manner), **call.headers}, quiet=manner.quiet)
    attempts = {True: 0, False: 0}
    while True:
        outcome = yield call
        error = outcome if isinstance(outcome, TapeheadError) else problem_in(outcome, manner.clock)
        if error is None:
            assert isinstance(outcome, Received)
            return outcome
        error.request_id = error.request_id or call.headers["x-request-id"]
        # A full queue is no failure, and leaves the attempts that failures have as they are.
        full = isinstance(error, QueueFull)
        wait = wait_before_retry(error, attempts[full], manner)
        if wait is None:
            raise error
        call = replace(call, wait=wait)
        attempts[full] += 1


def wait_before_retry(error: TapeheadError, attempt: int, manner: Manner) -> float | None:
    """The seconds to wait before a call that failed is made again; None where it is not.

    A passed deadline is not tried again: the caller's time is over. Nor where a server asks for too long a wait.
    """
    if isinstance(error, Deadline) or not isinstance(error, TryAgain | Unreachable):
        return None
    asked = error.retry_after or 0.0
    retries = manner.retries + (manner.patience if isinstance(error, QueueFull) else 0)
    if attempt >= retries or asked > MAX_RETRY_AFTER:
        return None
    backoff = min(manner.longest_wait, manner.first_wait * 2.0**attempt)
    return asked + backoff * (1 - manner.random() / 2)


def problem_in(received: Received, clock: Callable[[], float]) -> TapeheadError | None:
    """The error that a response tells of, None where it is an answer."""
    if 200 <= received.status < 300:
        return cut_off(received)
    media = received.headers.get("content-type", "no media type")
    try:
        members = decode_problem(received.body, media)
    except TapeheadError:
        text = bytes(received.body[:200]).decode("utf-8", "replace")
        members = {"detail": f"HTTP status {received.status}, with {media} where a problem was expected: {text!r}"}
    return from_problem(members, status=received.status, retry_after=_retry_after(received.headers, clock))


def cut_off(received: Received) -> Unreachable | None:
    """That a body is not as long as its header says, where that is so."""
    length = received.headers.get("content-length", "")
    if not length.isdecimal() or "content-encoding" in received.headers or int(length) == len(received.body):
        return None
    return Unreachable(f"the answer was cut off: {len(received.body)} of {length} bytes came")


def _headers(manner: Manner) -> dict[str, str]:
    time = {} if manner.timeout is None else {"x-request-timeout": f"{manner.timeout:g}"}
    return {**manner.headers, "accept-encoding": "identity", "x-request-id": manner.make_id(), **time}


def _retry_after(headers: Mapping[str, str], clock: Callable[[], float]) -> float | None:
    """Retry-After in seconds from now: RFC 9110 allows seconds or a date."""
    text = headers.get("retry-after", "").strip()
    if text.isdecimal():
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - clock())
    except ValueError:
        return None


__all__ = ["MSGPACK", "Call", "Flow", "Manner", "Outcome", "Received", "exchange", "get", "model_path", "post"]
