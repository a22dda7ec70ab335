"""What a user would write without Tapehead: a gradient tape in a compiled function, traced for the very input."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tapehead.bench.questions import Array, Question

_SIDE = 2048


def alternative(model: Any, question: Question, inputs: Mapping[str, Array]) -> Callable[[], Array] | None:
    """A call that answers the question; None where it cannot be written in a few lines.

    It cannot where the state is no layer's own output (within a Bidirectional, a nested model or a cell of one's own),
    or where it is not an input that is differentiated by.
    """
    wrt = question.parameters["wrt"]
    make = {"jacobian": _last_state, "saliency": _target}[question.operation]
    value = make(model, question)
    if value is None or wrt not in inputs or not isinstance(model, keras.Model):
        return None

    def derivative(fed: dict[str, Any]) -> Any:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(fed[wrt])
            found = value([fed[name] for name in inputs] if len(inputs) > 1 else fed[wrt])
        return (
            tape.batch_jacobian(found, fed[wrt]) if question.operation == "jacobian" else tape.gradient(found, fed[wrt])
        )

    signature = {name: tf.TensorSpec(array.shape, array.dtype) for name, array in inputs.items()}
    run = tf.function(derivative, input_signature=[signature], autograph=False)
    return lambda: run({name: tf.constant(array) for name, array in inputs.items()}).numpy()


def matrix_peak() -> Callable[[], float]:
    """A call that multiplies two large matrices and gives how many floating-point operations that takes."""
    draw = np.random.default_rng(0)
    a, b = (tf.constant(draw.standard_normal((_SIDE, _SIDE)), tf.float32) for _ in range(2))
    run = tf.function(tf.matmul)

    def call() -> float:
        run(a, b)[0, 0].numpy()
        return 2.0 * _SIDE**3

    return call


def _last_state(model: Any, question: Question) -> Callable[[Any], Any] | None:
    layer = next((one for one in model.layers if one.name == question.about), None)
    if not isinstance(layer, keras.layers.LSTM | keras.layers.GRU | keras.layers.SimpleRNN) or layer.return_state:
        return None
    part = keras.Model(model.inputs, layer.output)
    return (lambda x: part(x)[:, -1]) if layer.return_sequences else part


def _target(model: Any, question: Question) -> Callable[[Any], Any]:
    largest, first = question.parameters["target"].endswith("[argmax]"), len(model.outputs) > 1

    def value(x: Any) -> Any:
        found = model(x)[0] if first else model(x)
        if found.shape.rank < 3:
            return tf.reduce_max(found, -1) if largest else found
        return tf.reshape(found[:, -1], (found.shape[0], -1))[:, 0]

    return value
