"""Which layers treat every timestep by itself, and which can be told to leave timesteps out."""

from __future__ import annotations

import inspect
from typing import Any

import keras

_LAYERS = keras.layers
_ALWAYS: tuple[type, ...] = tuple(
    getattr(_LAYERS, name)
    for name in (
        "Activation Add AlphaDropout Average Dense Dropout ELU Embedding EinsumDense GaussianDropout GaussianNoise Identity "
        "LeakyReLU Masking Maximum Minimum Multiply PReLU ReLU Rescaling SpatialDropout1D Subtract TimeDistributed "
        "ActivityRegularization"
    ).split()
    if hasattr(_LAYERS, name)
)
_ON_LAST_AXIS: tuple[type, ...] = tuple(
    getattr(_LAYERS, name)
    for name in "BatchNormalization Concatenate LayerNormalization RMSNormalization Softmax UnitNormalization".split()
    if hasattr(_LAYERS, name)
)
# keras.ops that a model may hold as nodes, by class name: each works on every number alone, or broadcasts.
_ELEMENTWISE_OPERATIONS = frozenset(
    "Absolute Add Cast Clip Divide Elu Exp Expm1 Gelu LeakyRelu Log Log1p Maximum Minimum Multiply Negative Power Relu "
    "Selu Sigmoid Sign Silu Softplus Softsign Sqrt Square Subtract Tanh TrueDivide".split()
)


def keeps_timesteps_apart(layer: Any) -> bool:
    """Whether each timestep of the layer's output is made from that timestep of its inputs alone."""
    if isinstance(layer, _ALWAYS):
        return True
    if isinstance(layer, _ON_LAST_AXIS):
        return _axes(layer) in ([-1], [2])
    return type(layer).__module__.startswith("keras") and type(layer).__name__ in _ELEMENTWISE_OPERATIONS


def takes_mask(layer: Any) -> bool:
    """Whether the layer leaves masked timesteps out by itself."""
    if not getattr(layer, "supports_masking", False):
        return False
    return any("mask" in name for name in inspect.signature(layer.call).parameters)


def _axes(layer: Any) -> list[int]:
    axis = getattr(layer, "axis", -1)
    return list(axis) if isinstance(axis, list | tuple) else [axis]
