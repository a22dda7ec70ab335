"""How much of a gate is shut or wide open, over time."""

from __future__ import annotations

from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from tapehead.pictures.colours import LINES
from tapehead.pictures.labels import along_time, explain, thickness
from tapehead.pictures.panel import Array, Panel

LOW, HIGH = 0.05, 0.95
_SIDES: tuple[Literal["--", "-"], ...] = ("--", "-")


def share_beyond(gate: Array, floor: float = 0.0) -> Array:
    """The shares of a gate's units that are shut and that are wide open, (timestep, unit) -> (timestep, 2).

    Within a twentieth of what the gate can be, which is from `floor` (0, or -1 of a candidate) to 1.
    """
    opened = (gate - floor) / (1 - floor)
    shares = np.stack([(opened < LOW).mean(axis=1), (opened > HIGH).mean(axis=1)], axis=-1)
    shares[~np.isfinite(gate).all(axis=1)] = np.nan
    return shares


def saturation(axes: Axes, panel: Panel) -> None:
    """Draws shares (gate, timestep, side) as two lines a gate: dashed where shut, full where wide open."""
    names, thin = panel.labels["gate"], thickness(panel.values.shape[1])
    for at, (gate, name) in enumerate(zip(panel.values, names, strict=True)):
        colour = LINES[at % len(LINES)]
        for side, style in enumerate(_SIDES):
            axes.plot(gate[:, side], style, color=colour, linewidth=thin, label=name if side else None)
    for style, said in zip(_SIDES, (f"under {LOW:g}", f"over {HIGH:g}"), strict=True):
        axes.add_line(Line2D([], [], color="0.3", linestyle=style, label=said))
    axes.set_ylim(-0.03, 1.03)
    axes.set_ylabel(panel.caption)
    axes.grid(True, alpha=0.3)
    explain(axes, panel, columns=2)
    along_time(axes, panel.axes[1], panel, panel.values.shape[1])
