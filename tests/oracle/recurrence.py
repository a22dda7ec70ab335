"""The recurrences of the walk, unrolled by hand: one cell or a stack of them, one direction or two, with masks."""

# ruff: noqa: ARG005 - every rule of a table takes the same arguments

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import tree

from oracle.signals import Array, Gate, Run, Signal

STATES_OF = {"SimpleRNNCell": ("h",), "GRUCell": ("h",), "LSTMCell": ("h", "c")}


def recurrence(
    run: Run, layer: Any, sequence: Signal, given: list[Signal], path: str, hears_mask: bool
) -> list[Signal]:
    """What a recurrent layer gives out, and its final states after that where it returns them.

    A mask that it does not hear still leaves with its output, as Keras has it.
    """
    unrolled = Unrolled(run, layer, sequence, given, path, sequence.mask if hears_mask else None)
    timesteps = range(sequence.value.shape[-2])
    for t in reversed(timesteps) if layer.go_backwards else timesteps:
        unrolled.step(t)
    return unrolled.leaving()


class Unrolled:
    """A recurrent layer on its way through time, with all that it has passed."""

    def __init__(
        self, run: Run, layer: Any, sequence: Signal, given: list[Signal], path: str, mask: Array | None
    ) -> None:
        self.run, self.layer, self.sequence, self.path, self.mask = run, layer, sequence, path, mask
        stacked = isinstance(layer.cell, keras.layers.StackedRNNCells)
        self.cells = layer.cell.cells if stacked else [layer.cell]
        self.paths = [f"{path}.cells.{i}" if stacked else path for i in range(len(self.cells))]
        self.names = [state_names(cell) for cell in self.cells]
        feed = iter(given)
        self.states = [
            [
                self.first(f"{where}.{name}.initial", start, feed)
                for name, start in zip(names, starts(cell), strict=True)
            ]
            for where, names, cell in zip(self.paths, self.names, self.cells, strict=True)
        ]
        self.passed: dict[str, dict[int, Array]] = {}
        self.outputs: list[Array] = []

    def first(self, point: str, start: Array, feed: Any) -> Array:
        """A state before the first timestep: as asked for, else as the model feeds it, else as the cell starts."""
        fed = next(feed, None)
        rows = self.sequence.value.shape[:-2]
        value = fed.value if fed is not None else self.run.book.xp.zeros((*rows, len(start)), "float64") + start
        return self.run.at(point, Signal(self.run.initial.get(point, value))).value

    def step(self, t: int) -> None:
        """One timestep: every cell's states are nudged as they are returned, and so is an output that is a state."""
        out = self.sequence.value[..., t, :]
        for i, cell in enumerate(self.cells):
            weight = self.run.weights_of(cell, self.paths[i], t)
            out, new = self.run.book.cell(cell, out, self.states[i], weight, self.gate(self.paths[i], t))
            nudged = [
                self.run.nudged(f"{self.paths[i]}.{n}", state, t) for n, state in zip(self.names[i], new, strict=True)
            ]
            out = next((after for before, after in zip(new, nudged, strict=True) if before is out), out)
            self.states[i] = [self.where(t, after, last) for after, last in zip(nudged, self.states[i], strict=True)]
            for name, state in zip(self.names[i], self.states[i], strict=True):
                self.passed.setdefault(f"{self.paths[i]}.{name}", {})[t] = state
        self.outputs.append(self.where(t, out, self.before(out)))

    def gate(self, where: str, t: int) -> Gate:
        """A gate of one cell at one timestep: nudged inside its step, read as 0 where the timestep is invalid."""

        def gate(name: str, value: Array) -> Array:
            value = self.run.nudged(f"{where}.{name}", value, t)
            self.passed.setdefault(f"{where}.{name}", {})[t] = self.where(t, value, self.run.book.xp.zeros_like(value))
            return value

        return gate

    def before(self, out: Array) -> Array:
        """What Keras gives out at an invalid timestep: zeros, or what it gave out last."""
        if self.outputs and not self.layer.zero_output_for_mask:
            return self.outputs[-1]
        return self.run.book.xp.zeros_like(out)

    def where(self, t: int, valid: Array, invalid: Array) -> Array:
        """One thing at a valid timestep, another at an invalid one."""
        if self.mask is None:
            return valid
        return self.run.book.xp.where(self.mask[..., t][..., None], valid, invalid)

    def leaving(self) -> list[Signal]:
        """Records the trajectories in the input's own time; gives what leaves the layer, in the order it was made."""
        stack = self.run.book.xp.stack
        for point, by_time in self.passed.items():
            self.run.values[point] = stack([by_time[t] for t in sorted(by_time)], -2)
            self.run.valid[point] = self.mask
            self.run.order[point] = -1 if self.layer.go_backwards else 1
        final = []
        for where, names, states in zip(self.paths, self.names, self.states, strict=True):
            for name, state in zip(names, states, strict=True):
                self.run.values[f"{where}.{name}.final"] = state
                final.append(Signal(state))
        if self.layer.return_sequences:
            output = Signal(stack(self.outputs, -2), self.sequence.mask)
        else:
            output = Signal(self.outputs[-1])
        return [output, *final] if self.layer.return_state else [output]


