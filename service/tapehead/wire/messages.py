"""Requests, replies and problems: bytes to values and back, in either medium.

    request  {"inputs", "lengths"?, "initial_states"?, …the operation's parameters}
    reply    {"v": 1, "model": {"name", "version"}, "tensors": {name: tensor}, "axes": {name: […]}, "meta": {…}}
    problem  RFC 9457's members, with `code`, `request_id` and `error`

Server and client both speak through these functions, so neither can drift from the other. `media` is a media type
(`MSGPACK`, `JSON`, an alias), or plainly "msgpack" or "json".
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tapehead.errors import BadLengths, BadParameter, MalformedBody
from tapehead.operations import OPERATIONS, Request, Result
from tapehead.operations.request import Array
from tapehead.wire.nested import from_lists, to_lists
from tapehead.wire.plain import JSON, MEDIA, MSGPACK, PROBLEM_JSON, Bytes, decode, encode, kind_of
from tapehead.wire.tensors import is_tensor, pack, pack_plan, unpack, unpack_plan

VERSION = 1

PADDING = "padding"
"""The member of a streamed reply's `meta` that fills it up to a length known beforehand; it holds spaces."""

_FIELDS = ("inputs", "lengths", "initial_states")

TENSOR_PARAMETERS = frozenset(
    row.name for operation in OPERATIONS.values() for row in operation.parameters if "tensor" in row.kind
)
"""The parameters that are tensors, so that nested lists given for them are arrays."""


@dataclass(frozen=True)
class Reply:
    """An answer as it travels: the model that gave it, and the result."""

    model: str
    version: int
    result: Result


def decode_request(body: Bytes, media: str) -> Request:
    """The request in a body: every tensor an array, every field that is not of the schema a parameter.

    Raises:
        MalformedBody, BadDtype, BadShape, BadLengths, BadParameter: the body, or a part of it, cannot be read.
    """
    fields = _map(decode(body, media), "the body")
    if "inputs" not in fields:
        raise BadParameter(f"the request has no inputs; its fields are {sorted(fields)[:20]}")
    lengths, states = fields.get("lengths"), fields.get("initial_states")
    return Request(
        inputs=_by_name(fields["inputs"], "inputs"),
        lengths=None if lengths is None else _lengths(lengths),
        initial_states={} if states is None else _arrays(_map(states, "initial_states"), "initial_states"),
        parameters={name: _parameter(name, value) for name, value in fields.items() if name not in _FIELDS},
    )


def encode_request(request: Request, media: str) -> Bytes:
    """The body that `decode_request` reads as `request`."""
    fields: dict[str, Any] = {"inputs": _bare_or_named(request.inputs)}
    if request.lengths is not None:
        fields["lengths"] = _bare_or_named({name: np.asarray(n).tolist() for name, n in request.lengths.items()})
    if request.initial_states:
        fields["initial_states"] = request.initial_states
    return encode_plain({**fields, **request.parameters}, media)


def encode_reply(result: Result, model: str, version: int, media: str) -> Bytes:
    """The body of an answer, written in one copy."""
    reply = {
        "v": VERSION,
        "model": {"name": model, "version": version},
        "tensors": {**result.tensors, **{plan.name: pack_plan(plan) for plan in result.plans}},
        "axes": result.axes,
        "meta": result.meta,
    }
    return _encoded(reply, media, sum(array.nbytes for array in result.tensors.values()))


def decode_reply(body: Bytes, media: str) -> Reply:
    """The answer in a body; its arrays are read-only views.

    Raises:
        MalformedBody, BadDtype, BadShape: it is no answer of this version of the schema.
    """
    reply = _map(decode(body, media), "the reply")
    if reply.get("v") != VERSION:
        raise MalformedBody(f"the reply has v {reply.get('v')!r}; this reads version {VERSION} of the schema")
    model = _map(reply.get("model"), "model")
    name, version = model.get("name"), model.get("version")
    if not isinstance(name, str) or not isinstance(version, int):
        raise MalformedBody(f"the reply is of model {name!r}, version {version!r}; expected text and a whole number")
    return Reply(name, version, _result(reply))


def _result(reply: Mapping[str, Any]) -> Result:
    tensors, axes = _map(reply.get("tensors"), "tensors"), _axes(reply.get("axes"))
    meta = _revived(_map(reply.get("meta"), "meta"), "meta")
    meta.pop(PADDING, None)
    if meta.get("dry_run") is not True:
        return Result(_arrays(tensors, "tensors"), axes, meta)
    plans = tuple(unpack_plan(value, name, axes.get(name, ())) for name, value in tensors.items())
    return Result({}, axes, meta, plans)


