"""The client: one core without I/O, two shells, and what they do when a server, or the way to it, misbehaves."""

import asyncio
import email.utils
import inspect
import io
import itertools
import re
import socket
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tapehead
from tapehead.client.answers import Answer
from tapehead.client.asking import Subject, ask, describe, list_models
from tapehead.client.calls import Call, Manner, Received, exchange, get
from tapehead.client.carriers import options
from tapehead.client.inprocess import lifespan
from tapehead.client.inputs import make_request
from tapehead.client.models import Model
from tapehead.client.progress import LARGE, Bar, reporter
from tapehead.errors import (
    BY_CODE,
    BadLengths,
    BadParameter,
    BadRequest,
    BadShape,
    Deadline,
    Draining,
    Internal,
    LengthsUnsupported,
    QueueFull,
    TapeheadError,
    TryAgain,
    UnknownModel,
    UnknownOperation,
    Unreachable,
    problem,
)
from tapehead.operations import Request, Result
from tapehead.points import parse
from tapehead.wire.messages import JSON, MSGPACK, PROBLEM_JSON, decode_request, encode_plain, encode_reply

METADATA = {
    "name": "sunspots",
    "versions": ["1"],
    "points": {
        "lstm.h": {"shape": [None, 3], "axes": ["timestep", "unit"], "dtype": "float32", "differentiable": True}
    },
    "recurrent": {
        "lstm": {"cell": "LSTM", "units": 3, "states": ["h", "c"], "gates": ["forget_gate"], "direction": "forward"},
        "back": {"cell": "GRU", "units": 3, "states": ["h"], "gates": [], "direction": "backward"},
    },
    "operations": ["states", "jacobian", "vjp", "saliency", "hvp"],
}
SUNSPOTS = Subject("sunspots", None, METADATA)
MANNER = Manner({}, timeout=60.0, retries=2, make_id=lambda: "id-1", random=lambda: 0.0, clock=lambda: 1_000_000.0)
X = np.ones((2, 4, 1), np.float32)


def received(status=200, body=b"", media=MSGPACK, **headers):
    return Received(status, {"content-type": media, **{k.replace("_", "-"): v for k, v in headers.items()}}, body)


def refused(error, **headers):
    return received(error.status, bytes(encode_plain(problem(error), JSON)), PROBLEM_JSON, **headers)


def answered(tensors=None, axes=None, meta=None):
    tensors = {"value": X} if tensors is None else tensors
    axes = axes or {name: ("batch", *(f"axis{n}" for n in range(array.ndim - 1))) for name, array in tensors.items()}
    return received(body=encode_reply(Result(tensors, axes, meta or {}), "sunspots", 1, MSGPACK))


def drive(flow, outcomes):
    """What a flow gives when its calls have these outcomes (or those a function finds), and the calls."""
    calls = []
    scripted = None if callable(outcomes) else iter(outcomes)
    try:
        calls.append(next(flow))
        while True:
            calls.append(flow.send(outcomes(calls[-1]) if scripted is None else next(scripted)))
    except StopIteration as done:
        return done.value, calls


# ---- inputs


def test_an_array_is_sent_as_it_is():
    request = make_request(X, None, None, {})
    assert request.inputs[""] is X
    assert request.lengths is None


def test_arrays_by_input_name_are_sent_by_name():
    request = make_request({"a": X, "b": X.tolist()}, {"a": [4, 3]}, None, {})
    assert {name: array.shape for name, array in request.inputs.items()} == {"a": (2, 4, 1), "b": (2, 4, 1)}
    np.testing.assert_array_equal(request.lengths["a"], [4, 3])


def test_a_list_of_sequences_is_padded_with_zeros_and_its_lengths_are_sent():
    request = make_request([np.ones((3, 2)), np.ones((1, 2)), np.ones((4, 2))], None, None, {})
    assert request.inputs[""].shape == (3, 4, 2)
    np.testing.assert_array_equal(request.lengths[""], [3, 1, 4])
    np.testing.assert_array_equal(request.inputs[""].sum((1, 2)), [6, 2, 8])


def test_a_list_of_sequences_of_one_length_is_stacked_and_needs_no_lengths():
    request = make_request([np.ones((3, 2)), np.zeros((3, 2))], None, None, {})
    assert request.inputs[""].shape == (2, 3, 2)
    assert request.lengths is None


@pytest.mark.parametrize("ragged", [[[1, 2, 3], [4]], ([1, 2, 3], [4]), [np.array([1, 2, 3]), [4]]])
def test_sequences_of_tokens_are_ragged_lists_too(ragged):
    request = make_request(ragged, None, None, {})
    np.testing.assert_array_equal(request.inputs[""], [[1, 2, 3], [4, 0, 0]])
    np.testing.assert_array_equal(request.lengths[""], [3, 1])
    assert request.inputs[""].dtype.kind == "i"


