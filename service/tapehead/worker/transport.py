"""Trees of values across a UNIX socket: small things in a msgpack header, large arrays in shared memory.

A message is

    prefix     header length (uint32), shared bytes (uint64), little-endian
    header     msgpack; an array is an extension that holds its layout (the dtype's name and the shape, padded so that
               what follows is aligned), then its bytes, or their offset in shared memory
    descriptor if there are shared bytes: one memfd with every large array, sent with the prefix (SCM_RIGHTS)

The receiver maps the descriptor read-only and hands out views: large arrays are copied once, on the way out, and are
unmapped when the last view is gone. Memory of this kind has no name, so nothing is left behind when a process dies,
and it is not bounded by the size of /dev/shm (64 MB in a container). Nothing is pickled.
"""

from __future__ import annotations

import functools
import math
import mmap
import os
import socket
import struct
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgpack
import numpy as np
import numpy.typing as npt

from tapehead.worker.memory import mapped, nameless

INLINE_BYTES = 1 << 16
"""Arrays up to this size travel in the header: below it, a system call costs more than a copy."""

_PREFIX = struct.Struct("<IQ")
_INLINE, _SHARED = 1, 2
_ALIGNMENT = 64
_PADDING = 16
_RECEIVE_BYTES = 1 << 18
_NOT_INHERITED = getattr(socket, "MSG_CMSG_CLOEXEC", 0)

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Parcel:
    """A message ready to go: its prefix and header, and the arrays that go into shared memory, by their offset."""

    head: bytes
    shared: tuple[tuple[int, Array], ...]
    size: int

    def memory(self) -> int | None:
        """A new descriptor of shared memory that holds the arrays, which the caller closes; None if there are none."""
        if not self.size:
            return None
        descriptor = nameless(self.size)
        try:
            for offset, array in self.shared:
                _write(descriptor, array, offset)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor


def pack(tree: Any) -> Parcel:
    """A tree of maps, lists, text, bytes, numbers, None and arrays, packed.

    Raises:
        TypeError: the tree holds something else.
    """
    shared: list[tuple[int, Array]] = []
    header = msgpack.packb(tree, default=functools.partial(_pack_other, shared=shared), unicode_errors="surrogatepass")
    size = _end(shared)
    return Parcel(_PREFIX.pack(len(header), size) + header, tuple(shared), size)


def unpack(header: bytes | bytearray | memoryview, memory: mmap.mmap | None) -> Any:
    """The tree that was packed; tuples come back as lists, arrays read-only and over `memory` if they were large."""

    def revive(code: int, data: bytes) -> Any:
        start = data[0] * _PADDING
        dtype, shape = _layout_of(data[1:start])
        if code == _INLINE:
            return np.ndarray(shape, dtype, data, start)
        assert code == _SHARED, f"unknown extension {code}"
        assert memory is not None
        return np.frombuffer(memory, dtype, math.prod(shape), int.from_bytes(data[start:], "little")).reshape(shape)

    return msgpack.unpackb(header, ext_hook=revive, unicode_errors="surrogatepass")


