"""The compiled function behind weight gradients: a run, a sweep back, and what is measured of every weight's part."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import tensorflow as tf

from tapehead.engine.compiled import Arrays, Operand, Tensor, given, ran
from tapehead.engine.graph import AnyCall, Merge, Recurrence
from tapehead.engine.losses import OutputLoss, cotangents
from tapehead.engine.model import Model
from tapehead.engine.places import Place, TensorAt, WeightAt
from tapehead.engine.programs import spiked, timed, value
from tapehead.engine.reach import reached_weights
from tapehead.engine.rules.any_layer import weights_layer
from tapehead.engine.rules.factors import (
    NORM,
    Factored,
    Measures,
    Measuring,
    arranged,
    formed,
    gram_norms,
    in_chunks,
    lead_shape,
)
from tapehead.engine.rules.recurrence import weight_cotangents
from tapehead.engine.sweep import Found, Source, sweep, weights_of
from tapehead.engine.trace import Trace, trace
from tapehead.operations.request import Array

Calls = Sequence[AnyCall]

VALUE, WHOLE, LOSS = "value", "whole", "loss"


@dataclass(frozen=True)
class Asked:
    """What is measured of the weights.

    `gates` says how many gates each weight is split into, `grams` names those whose norms come from Gram matrices.
    With `wholes` each weight has besides, as WHOLE, the norms of its timesteps' sum.
    """

    rows: bool
    timesteps: bool
    gates: tuple[tuple[str, int], ...]
    grams: frozenset[str]
    statistics: bool
    values: bool
    wholes: bool = False


def loss_program(
    model: Model,
    calls: Calls,
    terms: Sequence[OutputLoss],
    arrays: Arrays,
    targets: Sequence[Array],
    asked: Asked,
) -> dict[str, dict[str, Array]]:
    """What is asked of every weight that the losses reach, by name; and LOSS, their sum's value."""

    def back(arrays: Arrays, *targets: Tensor) -> dict[str, Any]:
        made = trace(model.graph, calls, given(model, arrays))
        found, arrived = cotangents(made, terms, targets, per_sample=asked.rows)
        first, *others = ((tensor, own[:, None]) for tensor, own in arrived.items())
        source = Source(TensorAt(first[0]), first[1], tf.constant(1), also=dict(others))
        places = [TensorAt(tensor) for tensor in arrived]
        return {LOSS: {VALUE: found}, **_measured(model, made, calls, source, places, asked)}

    operands = [
        Operand(target, 2 if target.ndim > 1 and timed(model, TensorAt(term.tensor)) else 1)
        for target, term in zip(targets, terms, strict=True)
    ]
    shapes = tuple(operand.array.shape[operand.open_axes :] for operand in operands)
    kind = ("loss", tuple((term.tensor, term.asked, term.weight) for term in terms), shapes, asked)
    found: dict[str, dict[str, Array]] = ran(model, kind, back, calls, arrays, *operands)
    return found


def point_program(
    model: Model, calls: Calls, of: Place, arrays: Arrays, values: Array, times: Array, asked: Asked
) -> dict[str, dict[str, Array]]:
    """The same for the number of each sample that `values` and `times` pick, as in `spike_program`."""

    def back(arrays: Arrays, values: Tensor, times: Tensor) -> dict[str, Any]:
        made = trace(model.graph, calls, given(model, arrays))
        source = Source(of, spiked(made, of, values, times), tf.constant(1))
        return {LOSS: {VALUE: value(made, of)}, **_measured(model, made, calls, source, [of], asked)}

    operands = Operand(values, 2), Operand(times, 2)
    found: dict[str, dict[str, Array]] = ran(model, ("point", of, asked), back, calls, arrays, *operands)
    return found


def _measured(
    model: Model, made: Trace, calls: Calls, source: Source, starts: Sequence[Place], asked: Asked
) -> dict[str, Measures]:
    """What is asked of every weight that is reached, by name."""
    reached = reached_weights(made, calls, starts)
    names = {name: variable for name, variable in model.weights.items() if id(variable) in reached}
    found = sweep(made, calls, source, [WeightAt(variable) for variable in names.values()], keep=None)
    measuring = _measuring(calls, names, asked)
    parts = _parts(made, calls, found, reached, measuring)
    return {
        name: _of_weight(parts[id(variable)], variable, measuring, asked, gram=name in asked.grams)
        for name, variable in names.items()
    }


def _measuring(calls: Calls, names: Mapping[str, Any], asked: Asked) -> Measuring:
    """Weights of several calls, or of whose values or sums something is wanted, are formed before they are measured."""
    uses = [id(variable) for call in calls for variable in weights_of(call)]
    whole = frozenset(one for one in uses if asked.values or asked.wholes or uses.count(one) > 1)
    gates = {id(names[name]): count for name, count in asked.gates if name in names}
    return Measuring(asked.rows, asked.timesteps, gates, whole, asked.statistics)


