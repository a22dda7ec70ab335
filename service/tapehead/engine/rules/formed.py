"""The derivative of any cell's step formed as matrices: the cell is differentiated once for each entry of its states,
however many vectors a sweep carries."""

from __future__ import annotations

import math
from collections.abc import Sequence

import tensorflow as tf

from tapehead.engine.rules.cells import CellRule, Local, Pulled, Tensor


class FormedMatrices:
    """A step's derivative, found by passing an identity back through the step, then applied to the stack.

    n cotangents pass through the cell for the n entries of its states, and m vectors take m n^2 multiplications after
    that: for m far above n it is the cell's own work that is saved.
    """

    def __init__(self, rule: CellRule) -> None:
        self.rule, self.kernels = rule, rule.kernels()
        self.shapes = [*rule.state_shapes, rule.output_shape]

    def pull(self, local: Local, arriving: tuple[Tensor, ...], output: Tensor | None) -> Pulled:
        """Back through the matrices."""
        totals, which = list(arriving), list(range(len(arriving)))
        own = self.rule.output_state
        if output is not None and own is not None:
            totals[own] += output
        apart = output if own is None else None
        returned = totals if apart is None else [*totals, apart]
        stack = tf.concat([_flat(one) for one in returned], axis=-1)
        formed = self._formed(local, which if apart is None else [*which, len(which)])
        inputs, *previous = (_times(stack, matrix) for matrix in formed)
        return Pulled(tuple(totals), tuple(previous), inputs, {}, {})

    def of_state(self, local: Local, state: str) -> tuple[Tensor, ...]:
        """d state / d each state that the step took: (rows, entries of the state, *state taken)."""
        return tuple(self._formed(local, [self.rule.states.index(state)])[1:])

    def _formed(self, local: Local, which: Sequence[int]) -> list[Tensor]:
        """d the entries of the states numbered so (the last number is the output) / d the inputs and each state:
        (rows, entries, …)."""
        rows, sizes = tf.shape(local[0])[0], [_size(self.shapes[number]) for number in which]
        parts = dict(zip(which, tf.split(tf.eye(sum(sizes), dtype=local[0].dtype), sizes, axis=-1), strict=True))
        cotangents = []
        for number, shape in enumerate(self.shapes):
            one = tf.reshape(parts[number], [-1, *shape]) if number in parts else tf.zeros([], local[0].dtype)
            cotangents.append(tf.broadcast_to(one, [rows, sum(sizes), *shape]))
        output = cotangents[-1] if len(self.shapes) - 1 in parts else None
        pulled = self.rule.pull(local, self.kernels, tuple(cotangents[:-1]), output, {}, frozenset())
        return [pulled.inputs, *pulled.previous]


def _size(shape: Sequence[int | None]) -> int:
    return math.prod(int(n or 1) for n in shape)


def _flat(stack: Tensor) -> Tensor:
    """(rows, m, …) to (rows, m, entries)."""
    return tf.reshape(stack, tf.concat([tf.shape(stack)[:2], [_size(stack.shape[2:])]], axis=0))


def _times(stack: Tensor, matrix: Tensor) -> Tensor:
    """(rows, m, entries) times (rows, entries, …): (rows, m, …)."""
    product = tf.matmul(stack, tf.reshape(matrix, [tf.shape(matrix)[0], stack.shape[-1], _size(matrix.shape[2:])]))
    shape = [tf.shape(stack)[0], tf.shape(stack)[1], *matrix.shape[2:]]
    return tf.reshape(product, shape)
