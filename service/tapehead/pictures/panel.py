"""One tensor of an answer made ready to draw: one sample, at most two axes, and the words that go with them."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Labels = Mapping[str, Sequence[str]]

LETTERS = 36
"""A line of this many letters is as long as the lowest panel is high."""


@dataclass(frozen=True)
class Panel:
    """What one panel shows: `values` with one name an axis, what they measure, and a label an entry where known.

    `sides` says which points "of" and "wrt" stand for, so that "wrt.timestep" can read "timestep of inputs".
    """

    values: Array
    axes: tuple[str, ...]
    quantity: str
    labels: Labels = field(default_factory=dict)
    sides: Mapping[str, str] = field(default_factory=dict)

    @property
    def signed(self) -> bool:
        """Whether the values can be of either sign, so that zero is the middle and not the bottom."""
        return not self.quantity.startswith("norm") and bool((self.values < 0).any())

    @property
    def caption(self) -> str:
        """The quantity, and a word on entries that cannot be drawn, in lines that fit beside the panel."""
        said = self.quantity + ("" if np.isfinite(self.values).all() else " (grey: no value)")
        return textwrap.fill(said, LETTERS)

    def axis(self, name: str) -> str:
        """One axis in words."""
        return in_words(name, self.sides)


def panel(
    tensor: Array,
    axes: Sequence[str],
    quantity: str,
    *,
    row: int = 0,
    sides: Mapping[str, str] | None = None,
    labels: Labels | None = None,
    valid: Sequence[bool] | None = None,
) -> Panel:
    """Sample `row` of a tensor, on the two axes that tell most.

    Axes of one entry are dropped (the timesteps are kept). Where more than two are left, the Frobenius norm is taken
    over the others: units of `of` first, then units of `wrt`, then timesteps of `of`. Timesteps that are not `valid`
    (padding) have no value.
    """
    values, names = np.asarray(tensor), list(axes)
    if names[:1] == ["batch"]:
        values, names = values[row], names[1:]
    for at in reversed(range(len(names))):
        if values.shape[at] == 1 and not is_time(names[at]):
            values, names = values.squeeze(at), names[:at] + names[at + 1 :]
    spare = sorted(names, key=_telling)[: max(0, len(names) - 2)]
    if spare:
        values = frobenius(values, tuple(names.index(axis) for axis in spare))
        quantity = f"norm of {quantity}, over {' and '.join(in_words(axis, {}) for axis in spare)}"
    left = tuple(axis for axis in names if axis not in spare)
    if valid is not None:
        values = _without_padding(values, left, valid)
    return Panel(values, left, quantity, labels or {}, sides or {})


def frobenius(values: Array, over: tuple[int, ...]) -> Array:
    """The square root of the sum of squares over some axes, in float64; what overflows is infinite."""
    with np.errstate(over="ignore"):
        return np.asarray(np.sqrt(np.sum(np.square(values, dtype=np.float64), axis=over)))


def _without_padding(values: Array, names: Sequence[str], valid: Sequence[bool]) -> Array:
    """The values with NaN at the timesteps that are not valid, on every axis that counts as many timesteps."""
    for at, name in enumerate(names):
        if is_time(name) and values.shape[at] == len(valid):
            along = [-1 if other == at else 1 for other in range(values.ndim)]
            values = np.where(np.reshape(valid, along), values, np.nan)
    return values


def is_time(axis: str) -> bool:
    """Whether the axis counts timesteps."""
    return axis.rpartition(".")[2] == "timestep"


def in_words(axis: str, sides: Mapping[str, str]) -> str:
    """An axis in words: "wrt.timestep" is "timestep of inputs" where the side is known, else "timestep (wrt)"."""
    side, _, what = axis.rpartition(".")
    if not side:
        return what
    return f"{what} of {sides[side]}" if side in sides else f"{what} ({side})"


def _telling(axis: str) -> int:
    """How much an axis tells in a picture: the least goes first where there are more than two."""
    return ("of." not in axis) + 2 * is_time(axis)
