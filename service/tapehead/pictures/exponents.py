"""Lyapunov exponents: how fast each direction grows or shrinks a timestep, on average over the sequence."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from tapehead.pictures.colours import ABOVE, BELOW
from tapehead.pictures.labels import explain, not_drawn, say, whole_numbers
from tapehead.pictures.panel import Panel

_MOST_MARKED = 60


def exponents(axes: Axes, panel: Panel) -> None:
    """Draws exponents in falling order as stems from zero, red where directions grow and blue where they shrink."""
    values = np.asarray(panel.values, dtype=np.float64)
    rank, finite = np.arange(1, len(values) + 1), np.isfinite(values)
    shown, colours = values[finite], np.where(values[finite] > 0, ABOVE, BELOW)
    axes.vlines(rank[finite], 0, shown, colors=colours.tolist(), linewidth=2 if len(values) <= _MOST_MARKED else 1)
    axes.scatter(rank[finite], shown, c=colours.tolist(), s=18 if len(values) <= _MOST_MARKED else 4, zorder=3)
    for sample in panel.faint if panel.faint is not None else ():
        axes.plot(rank, np.where(np.isfinite(sample), sample, np.nan), color="0.5", alpha=0.3, linewidth=0.8)
    axes.axhline(0, color="0.3", linewidth=0.8)
    if not finite.any():
        say(axes, "no finite exponent")
    elif not finite.all():
        explain(axes, panel, [not_drawn(values[~finite])])
    axes.set_ylabel(panel.folded(panel.quantity))
    axes.set_xlabel("rank of the exponent")
    axes.grid(True, alpha=0.3)
    axes.set_xlim(0.5, len(values) + 0.5)
    axes.xaxis.set_major_locator(whole_numbers(panel))
