"""What a worker can be asked, in plain values: the seam that a thread and a child process both carry."""

from __future__ import annotations

import asyncio
import mmap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np

from tapehead.errors import TapeheadError
from tapehead.operations import Array, Card, Request, Result

Answer = Result | TapeheadError


@dataclass(frozen=True)
class ModelRef:
    """One version of a model, and where its file is; `path` is None for a live model that a caller handed over.

    `modified_ns` and `size` (bytes) are the file's when it was seen: a worker that holds another state of it reloads.
    """

    name: str
    version: int
    path: str | None = None
    modified_ns: int = 0
    size: int = 0

    @property
    def key(self) -> tuple[str, int]:
        """Name and version."""
        return self.name, self.version


class Growth:
    """The one tensor of an answer while it is filled, seen on the event loop of who waits for it.

    `array` is None until its memory is there; then its first `filled` bytes are as they will stay.
    """

    def __init__(self) -> None:
        self.model: ModelRef | None = None
        self.name = ""
        self.array: Array | None = None
        self.filled = 0
        self._moved = asyncio.Event()
        self._opened: Callable[[], None] = lambda: None

    def open(self, name: str, array: Array) -> None:
        """The memory is there."""
        self.name, self.array = name, array
        self._moved.set()
        self._opened()

    def fill(self, size: int) -> None:
        """More of it is filled."""
        self.filled = max(self.filled, size)
        self._moved.set()

    def let_go(self, size: int) -> None:
        """So many bytes from the start are not looked at any more: a mapping of them is undone, the memory stays."""
        mapping: Any = self.array
        while isinstance(mapping, np.ndarray | memoryview):
            mapping = mapping.base if isinstance(mapping, np.ndarray) else mapping.obj
        whole = size // mmap.PAGESIZE * mmap.PAGESIZE
        if isinstance(mapping, mmap.mmap) and whole:
            mapping.madvise(mmap.MADV_DONTNEED, 0, whole)

    def when_open(self, tell: Callable[[], None]) -> None:
        """Calls `tell` once the memory is there."""
        self._opened = tell

    async def opened(self) -> None:
        """Waits until the memory is there."""
        while self.array is None:
            await self._move()

    async def beyond(self, size: int) -> int:
        """How much is filled, once that is more than `size` bytes."""
        while self.filled <= size:
            await self._move()
        return self.filled

    async def _move(self) -> None:
        self._moved.clear()
        await self._moved.wait()


@dataclass(frozen=True)
class Job:
    """One checked request for one model. `deadline` is on `time.monotonic`, which processes of a machine share.

    `growth` is told of the answer's one tensor while it is filled, where the engine can compute it that way. A job that
    is `warming` a model up is asked by nobody, and not counted.
    """

    id: str
    model: ModelRef
    operation: str
    request: Request
    deadline: float | None = None
    growth: Growth | None = field(default=None, compare=False)
    warming: bool = False


class Resident(NamedTuple):
    """A model in device memory, and the bytes of its weights."""

    name: str
    version: int
    bytes: int


@dataclass(frozen=True)
class WorkerStatus:
    """A worker's device, all the devices that workers could have, and its models, least recently used first.

    `compiling` is how many functions are being compiled beside the work.
    """

    device: str
    devices: tuple[str, ...]
    memory_bytes: int
    budget_bytes: int
    resident: tuple[Resident, ...] = ()
    compiling: int = 0


@dataclass(frozen=True)
class WorkerSettings:
    """How a worker is set up.

    Attributes:
        device: `gpu:0`, `cpu:1` …; empty for the first GPU, or the processor where there is none.
        budget_bytes: how many bytes of weights may be resident; None for a share of the device's memory.
        imports: modules that register custom Keras classes, imported before any model is loaded.
        logical_cpus: over how many logical devices the processor is divided; 0 leaves it whole.
        cache_dir: a folder where compiled kernels are kept between starts.
        engine: the module with `Model` and `OPERATIONS`.
    """

    device: str = ""
    budget_bytes: int | None = None
    imports: tuple[str, ...] = ()
    logical_cpus: int = 0
    cache_dir: str | None = None
    engine: str = "tapehead.engine"


class Worker(Protocol):
    """Owns one device and its models, and computes. A worker that was lost or closed can be started again."""

    async def start(self) -> WorkerStatus:
        """Sets the device up and returns once jobs are taken.

        Raises:
            WorkerDied: it cannot start; the detail says why.
        """

    async def load(self, ref: ModelRef) -> Card:
        """Makes the model resident; one that is already costs nothing.

        Raises:
            UnsupportedModel: the file or object cannot be served.
            OutOfMemory, WorkerDied: as they say.
        """

    async def unload(self, name: str, version: int) -> None:
        """Gives the model's memory back; unknown models are no error."""

    async def run(self, jobs: Sequence[Job]) -> list[Answer]:
        """One answer a job, in order; a job's own failure is its answer.

        Raises:
            WorkerDied: all of them are lost.
        """

    async def status(self) -> WorkerStatus:
        """What it holds now."""

    async def lost(self) -> str:
        """Waits until a started worker dies by no wish of ours, and says how."""

    async def close(self) -> None:
        """Ends it, with what it holds."""


Hire = Callable[[str], Worker]
"""A device's name -> a worker for it, not yet started; an empty name lets the worker choose."""
