"""States and gates over time: a heat map a point, and how much of each gate is shut or wide open."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from tapehead.pictures.choice import by_axes, pictures_of
from tapehead.pictures.panel import Panel, is_time
from tapehead.pictures.saturation import share_beyond
from tapehead.pictures.sheet import MOST_PANELS, Sheet, Shown

# gate -> the least it can be; the largest is 1
GATES: Mapping[str, float] = {
    "input_gate": 0.0,
    "forget_gate": 0.0,
    "output_gate": 0.0,
    "update_gate": 0.0,
    "reset_gate": 0.0,
    "cell_candidate": -1.0,
    "candidate": -1.0,
}


def states(shown: Shown) -> Sheet:
    """Each point's panel, gates on the scale of what a gate can be; below them the gates' saturation over time."""
    gates = [name for name in shown.tensors if floor_of(name) is not None and _in_time(shown, name)]
    if not gates:
        return by_axes(shown)
    names = list(shown.tensors)[: MOST_PANELS - 1]
    panels = [one for name in names for one in _panels(shown, name)]
    note = [f"{len(names)} of {len(shown.tensors)} points"] if len(names) < len(shown.tensors) else []
    return Sheet([*panels, ("saturation", _saturation(shown, gates))], note)


def floor_of(point: str) -> float | None:
    """The least that a gate can be, by its point; None where the point is no gate."""
    return GATES.get(point.partition("[")[0].rpartition(".")[2])


def _panels(shown: Shown, name: str) -> list[tuple[str, Panel]]:
    floor = floor_of(name)
    found = pictures_of(shown, name, alone=False)
    return found if floor is None else [(kind, replace(one, limits=(floor, 1.0))) for kind, one in found]


def _in_time(shown: Shown, name: str) -> bool:
    axes = [axis for axis in shown.axes[name] if axis != "batch"]
    return bool(axes) and is_time(axes[0])


def _saturation(shown: Shown, gates: list[str]) -> Panel:
    """The shares of each gate's units that are shut and open, (gate, timestep, side)."""
    shares = []
    for name in gates:
        floor, gate = floor_of(name), np.asarray(shown.tensors[name][shown.row])
        assert floor is not None
        shares.append(share_beyond(gate.reshape(len(gate), -1), floor))
    longest = max(map(len, shares))
    padded = [np.pad(one, ((0, longest - len(one)), (0, 0)), constant_values=np.nan) for one in shares]
    labels = {**shown.labels, "gate": gates}
    return Panel(np.stack(padded), ("gate", "timestep", "side"), "share of the gate's units", labels)