def test_each_named_input_may_be_ragged():
    request = make_request({"a": [[1], [2, 3]], "b": np.zeros((2, 5))}, None, None, {})
    assert set(request.lengths) == {"a"}


@given(st.lists(st.integers(1, 6), min_size=1, max_size=5), st.integers(1, 3))
def test_padding_keeps_every_sequence(lengths, features):
    sequences = [np.random.default_rng(length).normal(size=(length, features)) for length in lengths]
    request = make_request(sequences, None, None, {})
    sent = [len(sequences[0])] * len(lengths) if request.lengths is None else request.lengths[""]
    for row, sequence in enumerate(sequences):
        np.testing.assert_array_equal(request.inputs[""][row, : sent[row]], sequence)
        assert not request.inputs[""][row, sent[row] :].any()


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ([], "none"),
        ([np.ones((2, 2)), np.ones((2, 3))], r"\(2, 3\)"),
        ([np.ones((2, 2)), np.ones(2)], "first axis"),
        ([np.ones(2), 3], r"\(\)"),
        ([[[1], [2, 3]], [[1]]], "sample 0"),
    ],
)
def test_samples_that_do_not_fit_together_are_refused_before_anything_is_sent(inputs, words):
    with pytest.raises(BadShape, match=words):
        make_request(inputs, None, None, {})


def test_lengths_beside_a_ragged_list_are_refused():
    with pytest.raises(BadLengths, match="leave one of them out"):
        make_request([[1], [1, 2]], [1, 2], None, {})


def test_parameters_that_are_none_are_left_to_the_server_and_points_become_text():
    asked = {"of": parse("lstm.h[-1]"), "wrt": ["inputs", parse("lstm.c")], "lag": None, "cotangent": [[1.0, 2.0]]}
    parameters = make_request(X, None, {parse("lstm.h.initial"): [[0.0]]}, asked).parameters
    assert list(parameters) == ["of", "wrt", "cotangent"]
    assert (parameters["of"], parameters["wrt"]) == ("lstm.h[-1]", ["inputs", "lstm.c"])
    assert parameters["cotangent"].shape == (1, 2)


# ---- one call, tried until it is answered


def test_a_call_carries_an_id_its_time_and_who_asks():
    _, (call,) = drive(exchange(get("/v2"), replace(MANNER, headers={"authorization": "Bearer k"})), [received()])
    assert call.headers["x-request-id"] == "id-1"
    assert call.headers["x-request-timeout"] == "60"
    assert call.headers["authorization"] == "Bearer k"
    assert call.wait == 0


def test_what_may_pass_is_tried_again_with_growing_waits_and_the_same_id():
    outcomes = [Unreachable("refused"), refused(Draining()), received(body=b"ok")]
    answer, calls = drive(exchange(get("/v2"), MANNER), outcomes)
    assert answer.body == b"ok"
    assert [call.wait for call in calls] == [0, 0.5, 1.0]
    assert len({call.headers["x-request-id"] for call in calls}) == 1


def test_waits_are_shortened_at_random_and_bounded():
    manner = replace(MANNER, retries=8, random=lambda: 0.5)
    with pytest.raises(QueueFull):
        drive(exchange(get("/v2"), manner), itertools.repeat(refused(QueueFull())))
    waits = []
    with pytest.raises(QueueFull):
        drive(exchange(get("/v2"), manner), lambda call: waits.append(call.wait) or refused(QueueFull()))
    assert waits == [0, 0.375, 0.75, 1.5, 3.0, 6.0, 6.0, 6.0, 6.0]


def test_retry_after_is_waited_for_in_seconds_and_as_a_date():
    date = email.utils.formatdate(MANNER.clock() + 30, usegmt=True)
    outcomes = [refused(QueueFull(), retry_after="7"), refused(QueueFull(), retry_after=date), received()]
    _, calls = drive(exchange(get("/v2"), MANNER), outcomes)
    assert [call.wait for call in calls] == [0, 7.5, 31.0]


@pytest.mark.parametrize("text", ["soon", "", "-3"])
def test_a_retry_after_that_cannot_be_read_is_passed_over(text):
    _, calls = drive(exchange(get("/v2"), MANNER), [refused(QueueFull(), retry_after=text), received()])
    assert calls[1].wait == 0.5