class Inbox:
    """Bytes and descriptors as they arrive -> whole messages. No I/O of its own."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._descriptors: deque[int] = deque()

    def feed(self, data: bytes, descriptors: Iterable[int] = ()) -> list[Any]:
        """The messages that `data` completes, in order; a descriptor belongs to the first prefix that wants one."""
        self._bytes += data
        self._descriptors.extend(descriptors)
        messages = []
        while (header_and_size := self._next()) is not None:
            header, size = header_and_size
            messages.append(unpack(header, mapped(self._descriptors.popleft(), size) if size else None))
        return messages

    def close(self) -> None:
        """Closes the descriptors of messages that never became whole."""
        while self._descriptors:
            os.close(self._descriptors.popleft())

    def _next(self) -> tuple[bytes, int] | None:
        if len(self._bytes) < _PREFIX.size:
            return None
        length, size = _PREFIX.unpack_from(self._bytes)
        end = _PREFIX.size + length
        if len(self._bytes) < end:
            return None
        header = bytes(memoryview(self._bytes)[_PREFIX.size : end])
        del self._bytes[:end]
        return header, size


def receive(connection: socket.socket, inbox: Inbox) -> list[Any] | None:
    """The messages that one read completes, perhaps none; None when the other end is closed."""
    data, descriptors, _, _ = socket.recv_fds(connection, _RECEIVE_BYTES, 4, _NOT_INHERITED)
    return inbox.feed(data, descriptors) if data else None


def send(connection: socket.socket, tree: Any) -> None:
    """Sends one message on a blocking socket."""
    parcel = pack(tree)
    memory = parcel.memory()
    try:
        _send_whole(connection, parcel.head, memory)
    finally:
        if memory is not None:
            os.close(memory)


def send_shared(connection: socket.socket, tree: Any, memory: int) -> None:
    """Sends one message on a blocking socket whose only large array begins `memory`, and may be filled yet."""
    _send_whole(connection, pack(tree).head, memory)


def _send_whole(connection: socket.socket, head: bytes, memory: int | None) -> None:
    sent = send_start(connection, head, memory)
    connection.sendall(memoryview(head)[sent:])


def send_start(connection: socket.socket, head: bytes, memory: int | None) -> int:
    """Sends the descriptor with as much of the head as goes at once, and says how many bytes that were."""
    return connection.send(head) if memory is None else socket.send_fds(connection, [head], [memory])


def _pack_other(value: Any, shared: list[tuple[int, Array]]) -> Any:
    for kind, packer in _PACKERS.items():
        if isinstance(value, kind):
            return packer(value, shared)
    raise TypeError(f"a {type(value).__name__} does not cross between processes")


def _pack_array(array: Array, shared: list[tuple[int, Array]]) -> msgpack.ExtType:
    if array.dtype.hasobject:
        raise TypeError("an array of Python objects does not cross between processes")
    native = array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))
    layout = _layout(native.dtype, native.shape)
    if native.nbytes <= INLINE_BYTES:
        return msgpack.ExtType(_INLINE, layout + native.tobytes())
    offset = -(-_end(shared) // _ALIGNMENT) * _ALIGNMENT
    shared.append((offset, np.ascontiguousarray(native)))
    return msgpack.ExtType(_SHARED, layout + offset.to_bytes(8, "little"))


@functools.lru_cache(256)
def _layout(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """A byte that tells its length in units of `_PADDING`, then what it says."""
    told: bytes = msgpack.packb((dtype.name, shape))
    units = -(-(1 + len(told)) // _PADDING)
    return (bytes((units,)) + told).ljust(units * _PADDING, b"\0")


@functools.lru_cache(256)
def _layout_of(told: bytes) -> tuple[np.dtype[Any], tuple[int, ...]]:
    unpacker = msgpack.Unpacker()
    unpacker.feed(told)
    name, shape = unpacker.unpack()
    return _dtype(name), tuple(shape)


_PACKERS: Mapping[type, Callable[[Any, list[tuple[int, Array]]], Any]] = {
    np.ndarray: _pack_array,
    np.generic: lambda value, _: value.item(),
    Mapping: lambda value, _: dict(value),
}


def _end(shared: list[tuple[int, Array]]) -> int:
    return shared[-1][0] + shared[-1][1].nbytes if shared else 0


def _dtype(name: str) -> np.dtype[Any]:
    """A dtype by name. NumPy itself knows none of TensorFlow's small floats; ml_dtypes, which comes with it, does."""
    try:
        return np.dtype(name)
    except TypeError:
        import ml_dtypes

        kind: type[Any] = getattr(ml_dtypes, name)
        return np.dtype(kind)


def _write(descriptor: int, array: Array, offset: int) -> None:
    # Written rather than copied into a mapping: the kernel fills fresh pages faster than a process faults them in.
    rest = array.reshape(-1).view(np.uint8).data
    while rest:
        written = os.pwrite(descriptor, rest, offset)
        rest, offset = rest[written:], offset + written
