"""Calls timed in turns: everyone once, then everyone again, so that whatever else the machine does falls on all alike.

A turn of a short call is several calls. Between turns there is a pause in which the threads that a library leaves
spinning go to sleep, and the first call after it is not counted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from benchmarks.problems import Array

Call = Callable[[], object]

AGREEMENT = 1e-4
"""How far an answer may be from ours, relative to its largest entry."""
_PAUSE_S = 0.01
_TURN_S = 0.03
_MOST_CALLS = 20
_WARM, _WARM_S = 4, 5.0
"""Calls before the first that counts, if they take no longer: ours compiles for its shapes at the third."""


@dataclass(frozen=True)
class Effort:
    """How long a contest may take: no round begins after `most` of them, after `seconds` once there were `least`, or
    in any case after three times as many.
    """

    least: int = 3
    most: int = 15
    seconds: float = 4.0

    def over(self, rounds: int, elapsed: float) -> bool:
        """Whether so many rounds in so many seconds are enough."""
        return rounds >= self.most or (rounds >= self.least and elapsed > self.seconds) or elapsed > 3 * self.seconds


class Disagreement(AssertionError):
    """Two answers to one problem differ."""


def agree(found: Array, expected: Array, who: str) -> None:
    """Nothing, where the answers are equal within 1e-4 of the largest entry.

    Raises:
        Disagreement: they are not; the message says by how much.
    """
    if found.shape != expected.shape:
        raise Disagreement(f"{who} answers {found.shape}, ours {expected.shape}")
    off = float(np.abs(found - expected).max() / np.abs(expected).max())
    if not off <= AGREEMENT:
        raise Disagreement(f"{who} is {off:.1e} of the largest entry away from ours")


def medians(calls: Mapping[str, Call], effort: Effort) -> dict[str, float]:
    """The median seconds of each call."""
    lone = {name: _warmed(call) for name, call in calls.items()}
    turns = {name: max(1, min(_MOST_CALLS, round(_TURN_S / max(seconds, 1e-9)))) for name, seconds in lone.items()}
    found: dict[str, list[float]] = {name: [] for name in calls}
    began, rounds = time.perf_counter(), 0
    while not effort.over(rounds, time.perf_counter() - began):
        rounds += 1
        for name, call in calls.items():
            found[name] += _turn(call, turns[name])
    return {name: median(seconds) for name, seconds in found.items()}


def _warmed(call: Call) -> float:
    """The seconds of a call after a few."""
    began = time.perf_counter()
    for _ in range(_WARM):
        last = _seconds(call)
        if time.perf_counter() - began > _WARM_S:
            break
    return last


def _turn(call: Call, count: int) -> Sequence[float]:
    time.sleep(_PAUSE_S)
    if count > 1:
        call()
    return [_seconds(call) for _ in range(count)]


def _seconds(call: Call) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began
