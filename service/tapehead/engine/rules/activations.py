"""Activations that act on each number alone, with their slopes: f(z) and f'(z)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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


def reads_z(*activations: Activation) -> bool:
    """Whether the slope of one of them takes z, and not its value alone."""
    return not _SLOPES.keys() >= set(activations)


def slope(activation: Activation, value: Tensor, z: Tensor | None) -> Tensor:
    """f'(z), where `value` is f(z); `z` may be left out where `reads_z` says so."""
    if activation in _SLOPES:
        return _SLOPES[activation](value)
    with tf.GradientTape() as tape:
        tape.watch(z)
        again = activation(z)
    return tape.gradient(again, z, unconnected_gradients="zero")


def beside(parts: Sequence[tuple[Activation, int]], z: Tensor) -> Tensor:
    """The activations of z's columns, each of the number given with it, side by side.

    Joined, they are made once and kept: of pieces XLA would make each again in whatever reads it.
    """
    split = tf.split(z, [columns for _, columns in parts], axis=-1)
    return tf.concat([activation(part) for (activation, _), part in zip(parts, split, strict=True)], axis=-1)