@pytest.mark.parametrize(
    "outcome",
    [
        refused(UnknownModel()),
        refused(Internal()),
        refused(Deadline()),
        refused(Draining(), retry_after="3600"),
    ],
    ids=["the caller's fault", "a fault of the server", "the time is over", "too long a wait"],
)
def test_what_would_not_help_is_not_tried_again(outcome):
    with pytest.raises(TapeheadError):
        drive(exchange(get("/v2"), MANNER), [outcome])


def test_after_the_last_retry_the_last_error_is_raised():
    with pytest.raises(Draining):
        drive(exchange(get("/v2"), MANNER), [Unreachable(), Unreachable(), refused(Draining())])


@pytest.mark.parametrize("kind", [kind for kind in BY_CODE.values() if kind.status], ids=lambda kind: kind.code)
def test_every_error_of_the_server_arrives_as_its_own_class(kind):
    with pytest.raises(kind) as caught:
        drive(exchange(get("/v2"), replace(MANNER, retries=0)), [refused(kind("in detail", request_id="r"))])
    assert type(caught.value) is kind
    assert (caught.value.detail, caught.value.request_id) == ("in detail", "r")


@pytest.mark.parametrize(("status", "kind"), [(302, Internal), (403, BadRequest), (502, TryAgain), (500, Internal)])
def test_an_error_from_something_else_on_the_way_says_what_came(status, kind):
    page = received(status, b"<html>Bad Gateway</html>", "text/html")
    with pytest.raises(kind, match=rf"{status}.*text/html.*Bad Gateway") as caught:
        drive(exchange(get("/v2"), replace(MANNER, retries=0)), [page])
    assert caught.value.request_id == "id-1"


def test_a_body_shorter_than_it_says_is_an_error_and_tried_again():
    short = received(body=b"123", content_length="10")
    with pytest.raises(Unreachable, match="3 of 10 bytes"):
        drive(exchange(get("/v2"), replace(MANNER, retries=0)), [short])
    answer, calls = drive(exchange(get("/v2"), MANNER), [short, received(body=b"1234567890", content_length="10")])
    assert len(answer.body) == 10
    assert len(calls) == 2


# ---- what can be asked


def test_models_are_listed_with_their_states():
    index = [{"name": "a", "version": "2", "state": "READY", "reason": ""}, {"name": "b", "version": "1"}]
    entries, (call,) = drive(list_models(MANNER), [received(body=encode_plain(index, JSON), media=JSON)])
    assert (call.method, call.path) == ("POST", "/v2/repository/index")
    assert [(entry.name, entry.version, entry.state) for entry in entries] == [("a", 2, "READY"), ("b", 1, "")]


def test_a_models_name_and_version_stand_in_the_path_quoted():
    reply = received(body=encode_plain(METADATA, JSON), media="application/json; charset=utf-8")
    subject, (call,) = drive(describe("a/b c", 3, MANNER), [reply])
    assert call.path == "/v2/models/a%2Fb%20c/versions/3"
    assert subject.metadata["operations"] == METADATA["operations"]


@pytest.mark.parametrize(
    "reply",
    [
        received(body=b"<html>", media="text/html"),
        received(body=b"{"),
        received(body=encode_plain({"v": 1}, MSGPACK)),
        received(body=encode_plain([1, 2], JSON), media=JSON),
        Received(200, {}, b""),
    ],
)
@pytest.mark.parametrize("flow", [list_models, lambda m: describe("m", None, m), lambda m: asked("states", manner=m)])
def test_what_no_tapehead_server_says_is_unreachable(flow, reply):
    with pytest.raises(Unreachable, match="is this a Tapehead server"):
        drive(flow(replace(MANNER, retries=0)), [reply])


def asked(operation, inputs=X, lengths=None, manner=MANNER, initial_states=None, **parameters):
    return ask(SUNSPOTS, operation, make_request(inputs, lengths, initial_states, parameters), manner)


def test_an_operation_is_posted_as_msgpack_and_its_answer_read():
    answer, (call,) = drive(asked("jacobian", of="lstm.h[-1]", wrt="inputs"), [answered()])
    assert (call.method, call.path) == ("POST", "/v2/models/sunspots/jacobian")
    assert call.headers["content-type"] == MSGPACK
    request = decode_request(bytes(call.body), MSGPACK)
    np.testing.assert_array_equal(request.inputs[""], X)
    assert request.parameters == {"of": "lstm.h[-1]", "wrt": "inputs"}
    np.testing.assert_array_equal(answer.value, X)
    assert answer.asked == {"operation": "jacobian", "of": "lstm.h[-1]", "wrt": "inputs"}


# ---- where a model cannot take lengths


