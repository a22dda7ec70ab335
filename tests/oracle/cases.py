"""An architecture with its input and what two independent ways say of it, computed once for all tests that ask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

import architectures
from oracle.answers import Answer
from oracle.oracle import Oracle, central_differences

HOLES = ((1, 1, 1, 1, 1), (1, 1, 1, 0, 0), (0, 1, 0, 1, 1))
LENGTHS = (5, 3, 1)


@dataclass(frozen=True)
class Case:
    """A model, an input with or without invalid timesteps, and all derivatives of it."""

    model: Any
    inputs: dict[str, np.ndarray]
    answer: Answer

    @property
    def states(self) -> list[str]:
        """The trajectories of states."""
        return [point for point in self.answer.order if f"{point}.final" in self.answer.values]

    @property
    def gates(self) -> list[str]:
        """The trajectories of gates."""
        return [point for point in self.answer.order if f"{point}.final" not in self.answer.values]

    @property
    def initial(self) -> list[str]:
        """The states before the first timestep."""
        return [f"{point}.initial" for point in self.states]

    @property
    def outputs(self) -> list[str]:
        """The model's outputs."""
        return [point for point in self.answer.values if point.split(".")[0] == "outputs"]

    @property
    def sequences(self) -> list[str]:
        """What the derivatives with respect to an input are taken of: inputs of numbers, or the words' embedding."""
        return [name if x.dtype.kind == "f" else "embedding" for name, x in self.inputs.items()]


@cache
def network(name: str) -> Any:
    """The model of an architecture."""
    return architectures.build(name)


@cache
def case(name: str) -> Case:
    """The case of an architecture: invalid timesteps in those that mask."""
    inputs = architectures.data(network(name))
    if name in architectures.MASKED or name in architectures.EMBEDDED:
        inputs = architectures.masked(inputs, HOLES)
    return Case(network(name), inputs, Oracle(network(name))(inputs))


@cache
def case_with_lengths(name: str, lengths: Sequence[int] = LENGTHS) -> Case:
    """The case of an architecture with sequences of these lengths, and what is beyond them arbitrary."""
    inputs = architectures.data(network(name))
    return Case(network(name), inputs, Oracle(network(name))(inputs, lengths=lengths))


@cache
def differences(name: str) -> Answer:
    """Central differences of the same case, with respect to all that a Keras cell can be handed."""
    here = case(name)
    return central_differences(here.model, here.inputs, [*here.sequences, *here.states, *here.initial])
