"""Jobs that ask the same of the same model, joined into one device call, and its answer parted again.

What is joined differs in its samples alone. A sample's derivative does not depend on its neighbours', so each job gets
the answer it would have got alone, up to the order in which the device adds numbers: products over more rows may be
taken in another order, which moves the last bits (a few units in the last place; the tests hold it to 1e-6 of the
largest entry in float32).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from tapehead.operations import Array, Request, Result
from tapehead.operations.table import ALONE
from tapehead.worker.protocol import Job

_BY_SAMPLE = ("target_index", "valid")  # what meta lists sample by sample


def groups(jobs: Sequence[Job]) -> list[list[int]]:
    """The jobs' places, those that can be joined together."""
    found: dict[Hashable, list[int]] = {}
    questions: dict[int, Hashable] = {}
    for place, job in enumerate(jobs):
        parameters = job.request.parameters
        if id(parameters) not in questions:
            questions[id(parameters)] = _question(parameters)
        question = None if job.operation in ALONE else questions[id(parameters)]
        found.setdefault(("alone", place) if question is None else _key(job, question), []).append(place)
    return list(found.values())


def joined(jobs: Sequence[Job]) -> Job:
    """One job with the samples of all, and copies of the first behind them up to a power of two: few batch sizes come
    again and again, and what comes again is compiled for its size."""
    requests = [job.request for job in jobs]
    request = Request(
        _stacked([request.inputs for request in requests]),
        _stacked([request.lengths or {} for request in requests]) or None,
        _stacked([request.initial_states for request in requests]),
        requests[0].parameters,
    )
    return dataclasses.replace(jobs[0], request=request, deadline=None)


def parted(result: Result, jobs: Sequence[Job]) -> list[Result]:
    """Each job's own answer out of the one for all."""
    ends = np.cumsum([job.request.batch for job in jobs])
    rows = [slice(int(end) - job.request.batch, int(end)) for end, job in zip(ends, jobs, strict=True)]
    return [_part(result, own, len(jobs)) for own in rows]


def _question(parameters: Mapping[str, Any]) -> Hashable | None:
    """What is asked, as jobs that are joined must ask it alike; None for what must be answered alone."""
    if any(isinstance(value, np.ndarray | Mapping) for value in parameters.values()) or _of_weights(parameters):
        return None
    return tuple((name, repr(value)) for name, value in sorted(parameters.items()))


def _of_weights(parameters: Mapping[str, Any]) -> bool:
    """Whether something is asked with respect to a weight, which may be summed over the batch."""
    wrt: Any = parameters.get("wrt", ())
    return any("/" in text for text in ([wrt] if isinstance(wrt, str) else wrt))


def _key(job: Job, question: Hashable) -> Hashable:
    """What must be alike for jobs to be joined."""
    request = job.request
    shapes = tuple(sorted((name, array.shape[1:], array.dtype) for name, array in request.inputs.items()))
    given = tuple(sorted(request.lengths or ())), tuple(sorted(request.initial_states))
    return job.model, job.operation, question, shapes, given


def _stacked(parts: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    return {name: _filled(np.concatenate([part[name] for part in parts])) for name in parts[0]}


def _filled(array: Array) -> Array:
    missing = (1 << (len(array) - 1).bit_length()) - len(array)
    return np.concatenate([array, np.repeat(array[:1], missing, axis=0)]) if missing else array


def _part(result: Result, rows: slice, together: int) -> Result:
    tensors = {}
    for name, array in result.tensors.items():
        axis = result.axes[name].index("batch")
        tensors[name] = array[(*[slice(None)] * axis, rows)]
    meta = dict(result.meta) | {key: result.meta[key][rows] for key in _BY_SAMPLE if key in result.meta}
    meta["finite"] = bool(meta["finite"]) or all(
        bool(np.isfinite(a).all()) for a in tensors.values() if a.dtype.kind == "f"
    )
    meta["joined"] = together
    return Result(tensors, result.axes, meta)