def alone(tensors_of, calls=None):
    """A server that refuses lengths, and answers each batch of whole sequences with `tensors_of` its inputs."""

    def answer(call):
        request = decode_request(bytes(call.body), MSGPACK)
        if request.lengths is not None:
            return refused(LengthsUnsupported("layer 'conv1d' mixes timesteps"))
        tensors, axes, meta = tensors_of(request)
        return answered(tensors, axes, meta)

    return answer


def running_sum(request):
    """States that remember: h[t] the sum of the inputs so far, from the initial state where one is given."""
    start = request.initial_states.get("lstm.h.initial", np.zeros((request.batch, 1), np.float32))
    h = np.cumsum(request.inputs[""], axis=1) + start[:, None, :]
    return (
        {"lstm.h": h, "back.h": h, "inputs": request.inputs[""], "lstm.h.final": h[:, -1]},
        {
            **dict.fromkeys(("lstm.h", "back.h", "inputs"), ("batch", "timestep", "unit")),
            "lstm.h.final": ("batch", "unit"),
        },
        {
            "finite": True,
            "timings": {"compute": 1.0},
            "target_index": request.inputs[""][:, 0, 0].astype(int),
        },
    )


RAGGED = [np.full((length, 1), value, np.float32) for length, value in ((3, 1), (1, 2), (3, 3), (4, 4))]


def test_one_request_a_length_is_sent_and_the_answers_come_back_in_order():
    answer, calls = drive(asked("states", RAGGED, points=["lstm.h"]), alone(running_sum))
    sent = [decode_request(bytes(call.body), MSGPACK) for call in calls]
    assert [request.inputs[""].shape for request in sent] == [(4, 4, 1), (1, 1, 1), (2, 3, 1), (1, 4, 1)]
    for row, sequence in enumerate(RAGGED):
        np.testing.assert_array_equal(answer.tensors["inputs"][row, : len(sequence)], sequence)
        np.testing.assert_array_equal(answer.tensors["lstm.h.final"][row], sequence.sum(0))
    assert answer.meta["target_index"] == [1, 2, 3, 4]
    assert list(map(sum, answer.meta["valid"])) == [3, 1, 3, 4]
    assert answer.meta["timings"] == {"compute": 3.0}
    assert (answer.meta["finite"], answer.meta["requests"]) == (True, 3)
    assert not answer.tensors["lstm.h"].flags.writeable


def test_at_padding_a_state_repeats_the_last_one_before_it_and_all_else_is_zero():
    answer, _ = drive(asked("states", RAGGED, points=["lstm.h"]), alone(running_sum))
    np.testing.assert_array_equal(answer.tensors["lstm.h"][1, :, 0], [2, 2, 2, 2])
    np.testing.assert_array_equal(answer.tensors["lstm.h"][0, :, 0], [1, 2, 3, 3])
    np.testing.assert_array_equal(answer.tensors["back.h"][0, :, 0], [1, 2, 3, 0])
    np.testing.assert_array_equal(answer.tensors["inputs"][1, :, 0], [2, 0, 0, 0])


@pytest.mark.parametrize(
    ("of", "padded"),
    [
        ("lstm.h", [1, 1, 1, 1]),
        ("back.h", [1, 0, 0, 0]),
        ("inputs", [1, 0, 0, 0]),
        (["lstm.h"], [1, 1, 1, 1]),
        (["lstm.h", "back.h"], [1, 1, 1, 1]),
    ],
)
def test_derivatives_of_padding_are_those_of_the_state_it_repeats_and_with_respect_to_it_zero(of, padded):
    name = f"{of[0]} / inputs" if isinstance(of, list) else "value"

    def identity(request):
        timesteps = request.inputs[""].shape[1]
        ones = np.ones((request.batch, timesteps, timesteps), np.float32)
        return {name: ones}, {name: ("batch", "of.timestep", "wrt.timestep")}, {}

    answer, _ = drive(asked("jacobian", RAGGED, of=of, wrt="inputs"), alone(identity))
    value = answer.tensors[name]
    assert value.shape == (4, 4, 4)
    np.testing.assert_array_equal(value[1, :, 0], padded)
    assert not value[1, :, 1:].any()


def test_an_array_with_lengths_gets_back_as_many_timesteps_as_it_has():
    padded = np.ones((2, 6, 1), np.float32)
    answer, calls = drive(asked("states", padded, [3, 3], points=["lstm.h"]), alone(running_sum))
    assert len(calls) == 2
    assert answer.tensors["inputs"].shape == (2, 6, 1)
    assert answer.tensors["inputs"].sum() == 6


