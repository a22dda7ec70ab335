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


def last(given: Problem, x: Any) -> Any:
    """The last hidden state, (…, n), for x (…, timesteps, d)."""
    step = _step(given)
    projected = jnp.moveaxis(x @ given.kernel + given.input_bias, -2, 0)
    zero = jnp.zeros((*x.shape[:-2], given.workload.size.units), x.dtype)
    first = (zero,) * STATES[given.workload.cell.name]
    return lax.scan(lambda state, part: (step(state, part), None), first, projected)[0][0]


def _called(function: Callable[[Any], Any], x: Array) -> Callable[[], Array]:
    run = jax.jit(function)
    return lambda: np.asarray(run(x))


def _jacobian(given: Problem, mode: Callable[..., Any]) -> Callable[[], Array]:
    return _called(jax.vmap(mode(partial(last, given))), given.x)


def _gradients(given: Problem, x: Any) -> Any:
    def target(x: Any) -> Any:
        return (last(given, x) @ given.dense + given.dense_bias)[..., TARGET].sum()

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


def _nudged(given: Problem, nudges: Any) -> Any:
    """h after each timestep, (timesteps, batch, n), each moved by its nudge before anything reads it."""
    step = _step(given)
    projected = jnp.moveaxis(given.x @ given.kernel + given.input_bias, 1, 0)
    zero = jnp.zeros(nudges.shape[1:], nudges.dtype)

    def along(state: Any, part: tuple[Any, Any]) -> Any:
        h, *rest = step(state, part[0])
        return (h + part[1], *rest), h + part[1]

    return lax.scan(along, (zero,) * STATES[given.workload.cell.name], (projected, nudges))[1]


def _norms(given: Problem, *, forward: bool) -> Callable[[], Array]:
    """One timestep's n tangents or cotangents after the other's, and nothing kept but their norms."""
    batch, timesteps, _, n = given.workload.size

    def norms(nudges: Any) -> Any:
        run = partial(_nudged, given)
        pass_on = jax.linearize(run, nudges)[1] if forward else _transposed(jax.vjp(run, nudges)[1])

        def of_step(t: Any) -> Any:
            vectors = jnp.zeros((n, timesteps, batch, n), nudges.dtype)
            vectors = vectors.at[:, t].set(jnp.eye(n, dtype=nudges.dtype)[:, None])
            return jnp.sqrt((jax.vmap(pass_on)(vectors) ** 2).sum((0, 3)))

        return jnp.transpose(lax.map(of_step, jnp.arange(timesteps)), (2, 1, 0) if forward else (2, 0, 1))

    return _called(norms, np.zeros((timesteps, batch, n), np.float32))


def _transposed(pull: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda cotangent: pull(cotangent)[0]


CALLS: Mapping[tuple[str, str], Callable[[Problem], Callable[[], Array]]] = {
    ("reverse", "jacobian"): partial(_jacobian, mode=jax.jacrev),
    ("forward", "jacobian"): partial(_jacobian, mode=jax.jacfwd),
    ("reverse", "lag"): partial(_lag, mode=jax.jacrev),
    ("forward", "lag"): partial(_lag, mode=jax.jacfwd),
    ("reverse", "saliency"): _saliency,
    ("reverse", "integrated"): _integrated,
    ("forward", "norms"): partial(_norms, forward=True),
    ("reverse", "norms"): partial(_norms, forward=False),
}
