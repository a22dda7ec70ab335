"""One size a timestep on a log axis, and the decay fitted to it: how fast a derivative fades into the past."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes

from tapehead.pictures.colours import LINES
from tapehead.pictures.labels import along_time, explain, logarithmic, not_drawn, on_log
from tapehead.pictures.panel import Array, Panel

NORMS, FIT = LINES[0], LINES[1]
_MOST_MARKED = 80


@dataclass(frozen=True)
class Decay:
    """norm(t) ≈ `last` · `factor` ** (T - t), T the last timestep: what is left a timestep further back.

    Or a timestep further on, where `way` says so: then it is counted from the first timestep.
    """

    factor: float
    last: float
    way: str = "back"

    def norms(self, timesteps: int) -> Array:
        """The fitted norms at every timestep."""
        with np.errstate(over="ignore"):
            found = self.last * self.factor ** np.arange(timesteps - 1, -1, -1, dtype=np.float64)
        return found if self.way == "back" else found[::-1]

    def __str__(self) -> str:
        times = f"x {self.factor:.3g} a timestep {self.way}"
        if not 0 < self.factor < 1:
            return times
        return f"{times}: halved in {math.log(0.5) / math.log(self.factor):.1f}"


def decay(norms: Array, way: str = "back") -> Decay | None:
    """The decay that fits log(norm) best (least squares); None with fewer than two positive, finite norms."""
    norms = np.asarray(norms, dtype=np.float64)[:: 1 if way == "back" else -1]
    usable = on_log(norms)
    if usable.sum() < 2:
        return None
    back = np.arange(len(norms) - 1, -1, -1)[usable]
    slope, intercept = np.polyfit(back, np.log(norms[usable]), 1)
    with np.errstate(over="ignore"):
        return Decay(float(np.exp(slope)), float(np.exp(intercept)), way)


def norms(axes: Axes, panel: Panel) -> None:
    """Draws a panel of one axis on a log scale. What is zero or has no value is counted instead."""
    values = np.asarray(panel.values, dtype=np.float64)
    drawn = logarithmic(axes, panel, values)
    marker = "o" if len(values) <= _MOST_MARKED // (1 + panel.small) else ""
    axes.plot(drawn, marker=marker, markersize=4, color=NORMS, label=_said(panel), zorder=3)
    if panel.faint is not None:
        _faintly(axes, panel.faint)
    if panel.mark is not None and np.isfinite(drawn).any():
        axes.axhline(panel.mark, color="0.3", linewidth=0.8, linestyle=":", label=panel.marked or None)
    fitted = decay(values, panel.way) if panel.fitted else None
    if fitted is not None:
        bounds, (first, *_, last) = axes.get_ylim(), np.flatnonzero(np.isfinite(drawn))
        said = f"fitted: {fitted}".replace(": halved", ":\nhalved" if panel.small else ": halved")
        line = np.arange(first, last + 1), fitted.norms(len(values))[first : last + 1]
        axes.plot(*line, "--", color=FIT, label=said, zorder=4)
        axes.set_ylim(bounds)
    explain(axes, panel, [not_drawn(values)])
    along_time(axes, panel.axes[0], panel, len(values))


def _faintly(axes: Axes, samples: Array) -> None:
    for at, sample in enumerate(np.where(on_log(samples), samples, np.nan)):
        label = f"{len(samples)} other sample{'s' * (len(samples) > 1)}" if at == 0 else None
        axes.plot(sample, color=NORMS, alpha=0.25, linewidth=0.8, label=label, zorder=2)


def _said(panel: Panel) -> str:
    return panel.quantity if panel.faint is None else "this sample"
