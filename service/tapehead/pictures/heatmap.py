"""Two axes as colours: red above zero, blue below, white at zero; norms from dark to light."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from tapehead.pictures.panel import Panel, is_time

DIVERGING = "RdBu_r"
SEQUENTIAL = "viridis"
NOT_FINITE = "0.6"
_MOST_NAMED = 16


def heatmap(axes: Axes, panel: Panel) -> None:
    """Draws a panel of two axes; timesteps run to the right. Limits are symmetric about zero where signs differ."""
    upright = is_time(panel.axes[0]) and not is_time(panel.axes[1])
    values = panel.values.T if upright else panel.values
    down, right = panel.axes[::-1] if upright else panel.axes
    shown = np.ma.masked_invalid(values)
    largest = float(np.abs(shown).max()) if shown.count() else 0.0
    top = largest or 1.0
    colours = colormaps[DIVERGING if panel.signed else SEQUENTIAL].with_extremes(bad=NOT_FINITE)
    image = axes.imshow(shown, aspect="auto", cmap=colours, vmin=-top if panel.signed else 0.0, vmax=top)
    assert axes.figure is not None
    bar = axes.figure.colorbar(image, ax=axes, pad=0.02)
    bar.set_label(panel.caption)
    label_axis(axes, "x", right, panel)
    label_axis(axes, "y", down, panel)


def label_axis(axes: Axes, which: str, name: str, panel: Panel) -> None:
    """Names one axis and marks whole entries only, by their labels where the panel has them."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    labels = panel.labels.get(name)
    axis.set_label_text(panel.axis(name))
    if labels is not None and len(labels) <= _MOST_NAMED and not is_time(name):
        axis.set_ticks(range(len(labels)), labels)
        return
    axis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
    if labels is not None:
        axis.set_major_formatter(FuncFormatter(lambda at, _: _label(labels, at)))


def _label(labels: Sequence[str], at: float) -> str:
    whole = round(at)
    return str(labels[whole]) if whole == at and 0 <= whole < len(labels) else ""
