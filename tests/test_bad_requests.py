"""Wrong requests: each gets its documented status and code, and the server answers the next good one."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import keras
import msgpack
import numpy as np
import pytest
from starlette.testclient import TestClient

from tapehead.server.inprocess import application
from tapehead.server.settings import Settings

BATCH, TIMESTEPS, FEATURES, UNITS = 2, 5, 3, 4
MSGPACK, JSON = "application/vnd.msgpack", "application/json"
JACOBIAN, STATES, VJP, SALIENCY, INFER = (
    f"/v2/models/toy/{operation}" for operation in ("jacobian", "states", "vjp", "saliency", "infer")
)
X = np.linspace(-1, 1, BATCH * TIMESTEPS * FEATURES, dtype="float32").reshape(BATCH, TIMESTEPS, FEATURES)


def tensor(array: Any, **changes: Any) -> dict[str, Any]:
    """An array as it travels in msgpack, with some of its fields changed, or left out where None."""
    array = np.asarray(array)
    fields = {"dtype": array.dtype.name, "shape": list(array.shape), "data": array.tobytes(), **changes}
    return {name: value for name, value in fields.items() if value is not None}


def asked(**changes: Any) -> dict[str, Any]:
    """A good request for a Jacobian, with some of its fields changed, or left out where None."""
    fields = {"inputs": tensor(X), "of": "lstm.h[-1]", "wrt": "inputs", **changes}
    return {name: value for name, value in fields.items() if value is not None}


def packed(**changes: Any) -> bytes:
    """`asked` as msgpack."""
    return bytes(msgpack.packb(asked(**changes)))


def at(index: tuple[int, ...], value: float, dtype: str = "float32") -> np.ndarray:
    """The good input with one entry replaced."""
    array = X.astype(dtype)
    array[index] = value
    return array


def inference(head: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """A good request of the Open Inference Protocol, with fields of it (`head`) and of its tensor changed."""
    one = {"name": "x", "shape": list(X.shape), "datatype": "FP32", "data": X.ravel().tolist(), **changes}
    return {"inputs": [{name: value for name, value in one.items() if value is not None}], **(head or {})}


def binary(size: int = X.nbytes, data: bytes = X.tobytes(), length: str | None = None) -> dict[str, Any]:
    """An infer request with binary data, as the body and headers of a `Wrong`."""
    head = json.dumps(inference(data=None, parameters={"binary_data_size": size})).encode()
    headers = {"Inference-Header-Content-Length": length or str(len(head))}
    return {"path": INFER, "body": head + data, "headers": {"Content-Type": "application/octet-stream", **headers}}


@dataclass(frozen=True)
class Wrong:
    """A wrong request, and how it is answered. A body that is no bytes is sent as JSON."""

    what: str
    status: int
    code: str
    body: Any = b""
    path: str = JACOBIAN
    method: str = "POST"
    says: str = ""
    headers: dict[str, str] = field(default_factory=dict)

    def send(self, client: TestClient) -> Any:
        is_bytes = isinstance(self.body, bytes)
        media = {"Content-Type": MSGPACK if is_bytes else JSON}
        content = self.body if is_bytes else json.dumps(self.body).encode()
        return client.request(self.method, self.path, content=content, headers={**media, **self.headers})


def _malformed() -> Iterator[Wrong]:
    good = packed()
    noise = np.random.default_rng(7)
    bodies: dict[str, bytes] = {
        "nothing": b"",
        "half a body": good[: len(good) // 2],
        "a body short of its last byte": good[:-1],
        "a body and one byte more": good + b"\x00",
        "a list": msgpack.packb([1, 2]),
        "a number": b"\x07",
        "text": msgpack.packb("inputs"),
        "nil": b"\xc0",
        "a byte that msgpack never uses": b"\xc1",
        "keys that are numbers": msgpack.packb({1: 2}),
        "a key twice": b"\x82\xa2of\xa1a\xa2of\xa1b",
        "text that is not UTF-8": b"\x81\xa2of\xa1\xff",
        "an extension type": msgpack.packb({"inputs": msgpack.ExtType(5, b"x")}),
        "a timestamp": msgpack.packb({"inputs": msgpack.Timestamp(0)}),
        "nesting without end": b"\x91" * 100_000,
        "an array that claims four billion entries": b"\x81\xa6inputs\xdd\xff\xff\xff\xff",
        "a bin that claims four gigabytes": b"\x81\xa6inputs\xc6\xff\xff\xff\xff",
        "a pickle": b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94\x8c\x06system\x94\x93\x94.",
        **{f"noise of {n} bytes": noise.bytes(n) for n in (1, 10, 100, 1000, 100_000)},
    }
    for what, body in bodies.items():
        yield Wrong(f"msgpack: {what}", 400, "malformed_body", body)
    for what, body in {
        "nothing": b"",
        "no JSON": b"{inputs}",
        "half a body": json.dumps({"inputs": X.tolist()}).encode()[:-9],
        "a list": b"[]",
        "NaN, which JSON has not": b'{"inputs": [[[NaN]]]}',
        "a key twice": b'{"of": 1, "of": 2}',
        "nesting without end": b"[" * 100_000,
        "text that is not UTF-8": b'{"of": "\xff"}',
        "msgpack": good,
    }.items():
        yield Wrong(f"JSON: {what}", 400, "malformed_body", body, headers={"Content-Type": JSON})


def _tensors() -> Iterator[Wrong]:
    for what, status, code, value in (
        ("no tensor but a number", 400, "malformed_body", 3),
        ("no tensor but text", 400, "malformed_body", "abc"),
        ("no data", 400, "malformed_body", tensor(X, data=None)),
        ("no shape", 400, "malformed_body", tensor(X, shape=None)),
        ("a field too many", 400, "malformed_body", tensor(X, order="F")),
        ("fewer bytes than its shape", 400, "malformed_body", tensor(X, data=X.tobytes()[:-4])),
        ("more bytes than its shape", 400, "malformed_body", tensor(X, data=X.tobytes() + b"1234")),
        ("text for data", 400, "malformed_body", tensor(X, data="0" * X.nbytes)),
        ("a shape of lies", 400, "malformed_body", tensor(X, shape=[20, 500, 3])),
        ("a shape below zero", 422, "bad_shape", tensor(X, shape=[-1, 5, 3])),
        ("a shape of fractions", 422, "bad_shape", tensor(X, shape=[2.0, 5, 3])),
        ("a shape that no array has", 422, "bad_shape", tensor(X, shape=[2**62, 2**62, 2**62])),
        ("a shape that is text", 422, "bad_shape", tensor(X, shape="2,5,3")),
        ("objects", 422, "bad_dtype", tensor(X, dtype="object")),
        ("a dtype as NumPy writes it", 422, "bad_dtype", tensor(X, dtype="<f4")),
        ("complex numbers", 422, "bad_dtype", tensor(X, dtype="complex64")),
        ("a dtype with fields", 422, "bad_dtype", tensor(X, dtype=[["a", "f4"]])),
        ("a number for dtype", 422, "bad_dtype", tensor(X, dtype=4)),
        ("booleans", 422, "bad_dtype", tensor(X > 0)),
        ("one axis", 422, "bad_shape", tensor(X[0, 0])),
        ("two axes", 422, "bad_shape", tensor(X[0])),
        ("four axes", 422, "bad_shape", tensor(X[None])),
        ("too few features", 422, "bad_shape", tensor(X[..., :2])),
        ("no samples", 422, "bad_shape", tensor(X[:0])),
        ("no timesteps", 422, "bad_shape", tensor(X[:, :0])),
        ("another input's name", 422, "bad_parameter", {"y": tensor(X)}),
        ("two inputs", 422, "bad_parameter", {"x": tensor(X), "y": tensor(X)}),
        ("no input in a map", 422, "bad_parameter", {}),
    ):
        yield Wrong(f"inputs: {what}", status, code, packed(inputs=value))
    yield Wrong("inputs: none", 422, "bad_parameter", packed(inputs=None))
    for what, code, value in (
        ("ragged lists", "bad_shape", [[[1, 2, 3]], [[1, 2]]]),
        ("text in lists", "bad_dtype", [[["a", "b", "c"]]]),
        ("null in lists", "bad_dtype", [[[None, 1, 2]]]),
        ("a shape that is not the data's", "bad_shape", {"dtype": "float32", "shape": [3], "data": [1, 2]}),
        ("fractions as integers", "bad_dtype", {"dtype": "int32", "shape": [1], "data": [1.5]}),
        ("an integer that does not fit", "bad_dtype", {"dtype": "int8", "shape": [1], "data": [300]}),
    ):
        yield Wrong(f"inputs in JSON: {what}", 422, code, {"inputs": value, "of": "lstm.h[-1]", "wrt": "inputs"})


def _numbers() -> Iterator[Wrong]:
    index = r"\[1, 2, 0\]"
    for what, value, says in (
        ("NaN", at((1, 2, 0), np.nan), index),
        ("infinity", at((1, 2, 0), np.inf), index),
        ("minus infinity", at((1, 2, 0), -np.inf), index),
        ("infinity as a half", at((1, 2, 0), np.inf, "float16"), index),
        ("a double that is too large for the model", at((1, 2, 0), 1e300, "float64"), index),
    ):
        yield Wrong(f"inputs: {what}", 422, "not_finite", packed(inputs=tensor(value)), says=says)
    spelled = {"inputs": [[["NaN", 0, 0]]], "of": "lstm.h[-1]", "wrt": "inputs"}
    yield Wrong("inputs in JSON: NaN", 422, "not_finite", spelled, says=r"\[0, 0, 0\]")
    state = {"lstm.h.initial": tensor(np.full((BATCH, UNITS), np.inf))}
    yield Wrong("an initial state that is infinite", 422, "not_finite", packed(initial_states=state), says=r"\[0, 0\]")
    cotangent = tensor(np.full((BATCH, UNITS), np.nan, "float32"))
    yield Wrong("a cotangent that is NaN", 422, "not_finite", packed(cotangent=cotangent), VJP)


def _lengths_and_states() -> Iterator[Wrong]:
    for what, value in (
        ("too many", [5, 5, 5]),
        ("too few", [5]),
        ("none", []),
        ("zero", [5, 0]),
        ("below zero", [5, -1]),
        ("beyond the timesteps", [5, 6]),
        ("fractions", [5.0, 4.5]),
        ("a list of lists", [[5], [5]]),
        ("another input's", {"y": [5, 5]}),
    ):
        yield Wrong(f"lengths: {what}", 422, "bad_lengths", packed(lengths=value))
    yield Wrong("lengths: text", 400, "malformed_body", packed(lengths="55"))
    good = np.zeros((BATCH, UNITS), "float32")
    for what, code, value in (
        ("of another layer", "bad_parameter", {"gru.h.initial": tensor(good)}),
        ("that is not initial", "bad_parameter", {"lstm.h": tensor(good)}),
        ("with a wrong shape", "bad_shape", {"lstm.h.initial": tensor(good[:, :2])}),
        ("for another batch", "bad_shape", {"lstm.h.initial": tensor(good[:1])}),
        ("of booleans", "bad_dtype", {"lstm.h.initial": tensor(good > 0)}),
    ):
        yield Wrong(f"a state {what}", 422, code, packed(initial_states=value))
    yield Wrong("states that are a list", 400, "malformed_body", packed(initial_states=[1, 2]))


def _names() -> Iterator[Wrong]:
    good = packed()
    for what, path, code in (
        ("model", "/v2/models/other/jacobian", "unknown_model"),
        ("model, outside the folder", "/v2/models/..%5C..%5Cetc/jacobian", "unknown_model"),
        ("version", "/v2/models/toy/versions/99/jacobian", "unknown_model"),
        ("version, which is no number", "/v2/models/toy/versions/latest/jacobian", "unknown_model"),
        ("version, which is below zero", "/v2/models/toy/versions/-1/jacobian", "unknown_model"),
        ("version, longer than numbers are", f"/v2/models/toy/versions/{'9' * 5000}/jacobian", "unknown_model"),
        ("operation", "/v2/models/toy/integrate", "unknown_operation"),
        ("path", "/v3/models/toy/jacobian", "unknown_path"),
        ("path, with a slash at its end", "/v2/models/toy/jacobian/", "unknown_path"),
    ):
        yield Wrong(f"no such {what}", 404, code, good, path)
    for what, method, path in (
        ("an operation by GET", "GET", JACOBIAN),
        ("an operation by PUT", "PUT", JACOBIAN),
        ("a model by DELETE", "DELETE", "/v2/models/toy"),
        ("the index by GET", "GET", "/v2/repository/index"),
        ("health by POST", "POST", "/v2/health/live"),
    ):
        yield Wrong(what, 405, "method_not_allowed", good, path, method)


def _points() -> Iterator[Wrong]:
    for what, code, of in (
        ("of a layer that is not there", "unknown_point", "lstm1.h[-1]"),
        ("of a state that is not there", "unknown_point", "lstm.m"),
        ("of a gate that is not there", "unknown_point", "lstm.reset_gate"),
        ("without a name", "unknown_point", ""),
        ("that begins with a dot", "unknown_point", ".h"),
        ("with a quote that stays open", "unknown_point", '"lstm.h'),
        ("with an index that stays open", "bad_parameter", "lstm.h[1"),
        ("with text behind its index", "bad_parameter", "lstm.h[1] please"),
        ("that would be code", "unknown_point", "__import__('os').system('true')"),
        ("at a timestep beyond the end", "bad_parameter", "lstm.h[5]"),
        ("at a timestep before the start", "bad_parameter", "lstm.h[-6]"),
        ("at a unit that is not there", "bad_parameter", "lstm.h[-1, 4]"),
        ("with an index too many", "bad_parameter", "lstm.h[0, 0, 0]"),
        ("with a step of zero", "bad_parameter", "lstm.h[::0]"),
        ("with a fraction for an index", "bad_parameter", "lstm.h[1.5]"),
        ("with an index of many digits", "bad_parameter", f"lstm.h[{'9' * 400}]"),
        ("with argmax outside saliency", "bad_parameter", "outputs[argmax]"),
        ("that is a number", "bad_parameter", 7),
        ("that is none of no points", "bad_parameter", []),
    ):
        yield Wrong(f"a point {what}", 422, code, packed(of=of))


def _parameters() -> Iterator[Wrong]:
    for what, path, body in (
        ("`of` left out", JACOBIAN, packed(of=None)),
        ("a field that nothing reads", JACOBIAN, packed(colour="red")),
        ("a tensor that nothing reads", JACOBIAN, packed(tangent=tensor(X))),
        ("a lag below zero", JACOBIAN, packed(of="lstm.h", wrt="lstm.h", lag=-1)),
        ("a lag that is text", JACOBIAN, packed(of="lstm.h", wrt="lstm.h", lag="1")),
        ("a lag that is true", JACOBIAN, packed(of="lstm.h", wrt="lstm.h", lag=True)),
        ("a lag at one timestep", JACOBIAN, packed(wrt="lstm.h", lag=1)),
        ("a precision that is none", JACOBIAN, packed(precision="float128")),
        ("a dry run that is text", JACOBIAN, packed(dry_run="yes")),
        ("points that are a number", STATES, packed(of=None, wrt=None, points=1)),
        ("a method that is none", SALIENCY, packed(of=None, target="outputs[0]", method="magic")),
        ("a target of many numbers", SALIENCY, packed(of=None, target="lstm.h")),
        ("no steps", SALIENCY, packed(of=None, target="outputs[0]", method="integrated_gradients", n_steps=0)),
        ("a cotangent that is text", VJP, packed(cotangent="ones")),
    ):
        yield Wrong(f"parameters: {what}", 422, "bad_parameter", body, path)
    wrong = tensor(np.ones((BATCH, UNITS + 1), "float32"))
    yield Wrong("a cotangent of another shape", 422, "bad_shape", packed(cotangent=wrong), VJP)
    ids = asked(inputs=tensor(np.array([[1, 2, 3]], "int32")), of="gru.h[-1]", wrt="inputs")
    body = bytes(msgpack.packb(ids))
    yield Wrong("a derivative by integers", 422, "not_differentiable", body, "/v2/models/words/jacobian")
    many = tensor(np.zeros((64, 2000, FEATURES), "float32"))
    body = packed(inputs=many, of="lstm.h")
    yield Wrong("an answer over the limit", 413, "answer_too_large", body, says="slice")


def _headers() -> Iterator[Wrong]:
    good = packed()
    for what, given in (
        ("text", "text/plain"),
        ("a form", "application/x-www-form-urlencoded"),
        ("YAML", "application/yaml"),
        ("bytes", "application/octet-stream"),
        ("nonsense", "///"),
    ):
        yield Wrong(f"Content-Type: {what}", 415, "unsupported_media_type", good, headers={"Content-Type": given})
    compressed = {"Content-Encoding": "gzip"}
    yield Wrong("a compressed body", 415, "unsupported_media_type", good, headers=compressed)
    for what, given in (("HTML", "text/html"), ("no JSON", "application/json;q=0, text/*"), ("nonsense", "msgpack")):
        yield Wrong(f"Accept: {what}", 406, "not_acceptable", good, headers={"Accept": given})
    huge = {"Content-Length": str(10**12)}
    yield Wrong("a Content-Length over the limit", 413, "body_too_large", good, headers=huge)
    yield Wrong("a body over the limit", 413, "body_too_large", b"\x00" * (LIMIT + 1))
    for what, name, given in (
        ("a request id with a line break's worth of tab", "X-Request-Id", "a\tb"),
        ("a request id without end", "X-Request-Id", "x" * 129),
        ("a time limit that is no number", "X-Request-Timeout", "soon"),
        ("a time limit below zero", "X-Request-Timeout", "-5"),
    ):
        yield Wrong(what, 422, "bad_parameter", good, headers={name: given})
    yield Wrong("no time at all", 504, "deadline", good, headers={"X-Request-Timeout": "1e-9"})


def _protocol() -> Iterator[Wrong]:
    pair = inference()["inputs"] * 2
    for what, status, code, body in (
        ("no JSON", 400, "malformed_body", b"{"),
        ("a list", 400, "malformed_body", []),
        ("inputs that are a map", 400, "malformed_body", {"inputs": {"x": X.tolist()}}),
        ("an input without a name", 400, "malformed_body", inference(name=None)),
        ("an input twice", 400, "malformed_body", {"inputs": pair}),
        ("an input without data", 400, "malformed_body", inference(data=None)),
        ("an id that is a number", 400, "malformed_body", inference({"id": 7})),
        ("no inputs", 422, "bad_parameter", {}),
        ("a field that nothing reads", 422, "bad_parameter", inference({"colour": 1})),
        ("a parameter that nothing reads", 422, "bad_parameter", inference({"parameters": {"sequence_id": 1}})),
        ("shared memory", 422, "bad_parameter", inference(parameters={"shared_memory_region": "a"})),
        ("an output that is not there", 422, "bad_parameter", inference({"outputs": [{"name": "z"}]})),
        ("another input", 422, "bad_parameter", inference(name="y")),
        ("texts", 422, "bad_dtype", inference(datatype="BYTES")),
        ("no datatype", 422, "bad_dtype", inference(datatype=None)),
        ("a NumPy dtype", 422, "bad_dtype", inference(datatype="float32")),
        ("text in the data", 422, "bad_dtype", inference(data=["a"] * X.size)),
        ("no shape", 422, "bad_shape", inference(shape=None)),
        ("a shape below zero", 422, "bad_shape", inference(shape=[-2, 5, 3])),
        ("too few numbers", 422, "bad_shape", inference(data=[1.0])),
        ("nested data of another shape", 422, "bad_shape", inference(data=X[0].tolist())),
        ("too few features", 422, "bad_shape", inference(shape=[2, 5, 2], data=[0.0] * 20)),
        ("a NaN", 422, "not_finite", inference(data=["NaN", *X.ravel()[1:].tolist()])),
    ):
        yield Wrong(f"infer: {what}", status, code, body, INFER, headers={"Content-Type": JSON})
    for what, changes in (
        ("binary data cut short", {"data": X.tobytes()[:-1]}),
        ("binary data and more", {"data": X.tobytes() + b"\x00"}),
        ("binary data of another size", {"size": X.nbytes - 4, "data": X.tobytes()[:-4]}),
        ("a binary size below zero", {"size": -1}),
        ("a header length beyond the body", {"length": "999999"}),
        ("a header length that is no number", {"length": "many"}),
        ("a header length too short", {"length": "9"}),
    ):
        yield Wrong(f"infer: {what}", 400, "malformed_body", **binary(**changes))
    yield Wrong("infer: an Accept without JSON", 406, "not_acceptable", inference(), INFER, headers=NO_JSON)
    for what, status, code, path, body in (
        ("load: no such model", 404, "unknown_model", "models/other/load", {}),
        ("unload: no such model", 404, "unknown_model", "models/other/unload", {}),
        ("load: a path", 404, "unknown_model", "models/..%5Ctoy.keras/load", {}),
        ("load: files of its own", 422, "bad_parameter", "models/toy/load", {"parameters": {"file:a": "AAAA"}}),
        ("index: a field that nothing reads", 422, "bad_parameter", "index", {"all": True}),
        ("index: no JSON", 400, "malformed_body", "index", [1]),
    ):
        yield Wrong(what, status, code, body, f"/v2/repository/{path}")


LIMIT = 2**23
NO_JSON = {"Accept": "application/vnd.msgpack, image/gif"}
GROUPS = (_malformed, _tensors, _numbers, _lengths_and_states, _names, _points, _parameters, _headers, _protocol)
TABLE = [wrong for group in GROUPS for wrong in group()]


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    keras.utils.set_random_seed(1)
    layers = keras.layers
    x = keras.Input((None, FEATURES), name="x")
    toy = keras.Model(x, layers.Dense(2, name="y")(layers.LSTM(UNITS, name="lstm")(x)))
    ids = keras.Input((None,), dtype="int32", name="ids")
    words = keras.Model(ids, layers.GRU(3, name="gru")(layers.Embedding(9, 2, name="embedding")(ids)))
    app = application({"toy": toy, "words": words}, Settings(body_limit=LIMIT))
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


def test_the_table_is_long_enough() -> None:
    assert len(TABLE) >= 60
    assert len({wrong.what for wrong in TABLE}) == len(TABLE)


@pytest.mark.parametrize("wrong", TABLE, ids=lambda wrong: wrong.what)
def test_a_wrong_request_is_refused_and_the_next_good_one_answered(client: TestClient, wrong: Wrong) -> None:
    reply = wrong.send(client)
    problem = msgpack.unpackb(reply.content) if wrong.headers is NO_JSON else reply.json()
    assert (reply.status_code, problem["status"], problem["code"]) == (wrong.status, wrong.status, wrong.code), problem
    assert reply.headers["content-type"] == (MSGPACK if wrong.headers is NO_JSON else "application/problem+json")
    assert problem.keys() == {"type", "title", "status", "detail", "code", "request_id", "error"}
    assert not re.search(r"Traceback|File \"|\.py\b|0x[0-9a-f]{8}", problem["detail"])
    assert re.search(wrong.says, problem["detail"])
    assert problem["request_id"] == reply.headers["x-request-id"]

    good = client.post(JACOBIAN, content=packed(), headers={"Content-Type": MSGPACK})
    assert good.status_code == 200, good.content
    assert msgpack.unpackb(good.content)["tensors"]["value"]["shape"] == [BATCH, UNITS, TIMESTEPS, FEATURES]
