"""JAX: `jit` of `vmap` of `jacrev` or `jacfwd` over a `lax.scan`, the inputs multiplied once for all timesteps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks.problems import Array, Problem
from benchmarks.recurrences import STATES, STEPS, Functions, Recurrent
from benchmarks.workloads import N_STEPS, TARGET

_BY = Functions(jnp.tanh, jax.nn.sigmoid)
_TOGETHER = 8
"""Timesteps whose tangents are pushed forward at once, so that their products are large."""


def _step(given: Problem) -> Callable[[Any, Any], Any]:
    return partial(STEPS[given.workload.cell.name], _BY, Recurrent(given.recurrent, given.recurrent_bias))


def _states(given: Problem, x: Any) -> Any:
    """Every state after each timestep, (timesteps, …, n), for x (…, timesteps, d)."""
    step = _step(given)
    projected = jnp.moveaxis(x @ given.kernel + given.input_bias, -2, 0)
    zero = jnp.zeros((*x.shape[:-2], given.workload.size.units), x.dtype)

    def along(state: Any, projected: Any) -> Any:
        state = step(state, projected)
        return state, state

    return lax.scan(along, (zero,) * STATES[given.workload.cell.name], projected)[1]


def _last(given: Problem, x: Any) -> Any:
    step = _step(given)
    projected = jnp.moveaxis(x @ given.kernel + given.input_bias, -2, 0)
    zero = jnp.zeros((*x.shape[:-2], given.workload.size.units), x.dtype)
    first = (zero,) * STATES[given.workload.cell.name]
    return lax.scan(lambda state, part: (step(state, part), None), first, projected)[0][0]


def _called(function: Callable[[Any], Any], x: Array) -> Callable[[], Array]:
    run = jax.jit(function)
    return lambda: np.asarray(run(x))


def _jacobian(given: Problem, mode: Callable[..., Any]) -> Callable[[], Array]:
    return _called(jax.vmap(mode(partial(_last, given))), given.x)


def _gradients(given: Problem, x: Any) -> Any:
    def target(x: Any) -> Any:
        return (_last(given, x) @ given.dense + given.dense_bias)[..., TARGET].sum()

    return jax.grad(target)(x)


def _saliency(given: Problem) -> Callable[[], Array]:
    return _called(partial(_gradients, given), given.x)


def _integrated(given: Problem) -> Callable[[], Array]:
    """From a baseline of zeros, by Gauss and Legendre's quadrature, the path as one batch."""
    nodes, weights = np.polynomial.legendre.leggauss(N_STEPS)
    nodes, weights = (((nodes + 1) / 2).astype(np.float32), (weights / 2).astype(np.float32))

    def attributions(x: Any) -> Any:
        path = nodes[:, None, None, None] * x
        return x * jnp.tensordot(weights, _gradients(given, path), 1)

    return _called(attributions, given.x)


def _lag(given: Problem, mode: Callable[..., Any]) -> Callable[[], Array]:
    """The states first, then the Jacobian of one step over batch and time at once."""
    step = _step(given)

    def derivative(x: Any) -> Any:
        projected = x @ given.kernel + given.input_bias
        states = [jnp.moveaxis(state, 0, 1) for state in _states(given, x)]
        before = [jnp.concatenate([jnp.zeros_like(state[:, :1]), state[:, :-1]], 1) for state in states]
        local = mode(lambda h, rest, part: step((h, *rest), part)[0])
        return jax.vmap(jax.vmap(local))(before[0], tuple(before[1:]), projected)

    return _called(derivative, given.x)


def _norms(given: Problem) -> Callable[[], Array]:
    """Forward from each timestep with one tangent a feature, the fewest vectors there are; nothing larger is kept."""
    batch, timesteps, d, _ = given.workload.size

    def norms(x: Any) -> Any:
        _, push = jax.linearize(lambda x: _states(given, x)[0], x)

        def from_step(s: Any) -> Any:
            tangents = jnp.zeros((d, batch, timesteps, d), x.dtype).at[:, :, s].set(jnp.eye(d, dtype=x.dtype)[:, None])
            return jnp.sqrt((jax.vmap(push)(tangents) ** 2).sum((0, 3)))

        return jnp.transpose(lax.map(from_step, jnp.arange(timesteps), batch_size=_TOGETHER), (2, 1, 0))

    return _called(norms, given.x)


CALLS: Mapping[tuple[str, str], Callable[[Problem], Callable[[], Array]]] = {
    ("reverse", "jacobian"): partial(_jacobian, mode=jax.jacrev),
    ("forward", "jacobian"): partial(_jacobian, mode=jax.jacfwd),
    ("reverse", "lag"): partial(_lag, mode=jax.jacrev),
    ("forward", "lag"): partial(_lag, mode=jax.jacfwd),
    ("reverse", "saliency"): _saliency,
    ("reverse", "integrated"): _integrated,
    ("forward", "norms"): _norms,
}
