"""Activations that act on each number alone, with their slopes: f(z) and f'(z)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import tensorflow as tf

Tensor = Any
Activation = Callable[[Tensor], Tensor]

# The slope from a = f(z), where it is simpler than differentiating.
_SLOPES: Mapping[Activation, Callable[[Tensor], Tensor]] = {
    keras.activations.tanh: lambda a: 1 - a * a,
    keras.activations.sigmoid: lambda a: a * (1 - a),
    keras.activations.linear: tf.ones_like,
    keras.activations.relu: lambda a: tf.cast(a > 0, a.dtype),
}

_NAMES = (
    "celu",
    "elu",
    "exponential",
    "gelu",
    "hard_shrink",
    "hard_sigmoid",
    "hard_silu",
    "hard_tanh",
    "leaky_relu",
    "linear",
    "log_sigmoid",
    "mish",
    "relu",
    "relu6",
    "selu",
    "sigmoid",
    "silu",
    "soft_shrink",
    "softplus",
    "softsign",
    "sparse_plus",
    "squareplus",
    "tanh",
    "tanh_shrink",
    "threshold",
)
_ELEMENTWISE = frozenset(getattr(keras.activations, name) for name in _NAMES if hasattr(keras.activations, name))


def elementwise(activation: Activation) -> bool:
    """Whether the activation is known to act on each number alone (softmax, for one, does not)."""
    return activation in _ELEMENTWISE


def with_slope(activation: Activation, z: Tensor) -> tuple[Tensor, Tensor]:
    """f(z) and f'(z), in the shape of z."""
    if activation in _SLOPES:
        value = activation(z)
        return value, _SLOPES[activation](value)
    with tf.GradientTape() as tape:
        tape.watch(z)
        value = activation(z)
    return value, tape.gradient(value, z, unconnected_gradients="zero")
