"""The description of the server for programs (OpenAPI 3.1), made from its routes and the table of operations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from tapehead.operations import INFER, OPERATIONS, Operation, Parameter
from tapehead.server import media, oip, pictures

Schema = dict[str, Any]

_SUMMARY = "Any derivative of any tensor inside a recurrent model with respect to any other."
_POINT: Schema = {"type": "string", "examples": ["lstm.h[-1]"]}
_POINTS: Schema = {"type": "array", "items": _POINT}
_NUMBERS: Schema = {"description": "Nested lists of numbers.", "anyOf": [{"type": "array"}, {"type": "number"}]}


def _or_by_name(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "object", "additionalProperties": schema}]}


def _tensor(data: Schema) -> Schema:
    return {
        "type": "object",
        "required": ["dtype", "shape", "data"],
        "additionalProperties": False,
        "properties": {
            "dtype": {"enum": list(oip.DATATYPES.values())},
            "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
            "data": data,
        },
    }


_BYTES: Schema = {"type": "string", "format": "binary", "description": "msgpack bin: C order, little-endian."}
_TENSORS: Mapping[str, Schema] = {"msgpack": _tensor(_BYTES), "json": {"anyOf": [_tensor(_NUMBERS), _NUMBERS]}}
_PICTURE_QUERY = {
    "width": f"Of a picture, in pixels: {pictures.NARROWEST} to {pictures.WIDEST}, 800 by default.",
    "row": "The sample that a picture shows, 0 by default.",
}
_MEDIA = {media.MSGPACK: "msgpack", media.JSON: "json"}
_KINDS: Mapping[str, Schema] = {
    "point": _POINT,
    "points": _POINTS,
    "point or points": {"anyOf": [_POINT, _POINTS]},
    "bool": {"type": "boolean"},
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "string": {"type": "string"},
    "choice": {"type": "string"},
    "choices": {"type": "array", "items": {"type": "string"}, "uniqueItems": True},
    "name or names": _or_by_name({"type": "string"}),
    "numbers": {"type": "object", "additionalProperties": {"type": "number"}},
}


def describe(app: FastAPI) -> dict[str, Any]:
    """The whole description of `app`."""
    document = get_openapi(
        title="Tapehead", version=app.version, summary=_SUMMARY, description=app.description, routes=app.routes
    )
    for operation in (INFER, *OPERATIONS.values()):
        for prefix in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
            document["paths"][f"{prefix}/{operation.name}"] = {"post": _path_item(operation, prefix)}
    components = document.setdefault("components", {})
    components["schemas"] = {**components.get("schemas", {}), **_schemas()}
    components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    document["security"] = [{"key": []}, {}]
    return document


def _path_item(operation: Operation, prefix: str) -> dict[str, Any]:
    names = [piece[1:-1] for piece in prefix.split("/") if piece.startswith("{")]
    return {
        "tags": ["operations"],
        "summary": operation.doc,
        "operationId": "_".join((operation.name, *names)),
        "parameters": [
            *({"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names),
            *(_query(name, doc) for name, doc in _PICTURE_QUERY.items()),
            {"name": "X-Request-Id", "in": "header", "schema": {"type": "string", "maxLength": 128}},
            {"name": "X-Request-Timeout", "in": "header", "schema": {"type": "number"}, "description": "Seconds."},
        ],
        "requestBody": {"required": True, "content": _requests(operation)},
        "responses": {"200": {"description": "The answer.", "content": _replies(operation)}, **PROBLEMS},
    }


def _query(name: str, doc: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "schema": {"type": "integer"}, "description": doc}


def _requests(operation: Operation) -> Schema:
    own = {name: {"schema": _ref(f"{operation.name}.{kind}")} for name, kind in _MEDIA.items()}
    return own if operation is not INFER else {**own, **_protocol("InferRequest")}


def _replies(operation: Operation) -> Schema:
    own = {name: {"schema": _ref(f"Reply.{kind}")} for name, kind in _MEDIA.items()}
    own |= {name: {"schema": {"type": "string", "format": "binary"}} for name in media.PICTURES}
    return own if operation is not INFER else {**own, **_protocol("InferReply")}


def _protocol(name: str) -> Schema:
    """Infer's bodies that are the protocol's own."""
    binary = {**_BYTES, "description": f"A JSON {name} of {oip.HEADER_LENGTH} bytes, then the tensors' raw data."}
    return {media.JSON: {"schema": _ref(name)}, media.OCTETS: {"schema": binary}}


def _request(operation: Operation, kind: str) -> Schema:
    tensor = _ref(f"Tensor.{kind}")
    numbers = {"type": "array", "items": {"type": "integer"}}
    own = {parameter.name: _parameter(parameter, tensor) for parameter in operation.parameters}
    return {
        "type": "object",
        "required": ["inputs", *(parameter.name for parameter in operation.parameters if parameter.required)],
        "additionalProperties": False,
        "properties": {
            "inputs": {"description": "A tensor, or one for each input by name.", **_or_by_name(tensor)},
            "lengths": {"description": "Valid timesteps of each sequence.", **_or_by_name(numbers)},
            "initial_states": {
                "type": "object",
                "additionalProperties": tensor,
                "description": 'States to start from, by point: {"lstm.h.initial": …}.',
            },
            **own,
        },
    }


def _parameter(parameter: Parameter, tensor: Schema) -> Schema:
    kinds = {**_KINDS, "tensor": _or_by_name(tensor), "number or tensor": {"anyOf": [{"type": "number"}, tensor]}}
    schema = {**kinds[parameter.kind], "description": parameter.doc}
    if parameter.kind == "choices":
        schema["items"] = {"enum": list(parameter.choices)}
    choices = list(parameter.choices) if parameter.kind == "choice" else None
    bounds = {"minimum": parameter.least, "maximum": parameter.most, "enum": choices}
    schema.update({name: bound for name, bound in bounds.items() if bound is not None})
    return schema if parameter.required or parameter.default is None else {**schema, "default": parameter.default}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(required: Iterable[str], **properties: Schema) -> Schema:
    return {"type": "object", "required": list(required), "properties": properties}


def _schemas() -> dict[str, Schema]:
    text: Schema = {"type": "string"}
    texts: Schema = {"type": "array", "items": text}
    model = _object(("name", "version"), name=text, version={"type": "integer"})
    kinds = {f"Tensor.{kind}": tensor for kind, tensor in _TENSORS.items()}
    replies = {
        f"Reply.{kind}": _object(
            ("v", "model", "tensors", "axes", "meta"),
            v={"const": 1},
            model=model,
            tensors={"type": "object", "additionalProperties": _ref(f"Tensor.{kind}")},
            axes={"type": "object", "additionalProperties": texts},
            meta={"type": "object"},
        )
        for kind in _TENSORS
    }
    requests = {
        f"{operation.name}.{kind}": _request(operation, kind) for operation in OPERATIONS.values() for kind in _TENSORS
    }
    infer = {"infer.msgpack": _request(INFER, "msgpack")}
    return {**requests, **infer, **replies, **kinds, **_protocol_schemas(), "Problem": _problem()}


def _problem() -> Schema:
    names = ("type", "title", "detail", "code", "request_id", "error")
    return _object((*names, "status"), status={"type": "integer"}, **{name: {"type": "string"} for name in names})


def _protocol_schemas() -> dict[str, Schema]:
    text: Schema = {"type": "string"}
    tensor = _object(
        ("name", "shape", "datatype"),
        name=text,
        shape={"type": "array", "items": {"type": "integer"}},
        datatype={"enum": list(oip.DATATYPES)},
        parameters={"type": "object"},
        data=_NUMBERS,
    )
    tensors = {"type": "array", "items": tensor}
    outputs = {"type": "array", "items": _object(("name",), name=text, parameters={"type": "object"})}
    named = {"model_name": text, "model_version": text}
    return {
        "InferRequest": _object(("inputs",), id=text, inputs=tensors, outputs=outputs, parameters={"type": "object"}),
        "InferReply": _object((*named, "outputs"), id=text, outputs=tensors, **named),
    }


PROBLEMS: dict[int | str, Schema] = {
    "default": {
        "description": "A problem (RFC 9457); `code` tells which.",
        "content": {media.PROBLEM_JSON: {"schema": _ref("Problem")}, media.MSGPACK: {"schema": _ref("Problem")}},
    }
}
