"""Any other cell: automatic differentiation of its one step, rows beside copies of themselves for the stack."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import keras
import tensorflow as tf
from keras import tree

from tapehead.engine.rules.cells import Keep, Kept, Nudges, Pulled, Tensor, float_weights, nudged
from tapehead.engine.rules.formed import FormedMatrices
from tapehead.engine.rules.stacks import flattened, in_axes, repeated, stacked


class AnyCellRule:
    """The rule for a cell that follows Keras's protocol: `call(inputs, states)`, `state_size`, and no more."""

    gates: tuple[str, ...] = ()
    gate_shapes: tuple[tuple[int, ...], ...] = ()
    within_step = False

    def __init__(self, cell: Any, features: tuple[int | None, ...]) -> None:
        self.cell = cell
        self.kind = type(cell).__name__
        self._structure = _initial_structure(cell)
        flat = tree.flatten(self._structure)
        self.state_shapes = tuple(tuple(state.shape[1:]) for state in flat)
        self.states = _state_names(cell, len(flat))
        self.output_state, self.output_shape = self._probe(features)

    def project(self, inputs: Tensor) -> Tensor:
        """The inputs as they are."""
        return inputs

    def unproject(self, cotangents: Tensor, kernels: None) -> Tensor:
        """The cotangents as they are."""
        return cotangents

    def step(
        self, projected: Tensor, states: tuple[Tensor, ...], nudges: Nudges
    ) -> tuple[Tensor, tuple[Tensor, ...], Kept]:
        """The cell's own step; nothing is kept but what every step keeps, its inputs and states."""
        packed = tuple(tree.pack_sequence_as(self._structure, list(states)))
        extra = {"training": False} if getattr(self.cell, "_call_has_training_arg", False) else {}
        output, returned = self.cell(projected, packed, **extra)
        states = nudged(self, tuple(tree.flatten(returned)), nudges)
        shared = next((n for n, state in enumerate(tree.flatten(returned)) if state is output), None)
        return output if shared is None else states[shared], states, ()

    def local(self, inputs: Tensor, previous: tuple[Tensor, ...], kept: Kept, nudges: Nudges) -> tuple[Tensor, ...]:
        """What the step is computed from again."""
        return (inputs, *previous)

    def gate_values(self, kept: Kept, nudges: Nudges) -> Mapping[str, Tensor]:
        """None: which of its tensors are gates, a cell does not say."""
        return {}

    def kernels(self) -> None:
        """None: the step is called as a whole."""

    def pull(
        self,
        local: tuple[Tensor, ...],
        kernels: None,
        arriving: tuple[Tensor, ...],
        output: Tensor | None,
        gates: Mapping[str, Tensor],
        wanted: frozenset[str],
    ) -> Pulled:
        """Back through the cell's step by reverse-mode differentiation of one call over all rows and stack entries."""
        totals = list(arriving)
        if output is not None and self.output_state is not None:
            totals[self.output_state] += output
        times = tf.shape(arriving[0])[1]
        sources = [repeated(value, times) for value in local]
        with tf.GradientTape() as tape:
            tape.watch(sources)
            own, returned, _ = self.step(sources[0], tuple(sources[1:]), {})
            targets, cotangents = list(returned), [flattened(total) for total in totals]
            if output is not None and self.output_state is None:
                targets, cotangents = [*targets, own], [*cotangents, flattened(output)]
        found = tape.gradient(targets, sources, output_gradients=cotangents, unconnected_gradients="zero")
        inputs, *previous = [stacked(value, times) for value in found]
        rights = dict(zip(self.states, totals, strict=True))
        if output is not None and self.output_state is None:
            rights[_OUTPUT] = output
        return Pulled(tuple(totals), tuple(previous), inputs, {}, rights)

    @property
    def many(self) -> int | None:
        """From twice as many vectors as the states have entries."""
        shapes = (*self.state_shapes, self.output_shape)
        return None if None in chain(*shapes) else 2 * sum(map(math.prod, self.state_shapes))

    def matrices(self, *, inputs: bool = True) -> FormedMatrices | None:
        """The step differentiated once for every entry of its states; None where a length of them is not known."""
        return None if self.many is None else FormedMatrices(self)

    def weight_cotangents(
        self,
        inputs: Tensor,
        previous: tuple[Tensor, ...],
        kept: Kept,
        nudges: Nudges,
        rights: Mapping[str, Tensor],
        keep: Keep,
    ) -> list[tuple[Any, Tensor]]:
        """By reverse-mode differentiation of the step: one pass for each entry of what is kept and of the stack."""
        axes = ([1] if keep.rows else []) + ([0] if keep.timesteps else []) + [2]
        sources = [inputs, *previous]
        names = list(rights)
        variables = float_weights(self.cell)
        values = [variable.value for variable in variables]

        def of_one(index: Tensor) -> list[Any]:
            """The weights' cotangents of one entry: everything else is rows of one call."""
            row = [slice(None), slice(None), slice(None)]
            for n, axis in enumerate(axes):
                row[axis] = slice(index[n], index[n] + 1)
            taken = [_rows(value[tuple(row[:2])]) for value in sources]
            with tf.GradientTape() as tape:
                tape.watch(values)
                own, returned, _ = self.step(taken[0], tuple(taken[1:]), {})
            targets = dict(zip(self.states, returned, strict=True)) | {_OUTPUT: own}
            found = tape.gradient(
                [targets[name] for name in names],
                values,
                output_gradients=[_rows(rights[name][tuple(row)][:, :, 0]) for name in names],
                unconnected_gradients="zero",
            )
            return [keep.entry(*pair) for pair in zip(variables, map(tf.convert_to_tensor, found), strict=True)]

        sizes = tf.gather(tf.shape(rights[names[0]]), axes)
        entries = tf.transpose(tf.unravel_index(tf.range(tf.reduce_prod(sizes)), sizes))
        specs = [keep.entry_spec(variable, value.dtype) for variable, value in zip(variables, values, strict=True)]
        found = tf.map_fn(of_one, entries, fn_output_signature=specs)
        return list(zip(variables, in_axes(found, sizes), strict=True))

    def _probe(self, features: tuple[int | None, ...]) -> tuple[int | None, tuple[int | None, ...]]:
        """Which returned state is the very tensor that is returned as output, and its shape: seen by tracing a step."""
        seen: list[tuple[int | None, tuple[int | None, ...]]] = []

        def step(inputs: Tensor, *states: Tensor) -> Tensor:
            output, returned, _ = self.step(inputs, states, {})
            same = next((n for n, state in enumerate(returned) if state is output), None)
            seen.append((same, tuple(output.shape[1:])))
            return output

        dtype = getattr(self.cell, "compute_dtype", keras.config.floatx())
        specs = [tf.TensorSpec((None, *shape), dtype) for shape in (features, *self.state_shapes)]
        tf.function(step, autograph=False).get_concrete_function(*specs)
        return seen[-1]


