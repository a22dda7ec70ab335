"""Products with derivatives: cotangent times Jacobian, Jacobian times tangent, Hessian times tangent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from tapehead.engine.answer import Stopwatch, answer, in_precision
from tapehead.engine.compiled import Arrays
from tapehead.engine.model import Model
from tapehead.engine.places import WeightAt
from tapehead.engine.prepared import Prepared, Target
from tapehead.engine.programs import hvp_program, jvp_program, spike_program, wave_program
from tapehead.engine.seeds import filled, stored_times
from tapehead.engine.states import taken
from tapehead.engine.sweep import reached_from
from tapehead.errors import NotDifferentiable
from tapehead.operations import Request, Result
from tapehead.operations.plans import pair_name, texts
from tapehead.operations.request import Array


def vjp(model: Model, request: Request) -> Result:
    """The cotangent of each of `of`, ones by default, times its Jacobian to each of `wrt`; for a weight, summed over
    the batch."""
    cotangents = request.parameters["cotangent"] or {}

    def products(prepared: Prepared, of: Target, wrts: Sequence[Target]) -> list[tuple[Array, bool]]:
        given = cotangents.get(of.text)
        stacked = given is not None and given.ndim > 1 + len(of.shape)
        stack = np.ones((prepared.batch, *of.shape), prepared.dtype) if given is None else given
        found = pulled(prepared, of, wrts, np.moveaxis(stack, 0, 1) if stacked else stack[:, None])
        return [(_unstacked(array, wrt, stacked=stacked), stacked) for array, wrt in zip(found, wrts, strict=True)]

    return _every_pair(model, request, products, "cotangent", side="wrt", route="reverse")


def jvp(model: Model, request: Request) -> Result:
    """The Jacobian of each of `of` to each of `wrt`, times the tangent of `wrt`."""
    tangents = request.parameters["tangent"]

    def products(prepared: Prepared, of: Target, wrts: Sequence[Target]) -> list[tuple[Array, bool]]:
        return [_pushed(prepared, of, wrt, tangents[wrt.text]) for wrt in wrts]

    return _every_pair(model, request, products, "tangent", side="of", route="forward")


def hvp(model: Model, request: Request) -> Result:
    """The Hessian of one number a sample, times the tangent of `wrt`; for a weight, of the sum over the batch."""
    tangents = request.parameters["tangent"]

    def products(prepared: Prepared, of: Target, wrts: Sequence[Target]) -> list[tuple[Array, bool]]:
        _twice_differentiable(prepared, wrts)
        return [_second(prepared, of, wrt, tangents[wrt.text]) for wrt in wrts]

    return _every_pair(model, request, products, "tangent", side="wrt", route="reverse over reverse")


def _twice_differentiable(prepared: Prepared, wrts: Sequence[Target]) -> None:
    """Refuses layers whose second derivative TensorFlow gets wrong: `tf.nn.moments` stops a gradient within them."""
    for call in reached_from(prepared.calls, [wrt.place for wrt in wrts]):
        if wrong := _wrong_twice(call.layer):
            raise NotDifferentiable(
                f"layer {call.name!r} ({wrong}) has no right second derivative in TensorFlow; "
                f"ask for hvp of or with respect to points that do not lie across it"
            )


def _wrong_twice(layer: Any) -> str | None:
    """The class of the layer itself, or of one that it calls, whose second derivative is wrong.

    LayerNormalization has a rule of its own, which does not reach into cells and layers that are called as a whole.
    """
    if isinstance(layer, keras.layers.TimeDistributed):
        layer = layer.layer
    inner = layer._flatten_layers(include_self=False) if isinstance(layer, keras.layers.Layer) else []
    within = [type(one).__name__ for one in inner]
    return next(
        (name for name in (type(layer).__name__, *within) if name in _STOPPED or (name in within and name in _OWN)),
        None,
    )


_STOPPED = ("GroupNormalization", "Moments", "SpectralNormalization")
_OWN = ("LayerNormalization",)


def pulled(
    prepared: Prepared, of: Target, wrts: Sequence[Target], stack: Array, arrays: Arrays | None = None
) -> list[Array]:
    """A stack of cotangents of `of`, (batch, m, *of), times its Jacobian to each of `wrts`: (batch, m, *wrt), or
    (m, *wrt) for a weight."""
    arrays = arrays or prepared.arrays()
    model, calls, places = prepared.model, prepared.calls, [wrt.place for wrt in wrts]
    if of.times is not None and of.times.shape[1] > 1:
        found = wave_program(model, calls, of.place, places, arrays, filled(prepared, of, stack))
    else:
        values, times = spike(prepared, of, stack)
        found = spike_program(model, calls, of.place, places, arrays, values, times)
    return [taken(wrt, part, lead=_lead(wrt)) for wrt, part in zip(wrts, found, strict=True)]


def spike(prepared: Prepared, of: Target, stack: Array) -> tuple[Array, Array]:
    """Cotangents of one timestep, or of a point without any: (batch, m, *units), and when they start (rows, m)."""
    entries = stack.shape[1]
    if of.times is None:
        return filled(prepared, of, stack), np.zeros((1, entries), np.int64)
    times = np.repeat(stored_times(prepared, of.place, of.times), entries, axis=1)
    values = np.zeros((*stack.shape[:2], int(np.prod(of.unit_shape))), prepared.dtype)
    values[..., of.units] = stack.reshape(*stack.shape[:2], len(of.units))
    return values.reshape(*stack.shape[:2], *of.unit_shape), times


def _pushed(prepared: Prepared, of: Target, wrt: Target, tangent: Array) -> tuple[Array, bool]:
    stacked = tangent.ndim > len(wrt.shape) + (not isinstance(wrt.place, WeightAt))
    tangents = _entire(prepared, wrt, tangent, stacked=stacked)
    (found,) = jvp_program(prepared.model, prepared.calls, [of.place], wrt.place, prepared.arrays(), tangents)
    array = taken(of, found, lead=2)
    return (np.moveaxis(array, 1, 0) if stacked else array[:, 0]), stacked


def _second(prepared: Prepared, of: Target, wrt: Target, tangent: Array) -> tuple[Array, bool]:
    stacked = tangent.ndim > len(wrt.shape) + (not isinstance(wrt.place, WeightAt))
    tangents = _entire(prepared, wrt, tangent, stacked=stacked)
    weight = isinstance(wrt.place, WeightAt)
    values, times = spike(prepared, of, np.ones((prepared.batch, 1, *of.shape), prepared.dtype))
    arrays = prepared.arrays()
    found = [
        hvp_program(prepared.model, prepared.calls, of.place, wrt.place, arrays, values, times, one)
        for one in (tangents if weight else np.moveaxis(tangents, 1, 0))
    ]
    array = np.stack([taken(wrt, one, lead=0 if weight else 1) for one in found])
    return (array if stacked else array[0]), stacked


def _entire(prepared: Prepared, wrt: Target, tangent: Array, *, stacked: bool) -> Array:
    """Tangents of a target's whole point, 0 where its index takes nothing: (batch, m, …), or (m, …) for a weight."""
    if not isinstance(wrt.place, WeightAt):
        return filled(prepared, wrt, np.moveaxis(tangent, 0, 1) if stacked else tangent[:, None])
    stack = tangent if stacked else tangent[None]
    whole = np.zeros((len(stack), *wrt.place.variable.shape), prepared.dtype)
    columns = whole if wrt.selection.columns is None else whole[..., slice(*wrt.selection.columns)]
    index = (slice(None), *wrt.selection.rest)
    columns[index] = stack.reshape(columns[index].shape)
    return whole


