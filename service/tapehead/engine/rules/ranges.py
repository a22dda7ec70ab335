"""Which activation gives each of a cell's gates, and between which bounds its values lie."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tapehead.engine.rules.cells import CellRule
from tapehead.engine.rules.simple_rnn import SimpleRNNRule
from tapehead.engine.rules.stacked_cells import StackedCellsRule

Bounds = tuple[float | None, float | None]

BOUNDS: Mapping[str, Bounds] = {
    "sigmoid": (0.0, 1.0),
    "hard_sigmoid": (0.0, 1.0),
    "tanh": (-1.0, 1.0),
    "hard_tanh": (-1.0, 1.0),
    "softsign": (-1.0, 1.0),
    "relu6": (0.0, 6.0),
    "relu": (0.0, None),
}
"""The bounds at which an activation's slope vanishes, by its name; None where it has none on that side."""

RECTIFIERS = frozenset({"relu", "relu6"})
"""The activations that are exactly 0, and flat, over half of the line."""

_OUTER = ("cell_candidate", "candidate")


def activations(rule: CellRule) -> dict[str, str]:
    """The names of a cell's activations, by the gate that each gives; a SimpleRNN's one gives its state.

    A cell of its user's own does not say which of its tensors come from an activation: none.
    """
    if isinstance(rule, StackedCellsRule):
        parts = [(f"cells.{n}.", activations(one)) for n, one in enumerate(rule.rules)]
        return {prefix + name: activation for prefix, own in parts for name, activation in own.items()}
    if isinstance(rule, SimpleRNNRule):
        return {"h": _name(rule.cell.activation)}
    cell: Any = getattr(rule, "cell", None)
    return {gate: _name(cell.activation if gate in _OUTER else cell.recurrent_activation) for gate in rule.gates}


def _name(activation: Any) -> str:
    return str(getattr(activation, "__name__", type(activation).__name__))
