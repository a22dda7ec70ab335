"""Which layers treat every timestep by itself, and which can be told to leave timesteps out."""

from __future__ import annotations

import inspect
from typing import Any

import keras

# fmt: off
_ALWAYS = (
    "Activation", "ActivityRegularization", "Add", "AlphaDropout", "Average", "Dense", "Dropout", "ELU",
    "EinsumDense", "Embedding", "GaussianDropout", "GaussianNoise", "Identity", "LeakyReLU", "Masking", "Maximum",
    "Minimum", "Multiply", "PReLU", "ReLU", "Rescaling", "SpatialDropout1D", "Subtract", "TimeDistributed",
)
_ON_LAST_AXIS = (
    "BatchNormalization", "Concatenate", "LayerNormalization", "RMSNormalization", "Softmax", "UnitNormalization",
)
# keras.ops that a model may hold as nodes: each works on every number alone, or broadcasts.
_ELEMENTWISE_OPERATIONS = (
    "Absolute", "Add", "Cast", "Clip", "Divide", "Elu", "Exp", "Expm1", "Gelu", "LeakyRelu", "Log", "Log1p",
    "Maximum", "Minimum", "Multiply", "Negative", "Power", "Relu", "Selu", "Sigmoid", "Sign", "Silu", "Softplus",
    "Softsign", "Sqrt", "Square", "Subtract", "Tanh", "TrueDivide",
)
# fmt: on


def keeps_timesteps_apart(layer: Any) -> bool:
    """Whether each timestep of the layer's output is made from that timestep of its inputs alone."""
    if isinstance(layer, _layers(_ALWAYS)):
        return True
    if isinstance(layer, _layers(_ON_LAST_AXIS)):
        return _axes(layer) in ([-1], [2])
    return type(layer).__module__.startswith("keras") and type(layer).__name__ in _ELEMENTWISE_OPERATIONS


def takes_mask(layer: Any) -> bool:
    """Whether the layer leaves masked timesteps out by itself."""
    if not getattr(layer, "supports_masking", False):
        return False
    return any("mask" in name for name in inspect.signature(layer.call).parameters)


def _layers(names: tuple[str, ...]) -> tuple[type, ...]:
    return tuple(getattr(keras.layers, name) for name in names if hasattr(keras.layers, name))


def _axes(layer: Any) -> list[int]:
    axis = getattr(layer, "axis", -1)
    return list(axis) if isinstance(axis, list | tuple) else [axis]
