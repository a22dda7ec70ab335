"""One workload measured: ours, every peer that has an answer, and the machine's limits, in one contest."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.contest import Effort, agree, medians
from benchmarks.limits import Limit, limits, share
from benchmarks.memory import peak_mebibytes
from benchmarks.ours import ours
from benchmarks.peers import PEERS, Call
from benchmarks.problems import Array, Problem, problem
from benchmarks.workloads import Workload

OURS = "ours"
_PATIENCE_S = 20.0
"""A peer whose second call takes longer is named with that one time, and left out of the contest."""


@dataclass
class Row:
    """What came of a workload: median milliseconds, what was left out and why, the share of each limit."""

    workload: Workload
    ms: dict[str, float] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    limits_ms: dict[str, float] = field(default_factory=dict)
    shares: dict[str, float] = field(default_factory=dict)
    peak_mib: float | None = None

    @property
    def fastest(self) -> str | None:
        """The fastest peer; None where there is none."""
        peers = {name: ms for name, ms in self.ms.items() if name != OURS}
        return min(peers, key=lambda name: peers[name]) if peers else None

    @property
    def ratio(self) -> float | None:
        """How many times faster ours is than the fastest peer."""
        return None if self.fastest is None else self.ms[self.fastest] / self.ms[OURS]

    def to_plain(self) -> dict[str, Any]:
        """The row as JSON has it."""
        workload = self.workload
        head = {
            "name": workload.name,
            "question": workload.question,
            "cell": workload.cell.name,
            "size": workload.size._asdict(),
        }
        tail = {"fastest_peer": self.fastest, "ratio": self.ratio, "asked": workload.asked}
        return {**head, **{key: value for key, value in asdict(self).items() if key != "workload"}, **tail}


def measured(workload: Workload, effort: Effort) -> Row:
    """The workload's row.

    Raises:
        Disagreement: a peer's answer is not ours.
    """
    row = Row(workload)
    given = problem(workload)
    own = ours(given)
    calls: dict[str, Call] = {OURS: own, **_peers(row, given, own())}
    bounds: Mapping[str, Limit] = limits(workload) if workload.flops or workload.question == "lag" else {}
    seconds = medians({**calls, **{name: limit.call for name, limit in bounds.items()}}, effort)
    row.ms |= {name: seconds[name] * 1e3 for name in calls}
    for name, limit in bounds.items():
        row.limits_ms[name] = seconds[name] * 1e3
        row.shares[name] = share(workload, limit, seconds[name], seconds[OURS])
    if workload.question == "norms":
        row.peak_mib = _peak(row, workload)
    return row


def _peers(row: Row, given: Problem, expected: Array) -> dict[str, Call]:
    """The peers that take part; the row says which do not, and why."""
    found: dict[str, Call] = {}
    for peer in PEERS:
        if not peer.installed:
            row.left_out[peer.name] = f"{peer.library} is not installed"
        elif (make := peer.maker(given.workload)) is None:
            continue
        elif not peer.fits(given.workload):
            row.left_out[peer.name] = "would not end in reasonable time"
        elif (call := _ready(row, peer.name, make, given, expected)) is not None:
            found[peer.name] = call
    return found


def _ready(row: Row, name: str, make: Callable[[Problem], Call], given: Problem, expected: Array) -> Call | None:
    """The peer's call, its answer checked, if it is quick enough to be called again and again."""
    call = make(given)
    agree(call(), expected, name)
    began = time.perf_counter()
    call()
    seconds = time.perf_counter() - began
    if seconds > _PATIENCE_S:
        row.left_out[name] = f"{seconds:.0f} s a call"
        return None
    return call


def _peak(row: Row, workload: Workload) -> float | None:
    try:
        return peak_mebibytes(workload.name)
    except subprocess.SubprocessError as error:
        row.left_out["peak memory"] = type(error).__name__
        return None
