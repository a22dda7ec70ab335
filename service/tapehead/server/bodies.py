"""Bodies in and out: read under a limit, encoded in the media type that was asked for, the large ones off the loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from anyio import to_thread
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from tapehead.errors import BodyTooLarge, MalformedBody, UnsupportedMediaType
from tapehead.server import media
from tapehead.server.service import headers_of
from tapehead.wire.plain import encode

LARGE = 2**17
"""Bytes above which packing or unpacking holds the event loop up for longer than a thread costs."""

T = TypeVar("T")


async def read(request: Request, limit: int) -> bytes:
    """The request's body.

    Raises:
        BodyTooLarge: it is, or says it is, over `limit` bytes; no more than that is ever held.
        UnsupportedMediaType: it is compressed.
        starlette.requests.ClientDisconnect: the client went away.
    """
    _check_headers(request, limit)
    chunks: list[bytes] = []
    held, more = 0, True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk, more = message.get("body", b""), message.get("more_body", False)
        held += len(chunk)
        if held > limit:
            raise _too_large(f"more than {limit}", limit)
        chunks.append(chunk)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _check_headers(request: Request, limit: int) -> None:
    headers = headers_of(request)
    if headers.get("content-encoding", "identity") != "identity":
        raise UnsupportedMediaType(f"Content-Encoding {headers['content-encoding']!r}; send it uncompressed")
    length = headers.get("content-length", "0")
    if not length.isdecimal():
        raise MalformedBody(f"Content-Length is {length!r}; expected a number of bytes")
    if len(length) > 18 or int(length) > limit:
        raise _too_large(length[:18], limit)


def _too_large(came: str, limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"the body has {came} bytes; this server takes at most {limit}: send fewer sequences at a time")


async def read_json(request: Request, limit: int) -> bytes:
    """The body of a request of the Open Inference Protocol: JSON, also where it does not say so, or nothing.

    Raises:
        BodyTooLarge, UnsupportedMediaType, starlette.requests.ClientDisconnect: as `read`.
    """
    body = await read(request, limit)
    if body:
        media.request_type(headers_of(request).get("content-type"), (media.JSON,), missing=media.JSON)
    return body


async def off_loop(work: Callable[[], T]) -> T:
    """What `work` gives, computed in a thread."""
    return await to_thread.run_sync(work)


def plain(request: Request, value: Any) -> Response:
    """A reply that holds plain values: maps, lists, text and numbers.

    Raises:
        NotAcceptable: Accept wants neither JSON nor msgpack.
    """
    name = media.reply_type(headers_of(request).get("accept"), media.JSON)
    return Response(encode(value, name), media_type=name)
