"""Answers as pictures: how one is asked for, what has one, and the drawing itself, which `studio.py` does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import QueryParams

from tapehead.errors import AnswerTooLarge, BadParameter, NotAcceptable
from tapehead.operations import Card, Request, check, title
from tapehead.server.media import PICTURES
from tapehead.wire.messages import Reply

LIMIT = 128 * 2**20
"""The bytes of the largest answer that is drawn: a picture shows a few thousand numbers of it at most."""

NARROWEST, WIDEST = 400, 3200
_WIDTH = 800


@dataclass(frozen=True)
class Wish:
    """How a picture is to be: its format, its width in pixels, and which sample it shows."""

    format: str
    width: int = _WIDTH
    row: int = 0


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


def picture(asked: Mapping[str, Any], reply: Reply, wished: Wish) -> bytes:
    """An answer as the bytes of an image file.

    Raises:
        AnswerTooLarge: it has too many numbers.
        BadParameter: it has no such sample.
        NotAcceptable: nothing in it can be drawn, or this server cannot draw.
    """
    tensors, axes = reply.result.tensors, reply.result.axes
    _check_size(sum(tensor.nbytes for tensor in tensors.values()))
    # A door upwards: who asks for no picture needs no matplotlib.
    try:
        from tapehead import pictures
    except ModuleNotFoundError as error:
        raise NotAcceptable(f"{error}, so this server draws no pictures: pip install 'tapehead[plot]' there") from error

    meta, write = {**asked, **reply.result.meta}, {"png": pictures.png, "svg": pictures.svg}[wished.format]
    said = title(reply.model, asked)
    try:
        return write(pictures.picture(tensors=tensors, axes=axes, meta=meta, title=said, row=wished.row), wished.width)
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
