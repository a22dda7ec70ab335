"""The wire: what goes in comes out, in either medium; what lies is refused before it costs anything."""

import contextlib
import json
import re
import struct
import tracemalloc
from pathlib import Path

import hypothesis.extra.numpy as arrays
import ml_dtypes
import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapehead.errors import (
    BY_CODE,
    BadDtype,
    BadLengths,
    BadParameter,
    BadShape,
    MalformedBody,
    QueueFull,
    UnsupportedMediaType,
    from_problem,
    problem,
)
from tapehead.operations import Plan, Request, Result
from tapehead.wire.messages import (
    JSON,
    MSGPACK,
    PROBLEM_JSON,
    decode_problem,
    decode_reply,
    decode_request,
    encode_plain,
    encode_problem,
    encode_reply,
    encode_request,
)
from tapehead.wire.outline import LARGE_BIN, MAX_DEPTH, MAX_ITEMS
from tapehead.wire.plain import MEDIA, decode, encode, kind_of
from tapehead.wire.streams import closing, opening, reply_pieces
from tapehead.wire.tensors import DTYPES, pack, unpack

PAGE = (Path(__file__).parents[1] / "docs" / "wire.md").read_text("utf-8")

thorough = settings(max_examples=150)
media = pytest.mark.parametrize("medium", [MSGPACK, JSON])

NUMPY_DTYPES = [dtype for name, dtype in DTYPES.items() if name != "bfloat16"]
tensors = st.sampled_from(NUMPY_DTYPES).flatmap(
    lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
)
names = st.text(st.characters(codec="utf-8"), max_size=12)


def same(a, b):
    """Whether two arrays are alike to the last bit that matters: dtype, shape and every number, NaN equal to NaN."""
    return a.dtype == b.dtype and a.shape == b.shape and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")


def request_body(**fields):
    return msgpack.packb({"inputs": tensor(), **fields})


def tensor(dtype="float32", shape=(1, 2, 3), data=None):
    needed = DTYPES[dtype].itemsize * int(np.prod(shape)) if data is None else 0
    return {"dtype": dtype, "shape": list(shape), "data": bytes(needed) if data is None else data}


# ---- round trips


@thorough
@given(tensors, st.sampled_from(["msgpack", "json"]))
def test_an_array_survives_either_medium_bit_for_bit(array, medium):
    plain = decode(encode(pack(array, medium), medium), medium)
    back = unpack(plain, "x")
    assert same(array, back)
    assert not back.flags.writeable


@thorough
@given(
    st.dictionaries(names, tensors, min_size=1, max_size=3),
    st.dictionaries(names, arrays.arrays(np.int64, 3, elements=st.integers(0, 50)), max_size=2),
    st.dictionaries(names, tensors, max_size=2),
    tensors,
    st.sampled_from([MSGPACK, JSON]),
)
def test_a_request_survives_either_medium(inputs, lengths, states, cotangent, medium):
    request = Request(inputs, lengths or None, states, {"of": "lstm.h[-1]", "lag": 2, "cotangent": cotangent})
    back = decode_request(encode_request(request, medium), medium)
    assert list(back.inputs) == list(inputs)
    assert all(same(array, back.inputs[name]) for name, array in inputs.items())
    assert (back.lengths or {}).keys() == lengths.keys()
    assert all(same(array, back.lengths[name]) for name, array in lengths.items())
    assert all(same(array, back.initial_states[name]) for name, array in states.items())
    assert back.parameters["of"] == "lstm.h[-1]"
    assert back.parameters["lag"] == 2
    assert same(cotangent, back.parameters["cotangent"])


@thorough
@given(st.dictionaries(names, tensors, max_size=3), st.sampled_from([MSGPACK, JSON]))
def test_a_reply_survives_either_medium(answered, medium):
    axes = {name: tuple(f"axis{n}" for n in range(array.ndim)) for name, array in answered.items()}
    result = Result(answered, axes, {"route": "reverse", "finite": True, "timings": {"queue": 0.25}})
    reply = decode_reply(encode_reply(result, "sunspots", 3, medium), medium)
    assert (reply.model, reply.version) == ("sunspots", 3)
    assert reply.result.axes == axes
    assert reply.result.meta == result.meta
    assert all(same(array, reply.result.tensors[name]) for name, array in answered.items())


