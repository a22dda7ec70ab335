"""A large reply in pieces: what stands around its arrays as bytes, each array as it lies in memory. No second copy.

The pieces joined are the plain msgpack of the reply. Their lengths are known before the numbers are, so that a reply
can be sent while it is computed: `meta`, which comes last and is known last, is padded to a length set beforehand.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

import msgpack

from tapehead.operations import Result
from tapehead.operations.request import Array
from tapehead.wire.messages import PADDING, VERSION, encode_plain
from tapehead.wire.plain import MSGPACK, Bytes
from tapehead.wire.tensors import pack

LARGEST = 2**32 - 1
"""The most bytes of one array that msgpack can say."""

_BIN = struct.Struct(">BI")
_BIN32, _STR32 = 0xC6, 0xDB


def reply_pieces(result: Result, model: str, version: int) -> list[Bytes]:
    """The body of an answer, its arrays uncopied.

    Raises:
        BadDtype: an array's dtype is none that travels.
        ValueError: an array is too large for msgpack.
    """
    tensors = [piece for name, array in result.tensors.items() for piece in _tensor(name, array)]
    return [_head(model, version, len(result.tensors)), *tensors, _tail(result.axes, result.meta)]


def opening(name: str, array: Array, model: str, version: int) -> tuple[bytes, Bytes]:
    """The start of an answer that is one tensor: what comes before its numbers, and where they are or will be."""
    before, data = _tensor(name, array)
    return _head(model, version, 1) + bytes(before), data


def closing(axes: Mapping[str, tuple[str, ...]], meta: Mapping[str, Any], size: int) -> bytes:
    """What comes after the numbers, padded to `size` bytes.

    Raises:
        ValueError: it is longer than that.
    """
    # Written with an empty text last, whose one byte is then exchanged for a text as long as is needed.
    tail = _tail(axes, {**meta, PADDING: ""})[:-1]
    room = size - len(tail) - _BIN.size
    if room < 0:
        raise ValueError(f"the end of the reply takes {len(tail)} bytes, over the {size} kept for it")
    return tail + _BIN.pack(_STR32, room) + b" " * room


def _head(model: str, version: int, tensors: int) -> bytes:
    packer = msgpack.Packer()
    told = packer.pack("v") + packer.pack(VERSION) + packer.pack("model")
    told += packer.pack({"name": model, "version": version}) + packer.pack("tensors")
    head: bytes = packer.pack_map_header(5) + told + packer.pack_map_header(tensors)
    return head


def _tensor(name: str, array: Array) -> tuple[Bytes, Bytes]:
    if array.nbytes > LARGEST:
        raise ValueError(f"{name} has {array.nbytes} bytes; msgpack holds at most {LARGEST}")
    tensor, packer = pack(array, "msgpack"), msgpack.Packer()
    fields = packer.pack("dtype") + packer.pack(tensor["dtype"]) + packer.pack("shape") + packer.pack(tensor["shape"])
    before = packer.pack(name) + packer.pack_map_header(3) + fields + packer.pack("data")
    return before + _BIN.pack(_BIN32, array.nbytes), tensor["data"]


def _tail(axes: Mapping[str, tuple[str, ...]], meta: Mapping[str, Any]) -> bytes:
    packed = {name: bytes(encode_plain(value, MSGPACK)) for name, value in (("axes", axes), ("meta", meta))}
    return b"".join(msgpack.packb(name) + value for name, value in packed.items())
