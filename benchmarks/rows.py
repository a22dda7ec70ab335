"""One workload measured: ours, every peer that has an answer, and the machine's limits, in one contest."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from benchmarks.contest import Disagreement, Effort, agree, medians
from benchmarks.limits import limits, share
from benchmarks.memory import peak_mebibytes
from benchmarks.ours import ours
from benchmarks.peers import PEERS, Call
from benchmarks.problems import Array, Problem, problem
from benchmarks.workloads import EVERY, Workload

OURS = "ours"


@dataclass
class Row:
    """What came of a workload: median milliseconds, what was left out and why, the share of each limit."""

    workload: Workload
    ms: dict[str, float] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    disagreements: list[str] = field(default_factory=list)
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

    @property
    def short(self) -> list[str]:
        """What the row falls short of."""
        asked = self.workload.asked
        rivals = [ms for name, ms in self.ms.items() if name != OURS and name in (asked.rivals or self.ms)]
        reached = min(rivals) / self.ms[OURS] if rivals else None
        whose = " and ".join(asked.rivals) or "the fastest"
        found = []
        if asked.ratio is not None and reached is not None and reached < asked.ratio:
            found.append(f"{reached:.2f} of {asked.ratio:g} times {whose}")
        for name, least in asked.shares:
            if self.shares.get(name, least) < least:
                found.append(f"{self.shares[name]:.0%} of the {name}, not {least:.0%}")
        if asked.mebibytes is not None and (self.peak_mib or 0) > asked.mebibytes:
            found.append(f"{self.peak_mib:.0f} MiB, not {asked.mebibytes:g}")
        return found

    def to_plain(self) -> dict[str, Any]:
        """The row as JSON has it."""
        workload = self.workload
        head = {
            "name": workload.name,
            "question": workload.question,
            "cell": workload.cell.name,
            "size": workload.size._asdict(),
        }
        tail = {"fastest_peer": self.fastest, "ratio": self.ratio, "asked": asdict(workload.asked), "short": self.short}
        return {**head, **{key: value for key, value in asdict(self).items() if key != "workload"}, **tail}


def from_plain(plain: Mapping[str, Any]) -> Row:
    """The row that JSON had."""
    kept = {one.name: plain[one.name] for one in fields(Row) if one.name != "workload"}
    return Row(EVERY[plain["name"]], **kept)


def measured(workload: Workload, effort: Effort) -> Row:
    """The workload's row."""
    row = Row(workload)
    given = problem(workload)
    own = ours(given)
    calls: dict[str, Call] = {OURS: own, **_peers(row, given, own())}
    bounds = limits(workload)
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
        else:
            found[peer.name] = make(given)
            try:
                agree(found[peer.name](), expected, peer.name)
            except Disagreement as error:
                # Not raised: the other rows of a long run are worth having. The run ends with a failure.
                row.disagreements.append(str(error))
    return found


def _peak(row: Row, workload: Workload) -> float | None:
    try:
        return peak_mebibytes(workload.name)
    except subprocess.SubprocessError as error:
        row.left_out["peak memory"] = type(error).__name__
        return None
