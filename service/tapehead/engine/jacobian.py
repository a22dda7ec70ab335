"""Jacobians: of any point with respect to any other, whole or at one lag, reduced as they are made.

Routes:
    reverse    one sweep back carries a one-hot cotangent for every entry of `of`, in chunks under a byte budget
    forward    one push forward carries a one-hot tangent for every entry of `wrt`, where those are far fewer
    window     `lag` within one recurrent layer: every timestep steps k back, all at once
    diagonal   `lag` across layers: the whole Jacobian a chunk of timesteps at a time, k-th entries kept
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tapehead.engine.answer import Stopwatch, answer, in_precision
from tapehead.engine.lag import lagged
from tapehead.engine.model import Model
from tapehead.engine.places import Gate, State, WeightAt
from tapehead.engine.prepared import Prepared, Target
from tapehead.engine.programs import jvp_program, spike_program, start_together
from tapehead.engine.reduction import reduced, side_of
from tapehead.engine.rules.cells import Keep
from tapehead.engine.seeds import PIECES, at_times, bytes_an_entry, chunks, one_hot, one_hot_tangents
from tapehead.engine.states import taken
from tapehead.operations import Request, Result, Sink
from tapehead.operations.cost import FORWARD_COST, full_route
from tapehead.operations.plans import pair_name, texts
from tapehead.operations.request import Array
from tapehead.operations.selection import EVERYTHING

# One-hot vectors of up to so many numbers are kept for the next time the same is asked.
_KEPT_ENTRIES = 1 << 18


def jacobian(model: Model, request: Request, sink: Sink | None = None) -> Result:
    """d `of` / d `wrt` for each sample; with `lag`, d of[t] / d wrt[t - lag] for every t.

    A single whole Jacobian by the route reverse is computed into `sink`, in the order in which it lies in memory.
    """
    stopwatch = Stopwatch()
    parameters = request.parameters
    ofs, wrts, lag, reduce = texts(parameters["of"]), texts(parameters["wrt"]), parameters["lag"], parameters["reduce"]
    prepared = Prepared(in_precision(model, request), request, list(dict.fromkeys([*ofs, *wrts])))
    targets = [prepared.targets[text] for text in wrts]
    stopwatch.lap("prepare")
    tensors: dict[str, Array] = {}
    axes: dict[str, tuple[str, ...]] = {}
    routes: set[str] = set()
    for of in map(prepared.targets.__getitem__, ofs):
        if sink is not None and _grows(request, of, targets):
            found, route = [_grown(prepared, of, targets[0], pair_name(parameters, of.text, wrts[0]), sink)], "reverse"
            routes.add(route)
        elif lag is None:
            found, route = full(prepared, of, targets, reduce)
            routes.add(route)
        else:
            pairs = [lagged(prepared, of, wrt, lag, reduce) for wrt in targets]
            found = [array for array, _ in pairs]
            routes.update(route for _, route in pairs)
        for wrt, array in zip(targets, found, strict=True):
            name = pair_name(request.parameters, of.text, wrt.text)
            tensors[name] = array
            axes[name] = pair_axes(of, wrt, reduce, lagged=lag is not None)
    stopwatch.lap("run")
    route = " and ".join(sorted(routes))
    return answer(prepared, tensors, axes, stopwatch, route=route, about=prepared.targets[ofs[0]])


def pair_axes(of: Target, wrt: Target, reduce: str, *, lagged: bool = False) -> tuple[str, ...]:
    """The names of a Jacobian's axes after its reduction."""
    lead = ("batch", "timestep") if lagged else ("batch",)
    of_axes = tuple(f"of.{axis}" for axis in of.selection.axes[lagged:])
    wrt_axes = tuple(f"wrt.{axis}" for axis in wrt.selection.axes[lagged:])
    times = tuple(axis for axis in (*of_axes, *wrt_axes) if axis.endswith(".timestep"))
    match reduce:
        case "none":
            return (*lead, *of_axes, *wrt_axes)
        case "sum":
            return (*lead, *(axis for axis in of_axes if axis.endswith(".timestep")), *wrt_axes)
        case "singular_values":
            return (*lead, *times, "singular_value")
        case _:
            return (*lead, *times)


