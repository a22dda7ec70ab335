"""One size a weight on a log axis, and one a gate: where the gradient is, and where it is not."""

from __future__ import annotations

import textwrap

import numpy as np
from matplotlib.axes import Axes

from tapehead.pictures.colours import LINES
from tapehead.pictures.labels import explain, few_decades, not_drawn, on_log
from tapehead.pictures.panel import LETTERS, Panel

MOST_ROWS = 40
_MARKERS = "osD^vP*X"


def dots(axes: Axes, panel: Panel) -> None:
    """Draws sizes (weight, gate) as marks, a row a weight; one without gates has its mark in the first column."""
    values = np.asarray(panel.values, dtype=np.float64)
    rows, gates = panel.labels["weight"], panel.labels.get("gate", ())
    drawable = on_log(values)
    for at, column in enumerate(np.where(drawable, values, np.nan).T):
        label = gates[at] if at < len(gates) else None
        axes.plot(column, range(len(rows)), _MARKERS[at % 8], color=LINES[at % len(LINES)], label=label, markersize=6)
    if drawable.any():
        axes.set_xscale("log")
        few_decades(axes.xaxis, values[drawable])
    explain(axes, panel, [not_drawn(values[~np.isnan(values)])])
    axes.set_yticks(range(len(rows)), rows, fontsize="small")
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel(textwrap.fill(panel.quantity, 2 * LETTERS))
    axes.grid(True, alpha=0.3)
