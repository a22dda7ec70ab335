"""JAX's derivatives, evaluated by NumPy: what JAX traced, one elementary operation at a time.

Compiling an unrolled recurrence with all its tangents takes XLA some ten seconds for each architecture and shape;
evaluating the same trace with NumPy takes milliseconds. JAX alone decides what is computed. An operation that the table
lacks is left to JAX.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.extend import core

NUMPY: dict[str, Callable[..., Any]] = {
    "add": np.add,
    "add_any": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "neg": np.negative,
    "max": np.maximum,
    "exp": np.exp,
    "log1p": np.log1p,
    "tanh": np.tanh,
    "abs": np.abs,
    "sign": np.sign,
    "sqrt": np.sqrt,
    "rsqrt": lambda x, **_: 1 / np.sqrt(x),
    "square": np.square,
    "eq": np.equal,
    "ne": np.not_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "lt": np.less,
    "and": np.logical_and,
    "or": np.logical_or,
    "not": np.logical_not,
    "integer_pow": lambda x, y: x**y,
    "select_n": lambda which, *cases: np.where(which, cases[1], cases[0]),
    "stack": lambda *parts, axis: np.stack(parts, axis),
    "concatenate": lambda *parts, dimension: np.concatenate(parts, dimension),
    "reshape": lambda x, new_sizes, **_: np.reshape(x, new_sizes),
    "squeeze": lambda x, dimensions: np.squeeze(x, dimensions),
    "expand_dims": lambda x, dimensions: np.expand_dims(x, dimensions),
    "transpose": lambda x, permutation: np.transpose(x, permutation),
    "rev": lambda x, dimensions: np.flip(x, dimensions),
    "reduce_sum": lambda x, axes, **_: np.sum(x, axes),
    "reduce_max": lambda x, axes, **_: np.max(x, axes),
    "reduce_or": lambda x, axes, **_: np.any(x, axes),
    "iota": lambda dtype, shape, dimension, **_: np.indices(shape, dtype)[dimension],
    "convert_element_type": lambda x, new_dtype, **_: np.asarray(x, new_dtype),
    "copy": lambda x: x,
}


def without_compiling(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, traced by JAX for each new set of shapes and evaluated by NumPy."""
    traces: dict[str, Any] = {}

    def evaluated(*args: Any) -> Any:
        shapes = str(jax.tree.map(jax.typeof, args))
        if shapes not in traces:
            traces[shapes] = jax.make_jaxpr(function, return_shape=True)(*args)
        closed, shape = traces[shapes]
        results = evaluate(closed.jaxpr, closed.consts, [np.asarray(x) for x in jax.tree.leaves(args)])
        return jax.tree.unflatten(jax.tree.structure(shape), results)

    return evaluated


def evaluate(jaxpr: Any, consts: Any, args: Any) -> list[np.ndarray]:
    """The results of a trace, in its order."""
    known = dict(zip(jaxpr.constvars, [np.asarray(c) for c in consts], strict=True))
    known |= dict(zip(jaxpr.invars, args, strict=True))

    def read(atom: Any) -> np.ndarray:
        return np.asarray(atom.val) if isinstance(atom, core.Literal) else known[atom]

    for equation in jaxpr.eqns:
        results = apply(equation, [read(atom) for atom in equation.invars])
        known |= dict(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def apply(equation: Any, args: list[np.ndarray]) -> list[np.ndarray]:
    """The results of one operation of a trace."""
    name, params = equation.primitive.name, equation.params
    inner = params.get("jaxpr") or params.get("call_jaxpr")
    if inner is not None:
        return evaluate(inner.jaxpr, inner.consts, args)
    if name in SHAPED:
        return SHAPED[name](*args, **params)
    if name in NUMPY:
        function = NUMPY[name]
        return [function(*args) if isinstance(function, np.ufunc) else function(*args, **params)]
    results = equation.primitive.bind(*args, **params)
    return [np.asarray(x) for x in (results if equation.primitive.multiple_results else [results])]


def dot_general(x: np.ndarray, y: np.ndarray, dimension_numbers: Any, **_: Any) -> list[np.ndarray]:
    (x_sum, y_sum), (x_batch, y_batch) = dimension_numbers
    x_axes, y_axes = list(range(x.ndim)), list(range(x.ndim, x.ndim + y.ndim))
    for ours, theirs in zip((*x_sum, *x_batch), (*y_sum, *y_batch), strict=True):
        y_axes[theirs] = x_axes[ours]
    left = [a for i, a in enumerate(x_axes) if i not in (*x_sum, *x_batch)]
    right = [a for i, a in enumerate(y_axes) if i not in (*y_sum, *y_batch)]
    return [np.einsum(x, x_axes, y, y_axes, [x_axes[i] for i in x_batch] + left + right)]


def broadcast_in_dim(x: np.ndarray, shape: Any, broadcast_dimensions: Any, **_: Any) -> list[np.ndarray]:
    aligned = [1] * len(shape)
    for axis, size in zip(broadcast_dimensions, x.shape, strict=True):
        aligned[axis] = size
    return [np.broadcast_to(x.reshape(aligned), shape)]


def cut(x: np.ndarray, start_indices: Any, limit_indices: Any, strides: Any) -> list[np.ndarray]:
    steps = strides or [1] * x.ndim
    return [x[tuple(slice(*bounds) for bounds in zip(start_indices, limit_indices, steps, strict=True))]]


def cut_where(x: np.ndarray, *starts: np.ndarray, slice_sizes: Any, **_: Any) -> list[np.ndarray]:
    first = [min(max(int(s), 0), n - size) for s, n, size in zip(starts, x.shape, slice_sizes, strict=True)]
    return [x[tuple(slice(a, a + size) for a, size in zip(first, slice_sizes, strict=True))]]


def split(x: np.ndarray, sizes: Any, axis: int) -> list[np.ndarray]:
    return np.split(x, np.cumsum(sizes)[:-1], axis)


SHAPED: dict[str, Callable[..., list[np.ndarray]]] = {
    "dot_general": dot_general,
    "broadcast_in_dim": broadcast_in_dim,
    "slice": cut,
    "dynamic_slice": cut_where,
    "split": split,
}
