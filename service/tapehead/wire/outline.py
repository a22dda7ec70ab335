"""The outline of a msgpack body, walked before anything is built from it.

A msgpack array says how many entries it has before the first of them, and a decoder makes room for that many at once: a
few kilobytes of nested claims reserve gigabytes. Here every claim is held against the bytes that are there.
The format: https://github.com/msgpack/msgpack/blob/master/spec.md
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from tapehead.errors import MalformedBody

MAX_DEPTH = 32
MAX_ITEMS = 2**21
LARGE_BIN = 2**17
"""Bytes from which a bin is worth being told of; msgpack says the length of such a one in 32 bits."""
_BIN32 = 0xC6

Kind = Literal["leaf", "array", "map", "extension", "unused"]


class _Head(NamedTuple):
    """What a first byte says: `size` payload bytes or entries, or a number of `width` bytes that says how many."""

    kind: Kind
    size: int = 0
    width: int = 0


_WIDE: dict[int, _Head] = {
    0xC0: _Head("leaf"),
    0xC1: _Head("unused"),
    0xC2: _Head("leaf"),
    0xC3: _Head("leaf"),
    **{0xC4 + n: _Head("leaf", width=2**n) for n in range(3)},
    **{0xC7 + n: _Head("extension") for n in range(3)},
    0xCA: _Head("leaf", 4),
    0xCB: _Head("leaf", 8),
    **{0xCC + n: _Head("leaf", 2**n) for n in range(4)},
    **{0xD0 + n: _Head("leaf", 2**n) for n in range(4)},
    **{0xD4 + n: _Head("extension") for n in range(5)},
    **{0xD9 + n: _Head("leaf", width=2**n) for n in range(3)},
    **{0xDC + n: _Head("array", width=2 + 2 * n) for n in range(2)},
    **{0xDE + n: _Head("map", width=2 + 2 * n) for n in range(2)},
}


def _head(byte: int) -> _Head:
    if byte <= 0x7F or byte >= 0xE0:
        return _Head("leaf")
    if byte <= 0x8F:
        return _Head("map", byte & 0x0F)
    if byte <= 0x9F:
        return _Head("array", byte & 0x0F)
    if byte <= 0xBF:
        return _Head("leaf", byte & 0x1F)
    return _WIDE[byte]


_HEADS = tuple(map(_head, range(256)))


class Span(NamedTuple):
    """Where a value lies in a body: its head at `start`, its payload from `data` to `end`."""

    start: int
    data: int
    end: int


def check_outline(body: bytes | bytearray | memoryview) -> list[Span]:
    """Refuses a msgpack body that claims more than it holds, or holds what Tapehead never sends; tells its large bins.

    Raises:
        MalformedBody: it is cut short, goes on after its end, nests deeper than `MAX_DEPTH`, holds more than
            `MAX_ITEMS` values, or an extension type. The message names the byte.
    """
    at, items, due = 0, 0, [1]
    bins: list[Span] = []
    while due:
        if not due[-1]:
            due.pop()
            continue
        due[-1] -= 1
        items += 1
        if items > MAX_ITEMS:
            raise MalformedBody(f"the body holds more than {MAX_ITEMS:,} values; send arrays of numbers as tensors")
        start = at
        at, entries = _item(body, at)
        if at - start > LARGE_BIN and body[start] == _BIN32:
            bins.append(Span(start, start + 5, at))
        if entries:
            due.append(entries)
        if len(due) > MAX_DEPTH:
            raise MalformedBody(f"the body nests deeper than {MAX_DEPTH} levels, at byte {at}")
    if at != len(body):
        raise MalformedBody(f"the body ends at byte {at}, yet {len(body) - at} more bytes follow; send one msgpack map")
    return bins


def _item(body: bytes | bytearray | memoryview, at: int) -> tuple[int, int]:
    """Where the item at `at` ends (its entries left out), and how many entries it has."""
    if at >= len(body):
        raise _cut_short(body, at, 1)
    kind, size, width = _HEADS[body[at]]
    if kind in ("extension", "unused"):
        raise MalformedBody(f"byte {at} of the body is 0x{body[at]:02x}, which is no plain msgpack")
    after = at + 1 + width
    if width:
        if after > len(body):
            raise _cut_short(body, at, 1 + width)
        size = int.from_bytes(body[at + 1 : after], "big")
    entries = {"leaf": 0, "array": size, "map": 2 * size}[kind]
    needed = entries or (size if kind == "leaf" else 0)
    if after + needed > len(body):
        raise _cut_short(body, at, after + needed - at)
    return (after, entries) if entries else (after + needed, 0)


def _cut_short(body: bytes | bytearray | memoryview, at: int, needed: int) -> MalformedBody:
    return MalformedBody(
        f"the body is cut short: the value at byte {at} needs at least {needed} bytes, and {len(body) - at} are left "
        f"of {len(body)}"
    )
