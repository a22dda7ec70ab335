"""What is asked of a model, and what comes back: the values that travel from the wire to the engine and home again."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

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


@dataclass(frozen=True)
class Result:
    """What comes back: tensors by name, the names of each tensor's axes, and how the answer was made."""

    tensors: Mapping[str, Array]
    axes: Mapping[str, tuple[str, ...]]
    meta: dict[str, Any]


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
