"""Cells and layers written out in JAX from their published formulas, reading Keras's public weights.

A step's states and output are (units,). Where a cell gives out one of its states, it returns that very array twice.
"""

# ruff: noqa: ARG005 - every rule of a table takes the same arguments

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from oracle.signals import Array, Gate, Signal, Weight

xp = jnp
ACTIVATIONS = {
    "linear": lambda x: x,
    "tanh": jnp.tanh,
    "sigmoid": lambda x: 1 / (1 + jnp.exp(-x)),
    "relu": lambda x: jnp.where(x > 0, x, 0.0),
    "softplus": lambda x: jnp.log1p(jnp.exp(x)),
    "softsign": lambda x: x / (1 + jnp.abs(x)),
    "softmax": lambda x: jnp.exp(x) / jnp.sum(jnp.exp(x), -1, keepdims=True),
}


def activation(function: Any) -> Any:
    """Keras's activation by its name, as a JAX function."""
    return ACTIVATIONS[function.__name__]


def affine(x: Array, kernel: Array, bias: Array | None) -> Array:
    return x @ kernel if bias is None else x @ kernel + bias


def simple_rnn(cell: Any, x: Array, states: list[Array], weight: Weight, gate: Gate) -> tuple[Array, list[Array]]:
    """Elman 1990: h' = act(W x + U h + b)."""
    h = activation(cell.activation)(
        affine(x, weight("kernel"), weight("bias")) + states[0] @ weight("recurrent_kernel")
    )
    return h, [h]


def lstm(cell: Any, x: Array, states: list[Array], weight: Weight, gate: Gate) -> tuple[Array, list[Array]]:
    """Hochreiter and Schmidhuber 1997 with forget gates: c' = f c + i g, h' = o act(c')."""
    h, c = states
    act, recurrent = activation(cell.activation), activation(cell.recurrent_activation)
    z = jnp.split(affine(x, weight("kernel"), weight("bias")) + h @ weight("recurrent_kernel"), 4)
    i, f = gate("input_gate", recurrent(z[0])), gate("forget_gate", recurrent(z[1]))
    g, o = gate("cell_candidate", act(z[2])), gate("output_gate", recurrent(z[3]))
    c = f * c + i * g
    h = o * act(c)
    return h, [h, c]


def gru(cell: Any, x: Array, states: list[Array], weight: Weight, gate: Gate) -> tuple[Array, list[Array]]:
    """Cho et al. 2014, h' = z h + (1 - z) n; the reset gate before the recurrent product (v3) or after it (v1)."""
    (h,), units = states, cell.units
    act, recurrent = activation(cell.activation), activation(cell.recurrent_activation)
    kernel, inner, bias = weight("kernel"), weight("recurrent_kernel"), weight("bias")
    on_x, on_h = (0.0, 0.0) if bias is None else (bias[0], bias[1]) if cell.reset_after else (bias, 0.0)
    xz, xr, xn = jnp.split(x @ kernel + on_x, 3)
    hz, hr = jnp.split((h @ inner + on_h)[: 2 * units], 2)
    z, r = gate("update_gate", recurrent(xz + hz)), gate("reset_gate", recurrent(xr + hr))
    if cell.reset_after:
        hn = r * (h @ inner + on_h)[2 * units :]
    else:
        hn = (r * h) @ inner[:, 2 * units :]
    n = gate("candidate", act(xn + hn))
    h = z * h + (1 - z) * n
    return h, [h]


def two_state(cell: Any, x: Array, states: list[Array], weight: Weight, gate: Gate) -> tuple[Array, list[Array]]:
    """h' = W act(h) + b, c' = c - h + h', and an output apart: sigmoid(W_o x) + c', or sigmoid(W_o x + c')."""
    h, c = states
    after = affine(activation(cell.activation)(h), weight("linear_rec.kernel"), weight("linear_rec.bias"))
    c = c - h + after
    read = affine(x, weight("linear_out.kernel"), weight("linear_out.bias"))
    sigmoid = ACTIVATIONS["sigmoid"]
    return (sigmoid(read + c) if cell.output_form == "code" else sigmoid(read) + c), [after, c]


def contrary(cell: Any, x: Array, states: list[Array], weight: Weight, gate: Gate) -> tuple[Array, list[Array]]:
    """slow' = (slow + fast) / 2, fast' = tanh(W [x, slow, fast]); it gives out fast' itself, or twice fast'."""
    slow, fast = states
    after = jnp.tanh(jnp.concatenate([x, slow, fast]) @ weight("kernel"))
    return (2 * after if cell.apart else after), [(slow + fast) / 2, after]


CELLS = {
    "SimpleRNNCell": simple_rnn,
    "LSTMCell": lstm,
    "GRUCell": gru,
    "TwoStateCell": two_state,
    "ContraryCell": contrary,
}


def cell(cell: Any, x: Array, states: list[Array], weight: Weight, gate: Gate) -> tuple[Array, list[Array]]:
    return CELLS[type(cell).__name__](cell, x, states, weight, gate)


def dense(layer: Any, arguments: list[Signal], weight: Weight) -> Array:
    return activation(layer.activation)(affine(arguments[0].value, weight("kernel"), weight("bias")))


def embedding(layer: Any, arguments: list[Signal], weight: Weight) -> Array:
    """A product with one-hot rows: the same, and every word's row is a weight that can be nudged."""
    table = weight("embeddings")
    return (arguments[0].value[..., None] == jnp.arange(table.shape[0])).astype(table.dtype) @ table


def layer_normalization(layer: Any, arguments: list[Signal], weight: Weight) -> Array:
    """Ba et al. 2016, over the last axis."""
    x = arguments[0].value
    scaled = (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + layer.epsilon)
    return scaled * weight("gamma") + weight("beta")


def time_distributed(layer: Any, arguments: list[Signal], weight: Weight) -> Array:
    """A layer at every timestep alike; for a layer over the last axis that is the layer itself."""
    return PLAIN[type(layer.layer).__name__](layer.layer, arguments, lambda name: weight(f"layer.{name}"))


def average_over_time(layer: Any, arguments: list[Signal], weight: Weight) -> Array:
    (signal,) = arguments
    if signal.mask is None:
        return signal.value.mean(-2)
    return (signal.value * signal.mask[..., None]).sum(-2) / signal.mask.sum()


PLAIN = {
    "Embedding": embedding,
    "Dense": dense,
    "TimeDistributed": time_distributed,
    "LayerNormalization": layer_normalization,
    "GlobalAveragePooling1D": average_over_time,
    "Dropout": lambda layer, arguments, weight: arguments[0].value,
    "Activation": lambda layer, arguments, weight: activation(layer.activation)(arguments[0].value),
    "Unmasked": lambda layer, arguments, weight: arguments[0].value.reshape(-1),
    "Flatten": lambda layer, arguments, weight: arguments[0].value.reshape(-1),
    "Concatenate": lambda layer, arguments, weight: jnp.concatenate([a.value for a in arguments], layer.axis),
    "Add": lambda layer, arguments, weight: sum(a.value for a in arguments),
    "Multiply": lambda layer, arguments, weight: arguments[0].value * arguments[1].value,
}


def layer(layer: Any, arguments: list[Signal], weight: Weight) -> Array:
    return PLAIN[type(layer).__name__](layer, arguments, weight)
