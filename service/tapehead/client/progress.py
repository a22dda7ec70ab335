"""How far something has come, a large answer or many inputs: a callback of the caller's, or a bar on standard error."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TextIO

Progress = Callable[[int, int | None], None]
"""Called with how much has come, and how much in all (None where that is not known): bytes, or inputs."""

LARGE = 4 * 2**20
"""Answers of fewer bytes are not reported."""

_WIDTH = 30


@dataclass(frozen=True)
class Measure:
    """What a bar counts: `{:{number}}` of so many entries, in units of `size`."""

    verb: str
    unit: str
    size: int
    number: str


BYTES = Measure("receiving", " MiB", 2**20, ".1f")
INPUTS = Measure("answered", "", 1, ".0f")


class Bar:
    """A line that fills from left to right, drawn again whenever a whole per cent more has come, or a whole unit where
    it is not known how much there is."""

    def __init__(self, stream: TextIO, measure: Measure = BYTES) -> None:
        self._stream = stream
        self._measure = measure
        self._shown: tuple[int, int | None] = (-1, None)

    def __call__(self, done: int, total: int | None) -> None:
        reached = done * 100 // total if total else done // self._measure.size
        if (reached, total) == self._shown:
            return
        self._shown = (reached, total)
        filled = f" {_blocks(reached)}{_END[done == total]}" if total else ""
        self._stream.write(f"\r{self._measure.verb} {self._counted(done, total)}{filled}")
        self._stream.flush()

    def _counted(self, done: int, total: int | None) -> str:
        measure = self._measure
        numbers = (f"{amount / measure.size:{measure.number}}" for amount in (done, total) if amount is not None)
        return "/".join(numbers) + measure.unit


_END = {False: "", True: "\n"}


def _blocks(per_cent: int) -> str:
    filled = _WIDTH * per_cent // 100
    return "█" * filled + "·" * (_WIDTH - filled)


def reporter(progress: bool | Progress | None, stream: TextIO, measure: Measure = BYTES) -> Progress | None:
    """Who is told: the caller's function, a bar where True (or None, and `stream` is a terminal), else nobody."""
    if callable(progress):
        return progress
    wanted = stream.isatty() if progress is None else progress
    return Bar(stream, measure) if wanted else None
