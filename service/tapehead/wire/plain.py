"""Bytes to maps, lists, text and numbers, and back: msgpack or JSON, read strictly.

Both media are read into the same plain values, so what stands above knows only one schema.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NoReturn

import msgpack
import numpy as np

from tapehead.errors import MalformedBody, UnsupportedMediaType
from tapehead.wire.outline import MAX_ITEMS, Span, check_outline

Bytes = bytes | bytearray | memoryview
Kind = Literal["msgpack", "json"]

_ALIGNMENT = 8
_FIXEXT4 = bytes((0xD6, 0))

MSGPACK = "application/vnd.msgpack"
JSON = "application/json"
PROBLEM_JSON = "application/problem+json"

MEDIA: Mapping[str, Kind] = {
    MSGPACK: "msgpack",
    "application/msgpack": "msgpack",
    "application/x-msgpack": "msgpack",
    JSON: "json",
}
"""The media types of a body, each with its kind."""

_KINDS: Mapping[str, Kind] = {**MEDIA, PROBLEM_JSON: "json", "msgpack": "msgpack", "json": "json"}


def kind_of(media: str) -> Kind:
    """`msgpack` or `json`, for a media type (its parameters and case aside) or for these words themselves.

    Raises:
        UnsupportedMediaType: it is neither.
    """
    kind = _KINDS.get(media.partition(";")[0].strip().lower())
    if kind is None:
        raise UnsupportedMediaType(f"{media!r} cannot be read; expected one of {', '.join(MEDIA)}")
    return kind


def decode(body: Bytes, media: str) -> Any:
    """The plain value in a body.

    A writable body is the caller's to give away: large bins of its msgpack come as views of it, moved up to seven bytes
    so that numbers lie where a processor reads them best.

    Raises:
        MalformedBody: it is not what `media` says, or repeats a key of a map.
    """
    return _DECODERS[kind_of(media)](body)


def encode(
    value: Any, media: str, *, size: int = 0, other: Callable[[Any], Any] | None = None
) -> bytes | memoryview:
    """A plain value as bytes; `size` is about how many they will be, so that large ones are written once.

    In msgpack, `other` makes a plain value of what is none.
    """
    if kind_of(media) == "json":
        return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()
    packer = msgpack.Packer(autoreset=False, buf_size=size + 4096, default=other)
    packer.pack(value)
    written: memoryview = packer.getbuffer()
    return written


def _from_msgpack(body: Bytes) -> Any:
    bins = check_outline(body)
    size = len(body)
    views: list[memoryview] = []
    if bins and isinstance(body, memoryview) and not body.readonly:
        body, views = _outside(body, bins)
    try:
        return msgpack.unpackb(
            body,
            raw=False,
            strict_map_key=True,
            object_pairs_hook=_distinct,
            ext_hook=lambda _, place: views[int.from_bytes(place, "big")],
            max_str_len=size,
            max_bin_len=size,
            max_array_len=min(size, MAX_ITEMS),
            max_map_len=min(size, MAX_ITEMS),
            max_ext_len=4,
        )
    except ValueError as error:
        raise MalformedBody(f"the body is not msgpack with text keys: {error}") from error


def _outside(body: memoryview, bins: Sequence[Span]) -> tuple[bytes, list[memoryview]]:
    """The body with each of `bins` taken out, its number in its place (an extension, of which the body has none)."""
    edges = [0, *(edge for span in bins for edge in (span.start, span.end)), len(body)]
    rest = [bytes(body[start:end]) for start, end in zip(edges[::2], edges[1::2], strict=True)]
    marks = [_FIXEXT4 + number.to_bytes(4, "big") for number in range(len(bins))]
    first = np.frombuffer(body, np.uint8).ctypes.data
    views = []
    for span in bins:
        data = span.data - (first + span.data) % _ALIGNMENT
        view = body[data : data + span.end - span.data]
        view[:] = body[span.data : span.end]
        views.append(view)
    return b"".join(map(bytes.__add__, rest, [*marks, b""])), views


def _from_json(body: Bytes) -> Any:
    try:
        text = str(body, "utf-8")
        value = json.loads(text, object_pairs_hook=_distinct, parse_constant=_refuse_constant)
        if "\\ud" in text.lower():
            # An escaped half of a surrogate pair is no character, and would fail wherever it is written again.
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise MalformedBody("the body nests too deep to be read") from None
    except ValueError as error:
        raise MalformedBody(f"the body is not JSON: {error}") from error
    return value


_DECODERS = {"msgpack": _from_msgpack, "json": _from_json}


def _distinct(pairs: list[tuple[Any, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if not isinstance(key, str):
            raise MalformedBody("a map has a key that is not text")
        if key in found:
            raise MalformedBody(f"a map has the key {key[:80]!r} twice")
        found[key] = value
    return found


def _refuse_constant(text: str) -> NoReturn:
    raise MalformedBody(f'JSON has no {text}; send it as a string, "{text}"')
