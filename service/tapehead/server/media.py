"""Which media type a request is in, and which one its reply shall have. Header values in, names out; no I/O."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping

from tapehead.errors import NotAcceptable, UnsupportedMediaType
from tapehead.wire.messages import JSON, MEDIA, MSGPACK, PROBLEM_JSON

OCTETS = "application/octet-stream"
_REMEMBERED = 256
"""How many headers' meanings are remembered: clients send the same few again and again."""
_ALL = tuple(MEDIA)
PICTURES: Mapping[str, str] = {"image/png": "png", "image/svg+xml": "svg"}
"""The media types a picture can be had in, and the name of each format."""

ANSWERS = (*MEDIA, *PICTURES)
"""What an operation can be answered in."""

_WEIGHT = re.compile(r"0(\.\d*)?|1(\.0*)?|\.\d+")
_MSGPACKS = tuple(name for name, kind in MEDIA.items() if kind == "msgpack")


def media_type(content_type: str) -> str:
    """The media type of a Content-Type, in lower case and without parameters."""
    return content_type.partition(";")[0].strip().lower()


@functools.lru_cache(_REMEMBERED)
def request_type(content_type: str | None, allowed: tuple[str, ...] = _ALL, missing: str | None = None) -> str:
    """The media type a body is in; `missing` where the header is absent.

    Raises:
        UnsupportedMediaType: it is none of `allowed`.
    """
    named = media_type(content_type) if content_type else missing
    if named is not None and named in allowed:
        return named
    came = f"Content-Type {content_type!r}" if content_type else "no Content-Type"
    raise UnsupportedMediaType(f"{came}; send one of {', '.join(allowed)}")


def is_msgpack(content_type: str | None) -> bool:
    """Whether a body of that Content-Type is msgpack."""
    return media_type(content_type or "") in _MSGPACKS


@functools.lru_cache(_REMEMBERED)
def reply_type(accept: str | None, own: str = JSON, offered: tuple[str, ...] = _ALL) -> str:
    """The media type of a reply: what Accept wants most, else (or among equals) the request's own.

    Raises:
        NotAcceptable: Accept wants none of `offered`.
    """
    ranges = _ranges(accept)
    offers = sorted(offered, key=lambda offer: offer != own)
    best = max(offers, key=lambda offer: _quality(ranges, offer))
    if _quality(ranges, best) > 0:
        return best
    raise NotAcceptable(f"Accept is {accept!r}; this can be answered as {', '.join(offers)}")


def problem_type(accept: str | None) -> str:
    """The media type of a problem: msgpack where Accept wants that and no JSON, else problem+json."""
    ranges = _ranges(accept)
    if any(_quality(ranges, name) > 0 for name in (PROBLEM_JSON, JSON)):
        return PROBLEM_JSON
    return next((name for name in _MSGPACKS if _quality(ranges, name) > 0), PROBLEM_JSON)


def _ranges(accept: str | None) -> dict[str, float]:
    """The media ranges of an Accept header (RFC 9110, 12.5.1) and how much each is wanted, 0 to 1."""
    if accept is None or not accept.strip():
        return {"*/*": 1.0}
    return dict(_range(part) for part in accept.split(","))


def _range(part: str) -> tuple[str, float]:
    name, *parameters = (piece.strip().lower() for piece in part.split(";"))
    weights = [text[2:] for text in parameters if text.startswith("q=")]
    if not weights:
        return name, 1.0
    return name, float(weights[0]) if _WEIGHT.fullmatch(weights[0]) else 0.0


def _quality(ranges: dict[str, float], name: str) -> float:
    """How much `name` is wanted: the most specific range that holds it decides."""
    kind = name.partition("/")[0]
    return next((ranges[one] for one in (name, f"{kind}/*", "*/*") if one in ranges), 0.0)


__all__ = [
    "ANSWERS",
    "JSON",
    "MEDIA",
    "MSGPACK",
    "OCTETS",
    "PICTURES",
    "PROBLEM_JSON",
    "is_msgpack",
    "problem_type",
    "reply_type",
    "request_type",
]
