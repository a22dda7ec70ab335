"""Singular values in falling order: how many directions a step keeps, and how strongly."""

from __future__ import annotations

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize

from tapehead.pictures.colours import SEQUENTIAL
from tapehead.pictures.labels import explain, label_axis, logarithmic, not_drawn, whole_numbers
from tapehead.pictures.panel import Array, Panel

_MOST_TIMESTEPS, _MOST_MARKED = 200, 40


def spectrum(axes: Axes, panel: Panel) -> None:
    """Draws singular values over their rank on a log axis: a line a timestep, coloured by it, and their median."""
    values = np.atleast_2d(np.asarray(panel.values, dtype=np.float64))
    drawn, rank = logarithmic(axes, panel, values), np.arange(1, values.shape[1] + 1)
    marker = "o" if len(rank) <= _MOST_MARKED else ""
    if len(values) > 1:
        _by_timestep(axes, panel, drawn, rank)
    middle = drawn[0] if len(values) == 1 else _median(drawn)
    label = "median over timesteps" if len(values) > 1 else None
    axes.plot(rank, middle, color="black", linewidth=1.6, marker=marker, markersize=4, label=label)
    axes.axhline(1, color="0.3", linewidth=0.8, linestyle=":")
    explain(axes, panel, [not_drawn(values)])
    axes.set_xlabel("rank of the singular value")
    axes.set_xlim(0.5, len(rank) + 0.5)
    axes.xaxis.set_major_locator(whole_numbers(panel))


def _by_timestep(axes: Axes, panel: Panel, drawn: Array, rank: Array) -> None:
    shown = np.unique(np.linspace(0, len(drawn) - 1, _MOST_TIMESTEPS).round().astype(int))
    colours = ScalarMappable(Normalize(0, len(drawn) - 1), colormaps[SEQUENTIAL])
    paths = [np.column_stack([rank, drawn[at]]) for at in shown]
    axes.add_collection(LineCollection(paths, colors=colours.to_rgba(shown), linewidths=0.7, alpha=0.7))
    axes.autoscale_view()
    assert axes.figure is not None
    bar = axes.figure.colorbar(colours, ax=axes, pad=0.02)
    label_axis(bar.ax, "y", panel.axes[0], panel)


def _median(drawn: Array) -> Array:
    """The median of each column, over what can be drawn of it."""
    columns = (column[np.isfinite(column)] for column in drawn.T)
    return np.array([np.median(column) if column.size else np.nan for column in columns])
