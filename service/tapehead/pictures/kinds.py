"""The kinds of picture: one row each, a function that draws a panel on a matplotlib Axes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from matplotlib.axes import Axes

from tapehead.pictures.bars import bars
from tapehead.pictures.heatmap import heatmap
from tapehead.pictures.norms import norms
from tapehead.pictures.panel import Panel, is_time

Kind = Callable[[Axes, Panel], None]

KINDS: Mapping[str, Kind] = {"heatmap": heatmap, "norms": norms, "bars": bars}


def fitting(panel: Panel) -> str:
    """The kind that suits a panel's axes: two make a heat map, norms over time a log axis, anything else bars."""
    if len(panel.axes) == 2:
        return "heatmap"
    over_time = len(panel.axes) == 1 and is_time(panel.axes[0])
    return "norms" if over_time and panel.quantity.startswith("norm") else "bars"