@media
def test_a_dry_run_is_a_reply_whose_tensors_have_no_data(medium):
    plans = (
        Plan("value", (2, 3), ("batch", "of.unit"), np.dtype(np.float64)),
        Plan("open", (2, None), ("batch", "axis"), np.dtype(np.float32)),
    )
    result = Result({}, {plan.name: plan.axes for plan in plans}, {"dry_run": True, "bytes": 56}, plans)
    body = encode_reply(result, "m", 1, medium)
    assert decode(body, medium)["tensors"]["open"] == {"dtype": "float32", "shape": [2, None]}
    assert decode_reply(body, medium).result == result


@pytest.mark.parametrize("planned", [{}, {"dtype": "float32"}, {"dtype": "float32", "shape": 3}, tensor(), None])
def test_a_dry_run_that_lies_is_refused(planned):
    reply = {"v": 1, "model": {"name": "m", "version": 1}, "axes": {}, "meta": {"dry_run": True}}
    with pytest.raises((MalformedBody, BadShape)):
        decode_reply(msgpack.packb({**reply, "tensors": {"value": planned}}), MSGPACK)


@media
def test_what_is_not_finite_survives_either_medium(medium):
    array = np.array([[np.nan, np.inf], [-np.inf, 1.5]], np.float32)
    reply = decode_reply(encode_reply(Result({"value": array}, {"value": ("a", "b")}, {}), "m", 1, medium), medium)
    assert same(array, reply.result.tensors["value"])


def test_json_writes_what_is_not_finite_as_strings():
    result = Result({"value": np.array([np.nan, np.inf, -np.inf, 2.0])}, {"value": ("unit",)}, {"gap": float("nan")})
    reply = json.loads(encode_reply(result, "m", 1, JSON), parse_constant=pytest.fail)
    assert reply["tensors"]["value"]["data"] == ["NaN", "Infinity", "-Infinity", 2.0]
    assert reply["meta"]["gap"] == "NaN"


@media
def test_bfloat16_travels_by_name_and_arrives_as_the_same_numbers(medium):
    array = np.array([[1.5, -3.25], [float("inf"), 1e30]], ml_dtypes.bfloat16)
    plain = decode(encode(pack(array, kind_of(medium)), medium), medium)
    assert plain["dtype"] == "bfloat16"
    assert same(unpack(plain, "x"), array.astype(np.float32))


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=">f4").reshape(2, 3),
        np.arange(6, dtype="<f4").reshape(3, 2).T,
        np.arange(12, dtype="<f4").reshape(2, 6)[:, ::2],
        np.asfortranarray(np.arange(6, dtype="<f4").reshape(2, 3)),
    ],
    ids=["big-endian", "transposed", "strided", "Fortran"],
)
@media
def test_however_an_array_lies_in_memory_it_is_sent_little_endian_in_c_order(array, medium):
    back = unpack(decode(encode(pack(array, kind_of(medium)), medium), medium), "x")
    assert back.dtype == np.dtype("<f4")
    np.testing.assert_array_equal(back, array)


@media
def test_arrays_and_numbers_of_numpy_in_meta_arrive_as_arrays_and_numbers(medium):
    meta = {"valid": np.array([[True, False]]), "target_index": np.int64(3), "each": [np.array([1.0])], "axes": ("a",)}
    back = decode_reply(encode_reply(Result({}, {}, meta), "m", 1, medium), medium).result.meta
    assert same(back["valid"], meta["valid"])
    assert back["target_index"] == 3
    assert same(back["each"][0], meta["each"][0])
    assert back["axes"] == ["a"]


@pytest.mark.parametrize(
    "array",
    [np.array([object()]), np.array(["text"]), np.array([1j]), np.array(["2020"], "M8[D]"), np.zeros(1, "V2")],
    ids=["object", "text", "complex", "date", "void"],
)
def test_arrays_of_other_dtypes_are_not_sent(array):
    with pytest.raises(BadDtype, match="cannot be sent"):
        pack(array, "msgpack")


# ---- the schema, read with nothing of ours