def test_initial_states_go_with_their_rows():
    start = np.array([[10.0], [20.0], [30.0], [40.0]], np.float32)
    flow = asked("states", RAGGED, initial_states={"lstm.h.initial": start}, points=["lstm.h"])
    answer, _ = drive(flow, alone(running_sum))
    np.testing.assert_array_equal(answer.tensors["lstm.h.final"][:, 0], [13, 22, 39, 56])


def test_timesteps_chosen_by_a_slice_keep_their_number():
    def two(request):
        return {"value": request.inputs[""][:, -2:]}, {"value": ("batch", "timestep", "unit")}, {}

    sequences = [RAGGED[0], RAGGED[3]]
    answer, _ = drive(asked("states", sequences, points=["inputs[-2:]"]), alone(two))
    assert answer.value.shape == (2, 2, 1)


@pytest.mark.parametrize(
    ("inputs", "lengths", "parameters", "axes"),
    [
        (RAGGED, None, {"cotangent": np.ones((4, 1))}, None),
        (RAGGED, None, {"cotangent": {"outputs": np.ones((4, 1))}}, None),
        (X, [4, 3, 2], {}, None),
        ({"a": X, "b": X}, {"a": [4, 3], "b": [3, 4]}, {}, None),
        (RAGGED, None, {}, ("unit", "unit", "unit")),
        (RAGGED, None, {}, ("batch", "unit", "unit")),
    ],
    ids=[
        "a tensor among the parameters",
        "tensors among the parameters",
        "lengths that do not fit",
        "two lengths a sample",
        "an answer without a batch axis",
        "an axis that differs and is not time",
    ],
)
def test_where_the_answer_cannot_be_put_together_the_servers_refusal_is_raised(inputs, lengths, parameters, axes):
    def sized(request):
        return {"value": next(iter(request.inputs.values()))}, {"value": axes}, {}

    with pytest.raises(LengthsUnsupported, match="conv1d"):
        drive(asked("vjp", inputs, lengths, of="outputs", wrt="inputs", **parameters), alone(sized))


# ---- a model's handle


class Recorder:
    """Runs flows by keeping the body that they send."""

    def __init__(self):
        self.asked = None

    def __call__(self, flow):
        answer, (call,) = drive(flow, [answered()])
        self.asked = (call.path.rsplit("/", 1)[1], decode_request(bytes(call.body), MSGPACK))
        return answer


@pytest.mark.parametrize(
    ("ask", "operation", "parameters"),
    [
        (lambda m: m.infer(X), "infer", {}),
        (lambda m: m.states(X, points=["lstm.h"]), "states", {"points": ["lstm.h"], "final_states": False}),
        (lambda m: m.states(X, final_states=True), "states", {"points": [], "final_states": True}),
        (
            lambda m: m.jacobian(X, of="lstm.h", wrt="inputs", lag=1),
            "jacobian",
            {"of": "lstm.h", "wrt": "inputs", "lag": 1},
        ),
        (lambda m: m.vjp(X, of="lstm.h", wrt=["inputs"]), "vjp", {"of": "lstm.h", "wrt": ["inputs"]}),
        (
            lambda m: m.saliency(
                X, target="outputs[0]", method="integrated_gradients", n_steps=20, precision="float64"
            ),
            "saliency",
            {
                "target": "outputs[0]",
                "method": "integrated_gradients",
                "wrt": "inputs",
                "n_steps": 20,
                "precision": "float64",
            },
        ),
        (lambda m: m.ask("check", X, of="lstm.h", wrt="inputs"), "check", {"of": "lstm.h", "wrt": "inputs"}),
        (lambda m: m.hvp(X, of="outputs[0]", wrt="inputs"), "hvp", {"of": "outputs[0]", "wrt": "inputs"}),
    ],
)
def test_a_method_sends_its_operation_and_parameters(ask, operation, parameters):
    run = Recorder()
    assert isinstance(ask(Model(SUNSPOTS, MANNER, run)), Answer)
    assert run.asked[0] == operation
    assert dict(run.asked[1].parameters) == parameters


def test_a_handle_tells_what_is_known_of_its_model():
    model = Model(SUNSPOTS, MANNER, Recorder())
    assert model.name == "sunspots"
    assert model.version is None
    assert model.points == METADATA["points"]
    assert model.operations == METADATA["operations"]
    assert model.metadata is METADATA
    assert repr(model) == "<Model 'sunspots': 1 points; states, jacobian, vjp, saliency, hvp>"
    assert "hvp" in dir(model)


def test_a_misspelt_method_is_an_attribute_error():
    with pytest.raises(AttributeError, match="jacobain"):
        Model(SUNSPOTS, MANNER, Recorder()).jacobain(X)


