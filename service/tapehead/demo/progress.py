"""One line of progress on standard error: a bar in a terminal, plain milestones elsewhere."""

from __future__ import annotations

import sys
from typing import TextIO

_WIDTH = 30


class Bar:
    """A bar that fills as `step` is called; closing it ends the line.

    with Bar("training", 60) as bar:
        bar.step("loss 0.1")
    """

    def __init__(self, label: str, total: int, stream: TextIO | None = None) -> None:
        self.label, self.total, self.done = label, total, 0
        self.stream = stream or sys.stderr
        self.live = self.stream.isatty()

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        if self.live:
            print(file=self.stream, flush=True)

    def step(self, note: str = "") -> None:
        """One more of `total` is done."""
        self.done += 1
        if self.live:
            filled = _WIDTH * self.done // self.total
            bar = "█" * filled + "·" * (_WIDTH - filled)
            line = f"\r{self.label:<24} {bar} {self.done}/{self.total}  {note:<24}"
            print(line, end="", file=self.stream, flush=True)
        elif self.done * 4 // self.total > (self.done - 1) * 4 // self.total:
            print(f"{self.label:<24} {100 * self.done // self.total:3d} %  {note}", file=self.stream, flush=True)
