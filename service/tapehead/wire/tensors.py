"""Tensors to plain values and back: `{"dtype": "float32", "shape": [2, 20, 5], "data": …}`.

`data` is C order and little-endian in msgpack, nested lists in JSON. What is read is a read-only view. A tensor that is
only planned, as a dry run tells it, has no `data`; a length that nobody knows yet is null.
"""

from __future__ import annotations

import difflib
import functools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from tapehead.errors import BadDtype, BadShape, MalformedBody
from tapehead.operations.request import Array, Plan
from tapehead.wire.nested import NON_FINITE, from_lists, to_lists
from tapehead.wire.plain import Kind

BFLOAT16 = "bfloat16"

DTYPES: Mapping[str, np.dtype[Any]] = {
    "bool": np.dtype("?"),
    **{f"{sign}int{8 * n}": np.dtype(f"<{sign or 'i'}{n}") for sign in ("", "u") for n in (1, 2, 4, 8)},
    **{f"float{8 * n}": np.dtype(f"<f{n}") for n in (2, 4, 8)},
    BFLOAT16: np.dtype("<u2"),
}
"""The dtypes that travel, by name; bfloat16, which NumPy has not, as its bits."""

_NAMES = {dtype.str[1:]: name for name, dtype in DTYPES.items() if name != BFLOAT16}
_FIELDS = frozenset(("dtype", "shape", "data"))
_PLANNED = frozenset(("dtype", "shape"))
_MAX_AXES = 32
_MAX_ENTRIES = 2**32
"""As many bytes as msgpack's bin can hold; without a bound an empty axis would let the others claim anything."""


def is_tensor(value: Any) -> bool:
    """Whether a plain value is meant as a tensor: a map with at least two of a tensor's three fields."""
    return isinstance(value, dict) and len(_FIELDS & value.keys()) >= 2


def pack(array: Array, kind: Kind) -> dict[str, Any]:
    """An array as a plain value; in msgpack its data is a view of the array, not yet a copy.

    Raises:
        BadDtype: its dtype is none that travels.
    """
    name = dtype_name(array.dtype)
    bits = array.view(np.uint16) if name == BFLOAT16 else array
    ordered = np.asarray(bits, dtype=DTYPES[name], order="C")
    data = _bytes(ordered) if kind == "msgpack" else to_lists(_numbers(ordered, name))
    return {"dtype": name, "shape": list(array.shape), "data": data}


def unpack(value: Mapping[str, Any], what: str) -> Array:
    """A plain value as a read-only array; bfloat16 as the float32 of the same number.

    Raises:
        MalformedBody: a field is missing or unknown, or `data` does not fill `shape`.
        BadDtype: the dtype is none that travels, or the data is not of it.
        BadShape: the shape is none.
    """
    if value.keys() != _FIELDS:
        raise MalformedBody(f"{what} has the fields {sorted(value)}; a tensor has exactly dtype, shape and data")
    name, shape = _dtype(value["dtype"], what), _shape(value["shape"], what)
    data = value["data"]
    packed = isinstance(data, bytes | memoryview)
    array = _viewed(data, name, shape, what) if packed else _listed(data, name, shape, what)
    array.flags.writeable = False
    return array


def pack_plan(plan: Plan) -> dict[str, Any]:
    """A planned tensor as a plain value."""
    return {"dtype": dtype_name(plan.dtype), "shape": list(plan.shape)}


def unpack_plan(value: Any, name: str, axes: tuple[str, ...]) -> Plan:
    """A plain value as a planned tensor; bfloat16 as the float32 that it would arrive as.

    Raises:
        MalformedBody: a field is missing or unknown.
        BadDtype, BadShape: the dtype is none that travels, the shape is none.
    """
    if not isinstance(value, dict) or value.keys() != _PLANNED:
        raise MalformedBody(f"tensors[{name!r}] is {str(value)[:80]}; in a dry run a tensor has dtype and shape alone")
    dtype, sizes = _dtype(value["dtype"], name), value["shape"]
    known = _shape([1 if n is None else n for n in sizes] if isinstance(sizes, list) else sizes, name)
    shape = tuple(None if n is None else size for n, size in zip(sizes, known, strict=True))
    return Plan(name, shape, axes, np.dtype(np.float32) if dtype == BFLOAT16 else DTYPES[dtype])


@functools.lru_cache(64)
def dtype_name(dtype: np.dtype[Any]) -> str:
    """The name under which a dtype travels.

    Raises:
        BadDtype: it is none that does.
    """
    name = BFLOAT16 if dtype.name == BFLOAT16 else _NAMES.get(dtype.str[1:])
    if name is None:
        raise BadDtype(f"arrays of dtype {dtype} cannot be sent; convert to one of {', '.join(DTYPES)}")
    return name


def _bytes(ordered: Array) -> memoryview:
    return ordered.data.cast("B") if ordered.size else memoryview(b"")


def _numbers(stored: Array, name: str) -> Array:
    """Stored entries as numbers: themselves, but for bfloat16, which is the upper half of a float32."""
    if name != BFLOAT16:
        return stored
    return (stored.astype(np.uint32) << 16).view(np.float32)


def _viewed(data: bytes | memoryview, name: str, shape: tuple[int, ...], what: str) -> Array:
    dtype = DTYPES[name]
    needed = math.prod(shape) * dtype.itemsize
    if len(data) != needed:
        raise MalformedBody(f"{what} has {len(data)} bytes of data; {name} of shape {list(shape)} takes {needed}")
    if name == "bool" and (np.frombuffer(data, np.uint8) > 1).any():
        raise BadDtype(f"{what} is bool, whose bytes are 0 or 1; another was found")
    return _numbers(np.ndarray(shape, dtype, data), name)


def _listed(data: Any, name: str, shape: tuple[int, ...], what: str) -> Array:
    if not isinstance(data, list | int | float) and data not in NON_FINITE:
        raise MalformedBody(f"{what}: data is {type(data).__name__}; expected bin in msgpack, nested lists in JSON")
    array = from_lists(data, what, np.dtype(np.float32) if name == BFLOAT16 else DTYPES[name])
    if array.shape != shape and not array.size == 0 == math.prod(shape):
        raise BadShape(f"{what} says shape {list(shape)}, and its data has {list(array.shape)}")
    return array.reshape(shape)


def _dtype(name: Any, what: str) -> str:
    if isinstance(name, str) and name in DTYPES:
        return name
    near = difflib.get_close_matches(str(name)[:40], DTYPES, n=1)
    meant = f"; did you mean {near[0]!r}?" if near else ""
    raise BadDtype(f"{what} has dtype {str(name)[:40]!r}; expected one of {', '.join(DTYPES)}{meant}")


def _shape(sizes: Any, what: str) -> tuple[int, ...]:
    if not isinstance(sizes, list) or not all(type(n) is int and n >= 0 for n in sizes):
        raise BadShape(f"{what} has shape {str(sizes)[:80]}; expected a list of whole numbers, none negative")
    if len(sizes) > _MAX_AXES or math.prod(n or 1 for n in sizes) > _MAX_ENTRIES:
        raise BadShape(f"{what} has shape {str(sizes)[:80]}, which no array has")
    return tuple(sizes)
