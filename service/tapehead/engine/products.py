"""Cotangent times Jacobian (`vjp`): what a sweep back gives for a stack of the caller's own cotangents."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tapehead.engine.answer import Stopwatch, answer, in_precision
from tapehead.engine.jacobian import stored_times
from tapehead.engine.model import Model
from tapehead.engine.prepared import Prepared, Target
from tapehead.engine.programs import Arrays, spike_program, wave_program
from tapehead.engine.states import taken
from tapehead.operations import Request, Result
from tapehead.operations.check import texts
from tapehead.operations.request import Array


def vjp(model: Model, request: Request) -> Result:
    """The cotangent of each of `of`, ones by default, times its Jacobian to each of `wrt`."""
    stopwatch = Stopwatch()
    ofs, wrts = texts(request.parameters["of"]), texts(request.parameters["wrt"])
    prepared = Prepared(in_precision(model, request), request, list(dict.fromkeys([*ofs, *wrts])))
    targets = [prepared.targets[text] for text in wrts]
    stopwatch.lap("prepare")
    tensors: dict[str, Array] = {}
    axes: dict[str, tuple[str, ...]] = {}
    for of in map(prepared.targets.__getitem__, ofs):
        given = (request.parameters["cotangent"] or {}).get(of.text)
        single = given is None or given.ndim == 1 + len(of.shape)
        stack = np.ones((1, prepared.batch, *of.shape), prepared.dtype) if given is None else given
        stack = stack[None] if given is not None and single else stack
        for wrt, found in zip(targets, pulled(prepared, of, targets, np.moveaxis(stack, 0, 1)), strict=True):
            name = "value" if len(ofs) * len(wrts) == 1 else f"{of.text} / {wrt.text}"
            tensors[name] = found[:, 0] if single else np.moveaxis(found, 1, 0)
            axes[name] = (*(() if single else ("cotangent",)), "batch", *wrt.selection.axes)
    stopwatch.lap("run")
    return answer(prepared, tensors, axes, stopwatch, route="reverse", about=prepared.targets[ofs[0]])


def pulled(
    prepared: Prepared, of: Target, wrts: Sequence[Target], stack: Array, arrays: Arrays | None = None
) -> list[Array]:
    """A stack of cotangents of `of`, (batch, m, *of), times its Jacobian to each of `wrts`: (batch, m, *wrt)."""
    arrays = arrays or prepared.arrays()
    batch, entries = stack.shape[:2]
    units, places = of.units, [wrt.place for wrt in wrts]
    count = 1 if of.times is None else of.times.shape[1]
    values = np.zeros((batch, entries, count, int(np.prod(of.unit_shape))), prepared.dtype)
    values[..., units] = stack.reshape(batch, entries, count, len(units))
    values = values.reshape(batch, entries, count, *of.unit_shape)
    if count == 1:
        times = np.zeros((1, entries), np.int64)
        if of.times is not None:
            times = np.repeat(stored_times(prepared, of.place, of.times), entries, axis=1)
        if len(times) not in (1, batch):
            times = np.repeat(times, batch // len(times), axis=0)
        found = spike_program(prepared.model, prepared.calls, of.place, places, arrays, values[:, :, 0], times)
    else:
        assert of.times is not None
        spread = np.zeros((batch, entries, prepared.timesteps(of.place), *of.unit_shape), prepared.dtype)
        times = np.broadcast_to(of.times, (batch, count))
        spread[np.arange(batch)[:, None], :, times] = np.moveaxis(values, 2, 1)
        found = wave_program(prepared.model, prepared.calls, of.place, places, arrays, spread)
    return [taken(wrt, part, lead=2) for wrt, part in zip(wrts, found, strict=True)]
