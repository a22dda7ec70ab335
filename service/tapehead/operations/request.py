"""What is asked of a model, and what comes back: the values that travel from the wire to the engine and home again."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Request:
    """What is asked: arrays by input name ("" where the request gave a bare tensor), and the operation's parameters."""

    inputs: Mapping[str, Array]
    lengths: Mapping[str, Array] | None = None
    initial_states: Mapping[str, Array] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @property
    def batch(self) -> int:
        """How many sequences the request holds."""
        return next(int(array.shape[0]) for array in self.inputs.values())

    def rows(self, rows: slice) -> Request:
        """Some of the sequences alone; the parameters as they are."""
        lengths = None if self.lengths is None else {name: array[rows] for name, array in self.lengths.items()}
        inputs = {name: array[rows] for name, array in self.inputs.items()}
        states = {name: array[rows] for name, array in self.initial_states.items()}
        return Request(inputs, lengths, states, self.parameters)


@dataclass(frozen=True)
class Result:
    """What comes back: tensors by name, the names of each tensor's axes, and how the answer was made.

    A dry run has `plans` in place of tensors.
    """

    tensors: Mapping[str, Array]
    axes: Mapping[str, tuple[str, ...]]
    meta: dict[str, Any]
    plans: Sequence[Plan] = ()


class Sink(Protocol):
    """Takes the one tensor of an answer while it is computed."""

    def open(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Memory for the tensor, to be filled in C order from its start."""

    def fill(self, size: int) -> None:
        """So many bytes from its start are as they will stay."""


@dataclass(frozen=True)
class Plan:
    """One tensor of an answer before it is computed. A None in `shape` is known only when the model has run."""

    name: str
    shape: tuple[int | None, ...]
    axes: tuple[str, ...]
    dtype: np.dtype[Any]

    @property
    def bytes(self) -> int:
        """The bytes of the answer; an unknown length counts as 1."""
        return math.prod(1 if n is None else n for n in self.shape) * self.dtype.itemsize
