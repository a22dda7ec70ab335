"""One number a timestep on a log axis, and the decay fitted to it: how fast a derivative fades into the past."""

from __future__ import annotations

import math
import textwrap
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes

from tapehead.pictures.heatmap import label_axis
from tapehead.pictures.panel import LETTERS, Array, Panel

NORMS, FIT = "#0072b2", "#d55e00"
_MOST_MARKED = 80


@dataclass(frozen=True)
class Decay:
    """norm(t) ≈ `last` · `factor` ** (T - t), T the last timestep: what is left a timestep further back."""

    factor: float
    last: float

    def norms(self, timesteps: int) -> Array:
        """The fitted norms at every timestep."""
        return self.last * self.factor ** np.arange(timesteps - 1, -1, -1, dtype=np.float64)

    def __str__(self) -> str:
        times = f"x {self.factor:.3g} a timestep back"
        if not 0 < self.factor < 1:
            return times
        return f"{times}: halved in {math.log(0.5) / math.log(self.factor):.1f}"


def decay(norms: Array) -> Decay | None:
    """The decay that fits log(norm) best (least squares); None with fewer than two positive, finite norms."""
    norms = np.asarray(norms, dtype=np.float64)
    usable = np.isfinite(norms) & (norms > 0)
    if usable.sum() < 2:
        return None
    back = np.arange(len(norms) - 1, -1, -1)[usable]
    slope, intercept = np.polyfit(back, np.log(norms[usable]), 1)
    return Decay(float(np.exp(slope)), float(np.exp(intercept)))


def norms(axes: Axes, panel: Panel) -> None:
    """Draws a panel of one axis on a log scale. What is zero or has no value is counted instead."""
    values = np.asarray(panel.values, dtype=np.float64)
    drawable = np.isfinite(values) & (values > 0)
    marker = "o" if len(values) <= _MOST_MARKED else ""
    axes.plot(np.where(drawable, values, np.nan), marker=marker, markersize=4, color=NORMS, label=panel.quantity)
    fitted = decay(values)
    if fitted is not None:
        axes.plot(fitted.norms(len(values)), "--", color=FIT, label=f"fitted: {fitted}")
    if drawable.any():
        axes.set_yscale("log")
    if not drawable.all():
        axes.plot([], [], " ", label=f"not drawn: {_missing(values)}")
    axes.set_ylabel(textwrap.fill(panel.quantity, LETTERS))
    axes.grid(True, alpha=0.3)
    axes.legend(loc="best", frameon=False)
    label_axis(axes, "x", panel.axes[0], panel)


def _missing(values: Array) -> str:
    counts = {"zero": int((values == 0).sum()), "without a value": int((~np.isfinite(values)).sum())}
    return ", ".join(f"{count} {what}" for what, count in counts.items() if count) or "negative numbers"
