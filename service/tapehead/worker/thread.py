"""A worker on a thread of this process: for notebooks and tests, and for live models. Imports TensorFlow at `start`."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from tapehead.errors import TapeheadError, WorkerDied
from tapehead.operations import Array, Card
from tapehead.worker.protocol import Answer, Growth, Hire, Job, ModelRef, WorkerSettings, WorkerStatus

if TYPE_CHECKING:
    from tapehead.worker.station import Station

T = TypeVar("T")


def hiring(settings: WorkerSettings, live: Mapping[str, Any] | None = None) -> Hire:
    """Workers on threads of this process, alike but for their device."""

    def hire(device: str) -> ThreadWorker:
        return ThreadWorker(dataclasses.replace(settings, device=device or settings.device), live)

    return hire


class ThreadWorker:
    """A worker on one thread of its own. A call that was begun cannot be ended from outside, and nothing kills it.

    Args:
        settings: how it is set up.
        live: Keras models by name. They are used, not copied: their present weights count at every call.
    """

    def __init__(self, settings: WorkerSettings, live: Mapping[str, Any] | None = None) -> None:
        self._settings, self._live = settings, live
        self._thread: ThreadPoolExecutor | None = None
        self._station: Station | None = None

    def __repr__(self) -> str:
        return f"<ThreadWorker {self._station or 'not started'}>"

    async def start(self) -> WorkerStatus:
        """Starts the thread and sets the device up."""
        await self.close()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="tapehead-worker")
        try:
            self._station = await self._on_thread(self._build)
        except Exception as error:  # TensorFlow can be absent or broken, and the imports named are somebody else's code
            await self.close()
            raise WorkerDied(_why(error)) from error
        return await self.status()

    async def load(self, ref: ModelRef) -> Card:
        """Makes the model resident."""
        return await self._on_thread(self._started.load, ref)

    async def unload(self, name: str, version: int) -> None:
        """Gives the model's memory back."""
        await self._on_thread(self._started.unload, name, version)

    async def run(self, jobs: Sequence[Job]) -> list[Answer]:
        """One answer a job, in order."""
        loop = asyncio.get_running_loop()
        sinks = [None if job.growth is None else _Sink(job.growth, loop) for job in jobs]
        return await self._on_thread(self._started.run, jobs, sinks)

    async def status(self) -> WorkerStatus:
        """What it holds now."""
        return await self._on_thread(self._started.status)

    async def lost(self) -> str:
        """Never returns: a thread dies with its process."""
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    async def close(self) -> None:
        """Waits for what is in hand, then lets the thread and the models go."""
        if self._thread is not None:
            await asyncio.to_thread(self._thread.shutdown)
        self._thread = self._station = None

    def _build(self) -> Station:
        # A door: TensorFlow comes in here, into the process of a caller who has models.
        from tapehead.worker.station import Station

        return Station(self._settings, live=self._live)

    @property
    def _started(self) -> Station:
        if self._station is None:
            raise WorkerDied("the worker is not running")
        return self._station

    async def _on_thread(self, function: Callable[..., T], *args: Any) -> T:
        if self._thread is None:
            raise WorkerDied("the worker is not running")
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *args)


class _Sink:
    """Memory of this process; the event loop is told how far it is filled."""

    def __init__(self, growth: Growth, loop: asyncio.AbstractEventLoop) -> None:
        self._growth, self._loop = growth, loop

    def open(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        array = np.empty(shape, dtype)
        self._loop.call_soon_threadsafe(self._growth.open, name, array)
        return array

    def fill(self, size: int) -> None:
        self._loop.call_soon_threadsafe(self._growth.fill, size)


def _why(error: Exception) -> str:
    if isinstance(error, TapeheadError):
        return f"a worker could not start: {error.detail}"
    hint = "; models run in this process with pip install 'tapehead[server]'" if isinstance(error, ImportError) else ""
    return f"a worker could not start: {type(error).__name__}: {error}{hint}"
