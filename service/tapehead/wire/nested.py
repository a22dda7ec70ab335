"""Nested lists of numbers to arrays, and back: how JSON writes a tensor's data.

JSON has no NaN and no infinities: they travel as the strings "NaN", "Infinity" and "-Infinity".
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tapehead.errors import BadDtype, BadShape
from tapehead.operations.request import Array

NON_FINITE = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}

_FITTING: dict[str, tuple[type, ...]] = {"b": (bool,), "i": (int,), "u": (int,), "f": (float, int)}
"""By a dtype's kind, the Python numbers that fit it."""


def to_lists(array: Array) -> Any:
    """The array's numbers as nested lists; what is not finite as a string."""
    if array.dtype.kind != "f" or np.isfinite(array).all():
        return array.tolist()
    numbers = array.astype(object)
    numbers[np.isnan(array)] = "NaN"
    numbers[np.isposinf(array)] = "Infinity"
    numbers[np.isneginf(array)] = "-Infinity"
    return numbers.tolist()


def from_lists(value: Any, what: str, dtype: np.dtype[Any] | None = None) -> Array:
    """Nested lists of numbers as an array, of their own kind (bool, int64 or float64) where no dtype is given.

    Raises:
        BadShape: the lists are ragged.
        BadDtype: they hold other than numbers, or numbers that do not fit `dtype`.
    """
    # As objects first: given a mixture, NumPy would make every number a string, as long as the longest.
    numbers = np.array(value, dtype=object)
    held = set(map(type, numbers.ravel().tolist()))
    if list in held:
        raise BadShape(f"{what} is ragged: lists beside each other need the same length (and at most 64 levels)")
    if str in held:
        numbers = _spelled_out(numbers, what)
        held = held - {str} | {float}
    dtype = dtype or _own_dtype(held)
    if not held <= set(_FITTING[dtype.kind]):
        names = ", ".join(sorted(kind.__name__ for kind in held))
        raise BadDtype(f"{what} holds {names}; {dtype.name} takes only {_FITTING[dtype.kind][0].__name__}s")
    try:
        with np.errstate(over="raise"):
            return numbers.astype(dtype)
    except (OverflowError, FloatingPointError) as error:
        raise BadDtype(f"{what} holds a number that {dtype.name} cannot hold: {error}") from error


def _spelled_out(numbers: Array, what: str) -> Array:
    flat = numbers.ravel().tolist()
    wrong = next((text for text in flat if isinstance(text, str) and text not in NON_FINITE), None)
    if wrong is not None:
        raise BadDtype(f"{what} holds the text {wrong[:40]!r}; expected numbers, or one of {', '.join(NON_FINITE)}")
    spelled = [NON_FINITE[number] if isinstance(number, str) else number for number in flat]
    return np.array(spelled, dtype=object).reshape(numbers.shape)


def _own_dtype(held: set[type]) -> np.dtype[Any]:
    if held == {bool}:
        return np.dtype(bool)
    return np.dtype("int64" if held == {int} else "float64")