def encode_problem(members: Mapping[str, Any], media: str) -> Bytes:
    """A problem's members (`errors.problem`) as bytes."""
    return encode_plain(members, media)


def decode_problem(body: Bytes, media: str) -> dict[str, Any]:
    """The members of a problem.

    Raises:
        MalformedBody: it is none.
    """
    return _map(decode(body, media), "the problem")


def encode_plain(value: Any, media: str) -> Bytes:
    """Any maps, lists, text, numbers and arrays as bytes; the arrays in one copy."""
    return _encoded(value, media, _size(value))


def _encoded(value: Any, media: str, size: int) -> Bytes:
    if kind_of(media) == "msgpack":
        return encode(value, media, size=size, other=_for_msgpack)
    return encode(_for_json(value), media)


def _for_msgpack(value: Any) -> Any:
    """What msgpack does not know as what it does: arrays as tensors, NumPy's numbers as Python's."""
    if isinstance(value, np.ndarray):
        return pack(value, "msgpack")
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"a {type(value).__name__} cannot be sent")


def _for_json(value: Any) -> Any:
    """A value as what JSON knows: arrays as tensors, NumPy's numbers as Python's, what is not finite as text."""
    if isinstance(value, np.ndarray):
        return pack(value, "json")
    if isinstance(value, Mapping):
        return {name: _for_json(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_for_json(item) for item in value]
    if isinstance(value, np.generic):
        return _for_json(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return to_lists(np.asarray(value))
    return value


def _size(value: Any) -> int:
    """The bytes of all arrays in a value."""
    if isinstance(value, Mapping):
        return sum(map(_size, value.values()))
    return value.nbytes if isinstance(value, np.ndarray) else 0


def _revived(value: Any, what: str) -> Any:
    """A plain value with its tensors as arrays."""
    if is_tensor(value):
        return unpack(value, what)
    if isinstance(value, dict):
        return {name: _revived(item, f"{what}.{name}") for name, item in value.items()}
    if isinstance(value, list):
        return [_revived(item, what) for item in value]
    return value


def _parameter(name: str, value: Any) -> Any:
    """A parameter's value; nested lists are arrays where the parameter is a tensor (or a map of tensors by point)."""
    if name in TENSOR_PARAMETERS and not is_tensor(value):
        if isinstance(value, list):
            return from_lists(value, name)
        if isinstance(value, dict):
            return _arrays(value, name)
    return _revived(value, name)


def _by_name(value: Any, what: str) -> dict[str, Array]:
    """Arrays by input name; the one that came without a name under the empty one."""
    if isinstance(value, dict) and not is_tensor(value):
        return _arrays(value, what)
    return {"": _array(value, what)}


def _arrays(values: Mapping[str, Any], what: str) -> dict[str, Array]:
    return {name: _array(value, f"{what}[{name!r}]") for name, value in values.items()}


def _array(value: Any, what: str) -> Array:
    if is_tensor(value):
        return unpack(value, what)
    if isinstance(value, list):
        return from_lists(value, what)
    raise MalformedBody(f"{what} is {type(value).__name__}; expected a tensor (a map of dtype, shape and data)")


def _lengths(value: Any) -> dict[str, Array]:
    named = _by_name(value, "lengths")
    for name, array in named.items():
        if array.ndim != 1 or (array.dtype.kind not in "iu" and array.size):
            came = f"{array.dtype.name} of shape {list(array.shape)}"
            raise BadLengths(f"lengths{f' of {name!r}' if name else ''} came as {came}; expected one integer a sample")
    return {name: array.astype(np.int64) for name, array in named.items()}


def _axes(value: Any) -> dict[str, tuple[str, ...]]:
    axes = _map(value, "axes")
    if not all(isinstance(names, list) and all(isinstance(one, str) for one in names) for names in axes.values()):
        raise MalformedBody(f"axes hold {str(axes)[:80]}; expected a list of names for each tensor")
    return {name: tuple(names) for name, names in axes.items()}


def _bare_or_named(named: Mapping[str, Any]) -> Any:
    return named[""] if set(named) == {""} else named


def _map(value: Any, what: str) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    raise MalformedBody(f"{what} is {type(value).__name__}; expected a map")


__all__ = [
    "JSON",
    "MEDIA",
    "MSGPACK",
    "PROBLEM_JSON",
    "TENSOR_PARAMETERS",
    "VERSION",
    "Reply",
    "decode_problem",
    "decode_reply",
    "decode_request",
    "encode_plain",
    "encode_problem",
    "encode_reply",
    "encode_request",
    "kind_of",
]
