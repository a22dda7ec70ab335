"""One recurrent cell in the graph, and how cotangents of its states pass back through a step of it alone."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from tapehead.engine.graph import Recurrence
from tapehead.engine.model import Model
from tapehead.engine.places import State
from tapehead.engine.rules.cells import CellRule, Local, Tensor, forming_pays
from tapehead.engine.rules.recurrence import Run, in_rows
from tapehead.operations.recurrent import RecurrentCell

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Subject:
    """A recurrent cell: what the card tells of it, the layer's call, and the rule of this cell alone.

    Its states are one vector of `size` numbers, in the order of `rule.states`.
    """

    cell: RecurrentCell
    call: Recurrence
    rule: CellRule

    @property
    def name(self) -> str:
        """What its points begin with."""
        return self.cell.name

    @property
    def sizes(self) -> list[int]:
        """How many numbers each of its states holds."""
        return [math.prod(shape) for shape in self.rule.state_shapes]

    @property
    def hidden(self) -> int:
        """Which state is the hidden one: that which the cell gives out, else its first."""
        return self.rule.output_state or 0

    @property
    def hidden_place(self) -> State:
        """Where the hidden state lies."""
        return State(self.call, self.cell.prefix + self.rule.states[self.hidden])

    @property
    def block(self) -> slice:
        """Where the hidden state stands in the vector of all states."""
        start = sum(self.sizes[: self.hidden])
        return slice(start, start + self.sizes[self.hidden])

    def states(self, run: Run) -> list[Tensor]:
        """The cell's states out of those of its layer, (timesteps, rows, *state)."""
        return [run.states[run.rule.states.index(self.cell.prefix + name)] for name in self.rule.states]

    def local(self, run: Run) -> Local:
        """The numbers of every step of this cell."""
        local = run.local
        for number in _numbers(self.cell.prefix):
            local = local[number]
        return local

    def split(self, vectors: Tensor) -> tuple[Tensor, ...]:
        """(rows, m, size) as cotangents of each state, (rows, m, *state)."""
        lead = tf.shape(vectors)[:2]
        parts = zip(tf.split(vectors, self.sizes, axis=-1), self.rule.state_shapes, strict=True)
        return tuple(_shaped(tf.reshape(part, tf.concat([lead, shape], axis=0)), shape) for part, shape in parts)

    def joined(self, cotangents: tuple[Tensor, ...]) -> Tensor:
        """Cotangents of each state, (rows, m, *state), as (rows, m, size)."""
        lead = tf.shape(cotangents[0])[:2]
        pairs = zip(cotangents, self.sizes, strict=True)
        return tf.concat([tf.reshape(one, tf.concat([lead, [size]], axis=0)) for one, size in pairs], axis=-1)


def subjects(model: Model, cells: tuple[RecurrentCell, ...]) -> list[Subject]:
    """The cells in the model's graph."""
    calls = {call.name: call for call in model.graph.recurrences}
    return [Subject(cell, calls[cell.layer], _rule(calls[cell.layer].rule, cell.prefix)) for cell in cells]


class StepsBack:
    """Every step of a cell, ready to pass `vectors` cotangents back: from the rule's `many` on, formed as a matrix."""

    def __init__(self, subject: Subject, run: Run, vectors: int) -> None:
        self._rule, self._local = subject.rule, subject.local(run)
        self._matrices = subject.rule.matrices() if forming_pays(subject.rule, vectors) else None
        self._kernels = None if self._matrices else subject.rule.kernels()

    def at(self, time: Tensor, cotangents: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Cotangents of the states that the step at `time` returned, as those of the states that it took."""
        return self._pull(tf.nest.map_structure(lambda value: value[time], self._local), cotangents)

    def at_each(self, where: Tensor, cotangents: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The same where each row has a step of its own: `where` is (rows, 2), a run time and a sample."""
        return self._pull(tf.nest.map_structure(lambda value: tf.gather_nd(value, where), self._local), cotangents)

    def _pull(self, here: Local, cotangents: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        if self._matrices is not None:
            return self._matrices.pull(here, cotangents, None).previous
        return self._rule.pull(here, self._kernels, cotangents, None, {}, frozenset()).previous


def kept_where_masked(run: Run, time: Tensor, new: tuple[Tensor, ...], old: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """A masked timestep passes cotangents on as they are."""
    if run.valid is not None:
        new = tuple(in_rows(run.valid[time], a, b) for a, b in zip(new, old, strict=True))
    return tuple(tf.ensure_shape(a, b.shape) for a, b in zip(new, old, strict=True))


def identity(size: int, dtype: Any) -> Tensor:
    """(1, size, size)."""
    return tf.constant(np.eye(size)[None], dtype)


def _rule(rule: Any, prefix: str) -> CellRule:
    for number in _numbers(prefix):
        rule = rule.rules[number]
    found: CellRule = rule
    return found


def _numbers(prefix: str) -> list[int]:
    return [int(number) for number in re.findall(r"cells\.(\d+)\.", prefix)]


def _shaped(value: Tensor, shape: Shape) -> Tensor:
    return tf.ensure_shape(value, [None, None, *shape])
