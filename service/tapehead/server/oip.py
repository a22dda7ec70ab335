"""The Open Inference Protocol v2: its metadata and its infer bodies, in JSON and with binary tensor data.

A binary body is a JSON object of `Inference-Header-Content-Length` bytes, then the raw data (C order, little-endian) of
each tensor that says `binary_data_size`, in the order in which the object lists them.
https://github.com/kserve/open-inference-protocol, and Triton's "binary tensor data extension".
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from tapehead.errors import BadDtype, BadParameter, BadShape, MalformedBody
from tapehead.operations import Array, Card, Request, Result, TensorSpec
from tapehead.wire.messages import JSON
from tapehead.wire.plain import decode
from tapehead.wire.tensors import dtype_name, pack, unpack

T = TypeVar("T")

EXTENSIONS = ("operations", "binary_tensor_data", "model_repository")
HEADER_LENGTH = "Inference-Header-Content-Length"
DATATYPES: Mapping[str, str] = {
    "BOOL": "bool",
    **{f"{sign.upper()}INT{bits}": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": f"float{bits}" for bits in (16, 32, 64)},
    "BF16": "bfloat16",
}
"""The protocol's names of the dtypes that travel."""

_NAMES = {dtype: name for name, dtype in DATATYPES.items()}
_REQUEST = ("id", "parameters", "inputs", "outputs")
_INPUT = ("name", "shape", "datatype", "parameters", "data")


@dataclass(frozen=True)
class Inference:
    """An infer request: what is asked of the model, and how the answer shall look.

    `outputs` maps each output asked for to whether it shall be binary; empty asks for all, as `binary` says.
    """

    request: Request
    id: str | None
    outputs: Mapping[str, bool]
    binary: bool


def metadata(card: Card, versions: Iterable[int]) -> dict[str, Any]:
    """What the protocol tells of a model."""
    return {
        "name": card.name,
        "versions": [str(version) for version in versions],
        "platform": card.platform,
        "inputs": [_described(spec) for spec in card.inputs],
        "outputs": [_described(spec) for spec in card.outputs],
    }


def read_fields(body: bytes, known: Iterable[str]) -> dict[str, Any]:
    """The JSON object in a body; none at all counts as an empty one.

    Raises:
        MalformedBody: it is no such object.
        BadParameter: it has a field beside those known.
    """
    fields = decode(body, JSON) if body.strip() else {}
    if not isinstance(fields, dict):
        raise MalformedBody(f"the body is a JSON {type(fields).__name__}; expected an object")
    _only(fields, "the request", known)
    return fields


def read_parameters(body: bytes, known: Iterable[str]) -> dict[str, Any]:
    """The `parameters` in a body that has nothing else.

    Raises:
        MalformedBody, BadParameter: as `read_fields`.
    """
    return _parameters(read_fields(body, ("parameters",)), "the request", *known)


def read(body: bytes, header_length: str | None) -> Inference:
    """The infer request that `body` holds.

    Raises:
        MalformedBody: it is no such JSON object, or the lengths in it do not fit.
        BadParameter: a field or parameter is unknown.
        BadShape, BadDtype: a tensor's data does not fit what it says of itself.
    """
    head, raw = _split(body, header_length)
    fields = read_fields(head, _REQUEST)
    parameters = _parameters(fields, "the request", "binary_data_output")
    binary = _field(parameters, "binary_data_output", bool, False)
    outputs = {name: _is_binary(name, output, binary) for name, output in _named(fields, "outputs")}
    inputs = _inputs(_named(fields, "inputs"), raw)
    return Inference(Request(inputs), _field(fields, "id", str, "") or None, outputs, binary)


def write(inference: Inference, result: Result, model: str, version: int) -> tuple[bytes, int | None]:
    """The reply's body, and how much of it is JSON where binary data follows.

    Raises:
        BadParameter: an output was asked for that the model has not.
    """
    wanted = inference.outputs or dict.fromkeys(result.tensors, inference.binary)
    unknown = [name for name in wanted if name not in result.tensors]
    if unknown:
        raise BadParameter(f"no output {unknown[0]!r}; the model gives {', '.join(result.tensors)}")
    outputs, tails = [], []
    for name, binary in wanted.items():
        output, tail = _output(name, result.tensors[name], binary)
        outputs.append(output)
        tails.append(tail)
    reply = {"model_name": model, "model_version": str(version), "outputs": outputs}
    if inference.id is not None:
        reply["id"] = inference.id
    head = json.dumps(reply, allow_nan=False, separators=(",", ":")).encode()
    return b"".join((head, *tails)), len(head) if any(wanted.values()) else None


