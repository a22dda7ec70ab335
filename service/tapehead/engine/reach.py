"""Which weights something depends on at all: by what each layer's outputs are computed from, not by numbers.

A gradient tape tells the two apart, `None` or a tensor of zeros; here each call is asked alone, while it is traced, and
what it says is followed from call to call and within a recurrent layer from timestep to timestep.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import tensorflow as tf

from tapehead.engine.graph import AnyCall, Call, Merge, Recurrence
from tapehead.engine.places import Initial, Inner, Place, TensorAt
from tapehead.engine.rules.any_layer import call_layer
from tapehead.engine.rules.cells import float_weights
from tapehead.engine.rules.recurrence import Run
from tapehead.engine.trace import Trace

Tensor = Any

_INPUTS, _OUTPUT = "inputs", "output"  # beside the names of states and gates, none of which holds a space
_WITHIN = " "


@dataclass
class _Needed:
    """What is depended on: tensors by number, variables by id, states and gates by their call."""

    tensors: set[int] = field(default_factory=set)
    variables: set[int] = field(default_factory=set)
    inner: dict[Recurrence, set[str]] = field(default_factory=dict)


def reached_weights(made: Trace, calls: Sequence[AnyCall], starts: Sequence[Place]) -> frozenset[int]:
    """The ids of the variables that `starts` depend on; `made` is the trace of `calls`."""
    needed = _Needed()
    for place in starts:
        if isinstance(place, TensorAt):
            needed.tensors.add(place.tensor)
        elif isinstance(place, Inner):
            _start_within(made, place, needed)
    for call in reversed(calls):
        if isinstance(call, Recurrence):
            _through_recurrence(made, call, needed)
        elif isinstance(call, Merge):
            _through_merge(call, needed)
        else:
            _through_layer(made, call, needed)
    return frozenset(needed.variables)


def _start_within(made: Trace, place: Inner, needed: _Needed) -> None:
    if isinstance(place, Initial):
        fed = made.fed(place)
        needed.tensors.update(() if fed is None else (fed,))
    else:
        needed.inner.setdefault(place.call, set()).add(place.name)


def _through_merge(call: Merge, needed: _Needed) -> None:
    if call.layer.merge_mode is None:
        pairs = zip(call.outputs, call.inputs, strict=True)
        needed.tensors.update(source for output, source in pairs if output in needed.tensors)
    elif needed.tensors.intersection(call.outputs):
        needed.tensors.update(call.inputs)


def _through_layer(made: Trace, call: Call, needed: _Needed) -> None:
    wanted = [n for n, tensor in enumerate(call.outputs) if tensor in needed.tensors]
    if not wanted:
        return
    values = {n: tf.identity(made.values[n]) for n in dict.fromkeys(call.inputs)}
    tensors = {n: value for n, value in values.items() if value.dtype.is_floating}
    variables = float_weights(call.layer)
    with tf.GradientTape() as tape:
        tape.watch([*tensors.values(), *(variable.value for variable in variables)])
        outputs, _ = call_layer(call, values.__getitem__, made.masks.get, made.given.dtype)
    found = tape.gradient(
        [outputs[n] for n in wanted], [list(tensors.values()), [variable.value for variable in variables]]
    )
    needed.tensors.update(n for n, own in zip(tensors, found[0], strict=True) if own is not None)
    needed.variables.update(id(variable) for variable, own in zip(variables, found[1], strict=True) if own is not None)


def _through_recurrence(made: Trace, call: Recurrence, needed: _Needed) -> None:
    ends = zip(call.rule.states, call.outputs[1:], strict=False)
    wanted = needed.inner.get(call, set()) | {state for state, tensor in ends if tensor in needed.tensors}
    wanted |= {_WITHIN + _OUTPUT} if call.outputs[0] in needed.tensors else set()
    if not wanted:
        return
    steps = _dependencies(made.runs[call], float_weights(call.layer.cell))
    reached: set[Any] = set()
    while wanted - reached:
        name = (wanted - reached).pop()
        reached.add(name)
        reached |= {one for one in steps[name] if one not in call.rule.states}
        wanted |= {one for one in steps[name] if one in call.rule.states}
    # A masked timestep hands its state on as it was, and the first one reads the initial states.
    read = {state for name in wanted for state in steps[name] if state in call.rule.states}
    carried = wanted.intersection(call.rule.states) if made.runs[call].valid is not None else set()
    for state in read | carried:
        fed = made.fed(Initial(call, state))
        needed.tensors.update(() if fed is None else (fed,))
    needed.tensors.update({call.sequence} if _WITHIN + _INPUTS in reached else ())
    needed.variables.update(one for one in reached if isinstance(one, int))


def _dependencies(run: Run, variables: Sequence[Any]) -> Mapping[str, set[Any]]:
    """What each state, each gate and the output of one step depend on: inputs, states by name, variables by id."""
    rule = run.rule
    inputs, states = tf.identity(run.inputs[0]), tuple(map(tf.identity, run.initial))
    values = [variable.value for variable in variables]
    names = [_WITHIN + _INPUTS, *rule.states, *map(id, variables)]
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([inputs, *states, *values])
        output, returned, kept = rule.step(rule.project(inputs), states, {})
        gates = rule.gate_values(kept, {})
    ends = {**dict(zip(rule.states, returned, strict=True)), **gates, _WITHIN + _OUTPUT: output}
    found = {name: tape.gradient(end, [inputs, *states, *values]) for name, end in ends.items()}
    return {
        name: {one for one, own in zip(names, gradients, strict=True) if own is not None}
        for name, gradients in found.items()
    }