def full(prepared: Prepared, of: Target, wrts: Sequence[Target], reduce: str = "none") -> tuple[list[Array], str]:
    """The whole Jacobian for each of `wrts`, (batch, *of, *wrt), reduced; and the route taken."""
    if _route(of, wrts) == "forward":
        found = [_forward(prepared, of, wrt) for wrt in wrts]
        return [_reduced(prepared, array, of, wrt, reduce) for array, wrt in zip(found, wrts, strict=True)], "forward"
    if reduce == "none" or of.selection.axes[:1] != ("timestep",):
        found = _reverse(prepared, of, wrts)
        return [_reduced(prepared, array, of, wrt, reduce) for array, wrt in zip(found, wrts, strict=True)], "reverse"
    assert of.times is not None
    if reduce == "norm" and all(map(_norms_as_made, wrts)):
        return _norm_maps(prepared, of, wrts), "reverse"
    bytes_a_step = math.prod(of.shape[1:]) * bytes_an_entry(prepared, of, wrts)
    steps = []
    for chunk in chunks(of.times.shape[1], bytes_a_step):
        part = at_times(of, chunk)
        found = _reverse(prepared, part, wrts)
        steps.append([_reduced(prepared, array, part, wrt, reduce) for array, wrt in zip(found, wrts, strict=True)])
    return [np.concatenate(arrays, axis=1) for arrays in zip(*steps, strict=True)], "reverse"


def _norms_as_made(wrt: Target) -> bool:
    """Whether the sweep itself can take the norms: of all units of a state or gate."""
    every = all(entry == EVERYTHING for entry in wrt.selection.rest)
    return isinstance(wrt.place, State | Gate) and every


def _norm_maps(prepared: Prepared, of: Target, wrts: Sequence[Target]) -> list[Array]:
    """The norm of each pair of timesteps' matrix, (batch, times, timesteps): no matrix outlives its timestep."""
    assert of.times is not None
    units, places = len(of.units), [wrt.place for wrt in wrts]
    width = sum(math.prod(target.unit_shape) for target in (of, *wrts))
    found = []
    # A sweep holds a few arrays of the stack's size; 64 is a generous guess, and leaves room for what compiling takes.
    for chunk in chunks(of.times.shape[1], 64 * prepared.batch * units * width * prepared.dtype.itemsize):
        values, times = one_hot(prepared, at_times(of, chunk), slice(None))
        arrays = prepared.arrays()
        part = spike_program(prepared.model, prepared.calls, of.place, places, arrays, values, times, norms=units)
        found.append(part)
    maps = [np.concatenate(parts, axis=1) for parts in zip(*found, strict=True)]
    return [_at_timesteps(prepared, array, wrt) for array, wrt in zip(maps, wrts, strict=True)]


def _at_timesteps(prepared: Prepared, array: Array, wrt: Target) -> Array:
    """The timesteps that `wrt` takes of (batch, times, timesteps)."""
    assert wrt.times is not None
    times = np.broadcast_to(wrt.times[:, None], (prepared.batch, array.shape[1], wrt.times.shape[1]))
    found: Array = np.take_along_axis(array, times, axis=2)
    return found if isinstance(wrt.selection.time, slice) else found[..., 0]


def _route(of: Target, wrts: Sequence[Target]) -> str:
    weights = any(isinstance(wrt.place, WeightAt) for wrt in wrts)
    return full_route(math.prod(of.shape), [math.prod(wrt.shape) for wrt in wrts], weights=weights)


