"""One signed number a timestep, unit or feature."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from tapehead.pictures.colours import ABOVE, BELOW, NOT_FINITE
from tapehead.pictures.labels import label_axis, where_it_matters
from tapehead.pictures.panel import Panel, is_time

_NARROW = 400


def bars(axes: Axes, panel: Panel) -> None:
    """Draws a panel of at most one axis as bars from zero, red above and blue below."""
    values = np.atleast_1d(panel.values).astype(np.float64)
    edges = np.arange(len(values) + 1) - 0.5
    finite = np.where(np.isfinite(values), values, 0)
    # A bar narrower than a pixel would all but vanish: its edge keeps it a line.
    edge = 0.8 if len(values) > _NARROW else 0.0
    axes.stairs(np.maximum(finite, 0), edges, fill=True, color=ABOVE, linewidth=edge)
    axes.stairs(np.minimum(finite, 0), edges, fill=True, color=BELOW, linewidth=edge)
    for lost in np.flatnonzero(~np.isfinite(values)):
        axes.axvspan(edges[lost], edges[lost + 1], color=NOT_FINITE)
    axes.axhline(0, color="0.3", linewidth=0.8)
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylabel(panel.caption)
    axes.grid(True, axis="y", alpha=0.3)
    if panel.axes:
        label_axis(axes, "x", panel.axes[0], panel)
        if is_time(panel.axes[0]):
            where_it_matters(axes, values)
    else:
        axes.set_xticks([])
