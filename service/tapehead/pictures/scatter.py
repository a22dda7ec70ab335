"""Each entry of a weight against its gradient, on log axes, coloured by gate."""

from __future__ import annotations

import textwrap

import numpy as np
from matplotlib.axes import Axes

from tapehead.pictures.colours import LINES
from tapehead.pictures.labels import few_decades, missing, on_log, say
from tapehead.pictures.panel import LETTERS, Array, Panel

MOST_POINTS = 100_000
_MARKERS = "osD^vP*X"


def scatter(axes: Axes, panel: Panel) -> None:
    """Draws |gradient| over |weight|, both logarithmic, an entry a point, and each gate's medians as a large mark.

    The gates lie side by side on the weight's last axis. Points are put down in a mixed order, so that no gate covers
    another, and fainter the more of them there are; of more than 100,000 so many are drawn, picked at random.
    """
    assert panel.against is not None
    weight, gradient, gate = entries(panel)
    drawable = on_log(weight) & on_log(gradient)
    if drawable.any():
        _points(axes, panel, weight[drawable], gradient[drawable], gate[drawable])
        axes.set(xscale="log", yscale="log")
        few_decades(axes.xaxis, weight[drawable])
        few_decades(axes.yaxis, gradient[drawable])
    else:
        say(axes, f"no gradient to draw: {missing(gradient)}" if missing(gradient) else "every weight is 0")
    lost = [f"{int((gradient == 0).sum())} with gradient 0", f"{int((weight == 0).sum())} with weight 0"]
    lost = [text for text in lost if not text.startswith("0 ")]
    note = f"\nnot drawn: {', '.join(lost)}" if lost and drawable.any() else ""
    axes.set_title(textwrap.fill(panel.title, LETTERS) + note, fontsize="medium")
    axes.set(xlabel="|weight|", ylabel="|gradient|")
    axes.grid(True, alpha=0.3)


def entries(panel: Panel) -> tuple[Array, Array, Array]:
    """|weight|, |gradient| and the number of its gate for every entry of the weight, in C order."""
    assert panel.against is not None
    gates = max(1, len(panel.labels.get("gate", ())))
    columns = panel.values.shape[-1] if panel.values.ndim else 1
    gate = np.broadcast_to(np.arange(columns) * gates // columns, panel.values.shape or (1,))
    weight, gradient = (np.abs(np.asarray(one, np.float64)).ravel() for one in (panel.against, panel.values))
    return weight, gradient, gate.ravel()


def _points(axes: Axes, panel: Panel, weight: Array, gradient: Array, gate: Array) -> None:
    mixed = np.random.default_rng(0).permutation(len(weight))[:MOST_POINTS]
    colours = np.array(LINES)[gate % len(LINES)]
    alpha = float(np.clip(600 / len(mixed), 0.08, 0.8))
    size = 14 if len(mixed) < 500 else 4
    cloud = axes.scatter(
        weight[mixed], gradient[mixed], s=size, c=colours[mixed].tolist(), alpha=alpha, linewidths=0, rasterized=True
    )
    cloud.set_gid("entries")
    for at, name in enumerate(panel.labels.get("gate", ())):
        if (gate == at).any():
            middle = np.median(weight[gate == at]), np.median(gradient[gate == at])
            axes.plot(*middle, _MARKERS[at % 8], color=LINES[at % len(LINES)], mec="white", ms=9, label=name, ls="")
    if panel.labels.get("gate"):
        title = "median of each gate"
        axes.legend(loc="best", fontsize="x-small", framealpha=0.8, title=title, title_fontsize="x-small")
