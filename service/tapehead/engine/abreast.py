"""Parts of a question answered at a time, each in a thread of its own, and joined.

The rows of a batch know nothing of one another, nor do the entries of a stack. Threads that each run a whole program
wait for each other once, where threads that share every operation of one program wait after each.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

Array = Any
Tensor = Any


class Parts(NamedTuple):
    """The arguments of each part, and the axis of the answers that the parts are joined along."""

    axis: int
    each: Sequence[tuple[Any, ...]]


Split = Callable[..., Parts | None]


class Abreast:
    """A function run for all parts of its arguments at once: each of `runs` takes one of those that `split` makes."""

    def __init__(self, split: Split, runs: Sequence[Callable[..., Any]]) -> None:
        self._split, self._runs = split, runs

    def __call__(self, *args: Any) -> Any:
        """What the function gives for the whole, as NumPy."""
        parts = self._split(*args)
        assert parts is not None
        others = zip(self._runs[1:], parts.each[1:], strict=True)
        beside = [_helpers().submit(_on_processor, run, part) for run, part in others]
        try:
            first = self._runs[0](*parts.each[0])
        finally:
            wait(beside)
        found = [first, *(future.result() for future in beside)]
        return tf.nest.map_structure(lambda *pieces: np.concatenate(list(map(on_host, pieces)), parts.axis), *found)


def on_host(tensor: Tensor) -> Array:
    """The tensor's numbers as NumPy, where they lie: read-only, and no copy on a processor."""
    try:
        return np.asarray(memoryview(tensor))
    except (BufferError, ValueError):  # bfloat16 has no buffer format
        return tensor.numpy()


def shares(length: int) -> list[slice]:
    """An axis cut into as many nearly equal parts as there are processors; fewer where it is shorter."""
    count = min(processors(), length)
    ends = [length * n // count for n in range(count + 1)]
    return list(map(slice, ends, ends[1:]))


def _on_processor(run: Callable[..., Any], part: tuple[Any, ...]) -> Any:
    with tf.device("CPU:0"):  # which device a thread works on is its own to say
        return run(*part)


@cache
def processors() -> int:
    """How many processors this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def _helpers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(1, processors() - 1), thread_name_prefix="tapehead-part")
