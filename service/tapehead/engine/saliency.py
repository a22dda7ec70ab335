"""Attributions of one number a sample to the entries of an input, or of any point.

gradient               d target / d wrt                                  (Simonyan et al. 2014)
gradient_x_input       wrt * d target / d wrt                            (Shrikumar et al. 2016)
integrated_gradients   (x - x') * mean over a in [0, 1] of d target / d x at x' + a (x - x')
                                                                         (Sundararajan et al. 2017)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from tapehead.engine.answer import Stopwatch, answer, in_precision
from tapehead.engine.compiled import Arrays
from tapehead.engine.model import Model
from tapehead.engine.places import TensorAt
from tapehead.engine.prepared import Prepared, Target
from tapehead.engine.products import pulled
from tapehead.engine.programs import values_program
from tapehead.engine.seeds import chunks
from tapehead.engine.states import taken, values
from tapehead.operations import Request, Result
from tapehead.operations.request import Array
from tapehead.operations.selection import EVERYTHING


@dataclass(frozen=True)
class _Question:
    """One number a sample: `cotangent` (batch, 1, *target) picks it out of what `target` takes."""

    prepared: Prepared
    target: Target
    cotangent: Array
    wrt: Target


def saliency(model: Model, request: Request) -> Result:
    """Attributions in the shape of `wrt`, and `completeness_gap` (batch,) for integrated gradients.

    The gap is the sum of a sample's attributions less the target's change from the baseline to the input: 0 for the
    exact integral.
    """
    stopwatch = Stopwatch()
    parameters = request.parameters
    texts = list(dict.fromkeys([parameters["target"], parameters["wrt"]]))
    prepared = Prepared(in_precision(model, request), request, texts, argmax=True)
    target, wrt = prepared.targets[parameters["target"]], prepared.targets[parameters["wrt"]]
    more: dict[str, Any] = {"method": parameters["method"]}
    stopwatch.lap("prepare")
    question = _Question(prepared, target, np.ones((prepared.batch, 1, *target.shape), prepared.dtype), wrt)
    if target.selection.argmax:
        question, more["target_index"] = _largest(question)
    if parameters["method"] == "integrated_gradients":
        tensors = _integrated(question, parameters["baseline"], parameters["n_steps"])
    else:
        tensors = {"value": pulled(prepared, question.target, [wrt], question.cotangent)[0][:, 0]}
        if parameters["method"] == "gradient_x_input":
            tensors["value"] = tensors["value"] * values(prepared, [wrt])[wrt.text]
    stopwatch.lap("run")
    axes = {"value": ("batch", *wrt.selection.axes), "completeness_gap": ("batch",)}
    about = wrt if wrt.times is not None else None
    return answer(
        prepared, tensors, {name: axes[name] for name in tensors}, stopwatch, route="reverse", about=about, **more
    )


def _largest(question: _Question) -> tuple[_Question, list[int]]:
    """The question of each sample's largest entry, the first where several are; and which entries those are."""
    prepared, target = question.prepared, question.target
    (found,) = values_program(prepared.model, prepared.calls, [target.place], prepared.arrays())
    flat = found.reshape(prepared.batch, -1)
    indices = np.argmax(flat, axis=1)
    cotangent = np.zeros_like(flat)
    cotangent[np.arange(prepared.batch), indices] = 1
    whole = replace(target, selection=replace(target.selection, argmax=False))
    return replace(
        question, target=whole, cotangent=cotangent.reshape(prepared.batch, 1, *target.unit_shape)
    ), indices.tolist()


def _integrated(question: _Question, baseline: Any, n_steps: int) -> dict[str, Array]:
    """The integral by Gauss-Legendre quadrature, the points of the path beside each other as one batch."""
    prepared, wrt = question.prepared, question.wrt
    name = _input_name(prepared, wrt)
    x = prepared.inputs[name]
    start = np.broadcast_to(np.asarray(baseline, x.dtype), x.shape)
    nodes, weights = _quadrature(n_steps)
    mean = np.zeros(x.shape, np.float64)
    # A sweep holds a few arrays the size of the states for every point; 64 inputs' worth is a generous guess at that.
    for chunk in chunks(n_steps, 64 * x.nbytes):
        steps = nodes[chunk].reshape(1, -1, *[1] * (x.ndim - 1))
        path = start[:, None] + steps * (x - start)[:, None]
        gradients = _gradients(question, name, path).reshape(*path.shape[:2], -1)
        mean += np.matmul(weights[chunk].astype(x.dtype), gradients).reshape(x.shape)
    attributions = (x - start) * mean
    at_input, at_baseline = np.split(_target(question, name, np.stack([x, start], axis=1)), 2, axis=1)
    change = (at_input - at_baseline)[:, 0]
    gap = attributions.reshape(prepared.batch, -1).sum(axis=1) - change
    value = taken(wrt, attributions.astype(prepared.dtype))
    return {"value": value, "completeness_gap": gap.astype(prepared.dtype)}


@lru_cache(maxsize=64)
def _quadrature(n_steps: int) -> tuple[Array, Array]:
    """Gauss and Legendre's nodes and weights on [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(n_steps)
    return (nodes + 1) / 2, weights / 2


def _gradients(question: _Question, name: str, path: Array) -> Array:
    """The gradient at each point of each sample's path: (batch, points, *input)."""
    arrays, target, cotangent = _along(question, name, path)
    whole = replace(question.wrt, selection=_whole(question.wrt))
    (found,) = pulled(question.prepared, target, [whole], cotangent, arrays)
    return found.reshape(path.shape)


def _along(question: _Question, name: str, path: Array) -> tuple[Arrays, Target, Array]:
    """What a program starts from for every point of each sample's path, (batch, points, *input), beside each other; and
    the target and the cotangent for them."""
    prepared, target, points = question.prepared, question.target, path.shape[1]
    if target.times is not None and len(target.times) > 1:
        target = replace(target, times=np.repeat(target.times, points, axis=0))
    arrays = _with_input(prepared, name, path.reshape(-1, *path.shape[2:]), points)
    return arrays, target, np.repeat(question.cotangent, points, axis=0)


def _whole(wrt: Target) -> Any:
    time = None if wrt.times is None else EVERYTHING
    return replace(wrt.selection, time=time, rest=(EVERYTHING,) * len(wrt.unit_shape))


def _with_input(prepared: Prepared, name: str, array: Array, repeats: int = 1) -> Arrays:
    """What a program starts from with one input replaced, everything else repeated to its batch."""
    inputs = {own: np.repeat(given, repeats, axis=0) for own, given in prepared.inputs.items()}
    return prepared.arrays({**inputs, name: np.ascontiguousarray(array, prepared.dtype)}, repeats)


def _target(question: _Question, name: str, path: Array) -> Array:
    """The number that is asked about at each point of each sample's path: (batch, points)."""
    prepared = question.prepared
    arrays, target, cotangent = _along(question, name, path)
    (found,) = values_program(prepared.model, prepared.calls, [target.place], arrays)
    picked: Array = (taken(target, found) * cotangent[:, 0]).reshape(*path.shape[:2], -1).sum(axis=2)
    return picked


def _input_name(prepared: Prepared, wrt: Target) -> str:
    """The name of the input that `wrt` is."""
    assert isinstance(wrt.place, TensorAt)
    return next(name for name, tensor in prepared.model.graph.inputs.items() if tensor == wrt.place.tensor)
