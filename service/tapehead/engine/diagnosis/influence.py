"""How far back a sequence's end still feels its states: ‖∂h_T/∂h_t‖ and ‖∂h_T/∂s_t‖ for every t, as one sweep goes.

T is each sequence's own last valid timestep, in the order that the layer runs. The norm is Frobenius's. s is all of the
cell's states: an LSTM remembers in c, which ∂h_T/∂h_t holds fixed at t.
"""

from __future__ import annotations

import tensorflow as tf

from tapehead.engine.diagnosis.subject import StepsBack, Subject, identity, kept_where_masked
from tapehead.engine.rules.cells import Tensor
from tapehead.engine.rules.recurrence import Run, in_rows
from tapehead.engine.trace import last_times


def influence(subject: Subject, run: Run) -> Tensor:
    """(timesteps, rows, 2) in run order: of the hidden state, and of all states; 0 where a timestep does not count."""
    timesteps, rows = tf.unstack(tf.shape(run.inputs)[:2])
    units, dtype = subject.sizes[subject.hidden], run.states[0].dtype
    steps = StepsBack(subject, run, units)
    around = [subject.block.start, sum(subject.sizes) - subject.block.stop]
    one = tf.pad(identity(units, dtype), [[0, 0], [0, 0], around])
    seeds, last = subject.split(one), last_times(timesteps, run.valid)
    start = tuple(tf.tile(tf.zeros_like(seed), [rows, *[1] * (seed.shape.rank - 1)]) for seed in seeds)

    def body(time: Tensor, cotangents: tuple[Tensor, ...], norms: Tensor) -> tuple[Tensor, tuple[Tensor, ...], Tensor]:
        arriving = tuple(in_rows(last == time, seed, old) for seed, old in zip(seeds, cotangents, strict=True))
        taken = steps.at(time, arriving)
        found = tf.stack([_norm(arriving[subject.hidden]), _norm(subject.joined(arriving))], axis=-1)
        if run.valid is not None:
            found = in_rows(run.valid[time], found, tf.zeros_like(found))
        return time - 1, kept_where_masked(run, time, taken, arriving), norms.write(time, found)

    norms = tf.TensorArray(dtype, timesteps, element_shape=[None, 2])
    *_, norms = tf.while_loop(lambda time, *_: time >= 0, body, (timesteps - 1, start, norms))
    return norms.stack()


def _norm(stack: Tensor) -> Tensor:
    """The Frobenius norm of each row of (rows, m, …), its squares kept from running over or under."""
    axes = list(range(1, stack.shape.rank))
    largest = tf.reduce_max(tf.abs(stack), axis=axes, keepdims=True)
    scale = tf.where((largest > 0) & tf.math.is_finite(largest), largest, tf.ones_like(largest))
    squares = tf.reduce_sum(tf.square(stack / scale), axis=axes)
    return tf.sqrt(squares) * tf.reshape(scale, [-1])
