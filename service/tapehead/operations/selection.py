"""A point and its index, held against a model's card: which timesteps, which units, on which axes."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tapehead.errors import BadParameter, UnknownPoint
from tapehead.operations.card import Card, PointInfo
from tapehead.points import ARGMAX, Entry, Point, parse

EVERYTHING = slice(None)


@dataclass(frozen=True)
class Selection:
    """What an index takes of a point.

    `time` is the entry on the timestep axis (None where the point has none), `rest` the entries on the other axes, one
    each. `argmax` stands for the largest of all entries of the sample, chosen when the model has run.
    `columns` are those of one gate, taken from a weight's last axis before the index.
    """

    point: Point
    info: PointInfo
    time: int | slice | None
    rest: tuple[int | slice, ...]
    argmax: bool = False
    columns: tuple[int, int] | None = None

    @property
    def name(self) -> str:
        """The point's canonical name, without the index."""
        return self.point.name

    @property
    def axes(self) -> tuple[str, ...]:
        """The names of the axes that are left, without the batch axis."""
        if self.argmax:
            return ()
        entries = self.rest if self.time is None else (self.time, *self.rest)
        return tuple(axis for axis, entry in zip(self.info.axes, entries, strict=True) if isinstance(entry, slice))

    @property
    def unit_shape(self) -> tuple[int | None, ...]:
        """The point's shape without batch and timesteps, before the index."""
        return self.info.shape if self.time is None else self.info.shape[1:]

    def shape(self, timesteps: int | None, times: int | None = None) -> tuple[int | None, ...]:
        """The shape that is left without the batch axis; `times` overrides how many timesteps a slice takes."""
        if self.argmax:
            return ()
        taken = [length(entry, size) for entry, size in zip(self.rest, self.unit_shape, strict=True)]
        left = tuple(n for n, entry in zip(taken, self.rest, strict=True) if isinstance(entry, slice))
        if not isinstance(self.time, slice):
            return left
        return (length(self.time, timesteps) if times is None else times, *left)

    def units(self, shape: Sequence[int]) -> npt.NDArray[np.int64]:
        """The flat indices that `rest` takes from an array of `shape` (no batch, no timesteps), in C order."""
        everything = np.arange(math.prod(shape)).reshape(tuple(shape))
        return everything[self.rest].reshape(-1) if self.rest else everything.reshape(-1)


def length(entry: int | slice, size: int | None) -> int | None:
    """How many entries of an axis of `size` are taken; None where that cannot be known yet."""
    if isinstance(entry, int):
        return 1
    if size is not None:
        return len(range(*entry.indices(size)))
    return None


def resolve(card: Card, text: str) -> tuple[Point, PointInfo]:
    """The point that `text` names in the model, under its canonical name.

    Raises:
        UnknownPoint: no point has that name; the message lists those that would have been right.
    """
    point = parse(text)
    name = card.aliases.get(point.name, point.name)
    if name != point.name and name not in card.points and name not in card.weights:
        raise UnknownPoint(f"{point.name!r} could be any of {_listed(name.split(','))}: name one of them")
    if name in card.points:
        return Point(name, point.index), card.points[name]
    if name in card.weights:
        return Point(name, point.index), _weight_info(card, card.weights[name])
    columns = gate_columns(card, name)
    if columns is not None:
        shape = (*card.weights[name.rpartition(".")[0]][:-1], columns[1] - columns[0])
        return Point(name, point.index), _weight_info(card, shape)
    raise UnknownPoint(_no_such(card, point.name))


def gate_columns(card: Card, name: str) -> tuple[int, int] | None:
    """The columns that `lstm/kernel.forget_gate` means; None where the name is no weight's gate."""
    weight, _, gate = name.rpartition(".")
    return card.columns.get(weight, {}).get(gate)


def _weight_info(card: Card, shape: tuple[int, ...]) -> PointInfo:
    axes = ("row", "column") if len(shape) == 2 else ("column",) if len(shape) == 1 else None
    return PointInfo(shape, axes or tuple(f"axis{n}" for n in range(len(shape))), card.dtype, True, "weight")


def select(card: Card, text: str, *, argmax: bool = False) -> Selection:
    """`text` resolved, with its index laid out over the point's axes.

    Raises:
        UnknownPoint: no such point.
        BadParameter: the index has too many entries or is out of range; `argmax` where it makes no sense.
    """
    point, info = resolve(card, text)
    if ARGMAX in point.index:
        if not argmax:
            raise BadParameter(f"[argmax] is for a saliency target; {text!r} stands elsewhere")
        if info.axes[:1] == ("timestep",):
            raise BadParameter(f"[argmax] needs a point without a timestep axis; {point.name!r} has axes {info.axes}")
        return Selection(point, info, None, (EVERYTHING,) * len(info.axes), argmax=True)
    entries = _laid_out(point, info)
    timed = info.axes[:1] == ("timestep",)
    time, rest = (entries[0], entries[1:]) if timed else (None, entries)
    for entry, size, axis in zip(rest, info.shape[timed:], info.axes[timed:], strict=True):
        if isinstance(entry, int) and size is not None and not -size <= entry < size:
            raise BadParameter(f"index {entry} is out of range for axis {axis!r} of {point.name!r}, which has {size}")
    return Selection(point, info, time, rest, columns=gate_columns(card, point.name))


