"""Which of the waiting requests go to the worker together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tapehead.worker.protocol import Job

if TYPE_CHECKING:
    from tapehead.scheduling.backlog import Waiting

_BATCH_S = 0.05
_RECENT = 0.25


class Pace:
    """How long requests of one kind take of late, so that no batch keeps its first one waiting long for the others.

    Args:
        most: the largest batch.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._seconds: dict[tuple[str, int, str], float] = {}

    def limit(self, job: Job) -> int:
        """How many like this one go together: what takes a few hundredths of a second; one, before it is known."""
        seconds = self._seconds.get(_kind(job), _BATCH_S)
        return min(self._most, max(1, int(_BATCH_S / max(seconds, 1e-9))))

    def note(self, job: Job, seconds: float) -> None:
        """One like this took so long."""
        before = self._seconds.get(_kind(job), seconds)
        self._seconds[_kind(job)] = before + _RECENT * (seconds - before)


def choose(waiting: Sequence[Waiting], limit: Callable[[Job], int]) -> list[Waiting]:
    """The first in line, and those behind it that ask the same of the same model, at most `limit` of the first."""
    if not waiting:
        return []
    first = waiting[0].job
    most = limit(first)
    if most == 1:
        return [waiting[0]]
    return [each for each in waiting if alike(first, each.job)][:most]


def alike(one: Job, other: Job) -> bool:
    """Whether two jobs differ in their samples alone: the same model, operation and parameters."""
    return (
        one.model == other.model
        and one.operation == other.operation
        and _same(one.request.parameters, other.request.parameters)
    )


def _kind(job: Job) -> tuple[str, int, str]:
    return job.model.name, job.model.version, job.operation


def _same(one: Any, other: Any) -> bool:
    if one is other:  # as the parameters are of a question that was asked before
        return True
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        return _same_array(one, other)
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    return type(one) is type(other) and bool(one == other)


def _same_array(one: Any, other: Any) -> bool:
    if not (isinstance(one, np.ndarray) and isinstance(other, np.ndarray)):
        return False
    return one.dtype == other.dtype and np.array_equal(one, other)
