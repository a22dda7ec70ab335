"""The two plots: the Jacobian's cost against one length, ours and each peer's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from benchmarks.rows import OURS, Row


def draw(rows: Sequence[Row], length: str, path: Path) -> None:
    """A log-log plot of milliseconds against `length`, "timesteps" or "units", as PNG."""
    figure = Figure((6.4, 4.4), layout="constrained")
    axes = figure.subplots()
    for name in dict.fromkeys(name for row in rows for name in row.ms):
        points = [(getattr(row.workload.size, length), row.ms[name]) for row in rows if name in row.ms]
        axes.loglog(*zip(*points, strict=True), "o-", label=name, linewidth=2.4 if name == OURS else 1.2)
    axes.set(xlabel=length, ylabel="milliseconds", title=_title(rows, length))
    axes.grid(visible=True, which="both", alpha=0.25)
    axes.legend()
    figure.savefig(path, dpi=120)


def _title(rows: Sequence[Row], length: str) -> str:
    size = rows[0].workload.size._asdict()
    fixed = ", ".join(f"{number} {name}" for name, number in size.items() if name not in (length, "batch"))
    return f"d h_T / d x of an LSTM: batch {size['batch']}, {fixed}"
