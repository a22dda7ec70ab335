"""The compiled function that takes all that a diagnosis needs from one run of the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tapehead.engine.compiled import Arrays, Operand, given, ran
from tapehead.engine.diagnosis.finite import finite
from tapehead.engine.diagnosis.gates import Gates, gates
from tapehead.engine.diagnosis.influence import influence
from tapehead.engine.diagnosis.lyapunov import stretches
from tapehead.engine.diagnosis.spectra import local_jacobians, spread
from tapehead.engine.diagnosis.subject import Subject
from tapehead.engine.prepared import Prepared
from tapehead.engine.rules.cells import Tensor
from tapehead.engine.rules.recurrence import Run
from tapehead.engine.seeds import chunks
from tapehead.engine.trace import input_order, trace
from tapehead.operations.diagnosing import steps_of
from tapehead.operations.request import Array

_COPIES = 8
"""About how many arrays of a stack's size a step of a sweep holds at once."""


class Examined(NamedTuple):
    """What was seen of one cell, batch first, timesteps in the input's own time.

    `influence` (batch, timesteps, 2), `stretches` (batch, timesteps, exponents), `jacobians` (batch, steps, size, size)
    or () where none are formed, `gates` with shares (batch, timesteps, gates, 2) or () where none are known.
    """

    influence: Array
    stretches: Array
    jacobians: Any
    gates: Any


class Seen(NamedTuple):
    """What was seen of every cell, by name, and of every call whether its numbers are finite."""

    cells: Mapping[str, Examined]
    finite: Sequence[Array]


class Extent(NamedTuple):
    """How much of a cell is looked at: how many exponents, and at which timesteps of its input the local Jacobians."""

    exponents: int
    times: npt.NDArray[np.int64]


def extents(prepared: Prepared, subjects: Sequence[Subject], exponents: int, steps: int | None) -> list[Extent]:
    """How much of each cell is looked at."""
    found = []
    for subject in subjects:
        timesteps = prepared.timesteps(subject.hidden_place)
        count = steps_of(subject.cell, prepared.batch, timesteps, steps)
        found.append(Extent(min(exponents, subject.cell.size), spread(timesteps, count)))
    return found


def examine(prepared: Prepared, subjects: Sequence[Subject], extent: Sequence[Extent], margin: float) -> Seen:
    """Runs the model once, or once for every few samples where all at once would take too much memory."""
    each = sum(_bytes_a_sample(prepared, *pair) for pair in zip(subjects, extent, strict=True))
    slices = list(chunks(prepared.batch, each))
    whole = [prepared] if len(slices) == 1 else map(prepared.rows, slices)
    parts = [_examined(part, subjects, extent, margin) for part in whole]
    if len(parts) == 1:
        return parts[0]
    found: Seen = tf.nest.map_structure(lambda *arrays: np.concatenate(arrays), *parts)
    return found


def _bytes_a_sample(prepared: Prepared, subject: Subject, extent: Extent) -> int:
    """About what one sample takes: the stacks of the sweeps, what is kept of each timestep, the local Jacobians."""
    size, timesteps = subject.cell.size, prepared.timesteps(subject.hidden_place)
    stacks = size * (subject.sizes[subject.hidden] + extent.exponents)
    return prepared.dtype.itemsize * _COPIES * (stacks + timesteps * size + len(extent.times) * size**2)


def _examined(prepared: Prepared, subjects: Sequence[Subject], extent: Sequence[Extent], margin: float) -> Seen:
    counts = [each.exponents for each in extent]

    def look(arrays: Arrays, margin: Tensor, *times: Tensor) -> Seen:
        made = trace(prepared.model.graph, prepared.calls, given(prepared.model, arrays))
        cells = {
            subject.name: _of_cell(subject, made.runs[subject.call], count, own, margin[0])
            for subject, count, own in zip(subjects, counts, times, strict=True)
        }
        return Seen(cells, finite(made, prepared))

    runs = [
        np.broadcast_to(prepared.run_times(subject.call, each.times), (prepared.batch, len(each.times)))
        for subject, each in zip(subjects, extent, strict=True)
    ]
    # Whether there are any is a matter of the function: how many, is not.
    operands = [Operand(times, 2 if times.size else 1) for times in runs]
    kind = ("diagnose", tuple(subject.name for subject in subjects), tuple(counts), tuple(t.size > 0 for t in runs))
    found: Seen = ran(
        prepared.model, kind, look, prepared.calls, prepared.arrays(), Operand(np.array([margin]), 0), *operands
    )
    return found


def _of_cell(subject: Subject, run: Run, exponents: int, times: Tensor, margin: Tensor) -> Examined:
    call = subject.call
    seen = gates(subject, run, margin)
    return Examined(
        input_order(call, influence(subject, run)),
        input_order(call, stretches(subject, run, exponents)),
        () if times.shape[1] == 0 else local_jacobians(subject, run, times),
        () if seen is None else Gates(input_order(call, seen.shares), seen.counts, seen.alive),
    )
