"""The forward sweep: the model's calls in order, keeping every tensor, every mask and every recurrent layer's run.

Masks. A tensor's mask, (batch, timesteps), says which of its timesteps count. It is made once, from the given input, by
the lengths and by the layers that mask (`trace` without `held`), and then held: sweeps are given it and never make it
again, so that a nudge, a step of an integrated-gradients path or a baseline cannot change it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import tensorflow as tf
from keras import tree

from tapehead.engine.graph import AnyCall, Call, Graph, Merge, Recurrence
from tapehead.engine.places import Final, Gate, Initial, Place, State, TensorAt
from tapehead.engine.rules.any_layer import call_layer, in_dtype
from tapehead.engine.rules.recurrence import Run, forward
from tapehead.engine.timewise import keeps_timesteps_apart, takes_mask
from tapehead.errors import LengthsUnsupported

Tensor = Any


@dataclass(frozen=True)
class Given:
    """What a sweep starts from: inputs by name, lengths by input, initial states by point, and the masks held so far.

    Nudges are added to a point where it is produced: (batch, *point), timesteps in the input's own time. Tensors
    between layers are floats of `dtype`; `follows` names the input whose timesteps a tensor has.
    """

    inputs: Mapping[str, Tensor]
    dtype: str
    lengths: Mapping[str, Tensor] = field(default_factory=dict)
    initial: Mapping[str, Tensor] = field(default_factory=dict)
    held: Mapping[int | str, Tensor] | None = None
    nudges: Mapping[Place, Tensor] = field(default_factory=dict)
    follows: Mapping[int, str] = field(default_factory=dict)

    def lengths_of(self, tensor: int) -> Tensor | None:
        """The lengths that bind a tensor's timesteps."""
        return self.lengths.get(self.follows.get(tensor, ""))


@dataclass
class Trace:
    """Every tensor of the model by number, every mask by the number of its tensor or the name of its recurrent layer,
    and the run of every recurrent layer."""

    given: Given
    inputs: frozenset[int]
    values: dict[int, Tensor] = field(default_factory=dict)
    masks: dict[int | str, Tensor] = field(default_factory=dict)
    runs: dict[Recurrence, Run] = field(default_factory=dict)

    @property
    def batch(self) -> Tensor:
        """How many samples there are."""
        return tf.shape(next(iter(self.given.inputs.values())))[0]

    def put(self, tensor: int, value: Tensor) -> None:
        """Keeps a tensor as it leaves its layer, moved by its nudge."""
        nudge = self.given.nudges.get(TensorAt(tensor))
        self.values[tensor] = value if nudge is None else value + nudge

    def fed(self, place: Initial) -> int | None:
        """The tensor of the model that feeds an initial state, unless the request gives that state itself."""
        call = place.call
        if call.initial is None or f"{call.name}.{place.name}.initial" in self.given.initial:
            return None
        return call.initial[call.rule.states.index(place.name)]


def trace(graph: Graph, calls: Sequence[AnyCall], given: Given) -> Trace:
    """Runs `calls` of the model on what is given.

    Raises:
        LengthsUnsupported: lengths are given, and a layer on the way mixes timesteps but takes no mask.
    """
    made = Trace(given, frozenset(graph.inputs.values()))
    for name, tensor in graph.inputs.items():
        made.put(tensor, in_dtype(given.inputs[name], given.dtype))
        lengths = given.lengths.get(name)
        if lengths is not None and given.held is None:
            made.masks[tensor] = tf.sequence_mask(lengths, tf.shape(given.inputs[name])[1])
    if given.held is not None:
        made.masks.update(given.held)
    for call in calls:
        if isinstance(call, Recurrence):
            _run_recurrence(made, call)
        elif isinstance(call, Merge):
            _run_merge(made, call)
        else:
            _run_layer(made, call)
    return made


def flipped(value: Tensor, lengths: Tensor | None = None, *, time_axis: int = 1, batch_axis: int = 0) -> Tensor:
    """The timesteps turned round: all of them, or each sample's first `lengths` and the rest left where it is."""
    if lengths is None:
        return tf.reverse(value, [time_axis])
    return tf.reverse_sequence(value, lengths, seq_axis=time_axis, batch_axis=batch_axis)


