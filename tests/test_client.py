"""The client without I/O: what is sent, how it is tried again, and what is made of what comes back."""

import email.utils
import io
import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripted import MANNER, METADATA, SUNSPOTS, X, answered, asked, drive, received, refused
from tapehead.client.answers import Answer
from tapehead.client.asking import describe, list_models
from tapehead.client.calls import Received, exchange, get
from tapehead.client.inputs import make_request
from tapehead.client.models import Model
from tapehead.client.progress import Bar, reporter
from tapehead.errors import (
    BY_CODE,
    BadLengths,
    BadParameter,
    BadRequest,
    BadShape,
    Deadline,
    Draining,
    Internal,
    QueueFull,
    TapeheadError,
    TryAgain,
    UnknownModel,
    Unreachable,
)
from tapehead.points import parse
from tapehead.wire.messages import JSON, MSGPACK, decode_request, encode_plain

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


def test_an_operation_is_posted_as_msgpack_and_its_answer_read():
    answer, (call,) = drive(asked("jacobian", of="lstm.h[-1]", wrt="inputs"), [answered()])
    assert (call.method, call.path) == ("POST", "/v2/models/sunspots/jacobian")
    assert call.headers["content-type"] == MSGPACK
    request = decode_request(bytes(call.body), MSGPACK)
    np.testing.assert_array_equal(request.inputs[""], X)
    assert request.parameters == {"of": "lstm.h[-1]", "wrt": "inputs"}
    np.testing.assert_array_equal(answer.value, X)
    assert answer.asked == {"operation": "jacobian", "of": "lstm.h[-1]", "wrt": "inputs"}


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
    assert isinstance(ask(Model(SUNSPOTS, MANNER, run, list)), Answer)
    assert run.asked[0] == operation
    assert dict(run.asked[1].parameters) == parameters


def test_a_handle_tells_what_is_known_of_its_model():
    model = Model(SUNSPOTS, MANNER, Recorder(), list)
    assert model.name == "sunspots"
    assert model.version is None
    assert model.points == METADATA["points"]
    assert model.operations == METADATA["operations"]
    assert model.metadata is METADATA
    assert repr(model) == "<Model 'sunspots': 1 points; states, jacobian, vjp, saliency, hvp>"
    assert "hvp" in dir(model)


def test_a_misspelt_method_is_an_attribute_error():
    with pytest.raises(AttributeError, match="jacobain"):
        Model(SUNSPOTS, MANNER, Recorder(), list).jacobain(X)


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
        "<Answer sunspots: jacobian of lstm.h[-1] wrt inputs at lag 2\n"
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
