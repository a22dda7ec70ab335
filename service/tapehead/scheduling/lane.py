"""One worker with what waits for it: started, fed, and started again when it dies."""

from __future__ import annotations

import asyncio
import copy
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress

from tapehead.errors import Draining, Internal, TapeheadError, WorkerDied
from tapehead.operations import Card, Result
from tapehead.scheduling.backlog import Backlog, Waiting
from tapehead.scheduling.batch import Pace
from tapehead.scheduling.observer import SILENT, Observer
from tapehead.worker.protocol import Answer, Job, ModelRef, Worker, WorkerStatus

Key = tuple[str, int]

_STEADY_S = 60.0
"""A worker that lived this long did not die at once."""
_LOOK_S = 0.05

log = logging.getLogger("tapehead.scheduling")


class DiedLoading(WorkerDied):
    """The worker died while it loaded a model and did nothing else."""


class Lane:
    """Keeps one worker alive and hands it batches, one at a time.

    While the worker starts, what comes for it waits. When it could not start, what comes gets its `trouble`, until a
    later start goes well.

    Args:
        worker: not yet started.
        batch_limit: the most jobs in one batch.
        pauses_s: how long to wait before the first, second … start after deaths in quick succession.
    """

    def __init__(
        self,
        worker: Worker,
        *,
        batch_limit: int,
        pauses_s: Sequence[float],
        observer: Observer,
        clock: Callable[[], float],
    ) -> None:
        self._worker, self._pauses_s = worker, pauses_s
        self._pace = Pace(batch_limit)
        self._observer, self._clock = observer, clock
        self._backlog = Backlog(clock)
        self._up, self._settled, self._loading = asyncio.Event(), asyncio.Event(), asyncio.Lock()
        self._resident: dict[Key, ModelRef] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self.status = WorkerStatus("", (), 0, 0)
        self.trouble: WorkerDied | None = None
        self.running = 0
        self._lives = 0

    def __repr__(self) -> str:
        state = "up" if self.is_up else self.trouble or "starting"
        return f"<Lane to {self._worker!r}, {state}, {len(self._backlog)} waiting, {self.running} running>"

    @property
    def is_up(self) -> bool:
        """Whether the worker takes jobs."""
        return self._up.is_set()

    @property
    def _where(self) -> str:
        return f" on {self.status.device}" if self.status.device else ""

    def open(self) -> None:
        """Begins to keep and to feed the worker."""
        self._tasks = [asyncio.create_task(self._keep()), asyncio.create_task(self._feed())]
        for task in self._tasks:
            task.add_done_callback(_tell_bug)

    async def close(self) -> None:
        """Ends the worker. What still waits gets `Draining`."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._backlog.fail(Draining())
        await self._worker.close()

    async def settled(self) -> None:
        """Waits until the worker is up or could not start.

        Raises:
            WorkerDied: it could not.
        """
        await self._settled.wait()
        if self.trouble is not None:
            raise copy.copy(self.trouble)

    async def up(self) -> None:
        """Waits until the worker is up, however often it has to be started."""
        await self._up.wait()

    async def submit(self, job: Job) -> Result:
        """The job's answer, when its turn has come.

        Raises:
            TapeheadError: whatever was answered instead.
        """
        if self.trouble is not None:
            raise copy.copy(self.trouble)
        return await self._backlog.put(job)

    async def compiled(self) -> None:
        """Waits until nothing is being compiled beside the worker's work."""
        while (await self._worker.status()).compiling:
            await asyncio.sleep(_LOOK_S)

    async def load(self, ref: ModelRef) -> Card:
        """Makes a model resident, one at a time, so that it is known which one a worker died of.

        Raises:
            DiedLoading: the worker died of it.
            TapeheadError: it cannot be loaded, or not now.
        """
        async with self._loading:
            await self.settled()
            life, alone = self._lives, self.running == 0
            try:
                card = await self._worker.load(ref)
            except WorkerDied as error:
                self._note_death(life)
                raise (DiedLoading(error.detail) if alone else error) from None
            await self._note_resident(ref)
            return card

    async def unload(self, key: Key) -> None:
        """Gives a model's memory back."""
        if self.is_up:
            await self._worker.unload(*key)
        self._forget(key)

    async def _keep(self) -> None:
        deaths = 0
        while True:
            began = self._clock()
            reason = await self._life()
            deaths = deaths + 1 if self._clock() - began < _STEADY_S else 1
            pause_s = self._pauses_s[min(deaths, len(self._pauses_s)) - 1]
            log.error("the worker%s is lost: %s; starting anew in %g s", self._where, reason, pause_s)
            self._observer.worker_lost(self.status.device, reason)
            if self.trouble is not None:
                self.trouble.retry_after = max(1.0, pause_s)
            await asyncio.sleep(pause_s)

    async def _life(self) -> str:
        """One life of the worker, with the models it had before; says how it ended."""
        try:
            self.status = await self._worker.start()
        except WorkerDied as error:
            self.trouble = error
            self._settled.set()
            self._backlog.fail(error)
            return error.detail
        self.trouble = None
        self._lives += 1
        if await self._reloaded():
            self._up.set()
            self._settled.set()
        reason = await self._worker.lost()
        self._note_death(self._lives)
        return reason

    async def _reloaded(self) -> bool:
        """Whether the worker lives through loading what it had before."""
        for key, ref in list(self._resident.items()):
            try:
                await self._worker.load(ref)
            except TapeheadError as error:
                log.warning("model %s version %s did not come back: %s", *key, error.detail)
                self._forget(key)  # a model that ends its worker must not end the next one as well
                if isinstance(error, WorkerDied):
                    return False
        return True

    def _note_death(self, life: int) -> None:
        """Whoever meets the end of a life first holds back what would go to a dead worker."""
        if life == self._lives:
            self._up.clear()
            self._settled.clear()

    async def _feed(self) -> None:
        while True:
            await self._backlog.filled()
            await self._up.wait()
            if batch := self._backlog.take(self._pace.limit):
                await self._run(batch)

    async def _run(self, batch: Sequence[Waiting]) -> None:
        began = self._clock()
        jobs = [waiting.job for waiting in batch]
        if not jobs[0].warming:
            self._observer.batched(self.status.device, len(batch))
        for waiting in batch:
            observer = SILENT if waiting.job.warming else self._observer
            observer.started(waiting.job.model.name, waiting.job.operation, began - waiting.since)
        self.running = len(batch)
        try:
            answers = await self._answers(jobs)
        except asyncio.CancelledError:
            for waiting in batch:
                waiting.fail(Draining())
            raise
        self.running = 0
        share_s = (self._clock() - began) / len(batch)
        if not jobs[0].warming:
            self._pace.note(jobs[0], share_s)
        for waiting, answer in zip(batch, answers, strict=True):
            self._deliver(waiting, answer, began, share_s)
        if self._resident.get(jobs[0].model.key) != jobs[0].model:
            with suppress(TapeheadError):  # lost meanwhile; the keeper sees to it
                await self._note_resident(jobs[0].model)

    async def _answers(self, jobs: Sequence[Job]) -> list[Answer]:
        life = self._lives
        try:
            return await self._worker.run(jobs)
        except TapeheadError as error:
            if isinstance(error, WorkerDied):
                self._note_death(life)
            return [error] * len(jobs)
        except Exception as error:  # what cannot even be sent must not end the feeding of those behind it
            log.exception("requests %s could not be handed over", ", ".join(job.id for job in jobs))
            return [Internal(f"handing over failed: {type(error).__name__}; the server's log has it")] * len(jobs)

    def _deliver(self, waiting: Waiting, answer: Answer, began: float, share_s: float) -> None:
        observer = SILENT if waiting.job.warming else self._observer
        model, operation = waiting.job.model.name, waiting.job.operation
        if isinstance(answer, TapeheadError):
            observer.finished(model, operation, share_s, answer.code)
            waiting.fail(answer)
            return
        timings = {"queue": began - waiting.since, "compute": share_s, **answer.meta.get("timings", {})}
        observer.finished(model, operation, timings["compute"], None)
        waiting.succeed(Result(answer.tensors, answer.axes, {**answer.meta, "timings": timings}))

    async def _note_resident(self, ref: ModelRef) -> None:
        """Asks the worker what it holds now, and tells what came and went."""
        self.status = await self._worker.status()
        sizes = {(each.name, each.version): each.bytes for each in self.status.resident}
        for key in self._resident.keys() - sizes.keys():
            self._forget(key)
        if ref.key in sizes and self._resident.get(ref.key) != ref:
            self._observer.model_loaded(*ref.key, self.status.device, sizes[ref.key])
        known = {**self._resident, ref.key: ref}
        self._resident = {key: known[key] for key in sizes if key in known}

    def _forget(self, key: Key) -> None:
        if self._resident.pop(key, None) is not None:
            self._observer.model_evicted(*key, self.status.device)


def _tell_bug(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        log.critical("a lane has stopped: nothing goes to its worker any more", exc_info=task.exception())
