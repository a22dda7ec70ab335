"""The compiled functions: traced once for a model and a question, then run for any batch, length and stack.

Every signature leaves batch, timesteps and stack open, so that a new length is never a new trace.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tapehead.engine.graph import AnyCall
from tapehead.engine.model import Model
from tapehead.engine.places import Final, Gate, Initial, Inner, Place, State, TensorAt
from tapehead.engine.rules.recurrence import Seed, Spike, Wave
from tapehead.engine.rules.window import INPUTS, Path, lagged
from tapehead.engine.sweep import Source, at_valid, gate_values, read, sweep
from tapehead.engine.trace import Given, Trace, input_order, run_order, trace

Tensor = Any
Array = Any


class Arrays(NamedTuple):
    """What a program starts from: inputs by name, lengths by input, initial states by point, held masks by key."""

    inputs: Mapping[str, Array]
    lengths: Mapping[str, Array]
    initial: Mapping[str, Array]
    held: Mapping[str, Array]


def masks_program(model: Model, calls: Sequence[AnyCall], arrays: Arrays) -> dict[str, Array]:
    """Every mask that the given inputs and lengths make, by tensor number or recurrent layer."""

    def masks(arrays: Arrays) -> dict[str, Tensor]:
        made = trace(model.graph, calls, _given(model, arrays, held=False))
        return {str(key): mask for key, mask in made.masks.items()}

    run = model.program(("masks", _key(calls, arrays)), lambda: _compiled(masks, _specs(model, arrays)))
    return {key: mask.numpy() for key, mask in run(_tensors(arrays)).items()}


def values_program(model: Model, calls: Sequence[AnyCall], places: Sequence[Place], arrays: Arrays) -> list[Array]:
    """The values at places, batch first, timesteps in the input's own time."""

    def values(arrays: Arrays) -> list[Tensor]:
        made = trace(model.graph, calls, _given(model, arrays))
        return [_value(made, place) for place in places]

    key = ("values", tuple(places), _key(calls, arrays))
    run = model.program(key, lambda: _compiled(values, _specs(model, arrays)))
    return [value.numpy() for value in run(_tensors(arrays))]


def spike_program(
    model: Model, calls: Sequence[AnyCall], of: Place, wrt: Sequence[Place], arrays: Arrays, values: Array, times: Array
) -> list[Array]:
    """Sweeps back a stack whose entries start at one timestep each: (batch, m, *wrt) for each of `wrt`.

    `values` is (batch or 1, m, *units), `times` (batch or 1, m) in the order that `of` is stored in: run order for a
    state or gate. For a point without timesteps `times` is left unread.
    """
    shape = (None, None, *values.shape[2:])

    def run_back(arrays: Arrays, values: Tensor, times: Tensor) -> list[Tensor]:
        made = trace(model.graph, calls, _given(model, arrays))
        return _swept(made, calls, of, wrt, _spiked(made, of, values, times), tf.shape(values)[1])

    key = ("spike", of, tuple(wrt), _key(calls, arrays))
    specs = [_specs(model, arrays), tf.TensorSpec(shape, model.dtype), tf.TensorSpec((None, None), tf.int32)]
    run = model.program(key, lambda: _compiled(run_back, *specs))
    found = run(_tensors(arrays), _tensor(values, model.dtype), tf.convert_to_tensor(times, tf.int32))
    return [value.numpy() for value in found]


def wave_program(
    model: Model, calls: Sequence[AnyCall], of: Place, wrt: Sequence[Place], arrays: Arrays, values: Array
) -> list[Array]:
    """Sweeps back a stack whose entries start at every timestep: `values` is (batch, m, timesteps, *units)."""
    shape = (None, None, None, *values.shape[3:])

    def run_back(arrays: Arrays, values: Tensor) -> list[Tensor]:
        made = trace(model.graph, calls, _given(model, arrays))
        cotangents: Seed | Tensor = values
        if isinstance(of, Inner):
            cotangents = Wave(tf.transpose(_turned(of, values), [2, 0, 1, *range(3, values.shape.rank)]))
        return _swept(made, calls, of, wrt, cotangents, tf.shape(values)[1])

    key = ("wave", of, tuple(wrt), _key(calls, arrays))
    run = model.program(key, lambda: _compiled(run_back, _specs(model, arrays), tf.TensorSpec(shape, model.dtype)))
    return [value.numpy() for value in run(_tensors(arrays), _tensor(values, model.dtype))]


