"""A few timesteps back from many timesteps at once: what `lag` asks, without a sweep over the whole sequence.

Every (sample, timestep) that is asked is a row of its own. All rows step back together, each along its own valid
timesteps, so k steps are k products however long the sequence is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import tensorflow as tf

from tapehead.engine.rules.cells import Local, Pulled, Tensor, forming_pays
from tapehead.engine.rules.recurrence import INPUTS, Run, found_by_name, in_rows


@dataclass(frozen=True)
class Path:
    """Where each row steps: `times[j, r]` is the run time of row r's j-th valid timestep back, -1 where there is none;
    `samples[r]` is the row's sample. (lag + 1, rows) and (rows,)."""

    times: Tensor
    samples: Tensor


def lagged(
    run: Run, seeds: Mapping[str, Tensor], path: Path, wrt: str, *, identity: str | None = None, vectors: int = 0
) -> Tensor:
    """d of[t] / d wrt[t - lag] for every row: (rows, m, *wrt).

    `seeds` holds the rows' cotangents at t by state or gate name, (1 or rows, m, *state). Where a row has fewer than
    `lag` valid timesteps before t, the derivative of a state is with respect to its initial value, any other is 0.
    `identity` names the state that they are an identity over, where they are and `lag` is at least 1: then the first
    step back is that state's own derivative, and no product. `vectors` as for `recurrence.back`.
    """
    rule, local = run.rule, run.local
    stack, lag = tf.shape(next(iter(seeds.values())))[1], tf.shape(path.times)[0] - 1
    kernels, matrices = rule.kernels(), rule.matrices()

    def step(j: Tensor) -> Local:
        where = tf.stack([tf.maximum(path.times[j], 0), path.samples], axis=1)
        return tf.nest.map_structure(lambda value: tf.gather_nd(value, where), local)

    if matrices is not None and identity is not None:
        start, first = matrices.of_state(step(tf.constant(0)), identity), 1
    else:
        start, first = _seeded(run, seeds, tf.shape(path.samples)[0], stack), 0
    of_states = wrt not in rule.gates and seeds.keys() <= set(rule.states)
    plain = matrices if of_states and forming_pays(rule, vectors) else None

    def pull(j: Tensor, cotangents: tuple[Tensor, ...]) -> tuple[Tensor, Pulled]:
        there = path.times[j] >= 0
        if plain is not None:
            return there, plain.pull(step(j), cotangents, None)
        now = tf.cast(j == 0, cotangents[0].dtype)
        at_gates = {name: value * now for name, value in seeds.items() if name in rule.gates}
        return there, rule.pull(step(j), kernels, cotangents, None, at_gates, frozenset([wrt]) & frozenset(rule.gates))

    def body(j: Tensor, cotangents: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        there, pulled = pull(j, cotangents)
        moved = (in_rows(there, new, old) for new, old in zip(pulled.previous, cotangents, strict=True))
        return j + 1, tuple(tf.ensure_shape(new, old.shape) for new, old in zip(moved, cotangents, strict=True))

    arrived = start
    if path.times.shape[0] != first + 1:  # no loop where it is known to have nothing to do
        _, arrived = tf.while_loop(lambda j, *_: j < lag, body, (tf.constant(first), start))
    if wrt in rule.states and not rule.within_step:
        return arrived[rule.states.index(wrt)]
    there, pulled = pull(lag, arrived)
    found = found_by_name(rule, pulled)[wrt]
    before = arrived[rule.states.index(wrt)] if wrt in rule.states else tf.zeros_like(found)
    return in_rows(there, found, before)


def _seeded(run: Run, seeds: Mapping[str, Tensor], rows: Tensor, stack: Tensor) -> tuple[Tensor, ...]:
    """The rows' cotangents of every state, (rows, m, *state): 0 where none is seeded."""
    zero = tf.zeros([], run.states[0].dtype)
    return tuple(
        tf.zeros((rows, stack, *shape), zero.dtype) + seeds.get(name, zero)
        for name, shape in zip(run.rule.states, run.rule.state_shapes, strict=True)
    )


__all__ = ["INPUTS", "Path", "lagged"]
