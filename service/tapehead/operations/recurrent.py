"""The recurrent cells of a model, as its card tells of them: what a diagnosis takes one by one."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from tapehead.errors import BadParameter, UnknownPoint
from tapehead.operations.card import Card

_IN_A_STACK = re.compile(r"(cells\.\d+\.)*")


@dataclass(frozen=True)
class RecurrentCell:
    """One cell: a layer's only one, that of one direction, or one of a stack.

    `name` begins the names of its points (`lstm`, `bi.forward`, `rnn.cells.0`), `layer` is the recurrent layer's,
    `prefix` what stands between that and a state of the cell (``, `cells.0.`). `states` have their shapes, `activated`
    names what an activation gives, with that activation's name: the gates, or the state of a cell with one activation.
    """

    name: str
    layer: str
    prefix: str
    states: Mapping[str, tuple[int, ...]]
    activated: Mapping[str, str]

    @property
    def size(self) -> int:
        """How many numbers its states hold."""
        return sum(map(math.prod, self.states.values()))


def recurrent_cells(card: Card, layer: str | None = None) -> tuple[RecurrentCell, ...]:
    """The cells of the model, those of `layer` where one is named: `bi` means both directions, `rnn` a whole stack.

    Raises:
        BadParameter: the model has no recurrent layer.
        UnknownPoint: it has none of that name.
    """
    every = tuple(cell for name in card.recurrent for cell in _cells(card, name))
    if not every:
        why = "; ".join(card.closed.values())
        raise BadParameter(f"model {card.name!r} has no recurrent layer to diagnose" + (f": {why}" if why else ""))
    found = tuple(cell for cell in every if layer is None or f"{cell.name}.".startswith(f"{layer}."))
    if not found:
        here = ", ".join(cell.name for cell in every)
        raise UnknownPoint(f"no recurrent layer {layer!r}; those of this model: {here}")
    return found


def _cells(card: Card, layer: str) -> list[RecurrentCell]:
    info = card.recurrent[layer]
    prefixes = dict.fromkeys(_prefix(state) for state in info["states"])
    return [
        RecurrentCell(
            name=f"{layer}.{prefix}".rstrip("."),
            layer=layer,
            prefix=prefix,
            states={name: tuple(shape) for name, shape in info["states"].items() if _prefix(name) == prefix},
            activated={
                name.removeprefix(prefix): activation
                for name, activation in info.get("activations", {}).items()
                if _prefix(name) == prefix
            },
        )
        for prefix in prefixes
    ]


def _prefix(name: str) -> str:
    found = _IN_A_STACK.match(name)
    return found.group() if found else ""
