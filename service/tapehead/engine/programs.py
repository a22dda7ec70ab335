"""The functions that are compiled: values, sweeps back, products, and values with a point nudged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import tensorflow as tf

from tapehead.engine.compiled import Array, Arrays, Operand, Tensor, given, ran
from tapehead.engine.graph import AnyCall, Recurrence
from tapehead.engine.model import Model
from tapehead.engine.places import Final, Gate, Initial, Inner, Place, State, TensorAt, WeightAt
from tapehead.engine.rules.cells import SUMMED, Keep
from tapehead.engine.rules.recurrence import Seed, Spike, Wave
from tapehead.engine.rules.window import INPUTS, Path, lagged
from tapehead.engine.sweep import Source, at_valid, gate_values, read, sweep
from tapehead.engine.trace import Trace, input_order, run_order, trace

Calls = Sequence[AnyCall]


def masks_program(model: Model, calls: Calls, arrays: Arrays) -> dict[str, Array]:
    """Every mask that the given inputs and lengths make, by tensor number or recurrent layer."""

    def masks(arrays: Arrays) -> dict[str, Tensor]:
        made = trace(model.graph, calls, given(model, arrays, held=False))
        return {str(key): mask for key, mask in made.masks.items()}

    found: dict[str, Array] = ran(model, "masks", masks, calls, arrays)
    return found


def values_program(model: Model, calls: Calls, places: Sequence[Place], arrays: Arrays) -> list[Array]:
    """The values at places, batch first, timesteps in the input's own time."""

    def values(arrays: Arrays) -> list[Tensor]:
        made = trace(model.graph, calls, given(model, arrays))
        return [value(made, place) for place in places]

    found: list[Array] = ran(model, ("values", tuple(places)), values, calls, arrays, apart=_rows_apart(places))
    return found


def spike_program(
    model: Model,
    calls: Calls,
    of: Place,
    wrt: Sequence[Place],
    arrays: Arrays,
    values: Array,
    times: Array,
    keep: Keep = SUMMED,
    *,
    once: bool | None = None,
    norms: int = 0,
) -> list[Array]:
    """Sweeps back a stack whose entries start at one timestep each: (batch, m, *wrt) for each of `wrt`.

    With respect to a weight the answer is (m, *wrt), behind the batch where `keep` keeps that. `values` is (batch or 1,
    m, *units), `times` (batch or 1, m) in the order that `of` is stored in: run order for a state or gate. For a point
    without timesteps `times` is left unread. With `norms` every wrt is a state or gate, and the answer is (batch,
    m / norms, timesteps): the norm of every `norms` entries' derivatives, taken as each timestep is reached. `once`
    says whether all `times` are one, where that is known.
    """

    def back(arrays: Arrays, values: Tensor, times: Tensor) -> list[Tensor]:
        made = trace(model.graph, calls, given(model, arrays))
        stack, start = tf.shape(values)[1], spiked(made, of, values, times, once=together)
        return _swept(made, calls, of, wrt, start, stack, keep, vectors=vectors, norms=norms)

    vectors, together = _enough(calls, values.shape[1]), start_together(times) if once is None else once
    kind = ("spike", of, tuple(wrt), keep, vectors, together, norms)
    # Norms are asked for to save memory: one program takes less of it than several.
    apart = () if norms else (0, 1) if keep.rows else _rows_apart(wrt)
    operands = (Operand(values, 2), Operand(times, 2))
    found: list[Array] = ran(model, kind, back, calls, arrays, *operands, apart=apart)
    return found


def wave_program(
    model: Model, calls: Calls, of: Place, wrt: Sequence[Place], arrays: Arrays, values: Array
) -> list[Array]:
    """Sweeps back a stack whose entries start at every timestep: `values` is (batch, m, timesteps, *units)."""

    def back(arrays: Arrays, values: Tensor) -> list[Tensor]:
        made = trace(model.graph, calls, given(model, arrays))
        return _swept(made, calls, of, wrt, _waved(of, values), tf.shape(values)[1])

    kind, apart = ("wave", of, tuple(wrt)), _rows_apart(wrt)
    found: list[Array] = ran(model, kind, back, calls, arrays, Operand(values, 3), apart=apart)
    return found


