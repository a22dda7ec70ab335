"""Where a model cannot take lengths: one request a length, and the answers put together again."""

import numpy as np
import pytest

from scripted import X, answered, asked, drive, refused
from tapehead.errors import (
    LengthsUnsupported,
)
from tapehead.wire.messages import MSGPACK, decode_request


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
