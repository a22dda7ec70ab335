"""The sweep back: a stack of cotangents travels from one point through the calls, last to first, to every point read.

Cotangents between layers are (batch, m, …) by tensor number; those inside a recurrent layer are in its run order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import tensorflow as tf

from tapehead.engine.graph import AnyCall, Call, Merge, Recurrence
from tapehead.engine.places import Final, Gate, Initial, Inner, Place, State, TensorAt, WeightAt
from tapehead.engine.rules.any_layer import pull_layer, weights_layer
from tapehead.engine.rules.cells import SUMMED, Keep, float_weights
from tapehead.engine.rules.recurrence import Adjoint, Seed, Seeds, Spike, Wave, back, weight_cotangents
from tapehead.engine.trace import Trace, flipped, last_times, swapped, unshown

Tensor = Any


@dataclass(frozen=True)
class Source:
    """Where a sweep starts: a place, and its stack of cotangents.

    `cotangents` is a Spike or Wave in run order for a state or gate at its timesteps, else (batch, m, …). The stack
    holds `vectors` or more; `norms` is what states and gates are reduced to (see `recurrence.back` for both).
    """

    place: Place
    cotangents: Seed | Tensor
    stack: Tensor
    vectors: int = 0
    norms: int = 0
    also: Mapping[int, Tensor] = field(default_factory=dict)
    """Cotangents of more tensors between layers, by number."""


@dataclass
class Found:
    """The total derivatives that a sweep has gathered so far."""

    source: Source
    keep: Keep | None = SUMMED
    weights: dict[int, Tensor] = field(default_factory=dict)
    tensors: dict[int, Tensor] = field(default_factory=dict)
    adjoints: dict[Recurrence, Adjoint] = field(default_factory=dict)

    @property
    def dtype(self) -> Any:
        """The dtype of the cotangents."""
        cotangents = self.source.cotangents
        return (cotangents.values if isinstance(cotangents, Spike | Wave) else cotangents).dtype

    def add(self, tensor: int, cotangents: Tensor) -> None:
        """Adds what one reader of a tensor passes back."""
        self.tensors[tensor] = self.tensors[tensor] + cotangents if tensor in self.tensors else cotangents

    def add_weights(self, pairs: Sequence[tuple[Any, Tensor]]) -> None:
        """Adds what one call passes back to its weights."""
        for variable, cotangents in pairs:
            key = id(variable)
            self.weights[key] = self.weights[key] + cotangents if key in self.weights else cotangents


def sweep(
    made: Trace, calls: Sequence[AnyCall], source: Source, reads: Sequence[Place], keep: Keep | None = SUMMED
) -> Found:
    """Takes the cotangents of `source` back through `calls`, the ones that `made` ran, to every place in `reads`.

    `keep` says what is not summed over with respect to a weight: (m, *weight), behind the batch where that is kept.
    Without it weights get nothing, but what theirs is made of stays: the layers' rights, and what reached the outputs.
    """
    found = Found(source, keep)
    wanted = reached_from(calls, reads)
    above = {tensor for call in wanted for tensor in call.outputs}
    above.update(place.tensor for place in reads if isinstance(place, TensorAt))
    if isinstance(source.place, TensorAt):
        found.add(source.place.tensor, source.cotangents)
    for tensor, cotangents in source.also.items():
        found.add(tensor, cotangents)
    if isinstance(source.place, Initial) and (fed := made.fed(source.place)) is not None:
        found.add(fed, source.cotangents)
    for call in reversed(calls):
        if call not in wanted:
            continue
        if isinstance(call, Recurrence):
            _back_recurrence(made, call, source, reads, found, inputs=call.sequence in above)
        elif not any(tensor in found.tensors for tensor in call.outputs):
            continue
        elif isinstance(call, Merge):
            _back_merge(made, call, found)
        else:
            _back_layer(made, call, found, wants_weights(call, reads))
    return found


def weights_of(call: AnyCall) -> list[Any]:
    """The variables of a call's layer that derivatives can be taken with respect to."""
    layer = call.layer.cell if isinstance(call, Recurrence) else call.layer
    return [] if isinstance(call, Merge) else float_weights(layer)


