"""TensorFlow: a compiled `batch_jacobian` or gradient over the Keras layer, as a graph or by XLA.

XLA does not compile the Jacobian through the layer's loop: `batch_jacobian` turns that loop's arrays into lists of
tensors of a kind XLA has no kernel for (`TensorListReserve`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks.problems import Array, Problem, keras_model
from benchmarks.recurrences import STATES, STEPS, Functions, Recurrent
from benchmarks.workloads import N_STEPS, TARGET

_BY = Functions(tf.tanh, tf.sigmoid)


def _compiled(function: Callable[[Any], Any], x: Array, *, jit: bool) -> Callable[[], Array]:
    """The function traced for the very shape of `x`."""
    signature = [tf.TensorSpec(x.shape, x.dtype)]
    run = tf.function(function, input_signature=signature, autograph=False, jit_compile=jit)
    return lambda: run(tf.constant(x)).numpy()


def _jacobian(given: Problem, *, jit: bool) -> Callable[[], Array]:
    model = keras_model(given)

    def derivative(x: Any) -> Any:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(x)
            h = model(x)
        return tape.batch_jacobian(h, x)

    return _compiled(derivative, given.x, jit=jit)


def _gradient(model: Any, x: Any) -> Any:
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(x)
        target = tf.reduce_sum(model(x)[:, TARGET])
    return tape.gradient(target, x)


def _saliency(given: Problem, *, jit: bool) -> Callable[[], Array]:
    return _compiled(partial(_gradient, keras_model(given)), given.x, jit=jit)


def _integrated(given: Problem, *, jit: bool) -> Callable[[], Array]:
    """From a baseline of zeros, by Gauss and Legendre's quadrature, the path as one batch."""
    model = keras_model(given)
    nodes, weights = np.polynomial.legendre.leggauss(N_STEPS)
    nodes, weights = (((nodes + 1) / 2).astype(np.float32), (weights / 2).astype(np.float32))

    def attributions(x: Any) -> Any:
        path = nodes[:, None, None, None] * x
        gradients = _gradient(model, tf.reshape(path, (-1, *given.x.shape[1:])))
        return x * tf.tensordot(weights, tf.reshape(gradients, path.shape), 1)

    return _compiled(attributions, given.x, jit=jit)


def _lag(given: Problem, *, jit: bool) -> Callable[[], Array]:
    """The states first, then one `batch_jacobian` of a step over batch and time at once."""
    batch, timesteps, _, n = given.workload.size
    cell = given.workload.cell.name
    recurrent = Recurrent(tf.constant(given.recurrent), given.recurrent_bias)
    step = partial(STEPS[cell], _BY, recurrent)

    def derivative(x: Any) -> Any:
        projected = tf.transpose(x @ given.kernel + given.input_bias, (1, 0, 2))
        first = tuple(tf.zeros((batch, n)) for _ in range(STATES[cell]))
        states = tf.scan(step, projected, first)
        shifted = [tf.concat([zero[None], state[:-1]], 0) for zero, state in zip(first, states, strict=True)]
        before = [tf.reshape(state, (-1, n)) for state in shifted]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(before[0])
            h = step(tuple(before), tf.reshape(projected, (timesteps * batch, -1)))[0]
        rows = tf.reshape(tape.batch_jacobian(h, before[0]), (timesteps, batch, n, n))
        return tf.transpose(rows, (1, 0, 2, 3))

    return _compiled(derivative, given.x, jit=jit)


_MAKERS = {"jacobian": _jacobian, "lag": _lag, "saliency": _saliency, "integrated": _integrated}

CALLS: Mapping[tuple[str, str], Callable[[Problem], Callable[[], Array]]] = {
    (kind, question): partial(make, jit=kind == "xla")
    for kind in ("graph", "xla")
    for question, make in _MAKERS.items()
    if (kind, question) != ("xla", "jacobian")
}
