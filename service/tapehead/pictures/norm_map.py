"""The size of a derivative for each pair of timesteps: what happened at s, seen at t."""

from __future__ import annotations

from matplotlib.axes import Axes

from tapehead.pictures.heatmap import paint
from tapehead.pictures.labels import label_axis
from tapehead.pictures.panel import Panel


def norm_map(axes: Axes, panel: Panel) -> None:
    """Draws a panel of two timestep axes as a square of colours, `wrt` to the right and `of` down."""
    down, right = panel.axes
    rows, columns = panel.values.shape
    paint(axes, panel, panel.values, "equal" if rows == columns else "auto")
    label_axis(axes, "x", right, panel)
    label_axis(axes, "y", down, panel)
