"""More layers written out in JAX: merges, attention, convolutions and pooling over time, normalisation, reshaping.

Imported by the package, which enters them in the table of `formulas`. Values are of one sequence: (timesteps, features)
or (features,).
"""

# ruff: noqa: ARG005 - every rule of a table takes the same arguments

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from oracle.formulas import ACTIVATIONS, PLAIN, activation
from oracle.signals import Array, Signal, Weight

softmax = ACTIVATIONS["softmax"]


def attention(layer: Any, arguments: list[Signal], weight: Weight) -> Array:
    """Luong et al. 2015: what is asked, by its products with what is seen."""
    asked, seen = arguments[0].value, arguments[1].value
    return softmax(asked @ seen.T) @ seen


def several_heads(layer: Any, arguments: list[Signal], weight: Weight) -> Array:
    """Vaswani et al. 2017; a kernel is (features, heads, size of a head)."""
    asked, seen = arguments[0].value, arguments[1].value
    query, key, value = (
        jnp.einsum("tf,fhk->htk", x, weight(f"_{name}_dense.kernel")) + weight(f"_{name}_dense.bias")[:, None]
        for name, x in (("query", asked), ("key", seen), ("value", seen))
    )
    read = softmax(query @ jnp.swapaxes(key, 1, 2) / jnp.sqrt(1.0 * layer.key_dim)) @ value
    return jnp.einsum("htk,hkf->tf", read, weight("_output_dense.kernel")) + weight("_output_dense.bias")


def convolution(layer: Any, arguments: list[Signal], weight: Weight) -> Array:
    """Kernel position k reads what stands k timesteps after the window's start; a causal one is padded in front."""
    x, kernel = arguments[0].value, weight("kernel")
    size = kernel.shape[0]
    ahead = {"valid": (0, 0), "causal": (size - 1, 0), "same": ((size - 1) // 2, size // 2)}[layer.padding]
    x = jnp.pad(x, (ahead, (0, 0)))
    windows = len(x) - size + 1
    summed = sum(x[k : k + windows] @ kernel[k] for k in range(size)) + weight("bias")
    return activation(layer.activation)(summed[:: layer.strides[0]])


def windows(layer: Any, x: Array) -> Array:
    """What each pooling window holds: (windows, size, features)."""
    (size,), (stride,) = layer.pool_size, layer.strides
    return jnp.stack([x[start : start + size] for start in range(0, len(x) - size + 1, stride)])


def batch_normalization(layer: Any, arguments: list[Signal], weight: Weight) -> Array:
    """Ioffe and Szegedy 2015, by the statistics kept."""
    scale = weight("gamma") / jnp.sqrt(weight("moving_variance") + layer.epsilon)
    return (arguments[0].value - weight("moving_mean")) * scale + weight("beta")


LAYERS = {
    "Attention": attention,
    "MultiHeadAttention": several_heads,
    "Conv1D": convolution,
    "BatchNormalization": batch_normalization,
    "AveragePooling1D": lambda layer, arguments, weight: windows(layer, arguments[0].value).mean(1),
    "MaxPooling1D": lambda layer, arguments, weight: windows(layer, arguments[0].value).max(1),
    "GlobalMaxPooling1D": lambda layer, arguments, weight: arguments[0].value.max(-2),
    "RepeatVector": lambda layer, arguments, weight: jnp.stack([arguments[0].value] * layer.n),
    "Subtract": lambda layer, arguments, weight: arguments[0].value - arguments[1].value,
    "Average": lambda layer, arguments, weight: sum(a.value for a in arguments) / len(arguments),
    "Maximum": lambda layer, arguments, weight: jnp.maximum(arguments[0].value, arguments[1].value),
}

PLAIN.update(LAYERS)