def test_a_reply_is_read_with_plain_msgpack_alone():
    value = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    result = Result({"value": value}, {"value": ("batch", "of.unit", "wrt.timestep")}, {"route": "reverse"})
    reply = msgpack.unpackb(encode_reply(result, "sunspots", 1, MSGPACK))
    assert list(reply) == ["v", "model", "tensors", "axes", "meta"]
    assert reply["v"] == 1
    assert reply["model"] == {"name": "sunspots", "version": 1}
    assert reply["axes"] == {"value": ["batch", "of.unit", "wrt.timestep"]}
    sent = reply["tensors"]["value"]
    assert (sent["dtype"], sent["shape"]) == ("float32", [2, 3, 4])
    assert struct.unpack("<24f", sent["data"]) == tuple(range(24))


def test_a_request_is_written_with_plain_msgpack_alone():
    data = struct.pack("<6f", *range(6))
    inputs = {"dtype": "float32", "shape": [1, 2, 3], "data": data}
    body = msgpack.packb({"inputs": inputs, "lengths": [2], "of": "lstm.h[-1]", "wrt": "inputs"})
    request = decode_request(body, MSGPACK)
    np.testing.assert_array_equal(request.inputs[""], [[[0, 1, 2], [3, 4, 5]]])
    np.testing.assert_array_equal(request.lengths[""], [2])
    assert request.parameters == {"of": "lstm.h[-1]", "wrt": "inputs"}


def test_the_documented_bytes_are_the_bytes_that_are_sent():
    request = Request({"": np.array([[[1.0], [2.0]]], np.float32)}, parameters={"of": "lstm.h[-1]", "wrt": "inputs"})
    axes = {"value": ("batch", "of.unit", "wrt.timestep", "wrt.feature")}
    result = Result({"value": np.array([[[[0.25], [0.5]]]], np.float32)}, axes, {"route": "reverse"})
    assert bytes(encode_request(request, MSGPACK)) == documented("request")
    assert bytes(encode_reply(result, "sunspots", 1, MSGPACK)) == documented("reply")


def documented(example):
    """The bytes of an example in the page about the wire."""
    (block,) = re.findall(rf"<!-- {example}: .*?-->\n```\n(.*?)```", PAGE, re.DOTALL)
    return bytes.fromhex("".join(re.match(r"(?:[0-9a-f]{2} +)+", line)[0] for line in block.splitlines()))


def test_every_error_of_the_server_is_documented_with_its_status():
    rows = re.findall(r"^\| (\d{3}) \| `(\w+)` \|", PAGE, re.MULTILINE)
    branches = {"bad_request", "unavailable", "unreachable"}
    served = {code: kind.status for code, kind in BY_CODE.items() if code not in branches}
    assert {code: int(status) for status, code in rows} == served


def test_every_dtype_is_documented():
    assert set(DTYPES) <= set(re.findall(r"`(\w+)`", PAGE))


def test_json_takes_bare_nested_lists_for_tensors():
    body = json.dumps(
        {
            "inputs": {"a": [[[1, 2], [3, 4]]], "b": [[True]]},
            "lengths": {"a": [2]},
            "initial_states": {"lstm.h.initial": [[0.5, "NaN"]]},
            "cotangent": {"outputs": [[1.5]]},
            "baseline": [[0, 1]],
            "points": ["lstm.h"],
        }
    ).encode()
    request = decode_request(body, JSON)
    assert {name: (array.dtype.name, array.shape) for name, array in request.inputs.items()} == {
        "a": ("int64", (1, 2, 2)),
        "b": ("bool", (1, 1)),
    }
    assert np.isnan(request.initial_states["lstm.h.initial"][0, 1])
    assert same(request.parameters["cotangent"]["outputs"], np.array([[1.5]]))
    assert same(request.parameters["baseline"], np.array([[0, 1]]))
    assert request.parameters["points"] == ["lstm.h"]


def test_tensors_of_parameters_are_arrays_whatever_the_parameter_is_called():
    request = decode_request(request_body(whatever=tensor(shape=(2,))), MSGPACK)
    assert request.parameters["whatever"].shape == (2,)


def test_a_null_is_as_good_as_nothing_for_lengths_and_initial_states():
    request = decode_request(request_body(lengths=None, initial_states=None), MSGPACK)
    assert request.lengths is None
    assert request.initial_states == {}


# ---- what is refused