def _reverse(prepared: Prepared, of: Target, wrts: Sequence[Target]) -> list[Array]:
    """(batch, entries of `of`, *wrt) for each of `wrts`."""
    entries = math.prod(of.shape)
    parts = list(chunks(entries, bytes_an_entry(prepared, of, wrts)))
    if len(parts) == 1:
        return _sweep(prepared, of, wrts, parts[0])
    answers = [np.empty((prepared.batch, entries, *wrt.shape), prepared.dtype) for wrt in wrts]
    for chunk in parts:
        for whole, part in zip(answers, _sweep(prepared, of, wrts, chunk), strict=True):
            whole[:, chunk] = part
    return answers


def _sweep(prepared: Prepared, of: Target, wrts: Sequence[Target], chunk: slice) -> list[Array]:
    """The entries `chunk` of `of` with respect to each of `wrts`: (batch, entries, *wrt)."""
    values, times, once = _started(prepared, of, chunk)
    model, places = prepared.model, [wrt.place for wrt in wrts]
    arrays, keep = prepared.arrays(), Keep(rows=True)
    found = spike_program(model, prepared.calls, of.place, places, arrays, values, times, keep, once=once)
    return [taken(wrt, part, lead=2) for wrt, part in zip(wrts, found, strict=True)]


def _started(prepared: Prepared, of: Target, chunk: slice) -> tuple[Any, Any, bool]:
    """One-hot cotangents, the times that they start at, and whether those are one; tensors that are kept where they are
    small."""

    def make() -> tuple[Any, Any, bool]:
        values, times = one_hot(prepared, of, chunk)
        return tf.constant(values), tf.constant(times, tf.int32), start_together(times)

    small = math.prod(of.shape) * math.prod(of.unit_shape) <= _KEPT_ENTRIES
    if not small or of is not prepared.targets.get(of.text):
        return make()
    found: tuple[Any, Any, bool] = prepared.kept((of.text, chunk.start, chunk.stop), make)
    return found


def _grows(request: Request, of: Target, wrts: Sequence[Target]) -> bool:
    """Whether the answer is one array that can be filled from its start."""
    parameters = request.parameters
    single = len(wrts) == len(texts(parameters["of"])) == 1
    return single and parameters["lag"] is None and parameters["reduce"] == "none" and _route(of, wrts) == "reverse"


def _grown(prepared: Prepared, of: Target, wrt: Target, name: str, sink: Sink) -> Array:
    """(batch, *of, *wrt), filled in pieces: a few rows with all of their entries, or some entries of one row."""
    array = sink.open(name, (prepared.batch, *of.shape, *wrt.shape), prepared.dtype)
    whole = array.reshape(prepared.batch, math.prod(of.shape), *wrt.shape)
    row, entry = whole[0].nbytes, whole[0, 0].nbytes
    for rows in chunks(prepared.batch, row * PIECES):
        part = prepared.rows(rows)
        targets = part.targets[of.text], [part.targets[wrt.text]]
        for chunk in chunks(whole.shape[1], max(bytes_an_entry(part, of, [wrt]), entry * PIECES)):
            (whole[rows, chunk],) = _sweep(part, *targets, chunk)
            if part.batch == 1:
                sink.fill(rows.start * row + chunk.stop * entry)
        sink.fill(rows.stop * row)
    return array


def _forward(prepared: Prepared, of: Target, wrt: Target) -> Array:
    """(batch, *of, entries of `wrt`)."""
    entries = math.prod(wrt.shape)
    answer = np.empty((prepared.batch, entries, *of.shape), prepared.dtype)
    for chunk in chunks(entries, FORWARD_COST * bytes_an_entry(prepared, of, [wrt])):
        tangents = one_hot_tangents(prepared, wrt, chunk)
        (found,) = jvp_program(prepared.model, prepared.calls, [of.place], wrt.place, prepared.arrays(), tangents)
        answer[:, chunk] = taken(of, found, lead=2)
    return np.moveaxis(answer, 1, -1)


def _reduced(prepared: Prepared, array: Array, of: Target, wrt: Target, reduce: str) -> Array:
    return reduced(array, (prepared.batch,), side_of(of), side_of(wrt), reduce)
