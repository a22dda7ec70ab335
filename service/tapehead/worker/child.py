"""A worker in a process of its own, as the event loop of the server sees it. Imports no TensorFlow."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

from tapehead.errors import TapeheadError, WorkerDied
from tapehead.operations import Card
from tapehead.worker import crossing
from tapehead.worker.channel import Channel
from tapehead.worker.process import Process
from tapehead.worker.protocol import Answer, Hire, Job, ModelRef, WorkerSettings, WorkerStatus

_TICK_S = 0.5


@dataclass(frozen=True)
class Limits:
    """How long a worker's process may take, in seconds, before it is held to hang and is killed.

    Attributes:
        start_s: until it takes jobs; a first start on a new GPU compiles kernels.
        load_s: to load one model.
        run_s: to answer one batch.
        silence_s: without a sign of life, which it gives by itself every second or so.
        close_s: to end by itself.
    """

    start_s: float = 600.0
    load_s: float = 600.0
    run_s: float = 600.0
    silence_s: float = 60.0
    close_s: float = 5.0


def hiring(
    settings: WorkerSettings,
    environ: Mapping[str, str],
    limits: Limits = Limits(),
    output: TextIO | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Hire:
    """Workers in processes of their own, alike but for their device."""

    def hire(device: str) -> ChildWorker:
        return ChildWorker(dataclasses.replace(settings, device=device), environ, limits, output, clock)

    return hire


class ChildWorker:
    """A worker in a child process; its death ends the calls in hand with `WorkerDied`, `start` gives it a new one."""

    def __init__(
        self,
        settings: WorkerSettings,
        environ: Mapping[str, str],
        limits: Limits = Limits(),
        output: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings, self._environ, self._limits, self._clock = settings, environ, limits, clock
        self._output = output or sys.stderr
        self._process: Process | None = None
        self._channel: Channel | None = None
        self._watch: asyncio.Task[str] | None = None

    def __repr__(self) -> str:
        return f"<ChildWorker {self._settings.device or 'on any device'}, {self._process or 'no process'}>"

    @property
    def pid(self) -> int | None:
        """The number of its process, if it has one."""
        return self._process.pid if self._process else None

    async def start(self) -> WorkerStatus:
        """Starts the process and waits until it takes jobs."""
        await self.close()
        try:
            process = self._process = Process(self._settings, self._environ, self._output)
        except OSError as error:
            raise WorkerDied(f"no process for a worker: {error}") from error
        channel = self._channel = Channel(process.connection, self._clock)
        self._watch = asyncio.create_task(self._watched(process, channel))
        settings = crossing.settings_tree(self._settings)
        try:
            return crossing.status(await self._call("start", settings, self._limits.start_s))
        except TapeheadError as error:
            await self.close()
            raise WorkerDied(f"a worker could not start: {error.detail}") from error

    async def load(self, ref: ModelRef) -> Card:
        """Makes the model resident."""
        return Card.from_plain(await self._call("load", crossing.ref_tree(ref), self._limits.load_s))

    async def unload(self, name: str, version: int) -> None:
        """Gives the model's memory back."""
        await self._call("unload", [name, version], self._limits.load_s)

    async def run(self, jobs: Sequence[Job]) -> list[Answer]:
        """One answer a job, in order."""
        replies = await self._call("run", crossing.jobs_tree(jobs), self._limits.run_s, functools.partial(_grow, jobs))
        return [crossing.answer(reply, job.growth) for job, reply in zip(jobs, replies, strict=True)]

    async def status(self) -> WorkerStatus:
        """What it holds now."""
        return crossing.status(await self._call("status", None, self._limits.run_s))

    async def lost(self) -> str:
        """Waits until the process ends unasked, and says how."""
        if self._watch is None:
            return "the worker is not running"
        return await asyncio.shield(self._watch)

    async def close(self) -> None:
        """Lets the process finish what it has in hand and end, and ends it if that takes too long."""
        if self._process is None or self._channel is None or self._watch is None:
            return
        self._channel.hang_up()
        done, _ = await asyncio.wait({self._watch}, timeout=self._limits.close_s)
        if not done:
            self._process.kill()
            await asyncio.wait({self._watch})

    async def _call(
        self, verb: str, tree: Any, limit_s: float, told: Callable[[Mapping[str, Any]], None] = lambda _: None
    ) -> Any:
        if self._channel is None:
            raise WorkerDied("the worker is not running")
        return await self._channel.call(verb, tree, limit_s, told)

    async def _watched(self, process: Process, channel: Channel) -> str:
        """Watches over one process until it ends, then tells every caller how it did."""
        hung = ""
        while not channel.ended.is_set() and not hung:
            await _set_within(channel.ended, _TICK_S)
            hung = self._hung(channel)
        if hung:
            process.kill()
        how = await asyncio.to_thread(process.ended, self._limits.close_s)
        how = f"was ended, since it {hung}" if hung else how
        device = self._settings.device or "its device"
        await channel.close(WorkerDied(f"the worker process on {device} {how}; a new one is started, try again"))
        return how

    def _hung(self, channel: Channel) -> str:
        """What is wrong with a process that is still there, or nothing."""
        silent_s = self._clock() - channel.heard
        if channel.answered_once and silent_s > self._limits.silence_s:
            return f"gave no sign of life for {silent_s:.0f} s"
        overdue_s = channel.overdue_s()
        return "" if overdue_s is None else f"worked for {overdue_s:.0f} s on one call"


def _grow(jobs: Sequence[Job], tree: Mapping[str, Any]) -> None:
    growth = jobs[tree["job"]].growth
    if growth is not None:
        crossing.grow(growth, tree)


async def _set_within(event: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)