GOOD = msgpack.packb({"inputs": tensor()})
MANY_KEYS = (
    b"\xdf"
    + struct.pack(">I", 10**5 + 1)
    + msgpack.packb({**dict.fromkeys(map(str, range(10**5 - 1)), 0), "last": 0})[5:]
    + msgpack.packb("last")
    + b"\0"
)
REFUSED_MSGPACK = {
    "an empty body": (b"", MalformedBody, "cut short"),
    "half a body": (GOOD[:-7], MalformedBody, "cut short"),
    "a body that goes on": (GOOD + b"\x00", MalformedBody, "1 more bytes"),
    "JSON": (b'{"inputs": [1]}', MalformedBody, "more bytes follow"),
    "a list": (msgpack.packb([1, 2]), MalformedBody, "expected a map"),
    "a number": (msgpack.packb(7), MalformedBody, "expected a map"),
    "an extension type": (msgpack.packb({"inputs": msgpack.ExtType(4, b"1234")}), MalformedBody, "0xd6"),
    "a timestamp": (msgpack.packb({"inputs": msgpack.Timestamp(1)}), MalformedBody, "plain msgpack"),
    "the byte msgpack never uses": (b"\x81\xa1a\xc1", MalformedBody, "0xc1"),
    "a whole number as key": (msgpack.packb({1: 2}), MalformedBody, "text keys"),
    "bytes as key": (msgpack.packb({b"inputs": 2}), MalformedBody, "not text"),
    "a key twice": (b"\x82\xa1a\x01\xa1a\x02", MalformedBody, "'a' twice"),
    "a key twice among very many": (MANY_KEYS, MalformedBody, "'last' twice"),
    "text that is no UTF-8": (b"\x81\xa2\xff\xfe\x01", MalformedBody, "utf-8"),
    "deep nesting": (b"\x91" * 1000 + b"\xc0", MalformedBody, f"deeper than {MAX_DEPTH}"),
    "a claim of four thousand million entries": (b"\xdd\xff\xff\xff\xff", MalformedBody, "cut short"),
    "a claim of four thousand million keys": (b"\xdf\xff\xff\xff\xff", MalformedBody, "cut short"),
    "a claim of four thousand million bytes": (b"\xc6\xff\xff\xff\xff", MalformedBody, "cut short"),
    "nested claims": (b"\xdc\xff\xff" * 1000, MalformedBody, "cut short|deeper"),
    "more values than a tensor needs": (
        msgpack.packb({"inputs": [0] * MAX_ITEMS}),
        MalformedBody,
        f"more than {MAX_ITEMS:,}",
    ),
    "no inputs": (msgpack.packb({"of": "lstm.h"}), BadParameter, "no inputs"),
    "text for inputs": (msgpack.packb({"inputs": "abc"}), MalformedBody, "expected a tensor"),
    "null for inputs": (msgpack.packb({"inputs": None}), MalformedBody, "expected a tensor"),
    "a tensor without dtype": (msgpack.packb({"inputs": {"shape": [1], "data": b"1234"}}), MalformedBody, "exactly"),
    "a tensor without shape": (msgpack.packb({"inputs": {"dtype": "int8", "data": b"1"}}), MalformedBody, "exactly"),
    "a tensor without data": (msgpack.packb({"inputs": {"dtype": "int8", "shape": []}}), MalformedBody, "exactly"),
    "a tensor with a field more": (msgpack.packb({"inputs": tensor() | {"order": "F"}}), MalformedBody, "exactly"),
    "too few bytes": (msgpack.packb({"inputs": tensor(data=b"123")}), MalformedBody, "3 bytes of data; .* takes 24"),
    "too many bytes": (msgpack.packb({"inputs": tensor(data=bytes(25))}), MalformedBody, "25 bytes"),
    "text as data": (msgpack.packb({"inputs": tensor(data="abc")}), MalformedBody, "expected bin"),
    "an object dtype": (msgpack.packb({"inputs": tensor() | {"dtype": "object"}}), BadDtype, "'object'"),
    "a pickled dtype": (msgpack.packb({"inputs": tensor() | {"dtype": "O"}}), BadDtype, "'O'"),
    "a big-endian dtype": (msgpack.packb({"inputs": tensor() | {"dtype": ">f4"}}), BadDtype, "expected one of"),
    "a misspelt dtype": (msgpack.packb({"inputs": tensor() | {"dtype": "float23"}}), BadDtype, "'float32'"),
    "a dtype that is no text": (msgpack.packb({"inputs": tensor() | {"dtype": 4}}), BadDtype, "expected one of"),
    "a complex dtype": (msgpack.packb({"inputs": tensor() | {"dtype": "complex64"}}), BadDtype, "'complex64'"),
    "a negative axis": (msgpack.packb({"inputs": tensor() | {"shape": [-1, 6]}}), BadShape, "none negative"),
    "an axis that is no number": (msgpack.packb({"inputs": tensor() | {"shape": ["6"]}}), BadShape, "whole numbers"),
    "an axis that is a bool": (msgpack.packb({"inputs": tensor() | {"shape": [True]}}), BadShape, "whole numbers"),
    "an axis that is no whole number": (msgpack.packb({"inputs": tensor() | {"shape": [1.5]}}), BadShape, "whole"),
    "a shape that is a number": (msgpack.packb({"inputs": tensor() | {"shape": 6}}), BadShape, "a list"),
    "a product that overflows": (msgpack.packb({"inputs": tensor() | {"shape": [2**32] * 2}}), BadShape, "no array"),
    "a product that overflows to 0": (
        msgpack.packb({"inputs": tensor() | {"shape": [2**62, 4]}}),
        BadShape,
        "no array",
    ),
    "an empty array of vast axes": (
        msgpack.packb({"inputs": tensor(data=b"") | {"shape": [2**40, 0]}}),
        BadShape,
        "no array",
    ),
    "too many axes": (msgpack.packb({"inputs": tensor(data=b"") | {"shape": [1] * 60}}), BadShape, "no array"),
    "a bool that is 2": (msgpack.packb({"inputs": tensor("bool", [2], b"\x01\x02")}), BadDtype, "0 or 1"),
    "lengths that are text": (request_body(lengths="20"), MalformedBody, "expected a tensor"),
    "lengths of half timesteps": (request_body(lengths=[1.5]), BadLengths, "integer"),
    "lengths that are bools": (request_body(lengths=[True]), BadLengths, "integer"),
    "lengths on two axes": (request_body(lengths=[[1], [2]]), BadLengths, "shape"),
    "ragged lengths": (request_body(lengths=[[1], [2, 3]]), BadShape, "ragged"),
    "lengths that hold maps": (request_body(lengths=[{}]), BadDtype, "dict"),
    "initial states that are a list": (request_body(initial_states=[1]), MalformedBody, "expected a map"),
    "an initial state that is text": (request_body(initial_states={"h": "0"}), MalformedBody, "expected a tensor"),
    "a cotangent that lies": (request_body(cotangent=tensor(data=b"1")), MalformedBody, "cotangent"),
}

