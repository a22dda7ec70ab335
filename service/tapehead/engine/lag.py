"""Jacobians at one lag: entry t is d of[t] / d wrt[p], p the lag-th valid timestep before t as wrt's layer runs."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from tapehead.engine.places import Gate, Initial, State
from tapehead.engine.prepared import Prepared, Target
from tapehead.engine.programs import lag_program, spike_program
from tapehead.engine.reduction import Side, reduced
from tapehead.engine.seeds import Ints, at_times, bytes_an_entry, chunks, one_hot, unit_rows
from tapehead.operations.cost import lag_route
from tapehead.operations.request import Array


class Before(NamedTuple):
    """The timesteps asked about, (batch, times), and the lag-th valid one before each: -1 where there is none."""

    times: Ints
    before: Ints


def lagged(prepared: Prepared, of: Target, wrt: Target, lag: int, reduce: str) -> tuple[Array, str]:
    """(batch, times, *of units, *wrt units), reduced; and the route taken."""
    names, given = (of.selection.name, wrt.selection.name), prepared.request.initial_states
    route = lag_route(prepared.model.card, *names, lag, given)
    found = (_window if route == "window" else _diagonal)(prepared, of, wrt, lag, reduce)
    return zeroed(prepared, of, wrt, found), route


def timesteps_before(prepared: Prepared, of: Target, wrt: Target, lag: int) -> Before:
    """Which timestep of `wrt` goes with each timestep of `of`."""
    assert of.times is not None
    times = np.ascontiguousarray(np.broadcast_to(of.times, (prepared.batch, of.times.shape[1])))
    if isinstance(wrt.place, State | Gate):
        path = _paths(prepared, wrt.place, times, lag)[-1].reshape(times.shape)
        return Before(times, np.where(path >= 0, prepared.run_times(wrt.place.call, np.maximum(path, 0)), -1))
    valid = prepared.valid(wrt.place)
    if valid is None:
        return Before(times, np.maximum(times - lag, -1))
    rank = np.take_along_axis(np.cumsum(valid, axis=1) - 1, times, axis=1) - lag
    found = np.take_along_axis(np.argsort(~valid, axis=1, kind="stable"), np.maximum(rank, 0), axis=1)
    return Before(times, np.where(rank >= 0, found, -1))


def initial_of(wrt: Target) -> Target | None:
    """The initial value of a state, which stands in where too few timesteps precede; None for what is no state."""
    if not isinstance(wrt.place, State):
        return None
    info = replace(wrt.selection.info, shape=wrt.selection.info.shape[1:], axes=wrt.selection.info.axes[1:])
    selection = replace(wrt.selection, info=info, time=None)
    return replace(wrt, place=Initial(wrt.place.call, wrt.place.name), selection=selection, times=None)


def picked(whole: Array, initial: Array | None, before: Ints) -> Array:
    """From d of[t] / d wrt[s], (batch, times, m, timesteps, *units), those at `before`: (batch, times, m, *units).

    Where `before` is -1: with respect to the initial value, (batch, times, m, *units), or 0 where there is none.
    """
    batch, count = before.shape
    rows, columns = np.arange(batch)[:, None], np.arange(count)[None, :]
    found = whole[rows, columns, :, np.maximum(before, 0)]
    there = (before >= 0).reshape(batch, count, *[1] * (found.ndim - 2))
    chosen: Array = np.where(there, found, 0 if initial is None else initial)
    return chosen


def _window(prepared: Prepared, of: Target, wrt: Target, lag: int, reduce: str) -> Array:
    assert isinstance(of.place, State | Gate)
    assert of.times is not None
    place, times = of.place, np.broadcast_to(of.times, (prepared.batch, of.times.shape[1]))
    path = _paths(prepared, place, times, lag)
    samples = np.repeat(np.arange(prepared.batch), times.shape[1])
    values, identity = unit_rows(prepared, of), np.array_equal(of.units, np.arange(math.prod(of.unit_shape)))

    def rows(chunk: slice) -> Array:
        part = lag_program(
            prepared.model,
            prepared.calls,
            place,
            wrt.place,
            prepared.arrays(),
            values,
            path[:, chunk],
            samples[chunk],
            identity=identity,
        )
        part = part[(slice(None), slice(None), *wrt.selection.rest)]
        return _units_reduced(part, (len(part),), of, wrt, reduce)

    parts = [rows(chunk) for chunk in chunks(len(samples), _bytes_a_row(prepared, of, wrt, lag))]
    found = np.concatenate(parts) if len(parts) > 1 else parts[0]
    return found.reshape(*times.shape, *found.shape[1:])


def _bytes_a_row(prepared: Prepared, of: Target, wrt: Target, lag: int) -> int:
    """About what a row of a window takes: its derivative and what it is made of, or where it steps back a stack of
    everything in a step."""
    assert isinstance(of.place, State | Gate)
    rule, entries = of.place.call.rule, len(of.units) * prepared.dtype.itemsize
    if lag == 1 and isinstance(of.place, State) and isinstance(wrt.place, State) and rule.matrices() is not None:
        return 2 * entries * math.prod(wrt.unit_shape)
    return 4 * entries * sum(map(math.prod, (*rule.state_shapes, *rule.gate_shapes)))


def _diagonal(prepared: Prepared, of: Target, wrt: Target, lag: int, reduce: str) -> Array:
    before = timesteps_before(prepared, of, wrt, lag).before
    initial = initial_of(wrt)
    places = [wrt.place] + ([initial.place] if initial else [])
    entries = math.prod(of.shape[1:])
    found = []
    for chunk in chunks(before.shape[1], entries * bytes_an_entry(prepared, of, [wrt])):
        values, stored = one_hot(prepared, at_times(of, chunk), slice(None))
        swept = spike_program(prepared.model, prepared.calls, of.place, places, prepared.arrays(), values, stored)
        at = before[:, chunk]
        shape = (prepared.batch, at.shape[1], entries)
        whole, *first = [array.reshape(*shape, *array.shape[2:]) for array in swept]
        part = picked(whole, first[0] if first else None, at)[(..., *wrt.selection.rest)]
        found.append(_units_reduced(part, (prepared.batch, at.shape[1]), of, wrt, reduce))
    return np.concatenate(found, axis=1)


def _units_reduced(array: Array, lead: tuple[int, ...], of: Target, wrt: Target, reduce: str) -> Array:
    return reduced(array, lead, Side(None, of.shape[1:]), Side(None, wrt.shape[1:]), reduce)


def zeroed(prepared: Prepared, of: Target, wrt: Target, array: Array) -> Array:
    """0 at timesteps that do not count, on either side."""
    assert of.times is not None
    times = np.broadcast_to(of.times, (prepared.batch, of.times.shape[1]))
    for place in (of.place, wrt.place):
        valid = prepared.valid(place)
        if valid is not None:
            array = np.where(
                np.take_along_axis(valid, times, axis=1).reshape(*times.shape, *[1] * (array.ndim - 2)), array, 0
            )
    return array


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
    rank = np.take_along_axis(np.cumsum(ordered, axis=1) - 1, runs, axis=1)[None] - steps
    # The run time of each rank: valid timesteps sort to the front, in order.
    sorted_times = np.argsort(~ordered, axis=1, kind="stable")
    found = np.take_along_axis(sorted_times[None], np.maximum(rank, 0), axis=2)
    paths: Ints = np.where(rank >= 0, found, -1).reshape(lag + 1, -1)
    return paths
