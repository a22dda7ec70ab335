"""A few timesteps back from many timesteps at once: what `lag` asks, without a sweep over the whole sequence.

Every (sample, timestep) that is asked is a row of its own. All rows step back together, each along its own valid
timesteps, so k steps are k products however long the sequence is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import tensorflow as tf

from tapehead.engine.rules.cells import Pulled, Tensor
from tapehead.engine.rules.recurrence import INPUTS, Run, found_by_name, in_rows


@dataclass(frozen=True)
class Path:
    """Where each row steps: `times[j, r]` is the run time of row r's j-th valid timestep back, -1 where there is none;
    `samples[r]` is the row's sample. (lag + 1, rows) and (rows,)."""

    times: Tensor
    samples: Tensor


def lagged(run: Run, seeds: Mapping[str, Tensor], path: Path, wrt: str) -> Tensor:
    """d of[t] / d wrt[t - lag] for every row: (rows, m, *wrt).

    `seeds` holds the rows' cotangents at t by state or gate name, (1 or rows, m, *state). Where a row has fewer than
    `lag` valid timesteps before t, the derivative of a state is with respect to its initial value, any other is 0.
    """
    rule, local = run.rule, run.local
    lag, rows = tf.shape(path.times)[0] - 1, tf.shape(path.samples)[0]
    stack = tf.shape(next(iter(seeds.values())))[1]
    start = tuple(
        tf.zeros((rows, stack, *shape), run.states[0].dtype) + seeds.get(name, tf.zeros([], run.states[0].dtype))
        for name, shape in zip(rule.states, rule.state_shapes, strict=True)
    )
    wanted = frozenset([wrt]) & frozenset(rule.gates)

    def pull(j: Tensor, cotangents: tuple[Tensor, ...]) -> tuple[Tensor, Pulled]:
        times = path.times[j]
        where = tf.stack([tf.maximum(times, 0), path.samples], axis=1)
        here = tf.nest.map_structure(lambda value: tf.gather_nd(value, where), local)
        first = tf.cast(j == 0, cotangents[0].dtype)
        at_gates = {name: value * first for name, value in seeds.items() if name in rule.gates}
        return times >= 0, rule.pull(here, cotangents, None, at_gates, wanted)

    def body(j: Tensor, cotangents: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        there, pulled = pull(j, cotangents)
        moved = (in_rows(there, new, old) for new, old in zip(pulled.previous, cotangents, strict=True))
        return j + 1, tuple(tf.ensure_shape(new, old.shape) for new, old in zip(moved, cotangents, strict=True))

    _, arrived = tf.while_loop(lambda j, *_: j < lag, body, (tf.constant(0), start))
    there, pulled = pull(lag, arrived)
    found = found_by_name(rule, pulled)[wrt]
    before = arrived[rule.states.index(wrt)] if wrt in rule.states else tf.zeros_like(found)
    return in_rows(there, found, before)


__all__ = ["INPUTS", "Path", "lagged"]