def lag_program(
    model: Model,
    calls: Sequence[AnyCall],
    of: State | Gate,
    wrt: Place,
    arrays: Arrays,
    values: Array,
    times: Array,
    samples: Array,
) -> Array:
    """`window.lagged` within one recurrent layer: (rows, m, *wrt) for `values` (1, m, *units) and a path."""

    def run_back(arrays: Arrays, values: Tensor, times: Tensor, samples: Tensor) -> Tensor:
        made = trace(model.graph, calls, _given(model, arrays))
        name = INPUTS if isinstance(wrt, TensorAt) else wrt.name
        return lagged(made.runs[of.call], {of.name: values}, Path(times, samples), name)

    specs = [
        _specs(model, arrays),
        tf.TensorSpec((1, None, *values.shape[2:]), model.dtype),
        tf.TensorSpec((None, None), tf.int32),
        tf.TensorSpec((None,), tf.int32),
    ]
    run = model.program(("lag", of, wrt, _key(calls, arrays)), lambda: _compiled(run_back, *specs))
    ints = [tf.convert_to_tensor(array, tf.int32) for array in (times, samples)]
    return run(_tensors(arrays), _tensor(values, model.dtype), *ints).numpy()


def _swept(
    made: Trace, calls: Sequence[AnyCall], of: Place, wrt: Sequence[Place], cotangents: Any, stack: Tensor
) -> list[Tensor]:
    found = sweep(made, calls, Source(of, cotangents, stack), wrt)
    return [_at_valid(made, place, read(made, found, place, stack)) for place in wrt]


def _spiked(made: Trace, of: Place, values: Tensor, times: Tensor) -> Seed | Tensor:
    """The start of a sweep: a spike inside a recurrent layer, else cotangents of the whole tensor."""
    if isinstance(of, State | Gate):
        return Spike(values, times)
    rows = tf.concat([[made.batch], tf.shape(values)[1:]], axis=0)
    if isinstance(of, Inner) or made.values[of.tensor].shape.rank == values.shape.rank - 1:
        return tf.broadcast_to(values, rows)
    timesteps = tf.shape(made.values[of.tensor])[1]
    here = tf.one_hot(times, timesteps, dtype=values.dtype)
    for _ in values.shape[2:]:
        here = here[..., None]
    spread = here * values[:, :, None]
    return tf.broadcast_to(spread, tf.concat([[made.batch], tf.shape(spread)[1:]], axis=0))


def _turned(of: Inner, values: Tensor) -> Tensor:
    """(batch, m, timesteps, …) from the input's own time to the order that the layer runs in."""
    if not of.call.backwards:
        return values
    moved = tf.transpose(values, [0, 2, 1, *range(3, values.shape.rank)])
    return tf.transpose(run_order(of.call, moved), [1, 2, 0, *range(3, values.shape.rank)])


def _at_valid(made: Trace, place: Place, found: Tensor) -> Tensor:
    """Exactly 0 with respect to a layer's output or an input at a timestep that does not count."""
    if not isinstance(place, TensorAt) or (made.given.held or {}).get(place.tensor) is None:
        return found
    return at_valid(found, made.given.held[place.tensor][:, None])  # type: ignore[index]


def _value(made: Trace, place: Place) -> Tensor:
    match place:
        case TensorAt(tensor):
            return made.values[tensor]
        case State(call, name):
            return input_order(call, made.runs[call].states[call.rule.states.index(name)])
        case Gate(call, _):
            return input_order(call, gate_values(made, place))
        case Initial(call, name):
            return made.runs[call].initial[call.rule.states.index(name)]
        case Final(call, name):
            return made.runs[call].final[call.rule.states.index(name)]


def _given(model: Model, arrays: Arrays, *, held: bool = True) -> Given:
    masks = {(int(key) if key.isdigit() else key): mask for key, mask in arrays.held.items()}
    for tensor, other in model.masked_by.items():
        if other in masks:
            masks[tensor] = masks[other]
    return Given(
        arrays.inputs, model.dtype, arrays.lengths, arrays.initial, masks if held else None, model.seen.follows
    )


def _key(calls: Sequence[AnyCall], arrays: Arrays) -> Any:
    return (tuple(calls), *(tuple(sorted(part)) for part in arrays[1:]))


def _compiled(function: Callable[..., Any], *specs: Any) -> Callable[..., Any]:
    compiled: Callable[..., Any] = tf.function(function, input_signature=specs, autograph=False)
    return compiled


def _specs(model: Model, arrays: Arrays) -> Arrays:
    """The arrays' shapes with every length left open that the model leaves open."""
    shapes = {
        spec.name: tf.TensorSpec((None, *spec.shape[1:]), _dtype(model, spec.dtype)) for spec in model.card.inputs
    }
    return Arrays(
        {name: shapes[name] for name in arrays.inputs},
        {name: tf.TensorSpec((None,), tf.int32) for name in arrays.lengths},
        {name: tf.TensorSpec((None, *array.shape[1:]), model.dtype) for name, array in arrays.initial.items()},
        {key: tf.TensorSpec((None, *[None] * (mask.ndim - 1)), tf.bool) for key, mask in arrays.held.items()},
    )


def _dtype(model: Model, dtype: str) -> str:
    return model.dtype if "float" in dtype else dtype


def _tensors(arrays: Arrays) -> Arrays:
    return Arrays(*({name: tf.convert_to_tensor(array) for name, array in part.items()} for part in arrays))


def _tensor(array: Array, dtype: str) -> Tensor:
    return tf.convert_to_tensor(np.ascontiguousarray(array, dtype))