def _described(spec: TensorSpec) -> dict[str, Any]:
    shape = [-1 if size is None else size for size in spec.shape]
    return {"name": spec.name, "datatype": _NAMES[spec.dtype], "shape": shape}


def _split(body: bytes, header_length: str | None) -> tuple[bytes, memoryview]:
    if header_length is None:
        return body, memoryview(b"")
    at = int(header_length) if header_length.isdecimal() and len(header_length) <= 18 else -1
    if not 0 <= at <= len(body):
        raise MalformedBody(f"{HEADER_LENGTH} is {header_length[:40]!r}; the body has {len(body)} bytes")
    return body[:at], memoryview(body)[at:]


def _only(given: Mapping[str, Any], where: str, known: Iterable[str]) -> None:
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise BadParameter(f"{where} holds {unknown[0]!r}; known here: {', '.join(known) or 'nothing'}")


def _parameters(fields: Mapping[str, Any], where: str, *known: str) -> dict[str, Any]:
    parameters = _field(fields, "parameters", dict, {})
    _only(parameters, f"parameters of {where}", known)
    return parameters


def _field(fields: Mapping[str, Any], name: str, kind: type[T], default: T) -> T:
    value = default if fields.get(name) is None else fields[name]
    if isinstance(value, kind):
        return value
    raise MalformedBody(f"{name} is {type(value).__name__}; expected {kind.__name__}")


def _named(fields: Mapping[str, Any], what: str) -> list[tuple[str, dict[str, Any]]]:
    """The tensors that a list describes, each with its name."""
    given = _field(fields, what, list, [])
    for tensor in given:
        if not isinstance(tensor, dict) or not isinstance(tensor.get("name"), str):
            raise MalformedBody(f"{what} holds {str(tensor)[:80]}; expected objects with a name (or msgpack, not JSON)")
    names = [tensor["name"] for tensor in given]
    if len(set(names)) < len(names):
        raise MalformedBody(f"{what} has a name twice: {', '.join(names)[:200]}")
    return list(zip(names, given, strict=True))


def _is_binary(name: str, output: Mapping[str, Any], default: bool) -> bool:
    _only(output, f"output {name!r}", ("name", "parameters"))
    return _field(_parameters(output, f"output {name!r}", "binary_data"), "binary_data", bool, default)


def _inputs(given: Iterable[tuple[str, dict[str, Any]]], raw: memoryview) -> dict[str, Array]:
    inputs = {}
    for name, tensor in given:
        what = f"input {name!r}"
        _only(tensor, what, _INPUT)
        size = _binary_size(what, tensor, len(raw))
        data, raw = (tensor.get("data"), raw) if size is None else (bytes(raw[:size]), raw[size:])
        inputs[name] = _array(what, tensor, data)
    if len(raw):
        raise MalformedBody(f"{len(raw)} bytes follow the data of the last input")
    return inputs


def _binary_size(what: str, tensor: Mapping[str, Any], left: int) -> int | None:
    """How many bytes of binary data are the tensor's; None where its data is in the JSON."""
    size = _parameters(tensor, what, "binary_data_size").get("binary_data_size")
    if size is None or (type(size) is int and 0 <= size <= left and "data" not in tensor):
        return size
    raise MalformedBody(f"{what} has binary_data_size {size!r}; {left} bytes are left, and `data` is not given as well")


def _array(what: str, tensor: Mapping[str, Any], data: Any) -> Array:
    """A tensor's data as an array; in JSON it is nested, or flat in C order."""
    dtype, shape = DATATYPES.get(str(tensor.get("datatype"))), tensor.get("shape")
    if dtype is None:
        raise BadDtype(f"{what} has datatype {tensor.get('datatype')!r}; expected one of {', '.join(DATATYPES)}")
    if not isinstance(data, list) or any(isinstance(one, list) for one in data):
        return unpack({"dtype": dtype, "shape": shape, "data": data}, what)
    if not isinstance(shape, list) or any(type(n) is not int or n < 0 for n in shape) or math.prod(shape) != len(data):
        raise BadShape(f"{what} says shape {str(shape)[:80]}, and its data holds {len(data)} numbers")
    return unpack({"dtype": dtype, "shape": [len(data)], "data": data}, what).reshape(shape)


def _output(name: str, array: Array, binary: bool) -> tuple[dict[str, Any], memoryview]:
    """An output as the reply describes it, and its binary data."""
    output = {"name": name, "datatype": _NAMES[dtype_name(array.dtype)], "shape": list(array.shape)}
    data = pack(array.reshape(-1), "msgpack" if binary else "json")["data"]
    if binary:
        return {**output, "parameters": {"binary_data_size": len(data)}}, data
    return {**output, "data": data}, memoryview(b"")