def _lead(wrt: Target) -> int:
    return 1 if isinstance(wrt.place, WeightAt) else 2


def _unstacked(array: Array, wrt: Target, *, stacked: bool) -> Array:
    """The stack in front, or gone where there was a single vector."""
    if isinstance(wrt.place, WeightAt):
        return array if stacked else array[0]
    return np.moveaxis(array, 1, 0) if stacked else array[:, 0]


Products = Callable[[Prepared, Target, Sequence[Target]], list[tuple[Array, bool]]]


def _every_pair(model: Model, request: Request, products: Products, stack: str, *, side: str, route: str) -> Result:
    """The products of every `of` with every `wrt`; `side` is the one whose axes an answer has."""
    stopwatch = Stopwatch()
    ofs, wrts = texts(request.parameters["of"]), texts(request.parameters["wrt"])
    prepared = Prepared(in_precision(model, request), request, list(dict.fromkeys([*ofs, *wrts])))
    targets = [prepared.targets[text] for text in wrts]
    stopwatch.lap("prepare")
    tensors: dict[str, Array] = {}
    axes: dict[str, tuple[str, ...]] = {}
    for of in map(prepared.targets.__getitem__, ofs):
        for wrt, (array, stacked) in zip(targets, products(prepared, of, targets), strict=True):
            name = pair_name(request.parameters, of.text, wrt.text)
            shown = of if side == "of" else wrt
            batch = () if isinstance(shown.place, WeightAt) else ("batch",)
            tensors[name] = array
            axes[name] = (*((stack,) if stacked else ()), *batch, *shown.selection.axes)
    stopwatch.lap("run")
    return answer(prepared, tensors, axes, stopwatch, route=route, about=prepared.targets[ofs[0]])
