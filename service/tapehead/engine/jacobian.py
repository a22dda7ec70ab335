"""Jacobians: of any point with respect to any other, whole or at one lag.

Routes:
    reverse    one sweep back carries a one-hot cotangent for every entry of `of`, in chunks under a byte budget
    window     `lag` within one recurrent layer: every timestep steps k back, all at once
    diagonal   `lag` across layers: the whole Jacobian a chunk of timesteps at a time, k-th entries kept
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from tapehead.engine.answer import Stopwatch, answer, in_precision
from tapehead.engine.model import Model
from tapehead.engine.places import Gate, Initial, Inner, Place, State
from tapehead.engine.prepared import Prepared, Target
from tapehead.engine.programs import lag_program, spike_program
from tapehead.engine.states import taken
from tapehead.operations import Request, Result
from tapehead.operations.check import texts
from tapehead.operations.request import Array

# What one sweep may hold besides its inputs; a Jacobian needs it for every stack entry, so larger ones go in chunks.
CHUNK_BYTES = 512 << 20

Ints = npt.NDArray[np.int64]


def jacobian(model: Model, request: Request) -> Result:
    """d `of` / d `wrt` for each sample; with `lag`, d of[t] / d wrt[t - lag] for every t."""
    stopwatch = Stopwatch()
    ofs, wrts, lag = texts(request.parameters["of"]), texts(request.parameters["wrt"]), request.parameters["lag"]
    prepared = Prepared(in_precision(model, request), request, list(dict.fromkeys([*ofs, *wrts])))
    targets = [prepared.targets[text] for text in wrts]
    stopwatch.lap("prepare")
    tensors: dict[str, Array] = {}
    axes: dict[str, tuple[str, ...]] = {}
    route = "reverse"
    for of in map(prepared.targets.__getitem__, ofs):
        if lag is None:
            found = full(prepared, of, targets)
        else:
            pairs = [lagged(prepared, of, wrt, lag) for wrt in targets]
            found, route = [array for array, _ in pairs], pairs[-1][1]
        for wrt, array in zip(targets, found, strict=True):
            name = "value" if len(ofs) * len(wrts) == 1 else f"{of.text} / {wrt.text}"
            tensors[name] = array
            axes[name] = _axes(of, wrt, lagged=lag is not None)
    stopwatch.lap("run")
    return answer(prepared, tensors, axes, stopwatch, route=route, about=prepared.targets[ofs[0]])


def full(prepared: Prepared, of: Target, wrts: Sequence[Target]) -> list[Array]:
    """The whole Jacobian for each of `wrts`, (batch, *of, *wrt)."""
    entries = int(np.prod(of.shape))
    answers = [np.empty((prepared.batch, entries, *wrt.shape), prepared.dtype) for wrt in wrts]
    for chunk in chunks(entries, _bytes_an_entry(prepared, of, wrts), CHUNK_BYTES):
        values, times = one_hot(prepared, of, chunk)
        places = [wrt.place for wrt in wrts]
        found = spike_program(prepared.model, prepared.calls, of.place, places, prepared.arrays(), values, times)
        for whole, wrt, part in zip(answers, wrts, found, strict=True):
            whole[:, chunk] = taken(wrt, part, lead=2)
    return [whole.reshape(prepared.batch, *of.shape, *wrt.shape) for whole, wrt in zip(answers, wrts, strict=True)]


def one_hot(prepared: Prepared, of: Target, chunk: slice) -> tuple[Array, Ints]:
    """Stack entries `chunk` of an identity over what `of` takes: (1, m, *units), and each one's timestep (rows, m)."""
    entries = np.arange(int(np.prod(of.shape)))[chunk]
    values = unit_rows(prepared, of)[:, entries % len(of.units)]
    if of.times is None:
        return values, np.zeros((1, len(entries)), np.int64)
    return values, stored_times(prepared, of.place, of.times)[:, entries // len(of.units)]


def unit_rows(prepared: Prepared, of: Target) -> Array:
    """A one-hot cotangent for each unit that `of` takes at one timestep: (1, units taken, *units)."""
    size = int(np.prod(of.unit_shape))
    return np.eye(size, dtype=prepared.dtype)[of.units].reshape(1, -1, *of.unit_shape)


def stored_times(prepared: Prepared, place: Place, times: Ints) -> Ints:
    """Timesteps of the input's own time as a sweep stores them: in run order within a recurrent layer."""
    return prepared.run_times(place.call, times) if isinstance(place, Inner) else times


def lagged(prepared: Prepared, of: Target, wrt: Target, lag: int) -> tuple[Array, str]:
    """d of[t] / d wrt[p], p the lag-th valid timestep before t in the order that wrt's layer runs; and the route."""
    assert of.times is not None
    times = np.broadcast_to(of.times, (prepared.batch, of.times.shape[1]))
    before = _before(prepared, wrt.place, times, lag)
    if _within_one_layer(prepared, of.place, wrt.place, lag):
        return _window(prepared, of, wrt, times, lag), "window"
    return _diagonal(prepared, of, wrt, times, before), "diagonal"


def _within_one_layer(prepared: Prepared, of: Place, wrt: Place, lag: int) -> bool:
    if not isinstance(of, State | Gate):
        return False
    if isinstance(wrt, Inner):
        return wrt.call is of.call
    own = wrt.tensor == of.call.sequence and (lag == 0 or not of.call.backwards)
    given = [f"{of.call.name}.{state}.initial" for state in of.call.rule.states]
    return own and (of.call.initial is None or all(name in prepared.request.initial_states for name in given))


def _window(prepared: Prepared, of: Target, wrt: Target, times: Ints, lag: int) -> Array:
    assert isinstance(of.place, State | Gate)
    path = _paths(prepared, of.place, times, lag)
    samples = np.repeat(np.arange(prepared.batch), times.shape[1])
    values = unit_rows(prepared, of)
    rows, entries = len(samples), values.shape[1]
    answer = np.empty((rows, entries, *wrt.shape[1:]), prepared.dtype)
    width = sum(int(np.prod(shape)) for shape in (*of.place.call.rule.state_shapes, *of.place.call.rule.gate_shapes))
    for chunk in chunks(rows, 4 * entries * width * prepared.dtype.itemsize, CHUNK_BYTES):
        found = lag_program(
            prepared.model,
            prepared.calls,
            of.place,
            wrt.place,
            prepared.arrays(),
            values,
            path[:, chunk],
            samples[chunk],
        )
        answer[chunk] = found[(slice(None), slice(None), *wrt.selection.rest)].reshape(answer[chunk].shape)
    valid = prepared.valid(of.place)
    answer = answer.reshape(prepared.batch, times.shape[1], entries, *wrt.shape[1:])
    if valid is not None:
        answer[~np.take_along_axis(valid, times, axis=1)] = 0
    return answer.reshape(prepared.batch, times.shape[1], *of.shape[1:], *wrt.shape[1:])


def _paths(prepared: Prepared, place: State | Gate, times: Ints, lag: int) -> Ints:
    """The run times of each (sample, timestep)'s valid timesteps, itself first: (lag + 1, batch * times); -1: none."""
    valid = prepared.valid(place)
    runs = prepared.run_times(place.call, times)
    steps = np.arange(lag + 1)[:, None, None]
    if valid is None:
        unmasked: Ints = np.maximum(runs[None] - steps, -1).reshape(lag + 1, -1)
        return unmasked
    every = np.broadcast_to(np.arange(valid.shape[1]), valid.shape)
    ordered = np.take_along_axis(valid, prepared.run_times(place.call, every), axis=1)
    ranks = np.cumsum(ordered, axis=1) - 1
    rank = np.take_along_axis(ranks, runs, axis=1)[None] - steps
    # The run time of each rank: valid timesteps sort to the front, in order.
    sorted_times = np.argsort(~ordered, axis=1, kind="stable")
    found = np.take_along_axis(sorted_times[None], np.maximum(rank, 0), axis=2)
    paths: Ints = np.where(rank >= 0, found, -1).reshape(lag + 1, -1)
    return paths


def _before(prepared: Prepared, place: Place, times: Ints, lag: int) -> Ints:
    """The lag-th valid timestep before each of `times` in the order that the place's layer runs, -1 where none is."""
    if isinstance(place, State | Gate):
        path = _paths(prepared, place, times, lag)[-1].reshape(times.shape)
        return np.where(path >= 0, prepared.run_times(place.call, np.maximum(path, 0)), -1)
    valid = prepared.valid(place)
    if valid is None:
        return np.maximum(times - lag, -1)
    rank = np.take_along_axis(np.cumsum(valid, axis=1) - 1, times, axis=1) - lag
    found = np.take_along_axis(np.argsort(~valid, axis=1, kind="stable"), np.maximum(rank, 0), axis=1)
    return np.where(rank >= 0, found, -1)


def _diagonal(prepared: Prepared, of: Target, wrt: Target, times: Ints, before: Ints) -> Array:
    batch, count = times.shape
    answer = np.zeros((batch, count, *of.shape[1:], *wrt.shape[1:]), prepared.dtype)
    initial = replace(wrt, place=Initial(wrt.place.call, wrt.place.name)) if isinstance(wrt.place, State) else None
    rows = np.arange(batch)[:, None]
    entries = int(np.prod(of.shape[1:]))
    for chunk in chunks(count, entries * _bytes_an_entry(prepared, of, [wrt]), CHUNK_BYTES):
        part = replace(of, times=times[:, chunk])
        values, stored = one_hot(prepared, part, slice(None))
        places = [wrt.place] + ([initial.place] if initial else [])
        found = spike_program(prepared.model, prepared.calls, of.place, places, prepared.arrays(), values, stored)
        at = before[:, chunk]
        swept = found[0].reshape(batch, at.shape[1], entries, *found[0].shape[2:])
        kept = swept[rows, np.arange(at.shape[1])[None, :], :, np.maximum(at, 0)]
        missing = np.broadcast_to(found[1].reshape(kept.shape), kept.shape) if initial else np.zeros_like(kept)
        kept = np.where((at >= 0).reshape(*at.shape, *[1] * (kept.ndim - 2)), kept, missing)
        answer[:, chunk] = kept[(..., *wrt.selection.rest)].reshape(answer[:, chunk].shape)
    for place in (of.place, wrt.place):
        valid = prepared.valid(place)
        if valid is not None:
            answer[~np.take_along_axis(valid, times, axis=1)] = 0
    return answer


def chunks(count: int, bytes_each: int, budget: int) -> Iterator[slice]:
    """Slices that together take `count` entries, each under `budget` bytes where one entry is."""
    step = max(1, budget // max(1, bytes_each))
    for start in range(0, count, step):
        yield slice(start, min(count, start + step))


def _bytes_an_entry(prepared: Prepared, of: Target, wrts: Sequence[Target]) -> int:
    """About what one stack entry takes in a sweep: the arrays it writes at every timestep, and their transposes."""
    steps = max([1, *(prepared.timesteps(target.place) for target in (of, *wrts) if target.times is not None)])
    calls = [call for call in prepared.model.graph.recurrences if call in prepared.calls]
    units = sum(prepared.model.seen.shapes[call.sequence][-1] or 1 for call in calls)
    widths = sum(int(np.prod(wrt.unit_shape)) for wrt in wrts)
    return prepared.batch * steps * 2 * (units + widths) * prepared.dtype.itemsize


def _axes(of: Target, wrt: Target, *, lagged: bool) -> tuple[str, ...]:
    of_axes, wrt_axes = of.selection.axes, wrt.selection.axes
    if lagged:
        return ("batch", "timestep", *(f"of.{axis}" for axis in of_axes[1:]), *(f"wrt.{axis}" for axis in wrt_axes[1:]))
    return ("batch", *(f"of.{axis}" for axis in of_axes), *(f"wrt.{axis}" for axis in wrt_axes))
