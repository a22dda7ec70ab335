"""Derivatives of every point with respect to every point: by JAX's forward mode, and by central differences of Keras.

`lengths` means "as if each sequence were alone": each row is cut to its length and run by itself, so that nothing here
knows what padding is. The answer is laid out in the padded shape afterwards, as the contract words it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import keras
import numpy as np

from oracle import formulas, keras_own
from oracle.answers import Answer
from oracle.graph import input_names, run_whole
from oracle.signals import Run
from oracle.without_compiling import without_compiling

Arrays = Mapping[str, np.ndarray]
Found = tuple[Arrays, Arrays, Mapping[str, Arrays]]  # values, valid, blocks
Lengths = Sequence[int] | Mapping[str, Sequence[int]] | None

jax.config.update("jax_enable_x64", True)


class Oracle:
    """A Keras model in float64 with all its derivatives; the weights are those it has when first asked."""

    def __init__(self, model: Any) -> None:
        self.model = model
        by_row = jax.vmap(jax.jacfwd(self._forward, has_aux=True), in_axes=(None, 0))
        self._derivatives = without_compiling(by_row)

    def __call__(
        self,
        inputs: Any,
        *,
        lengths: Lengths = None,
        initial_states: Arrays | None = None,
        wrt: Sequence[str] | None = None,
    ) -> Answer:
        """Values of all points, and derivatives of all with respect to all (or to the names in `wrt`)."""

        def differentiate(rows: Any) -> Found:
            blocks, (values, valid) = self._derivatives(zero_nudges(self.model, rows, wrt), rows)
            return values, valid, blocks

        with jax.enable_x64(True):
            return answer(self.model, differentiate, inputs, lengths, initial_states)

    def _forward(self, nudges: Any, row: Any) -> tuple[Any, Any]:
        run = forward(self.model, row, nudges)
        of = {point: value for point, value in run.values.items() if is_differentiable(point, value)}
        return of, (run.values, {point: mask for point, mask in run.valid.items() if mask is not None})


def central_differences(
    model: Any,
    inputs: Any,
    wrt: Sequence[str],
    *,
    lengths: Lengths = None,
    initial_states: Arrays | None = None,
    step: float = 1e-5,
) -> Answer:
    """The same with respect to the points named, from Keras's own cells.

    The error is step²/6 times the third derivative, and the rounding 1e-16/step: 1e-10 and 1e-11 with values near 1.
    """

    def differentiate(rows: Any) -> Found:
        shapes = zero_nudges(model, rows, wrt)
        found = [
            differences_of_row(model, jax.tree.map(lambda x, i=i: x[i], rows), shapes, step)
            for i in range(len(next(iter(rows["inputs"].values()))))
        ]
        return jax.tree.map(lambda *parts: np.stack(parts), *found)

    return answer(model, differentiate, inputs, lengths, initial_states)


def differences_of_row(model: Any, row: Any, shapes: Arrays, step: float) -> Found:
    """Values, validity and blocks of one sequence, all its perturbed copies run as one batch for each point."""
    tiled = jax.tree.map(lambda x: np.asarray(x)[None], row)
    here = run_whole(Run(keras_own, {}, tiled["initial"]), model, tiled["inputs"])
    of = [point for point, value in here.values.items() if is_differentiable(point, value)]
    blocks: dict[str, dict[str, np.ndarray]] = {point: {} for point in of}
    for wrt, zero in shapes.items():
        basis = step * np.eye(zero.size).reshape(zero.size, *zero.shape)
        (copies, held) = repeated((tiled, here.masks), 2 * len(basis))
        run = Run(keras_own, {wrt: np.concatenate([basis, -basis])}, copies["initial"], held=held)
        there = run_whole(run, model, copies["inputs"]).values
        for point in of:
            plus, minus = np.split(np.asarray(there[point]), 2)
            difference = np.moveaxis(plus - minus, 0, -1) / (2 * step)
            blocks[point][wrt] = difference.reshape(*plus.shape[1:], *zero.shape)
    values = {point: np.asarray(value)[0] for point, value in here.values.items()}
    return values, {point: np.asarray(mask)[0] for point, mask in here.valid.items() if mask is not None}, blocks


def repeated(row: Any, times: int) -> Any:
    """The same sequence so many times."""
    return jax.tree.map(lambda x: np.repeat(np.asarray(x), times, 0), row)


def forward(model: Any, row: Any, nudges: Any) -> Run:
    """One sequence through the formulas, with the masks that the un-nudged sequence chooses."""
    held = None
    if any(isinstance(layer, keras.layers.Masking | keras.layers.Embedding) for layer in model._flatten_layers()):
        held = run_whole(Run(formulas, {}, row["initial"]), model, row["inputs"]).masks
    return run_whole(Run(formulas, nudges, row["initial"], held=held), model, row["inputs"])


def is_differentiable(point: str, value: Any) -> bool:
    """Whether a point is answered as `of`: numbers that can be nudged, and no weight."""
    return "/" not in point and keras.backend.standardize_dtype(value.dtype).startswith("float")


def zero_nudges(model: Any, rows: Any, wrt: Sequence[str] | None) -> dict[str, np.ndarray]:
    """A zero nudge for each point named, or for each point there is, weights and final states apart."""
    layout = run_shapes(model, rows)
    values = layout.values
    every = [p for p, value in values.items() if is_differentiable(p, value) and not p.endswith(".final")]
    names = every if wrt is None else [layout.aliases.get(name, name) for name in wrt]
    return {name: np.zeros(values[name].shape) for name in names}


def answer(
    model: Any, differentiate: Callable[[Any], Found], inputs: Any, lengths: Lengths, initial_states: Arrays | None
) -> Answer:
    """Each group of rows of like lengths by itself, joined in the padded shape."""
    rows = as_rows(model, inputs, initial_states)
    batch = len(next(iter(rows["inputs"].values())))
    layout = run_shapes(model, rows)
    values: dict[str, np.ndarray] = {}
    valid: dict[str, np.ndarray] = {}
    blocks: dict[str, dict[str, np.ndarray]] = {}
    for members, cut in alone(model, rows, lengths, batch):
        found_values, found_valid, found_blocks = differentiate(cut)
        for of, value in found_values.items():
            padded = Padding(of, layout, value.shape[1:])
            put(values, of, batch, members, padded.of(value, found_values))
            if padded.timed:
                known = found_valid.get(of, np.ones(value.shape[:2], bool))
                put(valid, of, batch, members, padded.tail(known, np.zeros_like(known[:, 0])))
            for wrt, block in found_blocks.get(of, {}).items():
                by_wrt = {p: found_blocks[p][wrt] for p in found_blocks}
                whole = Padding(wrt, layout, found_values[wrt].shape[1:]).wrt(padded.of(block, by_wrt), value.ndim)
                put(blocks.setdefault(of, {}), wrt, batch, members, whole)
    return Answer(values, blocks, valid, layout.order, layout.aliases)


def run_shapes(model: Any, rows: Any) -> Run:
    """A run of the whole padded batch that computes nothing: shapes and directions alone."""
    seen = {}

    def note(row: Any) -> Any:
        seen["run"] = run = forward(model, row, {})
        return run.values

    shapes = jax.eval_shape(note, jax.tree.map(lambda x: x[0], rows))
    seen["run"].values = shapes
    return seen["run"]


class Padding:
    """How what was found for a sequence alone is laid out in the padded batch."""

    def __init__(self, point: str, layout: Run, alone: tuple[int, ...]) -> None:
        self.point, full = point, layout.values[point]
        self.timed = len(full.shape) > 1 or (len(full.shape) == 1 and np.dtype(full.dtype).kind == "i")
        self.missing = full.shape[0] - alone[0] if self.timed else 0
        self.is_state = f"{point}.final" in layout.values
        self.backward = layout.order.get(point) == -1

    def of(self, found: np.ndarray, others: Arrays) -> np.ndarray:
        """Along the timesteps of `of`: a state repeats what it was before the padding, all else is zero there."""
        if not self.missing:
            return found
        if not self.is_state:
            return self.tail(found, np.zeros_like(found[:, 0]))
        return self.tail(found, others[f"{self.point}.initial"] if self.backward else found[:, -1])

    def tail(self, found: np.ndarray, fill: np.ndarray) -> np.ndarray:
        return np.concatenate([found, *[fill[:, None]] * self.missing], 1)

    def wrt(self, block: np.ndarray, axis: int) -> np.ndarray:
        """Along the timesteps of `wrt`: zero."""
        if not self.missing:
            return block
        return np.pad(block, [(0, self.missing if i == axis else 0) for i in range(block.ndim)])


def put(into: dict[str, np.ndarray], name: str, batch: int, members: list[int], rows: np.ndarray) -> None:
    into.setdefault(name, np.zeros((batch, *rows.shape[1:]), rows.dtype))[members] = rows


def as_rows(model: Any, inputs: Any, initial_states: Arrays | None) -> Any:
    """Inputs and initial states by name, in float64 (integers stay)."""
    named = inputs if isinstance(inputs, Mapping) else {input_names(model)[0]: inputs}
    arrays = {name: np.asarray(value) for name, value in named.items()}
    floats = {n: a if a.dtype.kind == "i" else a.astype("float64") for n, a in arrays.items()}
    return {"inputs": floats, "initial": {n: np.asarray(s, "float64") for n, s in (initial_states or {}).items()}}


def alone(model: Any, rows: Any, lengths: Lengths, batch: int) -> Iterator[tuple[list[int], Any]]:
    """The rows of each length by themselves, cut to it."""
    if lengths is None:
        yield list(range(batch)), rows
        return
    names = input_names(model)
    of_input = lengths if isinstance(lengths, Mapping) else dict.fromkeys(names, lengths)
    keys = [tuple(int(of_input[name][i]) if name in of_input else -1 for name in names) for i in range(batch)]
    for key in sorted(set(keys)):
        members = [i for i in range(batch) if keys[i] == key]
        cut = {n: rows["inputs"][n][members][:, : key[j] if key[j] >= 0 else None] for j, n in enumerate(names)}
        yield members, {"inputs": cut, "initial": {n: s[members] for n, s in rows["initial"].items()}}
