"""Where a point lies in the graph: at a tensor between layers, or inside a recurrent layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tapehead.engine.graph import Recurrence


@dataclass(frozen=True)
class TensorAt:
    """A tensor that leaves a layer, or an input."""

    tensor: int


@dataclass(frozen=True)
class Inner:
    """A point inside a recurrent layer."""

    call: Recurrence
    name: str


class State(Inner):
    """A state after each timestep."""


class Gate(Inner):
    """A gate at each timestep, after its activation."""


class Initial(Inner):
    """A state before the first timestep that the layer runs."""


class Final(Inner):
    """A state after the last timestep that the layer runs."""


@dataclass(frozen=True, eq=False)
class WeightAt:
    """A weight, wherever the model uses it."""

    variable: Any


Place = TensorAt | Inner | WeightAt
