"""Several numbers a timestep, a line each: gradient norms by gate, the largest and least singular values."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from tapehead.pictures.colours import LINES, STYLES
from tapehead.pictures.labels import along_time, explain, logarithmic, not_drawn, thickness
from tapehead.pictures.panel import Array, Panel

MOST_LINES = 8
_MOST_MARKED = 40


def lines(axes: Axes, panel: Panel) -> None:
    """Draws a panel of two axes, the first a line for each entry and the second to the right.

    Magnitudes stand on a logarithmic axis. Of more than eight lines the eight that reach highest are drawn.
    """
    values = np.asarray(panel.values, dtype=np.float64)
    names = panel.labels.get(panel.axes[0]) or [f"{panel.axis(panel.axes[0])} {n}" for n in range(len(values))]
    shown = _highest(values)
    finite = np.where(np.isfinite(values[shown]), values[shown], np.nan)
    drawn = logarithmic(axes, panel, values[shown]) if panel.magnitude else finite
    at_times = np.arange(values.shape[1]) if panel.at is None else np.asarray(panel.at)
    thin = thickness(values.shape[1])
    marker = "." if values.shape[1] <= _MOST_MARKED else ""
    for at, line in enumerate(drawn):
        style = STYLES[at % 4] if thin > 1 else "-"
        axes.plot(at_times, line, style, marker=marker, color=LINES[at], label=names[shown[at]], linewidth=thin)
    if panel.mark is not None:
        axes.axhline(panel.mark, color="0.3", linewidth=0.8, linestyle=":")
    if not panel.magnitude:
        axes.set_ylabel(panel.folded(panel.quantity))
        axes.grid(True, alpha=0.3)
    lower = f"{len(values) - len(shown)} lower ones not drawn" if len(values) > len(shown) else ""
    lost = not_drawn(values[shown]) if panel.magnitude else ""
    explain(axes, panel, [lower, lost], columns=2 if len(shown) > 4 else 1)
    along_time(axes, panel.axes[1], panel, int(at_times.max(initial=0)) + 1)


def _highest(values: Array) -> list[int]:
    """The entries that reach highest, in their own order."""
    reach = np.where(np.isfinite(values), np.abs(values), 0).max(axis=1, initial=0)
    return sorted(np.argsort(-reach, kind="stable")[:MOST_LINES].tolist())