def run_order(call: Recurrence, value: Tensor) -> Tensor:
    """(batch, timesteps, …) in the input's own time to (timesteps, batch, …) as the layer runs."""
    return swapped(flipped(value) if call.backwards else value)


def input_order(call: Recurrence, value: Tensor) -> Tensor:
    """(timesteps, batch, …) as the layer runs to (batch, timesteps, …) in the input's own time."""
    return flipped(swapped(value)) if call.backwards else swapped(value)


def shown(call: Recurrence, given: Given, outputs: Tensor, *, time_axis: int = 1) -> Tensor:
    """A layer's outputs in run order as it gives them: with lengths a backward layer's padding, which it runs first,
    goes behind the sequence, as if that were alone."""
    lengths = given.lengths_of(call.sequence)
    if not call.backwards or lengths is None:
        return outputs
    return flipped(flipped(outputs, time_axis=time_axis), lengths, time_axis=time_axis)


def unshown(call: Recurrence, given: Given, outputs: Tensor, *, time_axis: int = 1) -> Tensor:
    """`shown` taken back."""
    lengths = given.lengths_of(call.sequence)
    if not call.backwards or lengths is None:
        return outputs
    return flipped(flipped(outputs, lengths, time_axis=time_axis), time_axis=time_axis)


def swapped(value: Tensor) -> Tensor:
    """Batch and timesteps change places."""
    return tf.transpose(value, [1, 0, *range(2, value.shape.rank)])


def _run_recurrence(made: Trace, call: Recurrence) -> None:
    mask = _recurrent_mask(made, call)
    sequence = tf.cast(made.values[call.sequence], call.layer.compute_dtype)
    valid = None if mask is None else run_order(call, mask)
    run = forward(
        call.rule,
        run_order(call, sequence),
        _initial_states(made, call),
        valid,
        _inner_nudges(made, call, valid),
        zero_masked=bool(getattr(call.layer, "zero_output_for_mask", False)),
    )
    made.runs[call] = run
    sequences = call.layer.return_sequences
    outputs = shown(call, made.given, swapped(run.outputs)) if sequences else run.outputs[-1]
    made.put(call.outputs[0], outputs)
    for tensor, state in zip(call.outputs[1:], run.final, strict=False):
        made.put(tensor, state)
    if made.given.held is None:
        carried = made.masks.get(call.sequence)
        made.masks.update({} if mask is None else {call.name: mask})
        made.masks.update({call.outputs[0]: carried} if sequences and carried is not None else {})


def _recurrent_mask(made: Trace, call: Recurrence) -> Tensor | None:
    """Which timesteps the layer runs.

    A mask given to the call takes the place of the sequence's own. Keras hands that one on only to a layer whose
    sequence is its one argument: fed with initial states it runs all timesteps, but for those beyond the lengths.
    """
    if made.given.held is not None:
        return made.given.held.get(call.name)
    if call.mask is None and call.initial is None:
        return made.masks.get(call.sequence)
    lengths = made.given.lengths_of(call.sequence)
    explicit = None if call.mask is None else tf.cast(made.values[call.mask], tf.bool)
    if lengths is None:
        return explicit
    within = tf.sequence_mask(lengths, tf.shape(made.values[call.sequence])[1])
    return within if explicit is None else within & explicit


def _initial_states(made: Trace, call: Recurrence) -> tuple[Tensor, ...]:
    """The request's own, else what the model feeds, else the layer's default (zeros, for a stateful layer too)."""
    names = [f"{call.name}.{state}.initial" for state in call.rule.states]
    dtype = call.layer.compute_dtype
    if call.initial is not None:
        default = [made.values[tensor] for tensor in call.initial]
    elif all(name in made.given.initial for name in names):
        default = [None] * len(names)
    else:
        default = tree.flatten(call.layer.get_initial_state(batch_size=made.batch))
    states = [made.given.initial.get(name, value) for name, value in zip(names, default, strict=True)]
    nudges = (made.given.nudges.get(Initial(call, state), 0) for state in call.rule.states)
    shaped = zip(states, call.rule.state_shapes, nudges, strict=True)
    return tuple(tf.ensure_shape(tf.cast(state, dtype) + nudge, [None, *shape]) for state, shape, nudge in shaped)


