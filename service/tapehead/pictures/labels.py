"""The words and marks along an axis, and the words in a panel where nothing can be drawn."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator, ScalarFormatter

from tapehead.pictures.panel import LETTERS, Array, Panel, is_time

_MOST_NAMED = 16
_LONG, _AROUND = 200, 15
_INFINITE = 1e290  # beyond it the margins of a logarithmic axis overflow


def label_axis(axes: Axes, which: str, name: str, panel: Panel) -> None:
    """Names one axis and marks whole entries only, by their labels where the panel has them."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    labels = panel.labels.get(name)
    axis.set_label_text(textwrap.fill(panel.axis(name), 2 * LETTERS if which == "x" else LETTERS))
    if labels is not None and len(labels) <= _MOST_NAMED and not is_time(name):
        axis.set_ticks(range(len(labels)), labels)
        return
    axis.set_major_locator(whole_numbers(panel))
    if labels is not None:
        axis.set_major_formatter(FuncFormatter(lambda at, _: _label(labels, at)))


def whole_numbers(panel: Panel) -> MaxNLocator:
    """Where an axis of entries is marked: at whole ones, fewer where there is less room."""
    return MaxNLocator(nbins=5 if panel.small else 8, integer=True, min_n_ticks=1)


def explain(axes: Axes, panel: Panel, notes: Iterable[str] = (), columns: int = 1) -> None:
    """The legend of a panel, where there is anything to tell; below the lines `notes`, those that are not empty."""
    for note in filter(None, notes):
        axes.plot([], [], " ", label=note)
    if axes.get_legend_handles_labels()[1]:
        size = "x-small" if panel.small else "small"
        axes.legend(loc="best", framealpha=0.8, edgecolor="none", fontsize=size, ncols=columns, handlelength=1.8)


def not_drawn(values: Array) -> str:
    """A note on the values that have no place on a logarithmic axis; empty where all have one."""
    return f"not drawn: {missing(values)}" if missing(values) else ""


def logarithmic(axes: Axes, panel: Panel, values: Array) -> Array:
    """The values with what has no place on a logarithmic axis as NaN, and the vertical axis made logarithmic.

    Where nothing has a place the panel says so, and its axis stays as it is.
    """
    values = np.asarray(values, dtype=np.float64)
    drawable = on_log(values)
    axes.set_ylabel(panel.folded(panel.quantity))
    axes.grid(True, alpha=0.3)
    if drawable.any():
        axes.set_yscale("log")
        few_decades(axes.yaxis, np.append(values[drawable], panel.mark or values[drawable][:1]))
    else:
        say(axes, f"nothing to draw: {missing(values)}")
    return np.where(drawable, values, np.nan)


def on_log(values: Array) -> npt.NDArray[np.bool_]:
    """Which values have a place on a logarithmic axis."""
    values = np.asarray(values, dtype=np.float64)
    return (values > 0) & (values < _INFINITE)


def along_time(axes: Axes, name: str, panel: Panel, timesteps: int) -> None:
    """The horizontal axis of timesteps, as wide as a heat map's, so that panels stand in line."""
    label_axis(axes, "x", name, panel)
    axes.set_xlim(-0.5, max(timesteps, 1) - 0.5)


def where_it_matters(axes: Axes, values: Array) -> None:
    """Narrows a long time axis, the last of `values`, to the part that can be seen at all, and says so.

    The rest is under a thousandth of the largest; all of it stays drawn, out of sight.
    """
    sizes = np.nan_to_num(np.abs(values), posinf=np.inf).reshape(-1, values.shape[-1]).max(axis=0)
    seen = np.flatnonzero(sizes >= sizes.max() / 1000) if sizes.max() > 0 else np.zeros(0)
    if values.shape[-1] < _LONG or not seen.size or seen[-1] - seen[0] > values.shape[-1] / 3:
        return
    first, last = max(0, seen[0] - _AROUND), min(values.shape[-1] - 1, seen[-1] + _AROUND)
    axes.set_xlim(first - 0.5, last + 0.5)
    axes.set_xlabel(f"{axes.get_xlabel()} (of {values.shape[-1]}: all others are under 0.1 % of the largest)")


def thickness(timesteps: int) -> float:
    """How thick a line over so many timesteps is: many that go up and down would flow into one another."""
    return 1.4 if timesteps <= _LONG else 0.6


def few_decades(axis: Axis, values: Array) -> None:
    """Plain numbers along a logarithmic axis that powers of ten would leave all but bare."""
    decades = np.log10(values.max()) - np.log10(values.min()) if values.size else np.inf
    if decades < 1:
        axis.set_major_locator(MaxNLocator(5))
        axis.set_major_formatter(ScalarFormatter())
        axis.set_minor_locator(NullLocator())
    elif decades < 2 and 1e-3 < values.min() < values.max() < 1e3:
        axis.set_major_formatter(FuncFormatter(lambda at, _: f"{at:g}"))
        axis.set_minor_formatter(FuncFormatter(lambda at, _: f"{at:g}" if f"{at:e}"[0] in "25" else ""))


def say(axes: Axes, text: str) -> None:
    """Writes a line into the middle of a panel."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color="0.3")


def missing(values: Array) -> str:
    """How many values have no place on a logarithmic axis, and why; empty where all have one."""
    values = np.asarray(values, dtype=np.float64)
    counts = {
        "zero": int((values == 0).sum()),
        "negative": int(((values < 0) & (values > -_INFINITE)).sum()),
        "infinite": int((np.abs(values) >= _INFINITE).sum()),
        "without a value": int(np.isnan(values).sum()),
    }
    return ", ".join(f"{count} {what}" for what, count in counts.items() if count)


def _label(labels: Sequence[str], at: float) -> str:
    whole = round(at)
    return str(labels[whole]) if whole == at and 0 <= whole < len(labels) else ""