# ---- answers


def an_answer(**changes):
    value = np.arange(8, dtype=np.float32).reshape(2, 1, 4)
    fields = {
        "model": "sunspots",
        "version": 1,
        "tensors": {"value": value},
        "axes": {"value": ("batch", "of.unit", "wrt.timestep")},
        "meta": {"route": "reverse", "finite": True, "edges": np.array([[0.5, 1.5]]), "timings": {"compute": 0.5}},
        "asked": {"operation": "jacobian", "of": "lstm.h[-1]", "wrt": ["inputs"], "lag": 2},
    }
    return Answer(**{**fields, **changes})


def test_value_is_the_tensor_of_that_name_or_the_only_one():
    only = np.zeros((1, 2))
    assert an_answer().value.shape == (2, 1, 4)
    assert an_answer(tensors={"lstm.h": only}).value is only
    with pytest.raises(BadParameter, match=r"'a', 'b'.*\.tensors"):
        _ = an_answer(tensors={"a": only, "b": only}).value


def test_final_states_are_named_as_the_initial_states_that_carry_on():
    h = np.zeros((1, 2))
    answer = an_answer(tensors={"lstm.h": h, "lstm.h.final": h, '"a.b".c.final': h})
    assert list(answer.final_states) == ["lstm.h.initial", '"a.b".c.initial']
    with pytest.raises(BadParameter, match="final_states=True"):
        _ = an_answer().final_states


@pytest.mark.parametrize(
    "name", ["value", "lstm/kernel", "lstm/kernel:value", "lstm.h[:, 0] / inputs", '"a.b".h', "file"]
)
def test_an_answer_is_saved_and_loaded_whole(tmp_path, name):
    value = np.array([[1.0, np.nan]], np.float32)
    answer = an_answer(tensors={name: value}, axes={name: ("batch", "unit")})
    answer.save(tmp_path / "j.npz")
    back = Answer.load(tmp_path / "j.npz")
    assert (back.model, back.version, back.asked, back.axes) == (answer.model, 1, answer.asked, answer.axes)
    np.testing.assert_array_equal(back.tensors[name], value)
    np.testing.assert_array_equal(back.meta["edges"], answer.meta["edges"])
    assert back.meta["timings"] == {"compute": 0.5}
    assert repr(back) == repr(answer)
    with np.load(tmp_path / "j.npz", allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays[name], value)


def test_a_file_of_something_else_is_refused(tmp_path):
    np.savez(tmp_path / "other.npz", value=X)
    with pytest.raises(BadParameter, match="no answer of Tapehead"):
        Answer.load(tmp_path / "other.npz")


def test_an_answer_says_what_it_is():
    assert repr(an_answer()) == (
        "<Answer sunspots: jacobian of lstm.h[-1] wrt inputs\n"
        "  value: float32 (2, 1, 4) [batch, of.unit, wrt.timestep]>"
    )


def test_an_answer_is_drawn():
    figure = an_answer().plot()
    assert type(figure).__name__ == "Figure"


# ---- progress


def test_a_bar_is_drawn_when_asked_for_or_in_a_terminal():
    class Terminal(list):
        isatty = staticmethod(lambda: True)
        write = list.append
        flush = staticmethod(lambda: None)

    terminal = Terminal()
    assert isinstance(reporter(None, terminal), Bar)
    assert isinstance(reporter(True, io.StringIO()), Bar)
    assert reporter(None, io.StringIO()) is None
    assert reporter(False, terminal) is None
    assert reporter(print, terminal) is print
    bar = Bar(terminal)
    for done in (0, 5 * 2**20, 5 * 2**20 + 1, 10 * 2**20):
        bar(done, 10 * 2**20)
    assert len(terminal) == 3
    assert "5.0/10.0 MiB" in terminal[1]
    assert terminal[2].endswith("\n")


# ---- both clients, over real HTTP


@dataclass
class Reply:
    """What the scripted server says: `keep` bytes of the body at most, after `delay` seconds."""

    status: int = 200
    body: bytes = b""
    media: str = MSGPACK
    headers: dict = field(default_factory=dict)
    keep: int | None = None
    delay: float = 0.0


