"""How far a large answer has come: a callback of the caller's, or a bar on standard error."""

from __future__ import annotations

from collections.abc import Callable
from typing import TextIO

Progress = Callable[[int, int | None], None]
"""Called with the bytes that have come, and those in all (None where the server does not say)."""

LARGE = 4 * 2**20
"""Answers of fewer bytes are not reported."""

_WIDTH = 30


class Bar:
    """A line that fills from left to right, drawn again whenever a whole per cent more has come."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._shown = -1

    def __call__(self, done: int, total: int | None) -> None:
        reached = done * 100 // total if total else done // 2**20
        if reached == self._shown:
            return
        self._shown = reached
        of_all = f"/{total / 2**20:.1f} MiB {_blocks(reached)}{_END[done == total]}" if total else " MiB"
        self._stream.write(f"\rreceiving {done / 2**20:.1f}{of_all}")
        self._stream.flush()


_END = {False: "", True: "\n"}


def _blocks(per_cent: int) -> str:
    filled = _WIDTH * per_cent // 100
    return "█" * filled + "·" * (_WIDTH - filled)


def reporter(progress: bool | Progress | None, stream: TextIO) -> Progress | None:
    """Who is told: the caller's function, a bar where True (or None, and `stream` is a terminal), else nobody."""
    if callable(progress):
        return progress
    wanted = stream.isatty() if progress is None else progress
    return Bar(stream) if wanted else None