def _parts(
    made: Trace, calls: Calls, found: Found, reached: frozenset[int], measuring: Measuring
) -> dict[int, tuple[bool, Any]]:
    """Each reached variable's cotangents, added up over the calls that use it, and whether those have timesteps."""
    parts: dict[int, tuple[bool, Any]] = {}
    for call in calls:
        recurrent = isinstance(call, Recurrence)
        for variable, own in _of_call(made, call, found, measuring):
            if id(variable) in parts:
                own = _added(parts[id(variable)][1], own, measuring, recurrent=recurrent)
            parts[id(variable)] = recurrent, own
    return {one: part for one, part in parts.items() if one in reached}


def _of_call(made: Trace, call: AnyCall, found: Found, measuring: Measuring) -> list[tuple[Any, Any]]:
    """The cotangents of one call's weights, samples and timesteps kept as asked, without the stack's axis."""
    if isinstance(call, Recurrence):
        if call not in found.adjoints or not found.adjoints[call].rights:
            return []
        pairs = weight_cotangents(made.runs[call], found.adjoints[call].rights, measuring)
        return [(variable, _unstacked(own, measuring, call)) for variable, own in pairs]
    arrived = [found.tensors.get(tensor) for tensor in call.outputs]
    if isinstance(call, Merge) or not weights_of(call) or all(own is None for own in arrived):
        return []
    pairs = weights_layer(call, made.values, made.masks, arrived, weights_of(call), measuring)
    lead = int(measuring.rows)
    return [(variable, tf.nest.map_structure(lambda own: tf.squeeze(own, lead), own)) for variable, own in pairs]


def _unstacked(own: Any, measuring: Measuring, call: Recurrence) -> Any:
    """The same in the input's own time."""
    turned = call.backwards and measuring.timesteps
    if isinstance(own, Factored):
        return own.each(lambda factor: tf.reverse(factor, [0])) if turned else own
    lead, axis = measuring.rows + measuring.timesteps, int(measuring.rows)

    def each(value: Tensor) -> Tensor:
        value = tf.squeeze(value, lead)
        return tf.reverse(value, [axis]) if turned else value

    return tf.nest.map_structure(each, own)


def _added(one: Any, other: Any, measuring: Measuring, *, recurrent: bool) -> Any:
    """The sum of what two calls of a layer give; timesteps that one of them lacks are 0 there."""
    if isinstance(one, Factored) or not (recurrent and measuring.timesteps):
        return one + other
    axis = int(measuring.rows)
    longest = tf.maximum(tf.shape(one)[axis], tf.shape(other)[axis])

    def padded(value: Tensor) -> Tensor:
        missing = [[0, longest - tf.shape(value)[axis]] if n == axis else [0, 0] for n in range(value.shape.rank)]
        return tf.pad(value, missing)

    return padded(one) + padded(other)


def _of_weight(part: tuple[bool, Any], variable: Any, measuring: Measuring, asked: Asked, *, gram: bool) -> Measures:
    """What is asked of one weight."""
    found = _apart(part, variable, measuring, asked, gram=gram)
    if not asked.wholes:
        return found
    recurrent, own = part
    timed, whole = measuring.timesteps and recurrent, replace(measuring, timesteps=False)
    if not timed:
        return found | {WHOLE: found[NORM]}
    if isinstance(own, Factored):
        return found | {WHOLE: _of_factors(own, variable, whole, gram=False)[NORM]}
    added = tf.reduce_sum(own, axis=int(measuring.rows))
    return found | {WHOLE: whole.measured(variable, added, int(measuring.rows))[NORM]}


def _apart(part: tuple[bool, Any], variable: Any, measuring: Measuring, asked: Asked, *, gram: bool) -> Measures:
    """What is asked of one weight, samples and timesteps apart."""
    recurrent, own = part
    lead = measuring.rows + (measuring.timesteps and recurrent)
    if isinstance(own, dict):
        return own
    if isinstance(own, Factored):
        if not asked.values:
            return _of_factors(own, variable, measuring, gram=gram)
        shape = tf.concat([lead_shape(own, measuring), variable.shape], axis=0)
        own = tf.reshape(formed([arranged(factors, measuring) for factors in own.parts], own.lie), shape)
    measured = measuring.measured(variable, own, lead)
    return {**measured, VALUE: own} if asked.values else measured


def _of_factors(own: Factored, variable: Any, measuring: Measuring, *, gram: bool) -> Measures:
    """The measures of what is not multiplied out: by Gram matrices, or formed some at a time."""
    pairs = [arranged(factors, measuring) for factors in own.parts]
    if gram:
        found = gram_norms(pairs, measuring.gates.get(id(variable), 0))
    else:
        dtype = pairs[0][1].dtype
        found = in_chunks(
            pairs,
            math.prod(variable.shape) * dtype.size,
            measuring.specs(variable, dtype, (None,)),
            lambda some: measuring.measured(variable, formed(some, own.lie), 1),
        )
    shape = lead_shape(own, measuring)
    return {name: tf.reshape(one, tf.concat([shape, one.shape[1:]], axis=0)) for name, one in found.items()}
