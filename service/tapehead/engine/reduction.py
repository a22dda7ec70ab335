"""A Jacobian reduced to what is asked of it: each pair of timesteps' matrix (of units x wrt units) to a few numbers."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from tapehead.engine.prepared import Target
from tapehead.operations.request import Array


class Side(NamedTuple):
    """One side of a Jacobian: its timesteps (None where that axis is dropped) and the shape of its units."""

    steps: int | None
    units: tuple[int, ...]


def side_of(target: Target) -> Side:
    """The side that a target stands for."""
    timed = target.selection.axes[:1] == ("timestep",)
    return Side(target.shape[0], target.shape[1:]) if timed else Side(None, target.shape)


def reduced(array: Array, lead: tuple[int, ...], of: Side, wrt: Side, how: str) -> Array:
    """`array`, (*lead, *of, *wrt), reduced as `how` says.

    norm is the Frobenius norm sqrt(sum J_ij^2), spectral_norm the largest singular value, singular_values all of them,
    descending, sum the sum over the units of `of`.
    """
    steps = tuple(n for n in (of.steps, wrt.steps) if n is not None)
    of_steps, wrt_steps = of.steps or 1, wrt.steps or 1
    matrices = array.reshape(*lead, of_steps, math.prod(of.units), wrt_steps, math.prod(wrt.units))
    match how:
        case "none":
            shape = (*_side_shape(of), *_side_shape(wrt))
            return array.reshape(*lead, *shape)
        case "sum":
            summed: Array = matrices.sum(axis=-3)
            return summed.reshape(*lead, *(() if of.steps is None else (of.steps,)), *_side_shape(wrt))
        case "norm":
            squares = np.einsum("...iuj,...iuj->...u", matrices, matrices)
            norms: Array = np.sqrt(squares)
            return norms.reshape(*lead, *steps)
    values = np.linalg.svd(np.swapaxes(matrices, -3, -2), compute_uv=False)
    if how == "spectral_norm":
        largest: Array = values[..., 0].reshape(*lead, *steps)
        return largest
    return values.reshape(*lead, *steps, values.shape[-1])


def _side_shape(side: Side) -> tuple[int, ...]:
    return side.units if side.steps is None else (side.steps, *side.units)