REFUSED_JSON = {
    "an empty body": (b"", MalformedBody, "not JSON"),
    "half a body": (b'{"inputs": [[', MalformedBody, "not JSON"),
    "msgpack": (GOOD, MalformedBody, "not JSON"),
    "UTF-16": ('{"inputs": [1]}'.encode("utf-16"), MalformedBody, "utf-8"),
    "NaN as JavaScript writes it": (b'{"inputs": [NaN]}', MalformedBody, '"NaN"'),
    "Infinity as JavaScript writes it": (b'{"inputs": [-Infinity]}', MalformedBody, '"-Infinity"'),
    "a key twice": (b'{"a": 1, "a": 2}', MalformedBody, "'a' twice"),
    "deep nesting": (b"[" * 200_000, MalformedBody, "too deep|not JSON"),
    "half a surrogate pair": (b'{"inputs": [1], "of": "\\ud800"}', MalformedBody, "not JSON"),
    "a number of five thousand digits": (b'{"inputs": [' + b"9" * 5000 + b"]}", MalformedBody, "digits"),
    "text among the numbers": (b'{"inputs": [1, "1.5"]}', BadDtype, "'1.5'"),
    "long text among many numbers": (
        b'{"inputs": ["' + b"x" * 100_000 + b'"' + b",1" * 100_000 + b"]}",
        BadDtype,
        "xxx",
    ),
    "null among the numbers": (b'{"inputs": [1, null]}', BadDtype, "NoneType"),
    "ragged lists": (b'{"inputs": [[1, 2], [3]]}', BadShape, "ragged"),
    "lists beside numbers": (b'{"inputs": [[1, 2], 3]}', BadShape, "ragged"),
    "a number too large for int64": (b'{"inputs": [9223372036854775808]}', BadDtype, "int64"),
    "fractions in an integer tensor": (
        b'{"inputs": {"dtype": "int32", "shape": [1], "data": [1.5]}}',
        BadDtype,
        "only ints",
    ),
    "a number too large for its dtype": (
        b'{"inputs": {"dtype": "uint8", "shape": [1], "data": [256]}}',
        BadDtype,
        "uint8",
    ),
    "a number too large for float32": (
        b'{"inputs": {"dtype": "float32", "shape": [1], "data": [1e300]}}',
        BadDtype,
        "float32",
    ),
    "bools for numbers": (b'{"inputs": {"dtype": "float32", "shape": [1], "data": [true]}}', BadDtype, "bool"),
    "a shape that is not the data's": (
        b'{"inputs": {"dtype": "float32", "shape": [2, 2], "data": [1, 2, 3, 4]}}',
        BadShape,
        r"\[2, 2\]",
    ),
    "base64 for data": (b'{"inputs": {"dtype": "int8", "shape": [1], "data": "AA=="}}', MalformedBody, "nested lists"),
}


