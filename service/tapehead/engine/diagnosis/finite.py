"""Where a number of the model first is not finite: which call, which timestep, which sample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tapehead.engine.graph import AnyCall, Recurrence
from tapehead.engine.places import State, TensorAt
from tapehead.engine.prepared import Prepared
from tapehead.engine.programs import timed
from tapehead.engine.rules.cells import Tensor
from tapehead.engine.trace import Trace, input_order
from tapehead.operations.request import Array


class First(NamedTuple):
    """Where it was: the layer, the sample, and the timestep of the input's own time (None where it has none)."""

    layer: str
    sample: int
    timestep: int | None


def finite(made: Trace, prepared: Prepared) -> list[Tensor]:
    """For each call whether all of its numbers are finite: (batch, timesteps), or (batch, 1) where it has none."""
    return [_finite(made, prepared, call) for call in prepared.calls]


def first(prepared: Prepared, found: Sequence[Array]) -> First | None:
    """The first that is not, in the order in which the model computes: layer by layer, each in its own time."""
    for call, array in zip(prepared.calls, found, strict=True):
        bad = ~array
        valid = prepared.valid(State(call, "")) if isinstance(call, Recurrence) else _valid(prepared, call)
        if valid is not None and valid.shape == bad.shape:
            bad = bad & valid
        if bad.any():
            ordered = bad[:, ::-1] if isinstance(call, Recurrence) and call.backwards else bad
            step = int(np.flatnonzero(ordered.any(axis=0))[0])
            sample = int(np.flatnonzero(ordered[:, step])[0])
            timestep = bad.shape[1] - 1 - step if ordered is not bad else step
            return First(call.name, sample, timestep if _over_time(prepared, call) else None)
    return None


def _valid(prepared: Prepared, call: AnyCall) -> Array | None:
    return prepared.valid(TensorAt(call.outputs[0]))


def _over_time(prepared: Prepared, call: AnyCall) -> bool:
    return isinstance(call, Recurrence) or all(timed(prepared.model, TensorAt(tensor)) for tensor in call.outputs)


def _finite(made: Trace, prepared: Prepared, call: AnyCall) -> Tensor:
    if isinstance(call, Recurrence):
        run = made.runs[call]
        return input_order(call, _all([_is_finite(state, 2) for state in run.states]))
    kept = 2 if _over_time(prepared, call) else 1
    found = _all([_is_finite(made.values[tensor], kept) for tensor in call.outputs])
    return found if kept == 2 else found[:, None]


def _is_finite(value: Tensor, kept: int) -> Tensor:
    """Over all but the first `kept` axes."""
    if not value.dtype.is_floating:
        return tf.ones(tf.shape(value)[:kept], tf.bool)
    return tf.reduce_all(tf.math.is_finite(value), axis=list(range(kept, value.shape.rank)))


def _all(flags: list[Tensor]) -> Tensor:
    found = flags[0]
    for flag in flags[1:]:
        found &= flag
    return found
