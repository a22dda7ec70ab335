"""A checked request made ready for the programs: padding set, masks made, points turned into places and times."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from tapehead.engine.compiled import Arrays
from tapehead.engine.graph import AnyCall, Recurrence
from tapehead.engine.model import Model
from tapehead.engine.places import Inner, Place, State, TensorAt, WeightAt
from tapehead.engine.programs import masks_program, values_program
from tapehead.operations.request import Array, Request
from tapehead.operations.selection import EVERYTHING, Selection, positions, select

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Target:
    """A point of a request: where it lies, which timesteps of it in each row (None where it has none), which units."""

    text: str
    selection: Selection
    place: Place
    times: Ints | None
    unit_shape: tuple[int, ...]

    @cached_property
    def units(self) -> Ints:
        """The flat indices of the units that are taken."""
        return self.selection.units(self.unit_shape)

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """The shape of what is taken, without the batch axis."""
        kept = self.selection.shape(None, None if self.times is None else self.times.shape[1])
        sizes = dict(zip(self.selection.info.axes, self._sizes, strict=True))
        return tuple(sizes[axis] if n is None else n for n, axis in zip(kept, self.selection.axes, strict=True))

    @property
    def _sizes(self) -> tuple[int, ...]:
        """The length of each of the point's axes after the index."""
        taken = np.empty(self.unit_shape, np.bool_)[self.selection.rest]
        units = iter(taken.shape)
        rest = [next(units) if isinstance(entry, slice) else 1 for entry in self.selection.rest]
        return (*([] if self.times is None else [self.times.shape[1]]), *rest)

    @cached_property
    def whole(self) -> bool:
        """Whether the index takes every timestep and every unit."""
        return self.selection.time in (None, EVERYTHING) and all(entry == EVERYTHING for entry in self.selection.rest)


class Prepared:
    """A request's arrays, held masks and targets, for one model in one precision."""

    def __init__(self, model: Model, request: Request, texts: Sequence[str], *, argmax: bool = False) -> None:
        self.model, self.request = model, request
        self.lengths = {name: np.asarray(own, np.int32) for name, own in (request.lengths or {}).items()}
        self.inputs = {name: self._padded(name, array) for name, array in request.inputs.items()}
        self._asked = (tuple(texts), argmax)
        selections, self.places, self.calls = model.questions.get(self._asked, self._resolved)
        self.masks = self._masks()
        self.targets: dict[str, Target] = self.kept(
            "targets", lambda: {text: self._target(text, selection) for text, selection in selections.items()}
        )

    def kept(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """What follows from the question and the inputs' shapes alone: made anew only where masks come in."""
        if self.masks or self.request.initial_states:
            return make()
        shapes = tuple((name, array.shape) for name, array in self.inputs.items())
        return self.model.questions.get((self._asked, shapes, key), make)

    @property
    def batch(self) -> int:
        """How many samples the request holds."""
        return self.request.batch

    @property
    def dtype(self) -> np.dtype[Any]:
        """What derivatives are computed in."""
        return np.dtype(self.model.dtype)

    def rows(self, rows: slice) -> Prepared:
        """The same for some of the samples alone."""
        return self if self.batch == 1 else Prepared(self.model, self.request.rows(rows), list(self.targets))

    def entire(self, target: Target) -> tuple[int, ...]:
        """The shape of a target's whole point, without the batch axis: what a cotangent or tangent of it fills."""
        return (*(() if target.times is None else (self.timesteps(target.place),)), *target.unit_shape)

    def arrays(self, inputs: Mapping[str, Array] | None = None, repeats: int = 1) -> Arrays:
        """What every program starts from; `inputs` in place of the request's, the rest repeated `repeats` times."""

        def each(array: Array) -> Array:
            return array if repeats == 1 else np.repeat(array, repeats, axis=0)

        return Arrays(
            dict(inputs or self.inputs),
            {name: each(array) for name, array in self.lengths.items()},
            {name: each(array) for name, array in self.request.initial_states.items()},
            {str(key): each(mask) for key, mask in self.masks.items()},
        )

    def timesteps(self, place: Place) -> int:
        """How many timesteps a place has in this request."""
        tensor = _counted(place)
        follows = self.model.seen.follows.get(tensor)
        if follows is not None:
            return int(self.inputs[follows].shape[1])
        shape = self.model.seen.shapes[tensor]
        if shape[0] is not None:
            return shape[0]
        found = values_program(self.model, self.calls, [TensorAt(tensor)], self.arrays())
        return int(found[0].shape[1])

    def valid(self, place: Place) -> Bools | None:
        """Which timesteps of a place count, (batch, timesteps) in the input's own time; None where all do."""
        if isinstance(place, Inner):
            return self.masks.get(place.call.name)
        if isinstance(place, WeightAt):
            return None
        if place.tensor in self.model.masked_by:
            return self.masks.get(self.model.masked_by[place.tensor], self.masks.get(place.tensor))
        return self.masks.get(place.tensor)

    def run_times(self, call: Recurrence, times: Ints) -> Ints:
        """Timesteps of the input's own time as the layer runs them; the map is its own inverse."""
        return self.timesteps(State(call, "")) - 1 - times if call.backwards else times

    def _resolved(self) -> tuple[dict[str, Selection], dict[str, Place], tuple[AnyCall, ...]]:
        """What each text takes, the place that it names, and the calls before all of them."""
        texts, argmax = self._asked
        selections = {text: select(self.model.card, text, argmax=argmax) for text in texts}
        places = {text: self.model.place(selection.name) for text, selection in selections.items()}
        return selections, places, tuple(self.model.calls_before(list(places.values())))

    def _padded(self, name: str, array: Array) -> Array:
        """The input with its padding set to the value that the model masks."""
        if name not in self.lengths:
            return array
        beyond = np.arange(array.shape[1])[None, :] >= self.lengths[name][:, None]
        padded = array.copy()
        padded[beyond] = self.model.padding[name]
        return padded

    def _masks(self) -> dict[int | str, Bools]:
        """Every mask of the model for this request; none where nothing masks."""
        if not self.lengths and not self.model.seen.masks:
            return {}
        found = masks_program(
            self.model, self.calls, Arrays(self.inputs, self.lengths, self.request.initial_states, {})
        )
        return {(int(key) if key.isdigit() else key): np.asarray(mask) for key, mask in found.items()}

    def _target(self, text: str, selection: Selection) -> Target:
        place = self.places[text]
        times = None
        if selection.time is not None:
            times = positions(selection, self.timesteps(place), self.valid(place))
        return Target(text, selection, place, times, self._unit_shape(selection))

    def _unit_shape(self, selection: Selection) -> tuple[int, ...]:
        known = selection.unit_shape
        if None not in known:
            return tuple(n for n in known if n is not None)
        (found,) = values_program(self.model, self.calls, [self.model.place(selection.name)], self.arrays())
        return tuple(found.shape[1 if selection.time is None else 2 :])


def _counted(place: Place) -> int:
    """The tensor whose timesteps a place has."""
    if isinstance(place, Inner):
        return place.call.sequence
    assert isinstance(place, TensorAt), "a weight has no timesteps"
    return place.tensor
