"""The arrays of a request, held against the card: names, ranks, shapes, dtypes, finiteness, lengths, initial states."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from tapehead.errors import BadDtype, BadLengths, BadParameter, BadShape, NotFinite
from tapehead.operations.card import Card, TensorSpec
from tapehead.operations.request import Array

_FLOATS = ("float16", "bfloat16", "float32", "float64")


def checked_inputs(card: Card, inputs: Mapping[str, Array], dtype: np.dtype[Any]) -> dict[str, Array]:
    """The inputs by name, in the card's order; float inputs in `dtype`.

    Raises:
        BadParameter: an input is missing or unknown.
        BadShape, BadDtype, NotFinite: as they say.
    """
    named = _named(card, inputs, "inputs")
    missing = [spec.name for spec in card.inputs if spec.name not in named]
    if missing:
        raise BadParameter(f"inputs lacks {missing}; the model takes {[spec.name for spec in card.inputs]}")
    arrays = {spec.name: _checked_input(spec, named[spec.name], dtype) for spec in card.inputs}
    batches = {name: array.shape[0] for name, array in arrays.items()}
    if len(set(batches.values())) > 1:
        raise BadShape(f"every input needs the same number of samples; they have {batches}")
    return arrays


def checked_lengths(
    card: Card, lengths: Mapping[str, Array] | None, inputs: Mapping[str, Array]
) -> dict[str, npt.NDArray[np.int64]] | None:
    """The lengths by input name, one a sample, each between 1 and the input's timesteps.

    Raises:
        BadLengths: they do not fit the inputs.
    """
    if lengths is None:
        return None
    timed = [spec.name for spec in card.inputs if "timestep" in spec.axes]
    if set(lengths) == {""}:
        lengths = dict.fromkeys(timed, lengths[""])
    unknown = sorted(set(lengths) - set(timed))
    if unknown or not timed:
        raise BadLengths(f"lengths are given for {unknown or 'no input'}; inputs with timesteps here: {timed}")
    return {name: _checked_lengths(name, np.asarray(given), inputs[name]) for name, given in lengths.items()}


def checked_initial_states(
    card: Card, states: Mapping[str, Array], batch: int, dtype: np.dtype[Any]
) -> dict[str, Array]:
    """The initial states by their points' names, (batch, *state) each.

    Raises:
        BadParameter: a name is no initial state of the model.
        BadShape, BadDtype, NotFinite: as they say.
    """
    known = {name: info for name, info in card.points.items() if info.kind == "initial"}
    unknown = sorted(set(states) - set(known))
    if unknown:
        raise BadParameter(f"no initial state {unknown[0]!r}; initial states here: {', '.join(known) or 'none'}")
    return {name: _checked_state(name, array, (batch, *known[name].shape), dtype) for name, array in states.items()}


def finite(name: str, array: Array) -> None:
    """Refuses an array that holds NaN or an infinity, naming the first.

    Raises:
        NotFinite: it does.
    """
    if array.dtype.kind != "f" or bool(np.isfinite(array).all()):
        return
    where = np.argwhere(~np.isfinite(array))[0]
    index = ", ".join(map(str, where))
    raise NotFinite(f"{name}[{index}] is {array[tuple(where)]}; every number of a request must be finite")


def floating(name: str, array: Array, dtype: np.dtype[Any]) -> Array:
    """The array as C-ordered floats of `dtype`, finite; integers are taken as numbers.

    Raises:
        BadDtype: it holds neither floats nor integers.
        NotFinite: a number is not finite, or is too large for `dtype`.
    """
    if array.dtype.kind not in "iu" and _name(array.dtype) not in _FLOATS:
        raise BadDtype(f"{name} is {array.dtype.name}; expected floating-point numbers")
    finite(name, array)
    with np.errstate(over="ignore"):
        cast = np.ascontiguousarray(array, dtype=dtype)
    if cast is not array and array.dtype.itemsize > dtype.itemsize:
        finite(f"{name} as {dtype.name}", cast)
    return cast


@functools.lru_cache(64)
def _name(dtype: np.dtype[Any]) -> str:
    return dtype.name  # NumPy makes it anew each time


def _named(card: Card, arrays: Mapping[str, Array], what: str) -> Mapping[str, Array]:
    """The arrays by input name: a bare tensor and the name `inputs` both mean the only input."""
    names = [spec.name for spec in card.inputs]
    if len(names) == 1 and len(arrays) == 1 and next(iter(arrays)) in ("", "inputs", names[0]):
        return {names[0]: next(iter(arrays.values()))}
    if "" in arrays:
        raise BadParameter(f"the model has several inputs, {names}: give {what} as a map of input names to tensors")
    unknown = sorted(set(arrays) - set(names))
    if unknown:
        raise BadParameter(f"no input {unknown[0]!r}; the model takes {names}")
    return arrays


def _checked_input(spec: TensorSpec, array: Array, dtype: np.dtype[Any]) -> Array:
    name = f"inputs[{spec.name!r}]"
    wanted = ", ".join(("batch", *spec.axes))
    if array.ndim != len(spec.shape) or any(n not in (None, m) for n, m in zip(spec.shape, array.shape, strict=True)):
        raise BadShape(
            f"{name} has shape {_shown(array.shape)}; the model takes {_shown(spec.shape)}, that is ({wanted})"
        )
    if 0 in array.shape:
        raise BadShape(f"{name} has shape {_shown(array.shape)}: every axis needs at least one entry")
    if spec.dtype in _FLOATS:
        return floating(name, array, dtype)
    if array.dtype.kind not in "iub" or (spec.dtype == "bool") != (array.dtype.kind == "b"):
        raise BadDtype(f"{name} is {array.dtype.name}; the model takes {spec.dtype}")
    cast = np.ascontiguousarray(array, dtype=spec.dtype)
    if not np.array_equal(cast, array):
        raise BadDtype(f"{name} holds integers that do not fit {spec.dtype}, which is what the model takes")
    return cast


def _checked_lengths(name: str, lengths: Array, array: Array) -> npt.NDArray[np.int64]:
    batch, timesteps = array.shape[:2]
    if lengths.dtype.kind not in "iu" or lengths.shape != (batch,):
        raise BadLengths(
            f"lengths of {name!r} are {lengths.dtype.name} of shape {_shown(lengths.shape)}; "
            f"expected {batch} whole numbers, one a sample"
        )
    for row, steps in enumerate(lengths.tolist()):
        if not 1 <= steps <= timesteps:
            raise BadLengths(f"lengths[{row}] of {name!r} is {steps}; it must be between 1 and {timesteps} timesteps")
    return lengths.astype(np.int64)


def _checked_state(name: str, array: Array, shape: tuple[int | None, ...], dtype: np.dtype[Any]) -> Array:
    label = f"initial_states[{name!r}]"
    if array.ndim != len(shape) or any(n not in (None, m) for n, m in zip(shape, array.shape, strict=True)):
        raise BadShape(f"{label} has shape {_shown(array.shape)}; expected {_shown(shape)}")
    return floating(label, array, dtype)


def _shown(shape: tuple[int | None, ...]) -> str:
    return "(" + ", ".join("any" if n is None else str(n) for n in shape) + ("," if len(shape) == 1 else "") + ")"