def jvp_program(
    model: Model, calls: Calls, of: Sequence[Place], wrt: Place, arrays: Arrays, tangents: Array
) -> list[Array]:
    """Jacobian times a stack of tangents, for each of `of` the whole point: (batch, m, [timesteps,] *of).

    `tangents` is (batch or 1, m, [timesteps,] *wrt), or (m, *weight). A sweep back is linear in its cotangents u, so
    the gradient of <u J, v> with respect to u is J v.
    """
    weight = isinstance(wrt, WeightAt)

    def push(arrays: Arrays, tangents: Tensor) -> list[Tensor]:
        made = trace(model.graph, calls, given(model, arrays))
        stack = tf.shape(tangents)[0 if weight else 1]
        return [_pushed(made, calls, place, wrt, tangents, stack) for place in of]

    open_axes = 1 if weight else 3 if timed(model, wrt) else 2
    kind, apart = ("jvp", tuple(of), wrt), _rows_apart([*of, wrt])
    found: list[Array] = ran(model, kind, push, calls, arrays, Operand(tangents, open_axes), apart=apart)
    return found


def hvp_program(
    model: Model, calls: Calls, of: Place, wrt: Place, arrays: Arrays, values: Array, times: Array, tangent: Array
) -> Array:
    """Hessian times tangent: the gradient of <d of/d wrt, v> with respect to a nudge of `wrt`.

    `values` (batch, 1, *units) and `times` pick one number a sample. `tangent` is (batch, [timesteps,] *wrt), or of the
    shape of a weight, for which the samples' numbers are summed.
    """
    weight = isinstance(wrt, WeightAt)

    def second(arrays: Arrays, values: Tensor, times: Tensor, tangent: Tensor) -> Tensor:
        point = wrt.variable.value if isinstance(wrt, WeightAt) else tf.zeros_like(tangent)
        with tf.GradientTape() as tape:
            tape.watch(point)
            nudges = {} if weight else {wrt: point}
            made = trace(model.graph, calls, replace(given(model, arrays), nudges=nudges))
            (swept,) = _swept(made, calls, of, [wrt], spiked(made, of, values, times), tf.constant(1), SUMMED)
            # A nudge at a timestep that does not count moves nothing, so its tangent must not either.
            along = tangent if weight else _at_valid(made, wrt, tangent[:, None])[:, 0]
            product = tf.reduce_sum((swept[0] if weight else swept[:, 0]) * along)
        return tf.convert_to_tensor(tape.gradient(product, point, unconnected_gradients="zero"))

    open_axes = 0 if weight else 2 if timed(model, wrt) else 1
    operands = (Operand(values, 2), Operand(times, 2), Operand(tangent, open_axes))
    return ran(model, ("hvp", of, wrt), second, calls, arrays, *operands, apart=_rows_apart([wrt]))


def nudged_program(
    model: Model, calls: Calls, of: Sequence[Place], wrt: Sequence[Place], arrays: Arrays, nudges: Sequence[Array]
) -> list[Array]:
    """The values at `of` with each of `wrt` moved by its nudge, (batch or 1, [timesteps,] *wrt)."""

    def moved(arrays: Arrays, *nudges: Tensor) -> list[Tensor]:
        moves = dict(zip(wrt, nudges, strict=True))
        made = trace(model.graph, calls, replace(given(model, arrays), nudges=moves))
        return [value(made, place) for place in of]

    operands = [Operand(nudge, 2 if timed(model, place) else 1) for place, nudge in zip(wrt, nudges, strict=True)]
    kind, apart = ("nudged", tuple(of), tuple(wrt)), _rows_apart([*of, *wrt])
    found: list[Array] = ran(model, kind, moved, calls, arrays, *operands, apart=apart)
    return found


def lag_program(
    model: Model,
    calls: Calls,
    of: State | Gate,
    wrt: Place,
    arrays: Arrays,
    values: Array,
    times: Array,
    samples: Array,
    *,
    identity: bool,
) -> Array:
    """`window.lagged` within one recurrent layer: (rows, m, *wrt) for `values` (1, m, *units) and a path."""
    whole = of.name if identity and isinstance(of, State) and len(times) > 1 else None
    vectors = _enough(calls, values.shape[1])

    def back(arrays: Arrays, values: Tensor, times: Tensor, samples: Tensor) -> Tensor:
        made = trace(model.graph, calls, given(model, arrays))
        name = wrt.name if isinstance(wrt, Inner) else INPUTS
        path = Path(tf.transpose(times), samples)
        return lagged(made.runs[of.call], {of.name: values}, path, name, identity=whole, vectors=vectors)

    # One step back is known to need no loop.
    operands = (Operand(values, 2), Operand(times.T, 1 if len(times) == 2 else 2), Operand(samples, 1))
    return ran(model, ("lag", of, wrt, whole, vectors), back, calls, arrays, *operands)


