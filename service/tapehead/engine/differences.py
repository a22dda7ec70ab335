"""The Jacobian by central differences in float64, beside the one that the sweeps give.

    d of / d wrt_j  ~  (of(wrt_j + h) - of(wrt_j - h)) / 2h,    h = eps^(1/3) = 6e-6

which balances the formula's error, about h^2, against rounding, about eps / h: both near 4e-11 for numbers near 1.
Every nudge is added where its point is produced, masks held, so that any point can be nudged, not only an input.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from tapehead.engine.answer import Stopwatch, answer
from tapehead.engine.jacobian import jacobian
from tapehead.engine.lag import initial_of, picked, timesteps_before, zeroed
from tapehead.engine.model import Model
from tapehead.engine.places import Place, WeightAt
from tapehead.engine.prepared import Prepared, Target
from tapehead.engine.programs import nudged_program, values_program
from tapehead.engine.reduction import Side, reduced, side_of
from tapehead.engine.seeds import bytes_an_entry, chunks, one_hot_tangents
from tapehead.engine.states import taken
from tapehead.operations import Request, Result
from tapehead.operations.plans import pair_name, texts
from tapehead.operations.request import Array

STEP = float(np.finfo(np.float64).eps ** (1 / 3))


def check(model: Model, request: Request) -> Result:
    """The Jacobian by central differences, and in meta, by tensor, the largest difference from it of the Jacobian that
    `jacobian` gives in the precision asked for, over the largest entry."""
    stopwatch = Stopwatch()
    parameters = request.parameters
    ofs, wrts = texts(parameters["of"]), texts(parameters["wrt"])
    ours = jacobian(model, request)
    stopwatch.lap("jacobian")
    prepared = Prepared(model.apart(), _in_float64(request), list(dict.fromkeys([*ofs, *wrts])))
    tensors: dict[str, Array] = {}
    for of in map(prepared.targets.__getitem__, ofs):
        moved = _Moved(prepared, of, [prepared.targets[text] for text in wrts])
        for wrt in map(prepared.targets.__getitem__, wrts):
            name = pair_name(request.parameters, of.text, wrt.text)
            tensors[name] = _numeric(moved, wrt, parameters["lag"], parameters["reduce"])
    stopwatch.lap("differences")
    differences = {name: relative_difference(ours.tensors[name], array) for name, array in tensors.items()}
    more = {"difference": max(differences.values()), "differences": differences, "step": STEP}
    about = prepared.targets[ofs[0]]
    found = answer(prepared, tensors, ours.axes, stopwatch, route="central differences", about=about, **more)
    return replace(found, meta=found.meta | {"checked_route": ours.meta["route"]})


def _in_float64(request: Request) -> Request:
    """The request with its floating-point arrays as the copy takes them."""
    inputs = {
        name: array.astype(np.float64) if array.dtype.kind == "f" else array for name, array in request.inputs.items()
    }
    states = {name: array.astype(np.float64) for name, array in request.initial_states.items()}
    return replace(request, inputs=inputs, initial_states=states)


def relative_difference(found: Array, expected: Array) -> float:
    """The largest difference over the largest entry; 0 where both are all zero."""
    largest = float(np.abs(expected).max(initial=0.0))
    difference = float(np.abs(found - expected).max(initial=0.0))
    return difference / largest if largest else difference


class _Moved:
    """What `of` takes with one entry of one point nudged; one program serves every point that is nudged."""

    def __init__(self, prepared: Prepared, of: Target, wrts: Sequence[Target]) -> None:
        self.prepared, self.of = prepared, of
        firsts = [start for wrt in wrts if (start := initial_of(wrt)) is not None]
        nudged = [wrt for wrt in (*wrts, *firsts) if not isinstance(wrt.place, WeightAt)]
        self.still = {wrt.place: np.zeros((1, *prepared.entire(wrt)), np.float64) for wrt in nudged}

    def by(self, place: Place, nudges: Array) -> Array:
        """(samples * k, *of) for (samples * k, *place) nudges, k beside each other for every sample."""
        prepared, of = self.prepared, self.of
        count = len(nudges) // prepared.batch
        inputs = {name: np.repeat(array, count, axis=0) for name, array in prepared.inputs.items()}
        every = self.still | {place: nudges}
        (found,) = nudged_program(
            prepared.model,
            prepared.calls,
            [of.place],
            list(every),
            prepared.arrays(inputs, count),
            list(every.values()),
        )
        if of.times is not None and len(of.times) > 1:
            of = replace(of, times=np.repeat(of.times, count, axis=0))
        return taken(of, found)


def _numeric(moved: _Moved, wrt: Target, lag: int | None, reduce: str) -> Array:
    prepared, of = moved.prepared, moved.of
    whole = _central(moved, wrt)
    if lag is None:
        return reduced(whole, (prepared.batch,), side_of(of), side_of(wrt), reduce)
    start = initial_of(wrt)
    first = None if start is None else _central(moved, start)
    entries, lead = math.prod(of.shape[1:]), (prepared.batch, of.shape[0])
    at = picked(
        whole.reshape(*lead, entries, *wrt.shape),
        None if first is None else first.reshape(*lead, entries, *wrt.shape[1:]),
        timesteps_before(prepared, of, wrt, lag).before,
    )
    found = reduced(at, lead, Side(None, of.shape[1:]), Side(None, wrt.shape[1:]), reduce)
    return zeroed(prepared, of, wrt, found)


def _central(moved: _Moved, wrt: Target) -> Array:
    """(batch, *of, *wrt)."""
    prepared, of = moved.prepared, moved.of
    if isinstance(wrt.place, WeightAt):
        return _central_of_weight(prepared, of, wrt, wrt.place.variable)
    entries = math.prod(wrt.shape)
    answer = np.empty((prepared.batch, *of.shape, entries), np.float64)
    for chunk in chunks(entries, 4 * bytes_an_entry(prepared, of, [wrt])):
        nudges = STEP * one_hot_tangents(prepared, wrt, chunk)
        nudges = np.broadcast_to(nudges, (prepared.batch, *nudges.shape[1:]))
        both = np.stack([nudges, -nudges], axis=2)
        found = moved.by(wrt.place, both.reshape(-1, *both.shape[3:])).reshape(*both.shape[:3], *of.shape)
        answer[..., chunk] = np.moveaxis((found[:, :, 0] - found[:, :, 1]) / (2 * STEP), 1, -1)
    return answer.reshape(prepared.batch, *of.shape, *wrt.shape)


def _central_of_weight(prepared: Prepared, of: Target, wrt: Target, variable: Any) -> Array:
    """Each entry of the weight moved in the copy that differences are taken on, and put back."""
    start = np.asarray(variable, np.float64)
    positions = taken(wrt, np.arange(start.size).reshape(start.shape), lead=0).reshape(-1)
    columns: list[Array] = []
    for position in positions:
        moved = []
        for step in (STEP, -STEP):
            value = start.copy()
            value.flat[position] += step
            with _assigned(variable, value, start):
                (found,) = values_program(prepared.model, prepared.calls, [of.place], prepared.arrays())
            moved.append(taken(of, found))
        columns.append((moved[0] - moved[1]) / (2 * STEP))
    return np.stack(columns, axis=-1).reshape(prepared.batch, *of.shape, *wrt.shape)


@contextmanager
def _assigned(variable: Any, value: Array, start: Array) -> Iterator[None]:
    variable.assign(value)
    try:
        yield
    finally:
        variable.assign(start)