@pytest.mark.parametrize(("body", "error", "words"), REFUSED_MSGPACK.values(), ids=REFUSED_MSGPACK.keys())
def test_msgpack_that_lies_is_refused_with_what_came_and_what_was_expected(body, error, words):
    with pytest.raises(error, match=words):
        decode_request(body, MSGPACK)


@pytest.mark.parametrize(("body", "error", "words"), REFUSED_JSON.values(), ids=REFUSED_JSON.keys())
def test_json_that_lies_is_refused_with_what_came_and_what_was_expected(body, error, words):
    with pytest.raises(error, match=words):
        decode_request(body, JSON)


@thorough
@given(st.binary(max_size=200), st.sampled_from([MSGPACK, JSON]))
def test_random_bytes_are_refused_by_name_or_read(body, medium):
    with contextlib.suppress(MalformedBody, BadDtype, BadShape, BadLengths, BadParameter):
        decode_request(body, medium)


@thorough
@given(st.data())
def test_a_good_body_with_one_byte_changed_is_refused_by_name_or_read(data):
    body = bytearray(request_body(lengths=[2], initial_states={"lstm.h.initial": tensor(shape=(1, 2))}, of="lstm.h"))
    body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(MalformedBody, BadDtype, BadShape, BadLengths, BadParameter):
        decode_request(body, MSGPACK)


@pytest.mark.parametrize(
    "body",
    [
        b"\xdc\xff\xff" * 30 + bytes(10**5),
        b"\xde\xff\xff" * 30 + bytes(10**5),
        msgpack.packb({"inputs": tensor() | {"shape": [2**31, 2**31, 0], "data": bytes(10**5)}}),
        b'{"inputs": ["' + b"x" * 50_000 + b'"' + b",1" * 25_000 + b"]}",
    ],
    ids=["arrays in arrays", "maps in maps", "a vast shape", "long text among numbers"],
)
def test_a_lying_body_makes_room_for_little_more_than_itself(body):
    medium = JSON if body[:1] == b"{" else MSGPACK
    tracemalloc.start()
    try:
        with pytest.raises((MalformedBody, BadShape, BadDtype)):
            decode_request(body, medium)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # A list takes a few pointers for each of a body's smallest numbers; nothing may grow faster.
    assert peak < 40 * len(body)


def test_a_large_tensor_is_copied_once_in_and_once_out():
    array = np.ones((2048, 1024), np.float32)
    tracemalloc.start()
    try:
        body = encode_plain({"x": array}, MSGPACK)
        written = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        decode(body, MSGPACK)
        read = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert written < 1.05 * array.nbytes
    assert read < 1.05 * array.nbytes


@thorough
@given(st.dictionaries(names, tensors, max_size=3))
def test_a_reply_in_pieces_is_the_reply(answered):
    axes = {name: tuple(f"axis{n}" for n in range(array.ndim)) for name, array in answered.items()}
    meta = {"route": "reverse", "timings": {"queue": 0.25}}
    body = b"".join(reply_pieces(Result(answered, axes, meta), "sunspots", 3))
    assert msgpack.unpackb(body) == msgpack.unpackb(encode_reply(Result(answered, axes, meta), "sunspots", 3, MSGPACK))


