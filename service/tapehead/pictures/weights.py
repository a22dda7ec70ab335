"""Gradients of weights: their sizes by weight, gate and timestep, and each entry against the weight it is of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tapehead.pictures.panel import Array, Panel, one_sample
from tapehead.pictures.sheet import MOST_PANELS, Sheet, Shown

_NORM = "norm of the gradient"


def weight_gradients(shown: Shown) -> Sheet:
    """The entries themselves where they are there, else norms: over time a line each, else a mark each."""
    entries = [name.removesuffix(":value") for name in shown.tensors if name.endswith(":value")]
    if entries:
        panels = [("scatter", _scatter(shown, name)) for name in entries[:MOST_PANELS]]
        return Sheet(panels, [*_left_out(panels, entries), *_notes(shown.meta)], columns=2 if len(panels) > 1 else 1)
    norms = [name for name in shown.tensors if ":" not in name]
    over_time = [name for name in norms if "timestep" in shown.axes[name]]
    by_gate = [name for name in over_time if "gate" in shown.axes[name]]
    others = [name for name in norms if name not in over_time]
    together = [name for name in over_time if name not in by_gate]
    rest = [
        *([("lines", _by_weight(shown, together))] if together else []),
        *([("dots", _dots(shown, others))] if others else []),
    ]
    panels = [("lines", _by_gate(shown, name)) for name in by_gate[: MOST_PANELS - len(rest)]]
    return Sheet([*panels, *rest], [*_left_out(panels, by_gate), *_notes(shown.meta)])


def gates_of(weight: str, meta: Mapping[str, Any], count: int | None = None) -> Sequence[str]:
    """The names of a weight's gates, in the order of its columns; none where its layer has none."""
    gates: Sequence[str] = meta.get("gates", {}).get(weight.rpartition("/")[0], ())
    return gates if count is None or len(gates) == count else [f"gate {n}" for n in range(count)]


def _scatter(shown: Shown, name: str) -> Panel:
    value, weight = (np.asarray(shown.tensors[f"{name}:{part}"]) for part in ("value", "weight"))
    if "batch" in shown.axes[f"{name}:value"]:
        value = value[shown.row]
    gates = gates_of(name, shown.meta)
    labels = {"gate": gates} if gates else {}
    return Panel(value, ("row", "column"), "gradient", labels, title=name, magnitude=True, against=weight)


def _by_gate(shown: Shown, name: str) -> Panel:
    """One weight's norms, (gate, timestep)."""
    values, axes = _row(shown, name)
    if axes[0] == "timestep":
        values = values.T
    labels = {"gate": gates_of(name, shown.meta, len(values))}
    return Panel(values, ("gate", "timestep"), f"{_NORM} of {name}", labels, magnitude=True)


def _by_weight(shown: Shown, names: Sequence[str]) -> Panel:
    """Several weights' norms, (weight, timestep)."""
    found = [_row(shown, name)[0] for name in names]
    longest = max(map(len, found))
    values = np.stack([np.pad(one.astype(float), (0, longest - len(one)), constant_values=np.nan) for one in found])
    return Panel(values, ("weight", "timestep"), _NORM, {"weight": list(names)}, magnitude=True)


def _dots(shown: Shown, names: Sequence[str]) -> Panel:
    """Several weights' norms, (weight, gate)."""
    found = {name: np.atleast_1d(_row(shown, name)[0]) for name in names}
    columns = max(map(len, found.values()))
    gates = next((gates_of(name, shown.meta, columns) for name, one in found.items() if len(one) == columns > 1), ())
    values = np.full((len(found), columns), np.nan)
    for at, one in enumerate(found.values()):
        values[at, : len(one)] = one
    return Panel(values, ("weight", "gate"), _NORM, {"weight": list(names), "gate": gates}, magnitude=True)


def _row(shown: Shown, name: str) -> tuple[Array, list[str]]:
    """One sample's norms; axes of gates and timesteps stay, however short."""
    values, axes = np.asarray(shown.tensors[name]), list(shown.axes[name])
    if "batch" in axes:
        values, axes = values.take(shown.row, axes.index("batch")), [axis for axis in axes if axis != "batch"]
    if values.ndim == 0:
        return one_sample(values[None], ("unit",), 0)
    return values, axes


def _left_out(panels: Sequence[object], names: Sequence[str]) -> list[str]:
    return [f"{len(panels)} of {len(names)} weights"] if len(panels) < len(names) else []


def _notes(meta: Mapping[str, Any]) -> list[str]:
    """The loss, and the weights that it does not reach."""
    loss, cut = meta.get("loss"), meta.get("disconnected") or ()
    value = f" {meta['loss_value']:.4g}" if isinstance(meta.get("loss_value"), float) else ""
    said = ", ".join(cut[:4]) + (f" and {len(cut) - 4} more" if len(cut) > 4 else "")
    return [*([f"loss {loss}{value}"] if loss else []), *([f"disconnected: {said}"] if cut else [])]