def positions(selection: Selection, timesteps: int, valid: npt.NDArray[np.bool_] | None) -> npt.NDArray[np.int64]:
    """The timesteps that the selection takes in each row, (rows or 1, k); negative ones count from the last valid one.

    Raises:
        BadParameter: a timestep is out of range, reaches before a row's first valid one, or the rows differ in how many
            timesteps they have to give.
    """
    entry = selection.time
    if not _relative(entry) or valid is None:
        return _within(selection, timesteps)[None, :]
    rows = [_row(selection, entry, timesteps, row, n) for n, row in enumerate(valid)]
    counts = {len(row) for row in rows}
    if len(counts) > 1:
        raise BadParameter(
            f"{str(selection.point)!r} takes {sorted(counts)} timesteps in different rows, because their lengths "
            f"differ; take the same number in each (as [-3:] does), or ask one request a length"
        )
    return np.array(rows, dtype=np.int64)


def _within(selection: Selection, timesteps: int) -> npt.NDArray[np.int64]:
    entry = selection.time
    if isinstance(entry, int):
        if not -timesteps <= entry < timesteps:
            raise BadParameter(
                f"timestep {entry} of {selection.name!r} is out of range: the request has {timesteps} timesteps"
            )
        return np.array([entry % timesteps])
    assert entry is not None
    for bound in (entry.start, entry.stop):
        if bound is not None and bound < -timesteps:
            raise _before_start(selection, bound, 0)
    return np.arange(timesteps)[entry]


def _row(
    selection: Selection, entry: int | slice | None, timesteps: int, valid: npt.NDArray[np.bool_], row: int
) -> list[int]:
    """One row's timesteps, negative indices counted from its last valid timestep."""
    steps = np.flatnonzero(valid)
    first, end = (int(steps[0]), int(steps[-1]) + 1) if len(steps) else (0, 0)

    def at(bound: int) -> int:
        if bound >= 0:
            return bound
        if end + bound < first:
            raise _before_start(selection, bound, row)
        return end + bound

    if isinstance(entry, int):
        return [at(entry)]
    assert entry is not None
    start = None if entry.start is None else at(entry.start)
    if entry.stop is not None:
        stop: int | None = at(entry.stop)
    elif entry.start is not None and entry.start < 0 and (entry.step or 1) > 0:
        stop = end
    else:
        stop = None
    return list(range(*slice(start, stop, entry.step).indices(timesteps)))


def _before_start(selection: Selection, bound: int, row: int) -> BadParameter:
    return BadParameter(
        f"{str(selection.point)!r}: {bound} reaches before the start of the sequence in row {row}; "
        f"ask for fewer timesteps back, or leave that row out"
    )


def _relative(entry: int | slice | None) -> bool:
    if isinstance(entry, slice):
        return any(bound is not None and bound < 0 for bound in (entry.start, entry.stop))
    return entry is not None and entry < 0


def _laid_out(point: Point, info: PointInfo) -> tuple[int | slice, ...]:
    """One entry an axis: the `...` filled out, the axes not named taken whole."""
    entries: list[Entry] = list(point.index)
    rank = len(info.axes)
    if sum(entry is not ... for entry in entries) > rank:
        raise BadParameter(
            f"{str(point)!r} has {len(entries)} index entries; {point.name!r} has axes {list(info.axes)} "
            f"(the batch axis is left out)"
        )
    if ... not in entries:
        entries.append(...)
    gap = entries.index(...)
    filled = [*entries[:gap], *[EVERYTHING] * (rank - len(entries) + 1), *entries[gap + 1 :]]
    return tuple(entry for entry in filled if isinstance(entry, int | slice))


def _no_such(card: Card, name: str) -> str:
    """Why there is no such point: the part that is wrong, and what could stand there."""
    if "/" in name:
        layer, _, _ = name.partition("/")
        own = [weight for weight in card.weights if weight.startswith(layer + "/")]
        return f"no weight {name!r}; weights here: {_listed(own or card.weights)}"
    head, _, part = name.replace("/", ".").partition(".")
    if head in card.closed:
        return f"no point {name!r}: {card.closed[head]}"
    parts = sorted(other[len(head) + 1 :] for other in card.points if other.startswith(head + "."))
    if part and parts:
        return f"no {part!r} in {head!r}; it has {_listed(parts)}"
    layers = sorted({other for other in card.points if "." not in other} | set(card.aliases))
    if part:
        return f"no layer {head!r}; recurrent layers here: {_listed(card.recurrent) or 'none'}"
    near = difflib.get_close_matches(name, [*card.points, *card.aliases], n=3)
    hint = f"did you mean {_listed(near)}? " if near else ""
    recurrent = _listed(card.recurrent) or "none"
    return f"no point {name!r}; {hint}layers here: {_listed(layers)}; recurrent ones: {recurrent}"


def _listed(names: Iterable[str], most: int = 30) -> str:
    every = list(names)
    return ", ".join(every[:most]) + (f", … ({len(every)} in all)" if len(every) > most else "")