# Keras's cells that come here, by name: that of ConvLSTM layers is not public.
_HIDDEN_AND_CELL = ("LSTMCell", "ConvLSTMCell")
_OUTPUT = ""  # the output's place among what the weights' cotangents are made of, beside the states'


def _rows(value: Tensor) -> Tensor:
    """(timesteps, rows, …) to (timesteps * rows, …)."""
    return tf.reshape(value, tf.concat([[-1], tf.shape(value)[2:]], axis=0))


def _initial_structure(cell: Any) -> Any:
    """The states of a batch of one, nested as Keras's RNN passes them."""
    if hasattr(cell, "get_initial_state"):
        states = cell.get_initial_state(batch_size=1)
        return list(states) if tree.is_nested(states) else [states]
    sizes: Sequence[Any] = cell.state_size if isinstance(cell.state_size, list | tuple) else [cell.state_size]
    return [tf.zeros((1, size), cell.compute_dtype) for size in sizes]


def _state_names(cell: Any, count: int) -> tuple[str, ...]:
    """The cell's own names, else h for one state and state0, state1 … for several."""
    names = getattr(cell, "state_names", None)
    if names is not None and len(tree.flatten(names)) == count:
        return tuple(map(str, tree.flatten(names)))
    if type(cell).__name__ in _HIDDEN_AND_CELL and type(cell).__module__.startswith("keras."):
        return ("h", "c")
    return ("h",) if count == 1 else tuple(f"state{n}" for n in range(count))