def timed(model: Model, place: Place) -> bool:
    """Whether a place's values have a timestep axis."""
    if isinstance(place, TensorAt):
        return len(model.seen.shapes[place.tensor]) > 1
    return isinstance(place, State | Gate)


def value(made: Trace, place: Place) -> Tensor:
    """The values at a place, batch first, timesteps in the input's own time."""
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
        case WeightAt(variable):
            return tf.convert_to_tensor(variable)


def _swept(
    made: Trace,
    calls: Calls,
    of: Place,
    wrt: Sequence[Place],
    cotangents: Any,
    stack: Tensor,
    keep: Keep = SUMMED,
    *,
    vectors: int = 0,
    norms: int = 0,
) -> list[Tensor]:
    found = sweep(made, calls, Source(of, cotangents, stack, vectors, norms), wrt, keep)
    return [_at_valid(made, place, read(made, found, place, stack)) for place in wrt]


def _pushed(made: Trace, calls: Calls, of: Place, wrt: Place, tangents: Tensor, stack: Tensor) -> Tensor:
    like = value(made, of)
    zeros = tf.zeros(tf.concat([[made.batch, stack], tf.shape(like)[1:]], axis=0), like.dtype)
    zeros = tf.ensure_shape(zeros, [None, None, *like.shape[1:]])
    with tf.GradientTape() as tape:
        tape.watch(zeros)
        (swept,) = _swept(made, calls, of, [wrt], _waved(of, zeros), stack)
        along = tangents if isinstance(wrt, WeightAt) else tf.broadcast_to(tangents, tf.shape(swept))
        product = tf.reduce_sum(swept * along)
    return tf.convert_to_tensor(tape.gradient(product, zeros, unconnected_gradients="zero"))


def _rows_apart(places: Sequence[Place]) -> Sequence[int]:
    """The batch, unless weights are among the places: those have no rows."""
    return () if any(isinstance(place, WeightAt) for place in places) else (0,)


def start_together(times: Array) -> bool:
    """Whether all of a stack's entries start at one timestep."""
    return bool((times == times.flat[0]).all())


def _enough(calls: Calls, vectors: int) -> int:
    """For how many vectors at least a program is made: the most of the rules' `many` that there are, or 0."""
    found = [call.rule.many for call in calls if isinstance(call, Recurrence) and call.rule.many is not None]
    return max((many for many in found if many <= vectors), default=0)


def spiked(made: Trace, of: Place, values: Tensor, times: Tensor, *, once: bool = False) -> Seed | Tensor:
    """The start of a sweep: a spike inside a recurrent layer, else cotangents of the whole tensor."""
    if isinstance(of, State | Gate):
        return Spike(values, times, once)
    rows = tf.concat([[made.batch], tf.shape(values)[1:]], axis=0)
    if not isinstance(of, TensorAt) or made.values[of.tensor].shape.rank == values.shape.rank - 1:
        return tf.broadcast_to(values, rows)
    here = tf.one_hot(times, tf.shape(made.values[of.tensor])[1], dtype=values.dtype)
    for _ in values.shape[2:]:
        here = here[..., None]
    spread = here * values[:, :, None]
    return tf.broadcast_to(spread, tf.concat([[made.batch], tf.shape(spread)[1:]], axis=0))


def _waved(of: Place, values: Tensor) -> Seed | Tensor:
    """The start of a sweep from every timestep: `values` (batch, m, [timesteps,] …) in the input's own time."""
    if not isinstance(of, State | Gate):
        return values
    if of.call.backwards:
        moved = tf.transpose(values, [0, 2, 1, *range(3, values.shape.rank)])
        values = tf.transpose(run_order(of.call, moved), [1, 2, 0, *range(3, values.shape.rank)])
    return Wave(tf.transpose(values, [2, 0, 1, *range(3, values.shape.rank)]))


def _at_valid(made: Trace, place: Place, found: Tensor) -> Tensor:
    """Exactly 0 with respect to an input at a timestep that does not count."""
    if not isinstance(place, TensorAt) or place.tensor not in made.inputs:
        return found
    held = (made.given.held or {}).get(place.tensor)
    return found if held is None else at_valid(found, held[:, None])