class Scripted(ThreadingHTTPServer):
    """An HTTP server that says what it is told to, in that order, and remembers what it was asked."""

    daemon_threads = True

    def __init__(self):
        self.script, self.seen, self.over = [], [], threading.Event()
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        self.server.seen.append((self.command, self.path, dict(self.headers), body))
        known = Reply(body=bytes(encode_plain(METADATA, JSON)), media=JSON)
        reply = known if self.command == "GET" else self.server.script.pop(0)
        self.server.over.wait(reply.delay)
        self.send_response(reply.status)
        for name, value in {"Content-Type": reply.media, "Content-Length": len(reply.body), **reply.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(reply.body[: reply.keep])
        self.close_connection = reply.keep is not None

    do_GET = do_POST = answer

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with Scripted() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.over.set()
        server.shutdown()
        thread.join()


class Awaited:
    """Something of an AsyncClient with every awaitable awaited, so that one test serves both clients."""

    def __init__(self, thing, runner):
        self._thing, self._runner = thing, runner

    def __getattr__(self, name):
        found = getattr(self._thing, name)
        if not callable(found):
            return found
        return lambda *args, **kwargs: self._settled(found(*args, **kwargs))

    def _settled(self, result):
        if inspect.isawaitable(result):
            result = self._runner.run(result)
        return Awaited(result, self._runner) if isinstance(result, Model) else result

    def __repr__(self):
        return repr(self._thing)


@pytest.fixture(params=[tapehead.Client, tapehead.AsyncClient])
def connect(request):
    """Opens a client of either kind, used the same way."""

    @contextmanager
    def opened(*args, **kwargs):
        if request.param is tapehead.Client:
            with tapehead.Client(*args, **kwargs) as client:
                yield client
            return
        with asyncio.Runner() as runner:
            client = tapehead.AsyncClient(*args, **kwargs)
            runner.run(client.__aenter__())
            try:
                yield Awaited(client, runner)
            finally:
                runner.run(client.__aexit__(None, None, None))

    return opened


def saying(value=X, **options):
    body = encode_reply(
        Result({"value": value}, {"value": ("batch", "timestep", "feature")}, {}), "sunspots", 1, MSGPACK
    )
    return Reply(body=bytes(body), **options)


def complaining(error, **headers):
    return Reply(error.status, bytes(encode_plain(problem(error), JSON)), PROBLEM_JSON, headers)


def test_a_question_goes_out_and_its_answer_comes_back(server, connect):
    server.script = [saying()]
    with connect(server.url, api_key="secret") as client:
        answer = client.model("sunspots").vjp(X, of="lstm.h[-1]", wrt="inputs")
    np.testing.assert_array_equal(answer.value, X)
    assert not answer.value.flags.writeable
    _, path, headers, body = server.seen[1]
    assert path == "/v2/models/sunspots/vjp"
    assert headers["authorization"] == "Bearer secret"
    assert re.fullmatch("[0-9a-f]{32}", headers["x-request-id"])
    assert msgpack.unpackb(body)["of"] == "lstm.h[-1]"


def test_models_are_listed(server, connect):
    server.script = [
        Reply(body=bytes(encode_plain([{"name": "a", "version": "1", "state": "READY"}], JSON)), media=JSON)
    ]
    with connect(server.url) as client:
        assert client.models() == [tapehead.ModelEntry("a", 1, "READY", "")]


def test_the_servers_error_is_raised_as_its_class(server, connect):
    server.script = [complaining(UnknownOperation("no operation 'hvp'"))]
    with connect(server.url) as client, pytest.raises(UnknownOperation, match="hvp"):
        client.model("sunspots").hvp(X)


def test_a_busy_server_is_asked_again_after_the_time_it_names(server, connect):
    server.script = [complaining(QueueFull(), **{"Retry-After": "1"}), saying()]
    with connect(server.url) as client:
        started = time.monotonic()
        client.model("sunspots").infer(X)
        assert time.monotonic() - started >= 1
    first, second = (headers for method, _, headers, _ in server.seen if method == "POST")
    assert first["x-request-id"] == second["x-request-id"]


def test_an_answer_that_is_cut_off_is_an_error_never_a_short_array(server, connect):
    server.script = [saying(keep=40)]
    with connect(server.url, retries=0) as client, pytest.raises(Unreachable, match="no answer"):
        client.model("sunspots").infer(X)


def test_an_answer_that_is_cut_off_is_asked_for_again(server, connect):
    server.script = [saying(keep=40), saying()]
    with connect(server.url) as client:
        np.testing.assert_array_equal(client.model("sunspots").infer(X).value, X)


def test_no_server_is_unreachable_and_the_error_names_the_address(connect):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with connect(url, retries=0) as client, pytest.raises(Unreachable, match=re.escape(url)) as caught:
            client.models()
    assert caught.value.request_id


def test_a_server_that_says_nothing_in_time_is_a_deadline(server, connect, monkeypatch):
    monkeypatch.setattr("tapehead.client.carriers.GRACE", 0.1)
    server.script = [saying(delay=30)]
    with connect(server.url, timeout=0.2) as client:
        model = client.model("sunspots")
        with pytest.raises(Deadline, match="no answer in time"):
            model.infer(X)
    assert server.seen[-1][2]["x-request-timeout"] == "0.2"


def test_a_large_answer_tells_how_far_it_has_come_and_a_small_one_does_not(server, connect):
    value = np.zeros((2, LARGE // 4, 1), np.float32)
    server.script = [saying(), saying(value)]
    told = []
    with connect(server.url, progress=lambda done, total: told.append((done, total))) as client:
        model = client.model("sunspots")
        model.infer(X)
        assert told == []
        assert model.infer(X).value.shape == value.shape
    dones, totals = zip(*told, strict=True)
    assert len(dones) > 1
    assert list(dones) == sorted(dones)
    assert {dones[-1]} == set(totals)


def test_the_environment_says_where_the_server_is_and_who_asks(server, connect, monkeypatch):
    monkeypatch.setenv("TAPEHEAD_URL", server.url)
    monkeypatch.setenv("TAPEHEAD_API_KEY", "from the environment")
    with connect() as client:
        client.model("sunspots")
        assert repr(client) == f"<{repr(client)[1:].split()[0]} {server.url}: open>"
    assert server.seen[0][2]["authorization"] == "Bearer from the environment"


def test_a_proxy_of_the_environment_does_not_stand_before_this_machine():
    assert options("http://127.0.0.1:8000", 1.0)["trust_env"] is False
    assert options("http://[::1]:8000", 1.0)["trust_env"] is False
    assert options("http://localhost", 1.0)["trust_env"] is False
    assert options("https://gpu.example.org", 1.0)["trust_env"] is True


def test_a_closed_client_says_so_and_closing_again_is_harmless(server):
    client = tapehead.Client(server.url)
    assert repr(client) == f"<Client {server.url}: open>"
    client.close()
    client.close()
    assert repr(client) == f"<Client {server.url}: closed>"
    with pytest.raises(RuntimeError, match="closed"):
        client.models()


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "localhost", "ftp://host", "http://", "http://host:port"])
@pytest.mark.parametrize("kind", [tapehead.Client, tapehead.AsyncClient])
def test_what_is_no_servers_url_is_refused_at_once(kind, url):
    with pytest.raises(BadParameter, match="URL"):
        kind(url)


def test_a_client_is_of_a_server_or_of_models_in_process_not_both():
    with pytest.raises(BadParameter, match="not both"):
        tapehead.Client("http://127.0.0.1:8000", models="models")


def test_one_client_serves_many_threads(server):
    server.script = [saying(np.full((1, 1, 1), n, np.float32)) for n in range(16)]
    with tapehead.Client(server.url) as client:
        model = client.model("sunspots")
        values = []
        threads = [threading.Thread(target=lambda: values.append(model.infer(X).value.item())) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(values) == list(range(16))


# ---- an application's lifespan


async def shortlived(scope, receive, send):
    """An application that raises at its startup, as Starlette's do: it says so, then raises."""
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no such folder"})
    raise FileNotFoundError("no such folder")


async def remembering(scope, receive, send):
    """An application that shares what its lifespan made with its requests."""
    if scope["type"] == "http":
        return await send(scope["state"])
    await receive()
    scope["state"]["made"] = 1
    await send({"type": "lifespan.startup.complete"})
    await receive()
    scope["state"]["ended"] = True
    return await send({"type": "lifespan.shutdown.complete"})


def test_an_application_lives_from_startup_to_shutdown_and_shares_its_state():
    async def live():
        heard = []

        async def hear(state):
            heard.append(state)

        async with lifespan(remembering) as application:
            await application({"type": "http"}, None, hear)
        return heard

    assert asyncio.run(live()) == [{"made": 1}]


def test_an_application_that_cannot_start_raises_its_own_error():
    async def live():
        async with lifespan(shortlived):
            pytest.fail("it did not start")

    with pytest.raises(FileNotFoundError, match="no such folder"):
        asyncio.run(live())


def test_what_the_package_gives_is_listed_in_order():
    public = [name for name in tapehead.__all__ if name != "__version__"]
    assert public == sorted(public)
    assert all(hasattr(tapehead, name) for name in tapehead.__all__)
    leaves = {kind.__name__ for kind in BY_CODE.values()} | {"Unreachable"}
    assert leaves <= set(public)


def test_a_call_without_a_body_is_small():
    assert Call("GET", "/v2").body == b""
    assert Request({}).parameters == {}
