"""How many requests may be inside at once, waiting and computed, and when one that is turned away should come again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tapehead.errors import QueueFull

_RECENT = 0.1
"""The weight of the newest service time in the running mean: about the last twenty count."""


class Admission:
    """Counts requests in and out.

    Args:
        limit: how many may be inside.
        clock: seconds, for the time requests take.
    """

    def __init__(self, limit: int, clock: Callable[[], float]) -> None:
        self._limit, self._clock = limit, clock
        self._mean_s: float | None = None
        self._left_at = clock()
        self._empty = asyncio.Event()
        self._empty.set()
        self.inside = 0

    @contextmanager
    def admit(self) -> Iterator[None]:
        """Holds one place.

        Raises:
            QueueFull: none is free.
        """
        if self.inside >= self._limit:
            raise QueueFull(
                f"{self.inside} requests are waiting or being computed, as many as may; come again later",
                retry_after=self.retry_after_s,
            )
        if self.inside == 0:
            self._left_at = self._clock()
        self.inside += 1
        self._empty.clear()
        try:
            yield
        finally:
            self.inside -= 1
            self._note_departure()
            if self.inside == 0:
                self._empty.set()

    @property
    def retry_after_s(self) -> float:
        """When half of those inside should be done, by the pace at which they left of late; 1 to 60 seconds."""
        return min(max(self.inside / 2 * (self._mean_s or 0.0), 1.0), 60.0)

    async def empty(self) -> None:
        """Waits until nobody is inside."""
        await self._empty.wait()

    def _note_departure(self) -> None:
        now = self._clock()
        interval, self._left_at = now - self._left_at, now
        self._mean_s = interval if self._mean_s is None else self._mean_s + _RECENT * (interval - self._mean_s)
