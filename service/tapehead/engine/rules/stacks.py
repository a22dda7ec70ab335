"""Arithmetic on stacks of cotangents, (rows, m, …)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

Tensor = Any


def transposed(kernel: Any) -> Tensor:
    """(n, k) to (k, n)."""
    return tf.transpose(tf.convert_to_tensor(kernel))


def times(stack: Tensor, kernel: Tensor) -> Tensor:
    """(…, k) times (k, n): (…, n), as one product over all rows and stack entries."""
    flat = tf.matmul(tf.reshape(stack, [-1, kernel.shape[0]]), kernel)
    return tf.reshape(flat, tf.concat([tf.shape(stack)[:-1], [kernel.shape[1]]], axis=0))


def by_gate(kernels: Sequence[Any], gates: int) -> Tensor:
    """Kernels (n, gates * units) as each gate's transposed columns, side by side: (gates, units, all n)."""
    turned = [
        tf.transpose(tf.reshape(kernel, [kernel.shape[0], gates, -1]), [1, 2, 0])
        for kernel in map(tf.convert_to_tensor, kernels)
    ]
    return tf.concat(turned, axis=-1)


def laid_out(kernels: Tensor) -> Tensor:
    """The same numbers, (…, n), in memory of their own.

    XLA computes a transpose inside whatever reads it, and so would read across the kernel's rows for every number of a
    large answer; what comes out of a product is written first.
    """
    return tf.matmul(kernels, tf.eye(kernels.shape[-1], dtype=kernels.dtype))


def gate_seeds(names: Sequence[str], seeds: Mapping[str, Tensor], like: Tensor) -> dict[str, Tensor]:
    """The gates' own cotangents in the shape of `like`, in the kernel's order; 0 where none is seeded."""
    zero = tf.zeros_like(like)
    return {name: seeds[name] + zero if name in seeds else zero for name in names}


def repeated(value: Tensor, times: Tensor) -> Tensor:
    """(rows, …) to (rows * times, …): each row beside its own copies, as `flattened` lays a stack out."""
    return tf.repeat(value, times, axis=0)


def flattened(stack: Tensor) -> Tensor:
    """(rows, m, …) to (rows * m, …)."""
    return tf.reshape(stack, tf.concat([[-1], tf.shape(stack)[2:]], axis=0))


def stacked(flat: Tensor, times: Tensor) -> Tensor:
    """(rows * times, …) to (rows, times, …)."""
    return tf.reshape(flat, tf.concat([[-1, times], tf.shape(flat)[1:]], axis=0))


def in_axes(entries: Any, sizes: Tensor) -> Any:
    """A nest of tensors whose first axis runs over all entries of several axes: those axes apart again."""
    return tf.nest.map_structure(lambda value: tf.reshape(value, tf.concat([sizes, value.shape[1:]], axis=0)), entries)