def state_names(cell: Any) -> tuple[str, ...]:
    """A cell's states by name: its own words, else `h` for one state, else `state0`, `state1` …"""
    named = STATES_OF.get(type(cell).__name__) or getattr(cell, "state_names", None)
    count = len(sizes(cell))
    return tuple(named or (("h",) if count == 1 else (f"state{i}" for i in range(count))))


def sizes(cell: Any) -> list[int]:
    """The units of each state of a cell."""
    return [cell.state_size] if isinstance(cell.state_size, int) else list(cell.state_size)


def starts(cell: Any) -> list[Array]:
    """The states a cell starts from, by its own word, else zeros."""
    if not hasattr(cell, "get_initial_state"):
        return [np.zeros(size) for size in sizes(cell)]
    return [np.asarray(state)[0] for state in tree.flatten(cell.get_initial_state(batch_size=1))]


def bidirectional(
    run: Run, layer: Any, sequence: Signal, given: list[Signal], path: str, hears_mask: bool
) -> list[Signal]:
    """Both directions over the same sequence, the second turned round, merged."""
    half = len(given) // 2
    forward, *final = direction(run, layer.forward_layer, sequence, given[:half], path + ".forward", hears_mask)
    backward, *other = direction(run, layer.backward_layer, sequence, given[half:], path + ".backward", hears_mask)
    ahead, back = forward.value, backward.value
    if layer.return_sequences:
        back = run.book.xp.flip(back, -2)
    merged = [Signal(value, forward.mask) for value in MERGED[layer.merge_mode](run.book.xp, ahead, back)]
    for i in range(len(final)):
        run.aliases[f"{path}.forward.output.{1 + i}"] = f"{path}.output.{len(merged) + i}"
        run.aliases[f"{path}.backward.output.{1 + i}"] = f"{path}.output.{len(merged) + len(final) + i}"
    return [*merged, *final, *other]


def direction(run: Run, layer: Any, sequence: Signal, given: list[Signal], path: str, hears_mask: bool) -> list[Signal]:
    """What leaves one direction: its output, before it is merged, and its final states, handed on as they are."""
    output, *final = recurrence(run, layer, sequence, given, path, hears_mask)
    return [run.at(f"{path}.output.0" if final else path, output), *final]


MERGED = {
    "concat": lambda xp, ahead, back: [xp.concatenate([ahead, back], -1)],
    "sum": lambda xp, ahead, back: [ahead + back],
    "ave": lambda xp, ahead, back: [(ahead + back) / 2],
    "mul": lambda xp, ahead, back: [ahead * back],
    None: lambda xp, ahead, back: [ahead, back],
}
