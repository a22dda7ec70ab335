"""What was found: as a table, and as JSON."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from tapehead.version import VERSION

TOLERANCE = 1e-3
"""How far the tape may be from ours, relative to its largest entry."""

HEAD = (
    "question",
    "batch",
    "first s",
    "median ms",
    "p99 ms",
    "compute ms",
    "requests/s",
    "KiB",
    "of peak",
    "tape ms",
    "faster",
)


@dataclass(frozen=True)
class Row:
    """One question at one batch.

    Args:
        first_s: the first answer, compiling included.
        median_ms, p99_ms: one request at a time, after warming up.
        compute_ms: the part of the median on the device; the rest is the way there and back.
        requests_per_s: several at a time.
        bytes: of the answer.
        peak_share: of the machine's matrix products, by the products that `dry_run` counts; None where not measured.
        tape_first_s, tape_ms: the compiled gradient tape; None where there is none to hold it against.
        tape_off: the tape's largest difference from ours over its largest entry.
    """

    question: str
    batch: int
    first_s: float
    median_ms: float
    p99_ms: float
    compute_ms: float
    requests_per_s: float
    bytes: int
    peak_share: float | None = None
    tape_first_s: float | None = None
    tape_ms: float | None = None
    tape_off: float | None = None

    @property
    def ratio(self) -> float | None:
        """How many times faster than the tape."""
        return None if self.tape_ms is None else self.tape_ms / self.median_ms


@dataclass(frozen=True)
class Report:
    """A model's rows. `peak_flops` are the operations a second of a large matrix product, None where not measured."""

    model: str
    where: str
    timesteps: int
    clients: int
    peak_flops: float | None
    rows: tuple[Row, ...]

    @property
    def agrees(self) -> bool:
        """Whether every answer is the tape's, where there is a tape."""
        return not list(self._disagreements)

    @property
    def json(self) -> str:
        """All of it, with the machine and the versions."""
        machine = {"version": VERSION, "system": platform.platform(), "python": platform.python_version()}
        rows = [{**asdict(row), "ratio": row.ratio} for row in self.rows]
        return json.dumps({**machine, **asdict(self), "agrees": self.agrees, "rows": rows}, indent=1)

    @property
    def text(self) -> str:
        """The table, and below it what its columns mean."""
        return "\n".join([f"{self.model}, {self.where}", *_table(self.rows), *self._remarks, *self._disagreements])

    @property
    def _remarks(self) -> Iterator[str]:
        yield f"inputs: {self.timesteps} timesteps where any number will do; requests/s: {self.clients} at a time"
        if self.peak_flops is None:
            yield "of peak, tape: not measured, they need the model itself: leave --url out and name its file"
        else:
            yield f"of peak: the matrix products' share of {self.peak_flops / 1e9:.0f} GFLOP/s, a large product here"
            yield "tape: a compiled gradient tape (batch_jacobian for Jacobians), called without a client"

    @property
    def _disagreements(self) -> Iterator[str]:
        for row in self.rows:
            if row.tape_off is not None and not row.tape_off <= TOLERANCE:
                yield f"{row.question}: off the tape's answer by {row.tape_off:.1e} of its largest entry"


def _table(rows: tuple[Row, ...]) -> Iterator[str]:
    cells = [HEAD, *map(_cells, rows)]
    widths = [max(len(row[n]) for row in cells) for n in range(len(HEAD))]
    for name, *numbers in cells:
        yield "  ".join([name.ljust(widths[0]), *map(str.rjust, numbers, widths[1:])])


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.question,
        str(row.batch),
        f"{row.first_s:.2f}",
        f"{row.median_ms:.2f}",
        f"{row.p99_ms:.2f}",
        f"{row.compute_ms:.2f}",
        f"{row.requests_per_s:.0f}",
        f"{row.bytes / 1024:.1f}",
        "-" if row.peak_share is None else f"{row.peak_share:.1%}",
        "-" if row.tape_ms is None else f"{row.tape_ms:.2f}",
        "-" if row.ratio is None else f"{row.ratio:.1f}x",
    )