def wants_weights(call: AnyCall, reads: Sequence[Place]) -> bool:
    """Whether some weight of the call is read."""
    wanted = {id(place.variable) for place in reads if isinstance(place, WeightAt)}
    return not wanted.isdisjoint(map(id, weights_of(call)))


def read(made: Trace, found: Found, place: Place, stack: Tensor) -> Tensor:
    """The total derivative with respect to a place, (batch, m, …) with timesteps in the input's own time."""
    match place:
        case WeightAt(variable):
            if id(variable) in found.weights:
                return found.weights[id(variable)]
            rows = [made.batch] if found.keep is not None and found.keep.rows else []
            return tf.zeros([*rows, stack, *variable.shape], found.dtype)
        case TensorAt(tensor):
            if tensor in found.tensors:
                return found.tensors[tensor]
            return _zeros(made.batch, stack, made.values[tensor])
        case State(call, name) | Gate(call, name):
            run = made.runs[call]
            if call not in found.adjoints:
                like = (
                    run.states[call.rule.states.index(name)] if isinstance(place, State) else gate_values(made, place)
                )
                if found.source.norms:
                    return tf.zeros([made.batch, stack // found.source.norms, tf.shape(like)[0]], like.dtype)
                return _zeros(made.batch, stack, swapped(like))
            return _input_time(call, found.adjoints[call].points[name])
        case Initial(call, name):
            run, index = made.runs[call], call.rule.states.index(name)
            if found.source.place == place:
                return found.source.cotangents
            if call not in found.adjoints:
                return _zeros(made.batch, stack, run.initial[index])
            return found.adjoints[call].initial[index]
        case Final(call, name):
            return _read_final(made, found, call, name, stack)


def gate_values(made: Trace, place: Gate) -> Tensor:
    """A gate's values in run order, (timesteps, batch, units); 0 at masked timesteps."""
    run = made.runs[place.call]
    values = run.rule.gate_values(run.kept, run.nudges)[place.name]
    return values if run.valid is None else values * tf.cast(run.valid, values.dtype)[..., None]


def reached_from(calls: Sequence[AnyCall], reads: Sequence[Place]) -> set[AnyCall]:
    """The calls through which something read can be reached."""
    tensors = {place.tensor for place in reads if isinstance(place, TensorAt)}
    owners = {place.call for place in reads if isinstance(place, Inner)}
    variables = {id(place.variable) for place in reads if isinstance(place, WeightAt)}
    reached: set[AnyCall] = set()
    for call in calls:
        if call in owners or variables.intersection(map(id, weights_of(call))) or tensors.intersection(call.inputs):
            reached.add(call)
            tensors.update(call.outputs)
    return reached


def _back_recurrence(
    made: Trace, call: Recurrence, source: Source, reads: Sequence[Place], found: Found, *, inputs: bool
) -> None:
    run = made.runs[call]
    seeds = _seeds(made, call, source, found)
    if not seeds.points and seeds.output is None and not seeds.final:
        return
    own = {place for place in reads if isinstance(place, Inner) and place.call is call}
    names = frozenset(place.name for place in own if not isinstance(place, Initial))
    weights = wants_weights(call, reads)
    adjoint = back(
        run, source.stack, seeds, names, weights=weights, inputs=inputs, vectors=source.vectors, norms=source.norms
    )
    found.adjoints[call] = adjoint
    if weights and found.keep is not None:
        found.add_weights(weight_cotangents(run, adjoint.rights, found.keep))
    if adjoint.inputs is not None:
        passed = swapped_stack(adjoint.inputs)
        found.add(call.sequence, flipped(passed, time_axis=2) if call.backwards else passed)
    for state, cotangents in zip(call.rule.states, adjoint.initial, strict=True):
        if (fed := made.fed(Initial(call, state))) is not None:
            found.add(fed, cotangents)


def _seeds(made: Trace, call: Recurrence, source: Source, found: Found) -> Seeds:
    """What arrives at a recurrent layer: the source itself where it is inside, and what later calls passed back."""
    points: dict[str, Seed] = {}
    final: dict[str, Tensor] = {}
    if isinstance(source.place, State | Gate) and source.place.call is call:
        points[source.place.name] = source.cotangents
    if isinstance(source.place, Final) and source.place.call is call:
        final[source.place.name] = source.cotangents
    for state, tensor in zip(call.rule.states, call.outputs[1:], strict=False):
        if tensor in found.tensors:
            final[state] = found.tensors[tensor] + final.get(state, 0)
    return Seeds(points, _output_seed(made, call, source.stack, found.tensors.get(call.outputs[0])), final)


def _output_seed(made: Trace, call: Recurrence, stack: Tensor, arrived: Tensor | None) -> Seed | None:
    if arrived is None:
        return None
    run = made.runs[call]
    zeroed = getattr(call.layer, "zero_output_for_mask", False)
    valid = run.valid if zeroed else None
    if not call.layer.return_sequences:
        last = tf.shape(run.inputs)[0] - 1
        shown = arrived if valid is None else at_valid(arrived, valid[-1])
        return Spike(shown, tf.fill((1, stack), last), once=True)
    arrived = unshown(call, made.given, arrived, time_axis=2)
    wave = tf.transpose(arrived, [2, 0, 1, *range(3, arrived.shape.rank)])
    return Wave(wave if valid is None else at_valid(wave, valid))


def at_valid(cotangents: Tensor, valid: Tensor) -> Tensor:
    """The cotangents where a timestep counts, exactly 0 where it does not; `valid` has the leading axes."""
    for _ in range(cotangents.shape.rank - valid.shape.rank):
        valid = valid[..., None]
    return tf.where(valid, cotangents, tf.zeros([], cotangents.dtype))


def _back_merge(made: Trace, call: Merge, found: Found) -> None:
    arrived = [found.tensors.get(tensor) for tensor in call.outputs]
    mode, lengths = call.layer.merge_mode, made.given.lengths_of(call.forward)

    def turned(value: Tensor, axis: int) -> Tensor:
        return flipped(value, lengths, time_axis=axis) if call.layer.return_sequences else value

    if mode is None:
        one, other = arrived
    else:
        one, other = _unmerged(mode, arrived[0], made.values[call.forward], turned(made.values[call.backward], 1))
    if one is not None:
        found.add(call.forward, one)
    if other is not None:
        found.add(call.backward, turned(other, 2))


def _unmerged(mode: str, cotangents: Tensor, one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """The cotangents of the two directions from those of what they were merged to."""
    match mode:
        case "concat":
            first, second = tf.split(cotangents, [one.shape[-1], other.shape[-1]], axis=-1)
            return first, second
        case "mul":
            return cotangents * other[:, None], cotangents * one[:, None]
        case _:
            share = cotangents / 2 if mode == "ave" else cotangents
            return share, share


def _back_layer(made: Trace, call: Call, found: Found, weights: bool) -> None:
    arrived = [found.tensors.get(tensor) for tensor in call.outputs]
    if weights and found.keep is not None:
        found.add_weights(weights_layer(call, made.values, made.masks, arrived, weights_of(call), found.keep))
    for tensor, cotangents in pull_layer(call, made.values, made.masks, arrived, found.source.stack).items():
        found.add(tensor, cotangents)


def swapped_stack(value: Tensor) -> Tensor:
    """(timesteps, batch, m, …) to (batch, m, timesteps, …)."""
    return tf.transpose(value, [1, 2, 0, *range(3, value.shape.rank)])


def _input_time(call: Recurrence, value: Tensor) -> Tensor:
    value = swapped_stack(value)
    return flipped(value, time_axis=2) if call.backwards else value


def _read_final(made: Trace, found: Found, call: Recurrence, name: str, stack: Tensor) -> Tensor:
    """With respect to a final state: the state that the last valid timestep returned."""
    run, index = made.runs[call], call.rule.states.index(name)
    if call not in found.adjoints:
        return _zeros(made.batch, stack, run.initial[index])
    points = found.adjoints[call].points[name]
    if run.valid is None:
        return points[-1]
    last = last_times(tf.shape(run.valid)[0], run.valid)
    where = tf.stack([tf.maximum(last, 0), tf.range(tf.shape(last)[0])], axis=1)
    return at_valid(tf.gather_nd(points, where), last >= 0)


def _zeros(batch: Tensor, stack: Tensor, like: Tensor) -> Tensor:
    """Zeros where nothing is passed back: `of` cannot depend on the place."""
    return tf.zeros(tf.concat([[batch, stack], tf.shape(like)[1:]], axis=0), like.dtype)
