"""Shared memory without a name, kept for the next answer once its reader has let it go.

Fresh pages cost more than what is written to them: the kernel clears each one, and a process that meets it for the
first time stops there. Memory that is used again has neither. Its last byte says whether somebody still reads: the
writer sets it to `BUSY`, and whoever maps it sets it to `FREE` when the mapping is gone.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import tempfile
import weakref
from dataclasses import dataclass

KEPT_BYTES = 256 << 20
"""The most memory that is kept for answers to come."""

BUSY, FREE = b"\0", b"\1"


@dataclass(frozen=True)
class Shared:
    """Memory that is written here and read elsewhere; its descriptor is for whoever reads, and closed with it."""

    mapping: mmap.mmap
    descriptor: int

    @property
    def is_free(self) -> bool:
        """Whether nobody reads it any more."""
        return self.mapping[-1:] == FREE

    def close(self) -> None:
        """Lets it go; who reads it keeps it."""
        os.close(self.descriptor)


class Shelf:
    """Memory for answers, some of which is kept to be used again. Not for several threads at once."""

    def __init__(self, kept_bytes: int = KEPT_BYTES) -> None:
        self._kept_bytes = kept_bytes
        self._kept: list[Shared] = []

    def take(self, size: int) -> Shared:
        """Memory of at least `size` bytes and one; what is in it may be left from before."""
        fitting = [one for one in self._kept if size < len(one.mapping) <= 2 * (size + mmap.PAGESIZE) and one.is_free]
        if not fitting:
            return self._new(size)
        found = min(fitting, key=lambda one: len(one.mapping))
        found.mapping[-1:] = BUSY
        return found

    def close(self) -> None:
        """Lets all of it go."""
        while self._kept:
            self._kept.pop().close()

    def _new(self, size: int) -> Shared:
        length = (size // mmap.PAGESIZE + 1) * mmap.PAGESIZE
        while self._kept and sum(len(one.mapping) for one in self._kept) + length > self._kept_bytes:
            self._kept.pop(0).close()
        descriptor = nameless(length)
        try:
            found = Shared(mmap.mmap(descriptor, length), descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        self._kept.append(found)
        return found


def nameless(size: int) -> int:
    """The descriptor of new memory that has no name, which the caller closes."""
    descriptor = _nameless()
    try:
        os.ftruncate(descriptor, size)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def mapped(descriptor: int, size: int) -> mmap.mmap:
    """The first `size` bytes of shared memory, to be read; takes the descriptor. Tells the writer when it is gone."""
    try:
        mapping = mmap.mmap(descriptor, size, access=mmap.ACCESS_READ)
        returned = os.fstat(descriptor).st_size > size
    except BaseException:
        os.close(descriptor)
        raise
    if returned:
        weakref.finalize(mapping, _give_back, descriptor).atexit = False
    else:
        os.close(descriptor)
    return mapping


def _give_back(descriptor: int) -> None:
    with contextlib.suppress(OSError):
        os.pwrite(descriptor, FREE, os.fstat(descriptor).st_size - 1)
    os.close(descriptor)


def _nameless() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("tapehead", os.MFD_CLOEXEC)
    with tempfile.TemporaryFile() as file:  # macOS: a file that has no name any more is the nearest thing
        return os.dup(file.fileno())
