"""The two plots: the Jacobian's cost against one length, ours and each peer's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, NullLocator

from benchmarks.peers import PEERS
from benchmarks.rows import OURS, Row

# Okabe and Ito's colours, told apart by colour-blind eyes and in grey: one for each peer, the strongest for ours.
_COLOURS = ("#0072B2", "#D55E00", "#E69F00", "#009E73", "#56B4E9", "#CC79A7", "#999999", "#F0E442")
_MARKERS = "osD^vPX*"
_ORDER = (OURS, *(peer.name for peer in PEERS))


def draw(rows: Sequence[Row], length: str, path: Path) -> Figure:
    """A log-log plot of milliseconds against `length`, "timesteps" or "units", written as PNG."""
    figure = Figure((7.2, 4.8), layout="constrained")
    axes = figure.subplots()
    lengths = sorted({getattr(row.workload.size, length) for row in rows})
    for name, colour, marker in zip(_ORDER, _COLOURS, _MARKERS, strict=False):
        points = sorted((getattr(row.workload.size, length), row.ms[name]) for row in rows if name in row.ms)
        if points:
            style = {"linewidth": 3.0, "zorder": 3} if name == OURS else {"linewidth": 1.3}
            axes.plot(*zip(*points, strict=True), color=colour, marker=marker, markersize=5, label=name, **style)
    axes.set(xscale="log", yscale="log", xlabel=length, ylabel="milliseconds, median", title=_title(rows, length))
    axes.set_xticks(lengths)
    axes.xaxis.set_minor_locator(NullLocator())
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FormatStrFormatter("%g"))
    axes.grid(visible=True, which="major", alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=120)
    return figure


def _title(rows: Sequence[Row], length: str) -> str:
    size = rows[0].workload.size._asdict()
    fixed = ", ".join(f"{number} {name}" for name, number in size.items() if name not in (length, "batch"))
    return f"Jacobian of an LSTM's last state by its inputs\nbatch {size['batch']}, {fixed}"
