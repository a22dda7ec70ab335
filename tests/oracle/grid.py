"""A model's whole grid of points: every one that it is served with, weights and their gate columns too, both ways."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from oracle.agreement import apart
from oracle.answers import Answer
from oracle.oracle import Oracle, as_rows, run_shapes

TOLERANCE = 1e-7
CANCELLED = 1e-14
"""Below this, in float64 and of numbers near one, there is nothing but the rounding of what cancels."""
GATES = (
    ("input_gate", "forget_gate", "cell_candidate", "output_gate"),
    ("update_gate", "reset_gate", "candidate"),
)
"""The columns of an LSTM's and a GRU's weights in Keras's order, one block of units for each gate."""
SPLIT = ("kernel", "recurrent_kernel", "bias")
FIRST = ".output.0"
"""A layer's first tensor goes by the layer's own name, too."""
CALL = r"\.call\.\d+"


@dataclass(frozen=True)
class Grid:
    """A served model's points, and what the oracle says of every pair of them for one input.

    `points` and `weights` are what the server tells of the model, `inputs` the batch asked about.
    """

    model: Any
    points: Mapping[str, Any]
    weights: Sequence[str]
    inputs: Mapping[str, np.ndarray]
    lengths: Sequence[int] | None = None

    @cached_property
    def named(self) -> tuple[set[str], dict[str, str]]:
        """The oracle's points of numbers, final states apart, and other names of them; nothing is computed."""
        layout = run_shapes(self.model, as_rows(self.model, self.inputs, None))
        names = {p for p, value in layout.values.items() if value.dtype.kind == "f" and not p.endswith(".final")}
        moved = {call_last(point): point for point in layout.values if call_last(point) != point}
        first = {p.removesuffix(FIRST): p for p in layout.values if p.endswith(FIRST)}
        return names, {**layout.aliases, **moved, **first}

    @cached_property
    def answer(self) -> Answer:
        """The oracle's answer: all points with respect to all points, all weights and all final states."""
        names, aliases = self.named
        found = replace(Oracle(self.model)(self.inputs, lengths=self.lengths, wrt=sorted(names)), aliases=aliases)
        states = [point.removesuffix(".final") for point in found.values if point.endswith(".final")]
        blocks = {
            of: {**by_wrt, **{f"{state}.final": last_nudged(found, of, state) for state in states}}
            for of, by_wrt in found.blocks.items()
        }
        return replace(found, blocks=blocks)

    @property
    def of(self) -> list[str]:
        """Every point that can be differentiated."""
        names = [name for name, told in self.points.items() if told["differentiable"]]
        single = list(self.inputs) if len(self.inputs) == 1 else []
        return [*names, *(["inputs"] if single and single[0] in names else [])]

    @property
    def wrt(self) -> list[str]:
        """Every point, every weight, and every gate's columns of a weight."""
        return [*self.of, *self.weights, *(f"{w}.{gate}" for w in self.weights for gate in self.gates(w))]

    def gates(self, weight: str) -> tuple[str, ...]:
        """The gates whose columns a weight holds."""
        layer, _, name = weight.rpartition("/")
        served = {re.sub(CALL, "", point) for point in self.points}
        found = [gates for gates in GATES if f"{layer}.{gates[0]}" in served and name in SPLIT]
        return found[0] if found else ()

    def knows(self, point: str) -> bool:
        """Whether the oracle has such a point."""
        names, aliases = self.named
        name, _ = without_gate(point.removesuffix(".final"))
        return aliases.get(name, name) in names

    def jacobian(self, of: str, wrt: str) -> np.ndarray:
        """d of / d wrt, (batch, *of axes, *wrt axes)."""
        name, gate = without_gate(wrt)
        whole = self.answer.jacobian(of, name)
        if not gate:
            return whole
        gates = self.gates(name)
        return np.split(whole, len(gates), -1)[gates.index(gate)]


def assert_row_agrees(here: Grid, of: str, wrt: Sequence[str], found: Mapping[str, np.ndarray]) -> None:
    """Fails where one `of` with respect to many points is not the oracle's, and tells which those are."""
    far = {}
    for point in wrt:
        value, expected = (here.answer.where_valid(of, j) for j in (found[f"{of} / {point}"], here.jacobian(of, point)))
        largest, size = np.abs(value).max(), np.abs(expected).max()
        if (largest > CANCELLED) if 0 < size < CANCELLED else (apart(value, expected) > TOLERANCE):
            far[point] = (np.abs(value - expected).max(), size)
    assert not far, f"{of} with respect to these is off by (largest difference, largest entry): {far}"


def last_nudged(found: Answer, of: str, state: str) -> np.ndarray:
    """d of / d a final state, which is produced where the state of the last valid timestep is."""
    rank = found.values[of].ndim - 1
    rows = []
    for block, valid in zip(found.blocks[of][state], found.valid[state], strict=True):
        last = np.flatnonzero(valid)[-1 if found.order[state] == 1 else 0]
        rows.append(block[(slice(None),) * rank + (last,)])
    return np.stack(rows)


def call_last(point: str) -> str:
    """`encoder.call.0.lstm.h` as `encoder.lstm.call.0.h`: a layer of a model that is called several times."""
    return re.sub(r"^(encoder)(\.call\.\d+)\.([^.]+)", r"\1.\3\2", point)


def without_gate(point: str) -> tuple[str, str]:
    """A weight and the gate whose columns are meant: `lstm/kernel.forget_gate`."""
    weight, dot, gate = point.rpartition(".")
    return (weight, gate) if dot and "/" in weight and "/" not in gate else (point, "")
