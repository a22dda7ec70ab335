"""What sweeps start from: one-hot cotangents and tangents of a target, and how many of them to carry at once."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from tapehead.engine.places import Inner, Place
from tapehead.engine.prepared import Prepared, Target
from tapehead.operations.request import Array

# What one sweep may hold besides its inputs; a Jacobian needs it for every stack entry, so larger ones go in chunks.
CHUNK_BYTES = 256 << 20

# An answer that is passed on while it grows does so in this part of CHUNK_BYTES at a time: 16 MiB.
PIECES = 16

Ints = npt.NDArray[np.int64]


def chunks(count: int, bytes_each: int) -> Iterator[slice]:
    """Slices that together take `count` entries, each of them within CHUNK_BYTES where one entry is."""
    step = max(1, CHUNK_BYTES // max(1, bytes_each))
    for start in range(0, count, step):
        yield slice(start, min(count, start + step))


def bytes_an_entry(prepared: Prepared, of: Target, wrts: Sequence[Target]) -> int:
    """About what one stack entry takes in a sweep: what is written at every timestep, its transpose, a few states."""
    steps = max([1, *(prepared.timesteps(target.place) for target in (of, *wrts) if target.times is not None)])
    shapes, calls = prepared.model.seen.shapes, prepared.calls
    recurrences = [call for call in prepared.model.graph.recurrences if call in calls]
    features = sum(shapes[call.sequence][-1] or 1 for call in recurrences)
    written = features + sum(math.prod(wrt.unit_shape) for wrt in wrts)
    states = sum(math.prod(n or 1 for n in shape) for call in recurrences for shape in call.rule.state_shapes)
    return prepared.batch * (2 * steps * written + 6 * (states + math.prod(of.unit_shape))) * prepared.dtype.itemsize


def one_hot(prepared: Prepared, of: Target, chunk: slice) -> tuple[Array, Ints]:
    """Stack entries `chunk` of an identity over what `of` takes: (1, m, *units), and each one's timestep (rows, m)."""
    entries = np.arange(math.prod(of.shape))[chunk]
    values = unit_rows(prepared, of)[:, entries % len(of.units)]
    if of.times is None:
        return values, np.zeros((1, len(entries)), np.int64)
    return values, stored_times(prepared, of.place, of.times)[:, entries // len(of.units)]


def one_hot_tangents(prepared: Prepared, wrt: Target, chunk: slice) -> Array:
    """Stack entries `chunk` of an identity over what `wrt` takes, as tangents of its whole point (rows, m, …)."""
    entries = np.arange(math.prod(wrt.shape))[chunk]
    units = unit_rows(prepared, wrt)[:, entries % len(wrt.units)]
    if wrt.times is None:
        return units
    times = wrt.times[:, entries // len(wrt.units)]
    rows, count = times.shape
    tangents = np.zeros((rows, count, prepared.timesteps(wrt.place), *wrt.unit_shape), prepared.dtype)
    tangents[np.arange(rows)[:, None], np.arange(count)[None], times] = units
    return tangents


def unit_rows(prepared: Prepared, of: Target) -> Array:
    """A one-hot vector for each unit that `of` takes at one timestep: (1, units taken, *units)."""
    size = math.prod(of.unit_shape)
    return np.eye(size, dtype=prepared.dtype)[of.units].reshape(1, -1, *of.unit_shape)


def filled(prepared: Prepared, target: Target, vectors: Array) -> Array:
    """Vectors in the shape of what a target takes, (rows, m, *target), in the shape of its whole point; 0 elsewhere."""
    rows, count = vectors.shape[:2]
    steps = 1 if target.times is None else target.times.shape[1]
    spread = np.zeros((rows, count, steps, math.prod(target.unit_shape)), prepared.dtype)
    spread[..., target.units] = vectors.reshape(rows, count, steps, len(target.units))
    spread = spread.reshape(rows, count, steps, *target.unit_shape)
    if target.times is None:
        return spread[:, :, 0]
    whole = np.zeros((rows, count, prepared.timesteps(target.place), *target.unit_shape), prepared.dtype)
    times = np.broadcast_to(target.times, (rows, steps))
    whole[np.arange(rows)[:, None], :, times] = np.moveaxis(spread, 2, 1)
    return whole


def stored_times(prepared: Prepared, place: Place, times: Ints) -> Ints:
    """Timesteps of the input's own time as a sweep stores them: in run order within a recurrent layer."""
    return prepared.run_times(place.call, times) if isinstance(place, Inner) else times


def at_times(of: Target, chunk: slice) -> Target:
    """A target's timesteps `chunk` alone."""
    assert of.times is not None
    return replace(of, times=of.times[:, chunk])
