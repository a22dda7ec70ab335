"""Which of the waiting requests go to the worker together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tapehead.worker.protocol import Job

if TYPE_CHECKING:
    from tapehead.scheduling.backlog import Waiting


def choose(waiting: Sequence[Waiting], most: int) -> list[Waiting]:
    """The first in line, and those behind it that ask the same of the same model, at most `most`."""
    if not waiting:
        return []
    first = waiting[0].job
    return [each for each in waiting if alike(first, each.job)][:most]


def alike(one: Job, other: Job) -> bool:
    """Whether two jobs differ in their samples alone: the same model, operation and parameters."""
    return (
        one.model == other.model
        and one.operation == other.operation
        and _same(one.request.parameters, other.request.parameters)
    )


def _same(one: Any, other: Any) -> bool:
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
