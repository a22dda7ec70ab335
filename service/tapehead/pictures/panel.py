"""One tensor of an answer made ready to draw: one sample, at most two axes, and the words that go with them."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Labels = Mapping[str, Sequence[str]]

LETTERS = 32
"""A line of this many letters is as long as the lowest panel is high."""

MOST_FAINT = 32
"""Other samples that are drawn faintly behind the one that is shown."""


class NoPicture(ValueError):
    """What an answer holds cannot be drawn; the message says why, and what to do."""


class NoSample(NoPicture):
    """The answer has no such sample."""


@dataclass(frozen=True)
class Panel:
    """What one panel shows: `values` with one name an axis, what they measure, and a label an entry where known.

    sides      which points "of" and "wrt" stand for, so that "wrt.timestep" can read "timestep of inputs"
    magnitude  the values are sizes, never negative, that may span decades
    diverging  zero is the middle, whatever the values are
    limits     the least and the largest value there can be
    faint      the same numbers of other samples, samples first
    against    what the values are set against, entry by entry
    at         the timesteps that the values are at, where not at all of them
    fitted     asks for a decay through the values
    mark       a value with a dotted line, `marked` what it is
    words      lines of text
    small      another panel stands beside it
    """

    values: Array
    axes: tuple[str, ...]
    quantity: str
    labels: Labels = field(default_factory=dict)
    sides: Mapping[str, str] = field(default_factory=dict)
    title: str = ""
    magnitude: bool = False
    faint: Array | None = None
    against: Array | None = None
    limits: tuple[float, float] | None = None
    fitted: bool = True
    diverging: bool = False
    small: bool = False
    mark: float | None = None
    marked: str = ""
    at: Array | None = None
    words: tuple[str, ...] = ()

    @property
    def signed(self) -> bool:
        """Whether the values can be of either sign, so that zero is the middle and not the bottom."""
        if self.limits is not None:
            return self.limits[0] < 0
        return not self.magnitude and (self.diverging or bool((self.values < 0).any()))

    @property
    def caption(self) -> str:
        """The quantity, and a word on entries that cannot be drawn, in lines that fit beside the panel."""
        said = self.quantity + ("" if np.isfinite(self.values).all() else " (grey: no value)")
        return self.folded(said)

    def folded(self, text: str) -> str:
        """A text in lines that fit beside the panel."""
        return textwrap.fill(text, LETTERS - 8 * self.small)

    @property
    def way(self) -> str:
        """Which way influence fades along the time axis: back from the end, or on from the beginning."""
        return "on" if self.axes[0].startswith(("of.", "backward.")) else "back"

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
    magnitude: bool = False,
) -> Panel:
    """Sample `row` of a tensor, on the two axes that tell most.

    Axes of one entry are dropped (the timesteps are kept). Where more than two are left, the Frobenius norm is taken
    over the others: units of `of` first, then units of `wrt`, then timesteps of `of`. Timesteps that are not `valid`
    (padding) have no value.
    """
    values, names = one_sample(tensor, axes, row)
    spare = sorted(names, key=_telling)[: max(0, len(names) - 2)]
    if spare:
        values, names = _norm_over(values, names, spare)
        quantity, magnitude = f"{normed(quantity)}, over {' and '.join(in_words(axis, {}) for axis in spare)}", True
    shown = Panel(values, tuple(names), quantity, labels or {}, sides or {}, magnitude=magnitude)
    return shown if valid is None else replace(shown, values=_without_padding(values, names, valid))


def over_time(
    tensor: Array,
    axes: Sequence[str],
    quantity: str,
    *,
    row: int = 0,
    sides: Mapping[str, str] | None = None,
    labels: Labels | None = None,
    valid: Sequence[Sequence[bool]] | None = None,
    magnitude: bool = False,
) -> Panel:
    """The size of a tensor at each entry of its only timestep axis, of sample `row` and faintly of other samples.

    The size is the Frobenius norm over all other axes; of numbers that stand alone, their absolute value.
    """
    rows = samples(tensor, axes)
    shown = dict.fromkeys([row, *range(rows)][: 1 + MOST_FAINT])
    found = [_sizes(tensor, axes, one, None if valid is None else valid[one]) for one in shown]
    (time,) = (axis for axis in axes if is_time(axis))
    alone = found[0].size == one_sample(tensor, axes, row)[0].size
    said = quantity if magnitude else f"absolute value of {quantity}" if alone else normed(quantity)
    faint = np.stack(found[1:]) if rows > 1 else None
    return Panel(found[0], (time,), said, labels or {}, sides or {}, magnitude=True, faint=faint)


def one_sample(tensor: Array, axes: Sequence[str], row: int) -> tuple[Array, list[str]]:
    """Sample `row`, without axes of one entry unless they count timesteps. Of stacked vectors, the first.

    Raises:
        NoPicture: there are no numbers in it.
    """
    values, names = np.asarray(tensor), list(axes)
    if values.size == 0 or values.dtype.kind not in "fiub":
        raise NoPicture(f"a tensor of {values.dtype.name} and shape {list(values.shape)} has nothing to draw")
    if "batch" in names:
        at = names.index("batch")
        values, names = values.take(row, at), names[:at] + names[at + 1 :]
    for at in reversed(range(len(names))):
        if names[at] in ("cotangent", "tangent"):
            values, names = values.take(0, at), names[:at] + names[at + 1 :]
        elif values.shape[at] == 1 and not is_time(names[at]):
            values, names = values.squeeze(at), names[:at] + names[at + 1 :]
    return values, names


def samples(tensor: Array, axes: Sequence[str]) -> int:
    """How many samples a tensor is of; 1 where it has no axis of them."""
    return max(1, np.shape(tensor)[list(axes).index("batch")]) if "batch" in axes else 1


def frobenius(values: Array, over: tuple[int, ...]) -> Array:
    """The square root of the sum of squares over some axes, in float64; what overflows is infinite."""
    axes = list(range(values.ndim))
    with np.errstate(over="ignore"):
        squares = np.einsum(values, axes, values, axes, [at for at in axes if at not in over], dtype=np.float64)
        return np.asarray(np.sqrt(squares))


def normed(quantity: str) -> str:
    """The name of the Frobenius norm of a quantity."""
    return f"norm of {quantity}"


def _norm_over(values: Array, names: Sequence[str], spare: Sequence[str]) -> tuple[Array, list[str]]:
    return frobenius(values, tuple(names.index(axis) for axis in spare)), [name for name in names if name not in spare]


def _sizes(tensor: Array, axes: Sequence[str], row: int, valid: Sequence[bool] | None) -> Array:
    """The size of one sample at each timestep."""
    values, names = one_sample(tensor, axes, row)
    spare = [name for name in names if not is_time(name)]
    sizes, left = _norm_over(values, names, spare) if spare else (np.abs(values.astype(np.float64)), names)
    return sizes if valid is None else _without_padding(sizes, left, valid)


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
    side, _, what = axis.removeprefix("backward.").rpartition(".")
    what = what.replace("_", " ")
    if not side:
        return what
    return f"{what} of {sides[side]}" if side in sides else f"{what} ({side})"


def _telling(axis: str) -> int:
    """How much an axis tells in a picture: the least goes first where there are more than two."""
    return ("of." not in axis) + 2 * is_time(axis)
