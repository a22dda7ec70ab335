"""Functions traced once for a model and a question, then run for any batch, length and stack.

Every signature leaves batch, timesteps and stack open, so that a new length is never a new trace.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tapehead.engine.abreast import Parts, on_host, shares
from tapehead.engine.graph import AnyCall
from tapehead.engine.model import Model
from tapehead.engine.trace import Given
from tapehead.engine.tuning import Program

Array = Any
Tensor = Any


class Arrays(NamedTuple):
    """What a program starts from: inputs by name, lengths by input, initial states by point, held masks by key."""

    inputs: Mapping[str, Array]
    lengths: Mapping[str, Array]
    initial: Mapping[str, Array]
    held: Mapping[str, Array]


class Operand(NamedTuple):
    """Another array that a program is given, NumPy's or a tensor; its first `open_axes` may have any length."""

    array: Array
    open_axes: int


def ran(
    model: Model,
    kind: Hashable,
    function: Callable[..., Any],
    calls: Sequence[AnyCall],
    arrays: Arrays,
    *operands: Operand,
    apart: Sequence[int] = (),
) -> Any:
    """What `function(arrays, *operands)` gives, as NumPy; compiled under `kind` the first time it is asked for.

    `apart` names axes that all answers have and that may be answered in parts. 0 is the batch, also the first axis of
    every operand, unless that is 1 and shared by the rows. 1 is the stack, also the second axis of every operand.
    """
    signature = tuple((operand.array.ndim, operand.open_axes) for operand in operands)
    key = (kind, tuple(calls), *(tuple(sorted(part)) for part in arrays[1:]), signature)

    def build() -> Program:
        specs = [_specs(model, arrays), *(_operand_spec(model, operand) for operand in operands)]
        split = partial(_split, apart) if 0 in apart and model.on_processor else None
        return Program(function, specs, model.later, partial(_tensors, model), split)

    run = model.programs.get(key, build)
    shapes = tuple(tuple(array.shape) for array in (*_flat(arrays), *(operand.array for operand in operands)))
    return tf.nest.map_structure(on_host, run(arrays, *operands, shapes=shapes))


def given(model: Model, arrays: Arrays, *, held: bool = True) -> Given:
    """What a trace starts from; without `held` it makes the masks itself."""
    masks = {(int(key) if key.isdigit() else key): mask for key, mask in arrays.held.items()}
    masks.update({tensor: masks[other] for tensor, other in model.masked_by.items() if other in masks})
    return Given(
        arrays.inputs,
        model.dtype,
        arrays.lengths,
        arrays.initial,
        masks if held else None,
        follows=model.seen.follows,
    )


def _tensors(model: Model, arrays: Arrays, *operands: Operand) -> tuple[Any, ...]:
    """What a program's function is called with."""
    parts = ({name: tf.convert_to_tensor(array) for name, array in part.items()} for part in arrays)
    return Arrays(*parts), *(_operand(model, operand) for operand in operands)


def _split(axes: Sequence[int], arrays: Arrays, *operands: Operand) -> Parts | None:
    """The same for a few rows of the batch each, or for a few entries of the stack; None where there is one of each."""
    batch = len(next(iter(arrays.inputs.values())))
    if batch > 1:
        rows = shares(batch)
        given = [Arrays(*({key: array[some] for key, array in part.items()} for part in arrays)) for some in rows]
        return Parts(
            0, [(own, *(_rows(one, some, batch) for one in operands)) for own, some in zip(given, rows, strict=True)]
        )
    stack = operands[0].array.shape[1] if 1 in axes else 1
    if stack == 1:
        return None
    return Parts(1, [(arrays, *(one._replace(array=one.array[:, some]) for one in operands)) for some in shares(stack)])


def _rows(operand: Operand, rows: slice, batch: int) -> Operand:
    """Some rows of an operand, or all of one that the rows share."""
    return operand._replace(array=operand.array[rows]) if operand.array.shape[0] == batch else operand


def _specs(model: Model, arrays: Arrays) -> Arrays:
    """The arrays' shapes with every length left open that the model leaves open."""
    dtypes = {spec.name: model.dtype if "float" in spec.dtype else spec.dtype for spec in model.card.inputs}
    inputs = {spec.name: tf.TensorSpec((None, *spec.shape[1:]), dtypes[spec.name]) for spec in model.card.inputs}
    return Arrays(
        {name: inputs[name] for name in arrays.inputs},
        {name: tf.TensorSpec((None,), tf.int32) for name in arrays.lengths},
        {name: tf.TensorSpec((None, *array.shape[1:]), model.dtype) for name, array in arrays.initial.items()},
        {key: tf.TensorSpec([None] * mask.ndim, tf.bool) for key, mask in arrays.held.items()},
    )


def _operand_spec(model: Model, operand: Operand) -> Any:
    shape = (*[None] * operand.open_axes, *operand.array.shape[operand.open_axes :])
    return tf.TensorSpec(shape, "int32" if "int" in operand.array.dtype.name else model.dtype)


def _operand(model: Model, operand: Operand) -> Tensor:
    if isinstance(operand.array, tf.Tensor):
        return operand.array
    dtype = "int32" if "int" in operand.array.dtype.name else model.dtype
    return tf.convert_to_tensor(np.ascontiguousarray(operand.array, dtype))


def _flat(arrays: Arrays) -> list[Array]:
    return [array for part in arrays for array in part.values()]
