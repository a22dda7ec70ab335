"""What waits for one worker, in the order it came, for as long as anybody still wants it."""

from __future__ import annotations

import asyncio
import copy
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from tapehead.errors import Deadline, TapeheadError
from tapehead.operations import Result
from tapehead.scheduling.batch import choose
from tapehead.worker.protocol import Job


@dataclass(frozen=True, eq=False)
class Waiting:
    """A job, since when it waits, and where its answer goes; who does not want it any more cancels that."""

    job: Job
    since: float
    answer: asyncio.Future[Result]

    def is_late(self, now: float) -> bool:
        """Whether its deadline has passed."""
        return self.job.deadline is not None and now > self.job.deadline

    def fail(self, error: TapeheadError) -> None:
        """Answers with an error of its own, for whoever catches it may add to it."""
        if not self.answer.done():
            self.answer.set_exception(copy.copy(error))

    def succeed(self, result: Result) -> None:
        """Answers with a result."""
        if not self.answer.done():
            self.answer.set_result(result)


class Backlog:
    """Jobs that wait. What is cancelled or past its deadline drops out before it costs anything."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._waiting: deque[Waiting] = deque()
        self._filled = asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, job: Job) -> asyncio.Future[Result]:
        """Queues a job; its answer comes by the future."""
        answer: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append(Waiting(job, self._clock(), answer))
        self._filled.set()
        return answer

    async def filled(self) -> None:
        """Waits until something waits."""
        await self._filled.wait()

    def take(self, limit: Callable[[Job], int]) -> list[Waiting]:
        """The next ones that go together, at most `limit` of the first; none if nobody wants what waited."""
        wanted = self._wanted()
        batch = choose(wanted, limit)
        chosen = set(batch)
        self._waiting = deque(waiting for waiting in wanted if waiting not in chosen)
        if not self._waiting:
            self._filled.clear()
        return batch

    def fail(self, error: TapeheadError) -> None:
        """Answers everything that waits with `error`."""
        while self._waiting:
            self._waiting.popleft().fail(error)
        self._filled.clear()

    def _wanted(self) -> list[Waiting]:
        now, wanted = self._clock(), []
        for waiting in self._waiting:
            if waiting.is_late(now):
                waiting.fail(Deadline(f"it waited {now - waiting.since:.1f} s for its turn, all the time it had"))
            elif not waiting.answer.done():
                wanted.append(waiting)
        return wanted