def _inner_nudges(made: Trace, call: Recurrence, valid: Tensor | None) -> dict[str, Tensor]:
    """The nudges of the layer's states and gates at every timestep, in run order."""
    nudges: dict[str, Tensor] = {}
    for place, nudge in made.given.nudges.items():
        if isinstance(place, State | Gate) and place.call is call:
            nudges[place.name] = run_order(call, nudge)
    for place, nudge in made.given.nudges.items():
        if isinstance(place, Final) and place.call is call:
            timesteps = tf.shape(made.values[call.sequence])[1]
            last = at_last(timesteps, valid, nudge)
            nudges[place.name] = nudges[place.name] + last if place.name in nudges else last
    return nudges


def last_times(timesteps: Tensor, valid: Tensor | None) -> Tensor:
    """Each row's last valid run time, (rows,) or (1,); -1 where it has none."""
    if valid is None:
        return tf.reshape(timesteps - 1, [1])
    return tf.reduce_max(tf.where(valid, tf.range(timesteps)[:, None], -1), axis=0)


def at_last(timesteps: Tensor, valid: Tensor | None, value: Tensor) -> Tensor:
    """(rows, …) at each row's last valid run time, 0 elsewhere: (timesteps, rows, …)."""
    here = tf.range(timesteps)[:, None] == last_times(timesteps, valid)[None]
    for _ in value.shape[1:]:
        here = here[..., None]
    return tf.where(here, value[None], tf.zeros([], value.dtype))


def _run_merge(made: Trace, call: Merge) -> None:
    forward_output, backward_output = made.values[call.forward], made.values[call.backward]
    if call.layer.return_sequences:
        backward_output = flipped(backward_output, made.given.lengths_of(call.forward))
    joined = merged(call.layer.merge_mode, forward_output, backward_output)
    for tensor, value in zip(call.outputs, joined, strict=True):
        made.put(tensor, value)
    if made.given.held is None and call.forward in made.masks:
        made.masks.update(dict.fromkeys(call.outputs, made.masks[call.forward]))


def merged(mode: str | None, one: Tensor, other: Tensor) -> tuple[Tensor, ...]:
    """The two directions' outputs joined as a Bidirectional's `merge_mode` says."""
    match mode:
        case "concat":
            return (tf.concat([one, other], axis=-1),)
        case "sum":
            return (one + other,)
        case "ave":
            return ((one + other) / 2,)
        case "mul":
            return (one * other,)
        case _:
            return (one, other)


def _run_layer(made: Trace, call: Call) -> None:
    if isinstance(call.layer, keras.layers.Masking) and made.given.held is not None:
        (tensor,) = call.inputs
        held = made.masks[call.outputs[0]]
        made.put(call.outputs[0], made.values[tensor] * tf.cast(held, made.values[tensor].dtype)[..., None])
        return
    outputs, masks = call_layer(call, made.values.__getitem__, made.masks.get, made.given.dtype)
    for tensor, value in zip(call.outputs, outputs, strict=True):
        made.put(tensor, value)
    if made.given.held is None:
        padded = [made.masks[n] for n in call.inputs if n in made.masks and made.given.lengths_of(n) is not None]
        masks = _bound(call, masks, padded)
        made.masks.update({n: mask for n, mask in zip(call.outputs, masks, strict=True) if mask is not None})


def _bound(call: Call, masks: list[Tensor | None], padded: list[Tensor]) -> list[Tensor | None]:
    """The masks of the call's outputs where lengths bind its inputs: kept, if the layer cannot mix in padding."""
    if not padded:
        return masks
    if keeps_timesteps_apart(call.layer):
        return [padded[0] if mask is None else mask & padded[0] for mask in masks]
    if takes_mask(call.layer):
        return masks
    raise LengthsUnsupported(
        f"layer {call.name!r} ({type(call.layer).__name__}) mixes timesteps and takes no mask, so it cannot leave "
        f"padding out; send sequences of one length together, without lengths"
    )
