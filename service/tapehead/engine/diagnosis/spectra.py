"""The local Jacobians ∂s_t/∂s_{t-1} of a cell's whole state, and their spectra."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tapehead.engine.diagnosis.subject import StepsBack, Subject, identity
from tapehead.engine.rules.cells import Tensor
from tapehead.engine.rules.recurrence import Run
from tapehead.operations.request import Array


class Spectra(NamedTuple):
    """Of every matrix: its singular values, descending, (rows, steps, size), and its spectral radius, (rows, steps)."""

    singular_values: Array
    spectral_radius: Array


def local_jacobians(subject: Subject, run: Run, times: Tensor) -> Tensor:
    """∂s_t/∂s_{t-1} at the run times `times`, (rows, steps): (rows, steps, size, size)."""
    rows, steps = tf.unstack(tf.shape(times))
    where = tf.stack([tf.reshape(times, [-1]), tf.repeat(tf.range(rows), steps)], axis=1)
    size = sum(subject.sizes)
    unit = tf.tile(identity(size, run.states[0].dtype), [rows * steps, 1, 1])
    found = subject.joined(StepsBack(subject, run, size).at_each(where, subject.split(unit)))
    return tf.ensure_shape(tf.reshape(found, [rows, steps, size, size]), [None, None, size, size])


def spread(timesteps: int, steps: int) -> npt.NDArray[np.int64]:
    """`steps` of the timesteps, evenly spread from the first to the last; the last alone where it is one."""
    if steps == 1:
        return np.array([timesteps - 1])
    return np.round(np.linspace(0, timesteps - 1, steps)).astype(np.int64)


def spectra(jacobians: Array, counts: npt.NDArray[np.bool_]) -> Spectra:
    """The spectra of matrices (rows, steps, size, size): NaN where one is not finite, 0 where it does not count."""
    values = np.zeros(jacobians.shape[:3], jacobians.dtype)
    radii = np.zeros(jacobians.shape[:2], jacobians.dtype)
    finite = np.isfinite(jacobians).all(axis=(2, 3))
    values[counts & ~finite], radii[counts & ~finite] = np.nan, np.nan
    sound: Any = jacobians[counts & finite]
    if len(sound):
        values[counts & finite] = np.linalg.svd(sound, compute_uv=False)
        radii[counts & finite] = np.abs(np.linalg.eigvals(sound)).max(axis=-1)
    return Spectra(values, radii)
