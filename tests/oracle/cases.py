"""An architecture with its input and what two independent ways say of it, computed once for all tests that ask."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest

import architectures
from oracle.answers import Answer
from oracle.oracle import Oracle, central_differences

USUAL = (
    "simple_rnn",
    "lstm",
    "lstm_sequence",
    "gru",
    "two_state_text",
    "stateful",
    "stacked_cells",
    "bidirectional_concat",
    "bidirectional_none",
    "stack_after_backwards",
    "contrary_cell",
    "turned_bidirectional",
    "odd_name",
    "masked_backwards",
    "masked_then_flattened",
    "masked_encoder_decoder",
)
"""The architectures that the default suite asks about; test_grid asks about others, the slow suite about all."""
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
        return [name for name in self.answer.aliases if name.split(".")[0] == "outputs"]

    @property
    def sequences(self) -> list[str]:
        """What the derivatives with respect to an input are taken of: inputs of numbers, or the words' embedding."""
        return [name if x.dtype.kind == "f" else "embedding" for name, x in self.inputs.items()]


def some(names: Iterable[str], usual: Sequence[str] = USUAL) -> list[Any]:
    """These architectures as parameters of a test, slow where they are not usual ones."""
    return [pytest.param(name, marks=() if name in usual else pytest.mark.slow) for name in names]


@cache
def network(name: str) -> Any:
    """The model of an architecture."""
    return architectures.build(name)


@cache
def case(name: str) -> Case:
    """The case of an architecture: invalid timesteps in those that mask."""
    inputs = architectures.data(network(name))
    if name in architectures.MASKED | architectures.EMBEDDED | architectures.ODDLY_MASKED:
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


def grid(model: Any, here: Case, *, whole: bool = True, **options: Any) -> dict[tuple[str, str], np.ndarray]:
    """The Jacobians of states and outputs with respect to all inputs, states and initial states.

    The last layer's last state and the outputs alone, unless the grid is to be whole: each point differentiated is
    compiled once.
    """
    of = [*here.states, *here.outputs] if whole else [here.states[-1], *here.outputs]
    wrt = [*here.sequences, *here.states, *here.initial]
    tensors = model.jacobian(here.inputs, of=of, wrt=wrt, **options).tensors
    assert set(tensors) == {f"{o} / {w}" for o in of for w in wrt}
    return {(o, w): tensors[f"{o} / {w}"] for o in of for w in wrt}
