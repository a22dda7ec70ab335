"""Attributions of one number a sample to the entries of an input, or of any point.

    gradient               d target / d wrt                                  (Simonyan et al. 2014)
    gradient_x_input       wrt * d target / d wrt                            (Shrikumar et al. 2016)
    integrated_gradients   (x - x') * mean over a in [0, 1] of d target / d x at x' + a (x - x')
                                                                             (Sundararajan et al. 2017)
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from tapehead.engine.answer import Stopwatch, answer, in_precision
from tapehead.engine.jacobian import CHUNK_BYTES
from tapehead.engine.model import Model
from tapehead.engine.prepared import Prepared, Target
from tapehead.engine.products import pulled
from tapehead.engine.programs import values_program
from tapehead.engine.states import taken, values
from tapehead.operations import Request, Result
from tapehead.operations.request import Array
from tapehead.operations.selection import EVERYTHING


def saliency(model: Model, request: Request) -> Result:
    """Attributions in the shape of `wrt`, and `completeness_gap` (batch,) for integrated gradients."""
    stopwatch = Stopwatch()
    parameters = request.parameters
    prepared = Prepared(
        in_precision(model, request), request, list(dict.fromkeys([parameters["target"], parameters["wrt"]])), argmax=True
    )
    target, wrt = prepared.targets[parameters["target"]], prepared.targets[parameters["wrt"]]
    more: dict[str, Any] = {}
    stopwatch.lap("prepare")
    cotangent = np.ones((prepared.batch, 1, *target.shape), prepared.dtype)
    if target.selection.argmax:
        target, cotangent, indices = _largest(prepared, target)
        more["target_index"] = indices.tolist()
    if parameters["method"] == "integrated_gradients":
        tensors = _integrated(prepared, target, wrt, cotangent, parameters["baseline"], parameters["n_steps"])
    else:
        gradient = pulled(prepared, target, [wrt], cotangent)[0][:, 0]
        if parameters["method"] == "gradient_x_input":
            gradient = gradient * values(prepared, [wrt])[wrt.text]
        tensors = {"value": gradient}
    stopwatch.lap("run")
    axes = {"value": ("batch", *wrt.selection.axes), "completeness_gap": ("batch",)}
    more["method"] = parameters["method"]
    axes = {name: axes[name] for name in tensors}
    return answer(prepared, tensors, axes, stopwatch, route="reverse", about=wrt if wrt.times is not None else None, **more)


def _largest(prepared: Prepared, target: Target) -> tuple[Target, Array, Array]:
    """The whole point as target, the cotangents that pick each row's largest entry, and which entries those are."""
    (found,) = values_program(prepared.model, prepared.calls, [target.place], prepared.arrays())
    flat = found.reshape(prepared.batch, -1)
    indices = np.argmax(flat, axis=1)
    cotangent = np.zeros_like(flat, prepared.dtype)
    cotangent[np.arange(prepared.batch), indices] = 1
    selection = replace(target.selection, argmax=False, rest=(EVERYTHING,) * len(target.unit_shape))
    whole = replace(target, selection=selection)
    return whole, cotangent.reshape(prepared.batch, 1, *target.unit_shape), indices


def _integrated(
    prepared: Prepared, target: Target, wrt: Target, cotangent: Array, baseline: Any, n_steps: int
) -> dict[str, Array]:
    """The integral by Gauss-Legendre quadrature, its points a batch of their own; and how far the sum misses."""
    name = wrt.selection.info.follows or wrt.selection.name
    name = next(own for own in prepared.inputs if own in (name, wrt.selection.name.strip('"')))
    x = prepared.inputs[name]
    start = np.broadcast_to(np.asarray(baseline, x.dtype), x.shape)
    nodes, weights = np.polynomial.legendre.leggauss(n_steps)
    nodes, weights = (nodes + 1) / 2, weights / 2
    whole = replace(wrt, selection=replace(wrt.selection, time=None if wrt.times is None else EVERYTHING))
    total = np.zeros(x.shape, prepared.dtype)
    for chunk in _portions(n_steps, x.nbytes * 64):
        path = start[:, None] + nodes[None, chunk].reshape(1, -1, *[1] * (x.ndim - 1)) * (x - start)[:, None]
        total += np.einsum("k,bk...->b...", weights[chunk], _gradients(prepared, target, wrt, cotangent, name, path))
    attributions = (x - start) * total
    ends = _ends(prepared, target, cotangent, name, start)
    gap = attributions.reshape(prepared.batch, -1).sum(axis=1) - ends
    del whole
    return {
        "value": taken(wrt, attributions.astype(prepared.dtype)),
        "completeness_gap": gap.astype(prepared.dtype),
    }


def _gradients(prepared: Prepared, target: Target, wrt: Target, cotangent: Array, name: str, path: Array) -> Array:
    """The gradient at each point of each sample's path: (batch, points, *input)."""
    batch, points = path.shape[:2]
    flat = np.ascontiguousarray(path.reshape(batch * points, *path.shape[2:]), prepared.dtype)
    inputs = {own: np.repeat(array, points, axis=0) for own, array in prepared.inputs.items()} | {name: flat}
    entire = replace(wrt, selection=replace(wrt.selection, time=EVERYTHING if wrt.times is not None else None))
    entire = replace(entire, selection=replace(entire.selection, rest=(EVERYTHING,) * len(wrt.unit_shape)))
    times = target.times
    if times is not None and len(times) > 1:
        target = replace(target, times=np.repeat(times, points, axis=0))
    found = pulled(
        prepared, target, [entire], np.repeat(cotangent, points, axis=0), prepared.arrays(inputs, points)
    )[0]
    return found.reshape(path.shape)


def _ends(prepared: Prepared, target: Target, cotangent: Array, name: str, start: Array) -> Array:
    """The target at the input less the target at the baseline, a number a sample."""
    at = []
    for x in (prepared.inputs[name], np.ascontiguousarray(start)):
        arrays = prepared.arrays({**prepared.inputs, name: x})
        (found,) = values_program(prepared.model, prepared.calls, [target.place], arrays)
        at.append((taken(target, found).reshape(prepared.batch, -1) * cotangent.reshape(prepared.batch, -1)).sum(axis=1))
    difference: Array = at[0] - at[1]
    return difference


def _portions(count: int, bytes_each: int) -> list[slice]:
    step = max(1, CHUNK_BYTES // max(1, bytes_each))
    return [slice(start, min(count, start + step)) for start in range(0, count, step)]