def test_a_large_reply_in_pieces_is_not_copied():
    array = np.ones((2048, 1024), np.float32)
    pieces = reply_pieces(Result({"value": array}, {"value": ("a", "b")}, {}), "m", 1)
    assert any(np.shares_memory(array, np.frombuffer(piece, np.uint8)) for piece in pieces)


@pytest.mark.parametrize("spare", [0, 1, 31, 300, 70_000])
def test_a_replys_length_is_known_before_its_numbers_and_its_meta(spare):
    array, axes, meta = np.zeros((3, 4)), {"value": ("batch", "of.unit")}, {"route": "reverse", "valid": [[True] * 9]}
    head, data = opening("value", array, "m", 1)
    least = len(closing(axes, meta, 1000)) - closing(axes, meta, 1000).count(b" ")
    array[:] = np.arange(12).reshape(3, 4)
    body = head + bytes(data) + closing(axes, meta, least + spare)
    assert len(body) == len(head) + array.nbytes + least + spare
    assert msgpack.unpackb(body)["meta"] == {**meta, "padding": " " * spare}
    reply = decode_reply(body, MSGPACK)
    assert same(reply.result.tensors["value"], array)
    assert (reply.result.axes, reply.result.meta) == (axes, meta)
    with pytest.raises(ValueError, match="over the"):
        closing(axes, meta, least - 1)


@pytest.mark.parametrize("name", ["v", "va", "val", "valu", "value", "values", "value_1", "value_12"])
def test_a_large_tensor_in_memory_given_away_is_read_where_it_lies(name):
    arrays_in = {name: np.arange(40_000.0), "flags": np.arange(150_000) % 3 == 0, "small": np.ones(3)}
    result = Result(arrays_in, dict.fromkeys(arrays_in, ("a",)), {})
    body = np.frombuffer(bytes(encode_reply(result, "m", 1, MSGPACK)), np.uint8).copy()
    found = decode_reply(body.data, MSGPACK).result.tensors
    for key, array in arrays_in.items():
        assert same(found[key], array)
        assert found[key].flags.aligned
        assert not found[key].flags.writeable
        assert np.shares_memory(found[key], body) == (array.nbytes > LARGE_BIN)


def test_a_large_bool_tensor_that_holds_other_bytes_is_refused_in_memory_given_away_too():
    body = msgpack.packb({"v": 1, "model": {"name": "m", "version": 1}, "axes": {}, "meta": {}, "tensors": {
        "value": tensor("bool", (200_000,), b"\x02" * 200_000)
    }})
    with pytest.raises(BadDtype, match="bytes are 0 or 1"):
        decode_reply(memoryview(bytearray(body)), MSGPACK)


# ---- problems, replies that are none, media types


@pytest.mark.parametrize("medium", [PROBLEM_JSON, JSON, MSGPACK])
def test_an_error_survives_as_a_problem(medium):
    error = QueueFull("256 requests wait", request_id="abc")
    members = decode_problem(encode_problem(problem(error), medium), medium)
    back = from_problem(members, status=429, retry_after=2.0)
    assert type(back) is QueueFull
    assert (back.detail, back.request_id, back.retry_after) == (error.detail, "abc", 2.0)


@pytest.mark.parametrize(
    "reply",
    [
        {},
        {"v": 2},
        {"v": 1},
        {"v": 1, "model": [], "tensors": {}, "axes": {}, "meta": {}},
        {"v": 1, "model": {"name": "m", "version": "one"}, "tensors": {}, "axes": {}, "meta": {}},
        {"v": 1, "model": {"name": "m", "version": 1}, "tensors": {}, "axes": {"value": 3}, "meta": {}},
        {"v": 1, "model": {"name": "m", "version": 1}, "tensors": {"value": 1}, "axes": {}, "meta": {}},
    ],
)
@media
def test_what_is_no_reply_is_refused(reply, medium):
    with pytest.raises(MalformedBody):
        decode_reply(encode(reply, medium), medium)


def test_media_types_are_read_whatever_their_case_and_parameters():
    assert {name: kind_of(name.upper() + " ; charset=utf-8") for name in MEDIA} == dict(MEDIA)
    assert kind_of(PROBLEM_JSON) == "json"
    with pytest.raises(UnsupportedMediaType, match="text/html"):
        kind_of("text/html; charset=utf-8")
