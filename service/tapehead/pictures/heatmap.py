"""Two axes as colours: red above zero, blue below, white at zero; magnitudes from dark to light."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from tapehead.pictures.colours import scale, zeros_apart
from tapehead.pictures.labels import label_axis, where_it_matters
from tapehead.pictures.panel import Array, Panel, is_time


def heatmap(axes: Axes, panel: Panel) -> None:
    """Draws a panel of two axes; timesteps run to the right. Limits are symmetric about zero where signs differ."""
    upright = is_time(panel.axes[0]) and not is_time(panel.axes[1])
    values = panel.values.T if upright else panel.values
    down, right = panel.axes[::-1] if upright else panel.axes
    paint(axes, panel, values)
    label_axis(axes, "x", right, panel)
    label_axis(axes, "y", down, panel)
    if is_time(right) and panel.signed and panel.limits is None:
        where_it_matters(axes, values)


def paint(axes: Axes, panel: Panel, values: Array, aspect: str = "auto") -> None:
    """Puts the values on the axes as colours, with a colour bar that says what they are."""
    colours, norm = scale(panel)
    image = axes.imshow(np.ma.masked_invalid(values), aspect=aspect, cmap=colours, norm=norm)  # type: ignore[arg-type]
    assert axes.figure is not None
    bar = axes.figure.colorbar(image, ax=axes, pad=0.02)
    said = panel.caption
    if zeros_apart(panel):
        bar.ax.set_facecolor("white")
        said = panel.folded(f"{panel.quantity} (pale: exactly 0)")
    bar.set_label(said)
    if not np.any(values):
        axes.text(0.5, 0.5, "every value is 0", transform=axes.transAxes, ha="center", va="center", backgroundcolor="w")
