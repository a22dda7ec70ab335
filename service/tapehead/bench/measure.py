"""Calls timed in turns, so that whatever else the machine does falls on all of them alike."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

Clock = Callable[[], float]

_TURN_S = 0.05
_LEAST = 5
"""Calls of each, however long they take."""


def timed(call: Callable[[], Any], clock: Clock) -> tuple[float, Any]:
    """The seconds that a call takes, and what it gives."""
    began = clock()
    found = call()
    return clock() - began, found


def warmed(call: Callable[[], Any], seconds: float, clock: Clock) -> None:
    """Calls for so long: what comes again and again is compiled beside the work."""
    ends = clock() + seconds
    while clock() < ends:
        call()


def in_turns(calls: Mapping[str, Callable[[], Any]], seconds: float, clock: Clock) -> dict[str, list[float]]:
    """The seconds of each call, sorted; each has a turn of a few calls, then each again, for so long."""
    found: dict[str, list[float]] = {name: [] for name in calls}
    ends = clock() + seconds
    while clock() < ends or any(len(each) < _LEAST for each in found.values()):
        for name, call in calls.items():
            turn_ends = clock() + _TURN_S
            found[name].append(timed(call, clock)[0])
            while clock() < turn_ends:
                found[name].append(timed(call, clock)[0])
    return {name: sorted(each) for name, each in found.items()}


def per_second(answers: Callable[[Iterable[Any]], Iterable[Any]], one: Any, seconds: float, clock: Clock) -> float:
    """How many answers come in a second where one input is asked about again and again."""
    began = clock()
    asked = itertools.takewhile(lambda _: clock() < began + seconds, itertools.repeat(one))
    count = sum(1 for _ in answers(asked))
    return count / (clock() - began)


def percentile(sorted_seconds: Sequence[float], share: float) -> float:
    """The time within which that share of the calls ended."""
    return sorted_seconds[min(len(sorted_seconds) - 1, int(share * len(sorted_seconds)))]
