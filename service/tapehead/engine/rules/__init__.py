"""Layer -> rule: how each kind of recurrent cell steps and passes cotangents back. A new kind of cell is one row here.

cells.py          what every rule for a cell offers
lstm.py, gru.py, simple_rnn.py      Keras's own cells, by their structure
stacked_cells.py  cells on top of each other within a step
any_cell.py       any other cell, by automatic differentiation of its step
formed.py         the same step as matrices, for sweeps that carry many vectors
recurrence.py     a layer's loop over a cell: forward, and back for a stack of cotangents
window.py         k steps back from many timesteps at once (lag)
any_layer.py      any other layer or operation, by automatic differentiation of that layer alone
"""

from __future__ import annotations

from typing import Any

import keras

from tapehead.engine.rules.activations import elementwise
from tapehead.engine.rules.any_cell import AnyCellRule
from tapehead.engine.rules.cells import CellRule
from tapehead.engine.rules.gru import GRURule
from tapehead.engine.rules.lstm import LSTMRule
from tapehead.engine.rules.simple_rnn import SimpleRNNRule
from tapehead.engine.rules.stacked_cells import StackedCellsRule

# Exact types: a subclass may compute something else.
_RULES: dict[type, Any] = {
    keras.layers.LSTMCell: LSTMRule,
    keras.layers.GRUCell: GRURule,
    keras.layers.SimpleRNNCell: SimpleRNNRule,
}


def cell_gates(rule: CellRule, cell: str) -> tuple[str, ...]:
    """The gates of the cell that stands at `cell` in a stack (`cells.0`), or of the only cell (``)."""
    prefix = f"{cell}." if cell else ""
    return tuple(gate.removeprefix(prefix) for gate in rule.gates if gate.startswith(prefix))


def cell_rule(cell: Any, features: tuple[int | None, ...]) -> CellRule:
    """The rule for `cell`, whose inputs are (batch, *features)."""
    if type(cell) is keras.layers.StackedRNNCells:
        rules: list[CellRule] = []
        for one in cell.cells:
            rules.append(cell_rule(one, features))
            features = rules[-1].output_shape
        return StackedCellsRule(rules)
    activations = [getattr(cell, name) for name in ("activation", "recurrent_activation") if hasattr(cell, name)]
    if type(cell) in _RULES and all(map(elementwise, activations)):
        rule: CellRule = _RULES[type(cell)](cell)
        return rule
    return AnyCellRule(cell, features)
