"""Lyapunov exponents by QR (Benettin et al. 1980; for recurrent networks Engelken, Wolf and Abbott 2020).

k orthonormal vectors are taken along the sequence, and made orthonormal again at every step: Q R = J Q'. The exponents
are the means of ln |R_ii|, per timestep. Here the vectors are cotangents and go backwards, Q R = J_t^T Q': the product
of all J_t and its transpose have the same singular values, hence the same exponents, and no J_t is formed.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tapehead.engine.diagnosis.subject import StepsBack, Subject, kept_where_masked
from tapehead.engine.rules.cells import Tensor
from tapehead.engine.rules.recurrence import Run
from tapehead.operations.request import Array

_SEED = 1980


def stretches(subject: Subject, run: Run, exponents: int) -> Tensor:
    """ln |R_ii| of every step, (timesteps, rows, exponents) in run order; 0 where a timestep does not count."""
    timesteps, rows = tf.unstack(tf.shape(run.inputs)[:2])
    steps, dtype = StepsBack(subject, run, exponents), run.states[0].dtype
    vectors = tf.constant(_orthonormal(sum(subject.sizes), exponents), dtype)
    start = tf.ensure_shape(tf.tile(vectors[None], [rows, 1, 1]), [None, *vectors.shape])

    def body(time: Tensor, vectors: Tensor, found: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        taken = subject.joined(steps.at(time, subject.split(vectors)))
        q, r = tf.linalg.qr(tf.linalg.matrix_transpose(taken))
        grown = tf.math.log(tf.abs(tf.linalg.diag_part(r)))
        if run.valid is not None:
            grown = tf.where(run.valid[time][:, None], grown, tf.zeros_like(grown))
        (vectors,) = kept_where_masked(run, time, (tf.linalg.matrix_transpose(q),), (vectors,))
        return time - 1, vectors, found.write(time, grown)

    found = tf.TensorArray(dtype, timesteps, element_shape=[None, exponents])
    *_, found = tf.while_loop(lambda time, *_: time >= 0, body, (timesteps - 1, start, found))
    return found.stack()


def exponents(stretched: Array, valid: npt.NDArray[np.bool_], transient: int | None) -> Array:
    """The exponents of each sample, (rows, exponents), descending, from `stretches` as (rows, timesteps, exponents).

    `transient` valid timesteps are left out at either end, a tenth of the sequence by default: at its end the vectors
    have not turned to the directions that grow most yet, at its start the state is still near where it began.
    A sample without valid timesteps has none: NaN.
    """
    found = np.full((len(stretched), stretched.shape[-1]), np.nan, stretched.dtype)
    for row, (steps, counts) in enumerate(zip(stretched, valid, strict=True)):
        kept = steps[counts]
        if len(kept):
            skipped = min(len(kept) // 10 if transient is None else transient, (len(kept) - 1) // 2)
            found[row] = -np.sort(-kept[skipped : len(kept) - skipped].mean(axis=0, dtype=np.float64))
    return found


@lru_cache(maxsize=8)
def _orthonormal(size: int, count: int) -> Any:
    """`count` orthonormal vectors of `size` numbers, the same every time: (count, size)."""
    drawn = np.random.default_rng(_SEED).normal(size=(size, count))
    return np.linalg.qr(drawn)[0].T
