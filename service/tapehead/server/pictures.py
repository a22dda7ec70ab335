"""Answers as pictures: one at a time in a thread of its own, a bounded number waiting. The event loop draws nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import QueryParams

from tapehead.errors import AnswerTooLarge, BadParameter, NotAcceptable, QueueFull
from tapehead.operations import Card, Request, Result, check, title, what_was_asked
from tapehead.server.media import PICTURES
from tapehead.worker.protocol import ModelRef

LIMIT = 128 * 2**20
"""The bytes of the largest answer that is drawn: a picture shows a few thousand numbers of it at most."""

WAITING = 16
"""Pictures that may wait to be drawn; one more is told to come again."""

NARROWEST, WIDEST = 400, 3200
_WIDTH = 800


@dataclass(frozen=True)
class Wish:
    """How a picture is to be: its format, its width in pixels, and which sample it shows."""

    format: str
    width: int = _WIDTH
    row: int = 0


class Easel:
    """Where pictures are drawn: matplotlib holds the interpreter's lock for most of its work, so one at a time."""

    def __init__(self, waiting: int = WAITING) -> None:
        self._waiting = waiting
        self._taken = 0
        self._thread = ThreadPoolExecutor(1, "tapehead-pictures")

    async def draw(self, work: Callable[[], bytes]) -> bytes:
        """What `work` gives. One that is given up while it waits is never begun.

        Raises:
            QueueFull: as many wait as may.
        """
        if self._taken > self._waiting:
            raise QueueFull(f"{self._waiting} pictures wait to be drawn; try again, or take the numbers")
        self._taken += 1
        drawing = asyncio.get_running_loop().run_in_executor(self._thread, work)
        drawing.add_done_callback(self._freed)
        return await drawing

    def close(self) -> None:
        """Ends the thread once the picture at hand is done; those that wait are not begun."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _freed(self, _: object) -> None:
        self._taken -= 1


def wish(wanted: str, query: QueryParams) -> Wish:
    """The picture that a request asks for: `?width=1200&row=2`, both optional.

    Raises:
        BadParameter: the query holds anything else.
    """
    unknown = sorted(set(query) - {"width", "row"})
    if unknown:
        raise BadParameter(f"a picture has no parameter {unknown[0]!r} in the query; it takes width and row")
    width = _whole(query, "width", _WIDTH, NARROWEST, WIDEST)
    return Wish(PICTURES[wanted], width, _whole(query, "row", 0, 0, 10**9))


def check_drawable(card: Card, operation: str, request: Request) -> None:
    """Refuses what has no picture, before any work.

    Raises:
        BadParameter: a dry run is asked for.
        AnswerTooLarge: the answer would have too many numbers to draw.
        TapeheadError: the request cannot be answered at all.
    """
    if request.parameters.get("dry_run") is True:
        raise BadParameter("a dry run computes no numbers to draw: leave dry_run out, or ask for it as JSON")
    _, plans = check(card, operation, request)
    _check_size(sum(plan.bytes for plan in plans))


def _check_size(size: int) -> None:
    if size > LIMIT:
        raise AnswerTooLarge(
            f"the answer has {size / 2**20:,.1f} MiB; as a picture it may have {LIMIT / 2**20:,.0f} MiB at most. Ask "
            f"for what a picture can show: a reduction, as reduce='norm' with one number a pair of timesteps; fewer "
            f"samples; or a slice of timesteps or units. Or take the numbers, as JSON or msgpack"
        )


def picture(operation: str, parameters: Mapping[str, Any], result: Result, ref: ModelRef, wished: Wish) -> bytes:
    """An answer as the bytes of an image file.

    Raises:
        AnswerTooLarge: it has too many numbers.
        BadParameter: it has no such sample.
        NotAcceptable: nothing in it can be drawn, or this server cannot draw.
    """
    _check_size(sum(tensor.nbytes for tensor in result.tensors.values()))
    # A door upwards: who asks for no picture needs no matplotlib.
    try:
        from tapehead import pictures
    except ModuleNotFoundError as error:
        raise NotAcceptable(f"{error}, so this server draws no pictures: pip install 'tapehead[plot]' there") from error

    asked = what_was_asked(operation, parameters)
    meta, write = {**asked, **result.meta}, {"png": pictures.png, "svg": pictures.svg}[wished.format]
    try:
        figure = pictures.picture(
            tensors=result.tensors, axes=result.axes, meta=meta, title=title(ref.name, asked), row=wished.row
        )
        return write(figure, wished.width)
    except pictures.NoSample as error:
        raise BadParameter(str(error)) from error
    except pictures.NoPicture as error:
        raise NotAcceptable(f"{error}; take the numbers, as JSON or msgpack") from error


def _whole(query: QueryParams, name: str, default: int, least: int, most: int) -> int:
    text = query.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) < 11 and least <= int(text) <= most):
        raise BadParameter(f"{name} is {text[:20]!r} in the query; expected a whole number from {least} to {most}")
    return int(text)
