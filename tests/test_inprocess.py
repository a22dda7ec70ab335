"""`Client(models=…)`: the server's own application in this process, over live models and over a folder."""

import asyncio
import functools
import subprocess
import sys
import threading

import keras
import numpy as np
import pytest

import tapehead
from tapehead.errors import (
    AnswerTooLarge,
    BadParameter,
    BadShape,
    LengthsUnsupported,
    UnknownModel,
    UnknownOperation,
    UnknownPoint,
)

RAGGED = [
    np.random.default_rng(seed).normal(size=(length, 2)).astype(np.float32) for seed, length in enumerate((5, 3, 5))
]
X = np.stack([RAGGED[0], RAGGED[2]])


def recurrent(*before):
    """A small model: `before`, then a Bidirectional named bi and an LSTM of 3 units named lstm."""
    keras.utils.set_random_seed(1)
    both = keras.layers.Bidirectional(keras.layers.GRU(2, return_sequences=True), name="bi")
    last = [keras.layers.LSTM(3, name="lstm"), keras.layers.Dense(1)]
    return keras.Sequential([keras.Input((None, 2)), *before, both, *last])


@pytest.fixture(scope="module")
def live():
    """Live models: one that takes lengths, one whose first layer cannot, one that only runs forward."""
    convolved = recurrent(keras.layers.Conv1D(2, 2, padding="causal", name="conv"))
    forward = keras.Sequential([keras.Input((None, 2)), keras.layers.LSTM(3, name="lstm")])
    return {"plain": recurrent(), "convolved": convolved, "forward": forward}


@pytest.fixture(scope="module")
def client(live):
    with tapehead.Client(models=live) as client:
        yield client


def test_live_models_are_listed_and_described(client):
    assert {entry.name for entry in client.models()} == {"plain", "convolved", "forward"}
    model = client.model("plain")
    assert {"lstm.h", "lstm.c", "inputs" if "inputs" in model.points else "outputs"} <= set(model.points)
    assert {"states", "jacobian", "vjp", "saliency"} <= set(model.operations)


def test_an_operation_is_answered_with_axes_and_meta(client):
    answer = client.model("plain").jacobian(X, of="lstm.h[-1]", wrt="inputs")
    assert answer.axes["value"] == ("batch", "of.unit", "wrt.timestep", "wrt.feature")
    assert answer.value.shape == (2, 3, 5, 2)
    assert {"route", "precision", "device", "finite", "timings"} <= set(answer.meta)
    assert not answer.value.flags.writeable


def test_the_servers_errors_arrive_as_their_own_classes(client):
    model = client.model("plain")
    with pytest.raises(UnknownModel):
        client.model("absent")
    with pytest.raises(UnknownPoint, match="lstm"):
        model.states(X, points=["lstn.h"])
    with pytest.raises(BadShape):
        model.states(X[:, :, :1], points=["lstm.h"])
    with pytest.raises(UnknownOperation, match="levitate") as caught:
        model.ask("levitate", X)
    assert caught.value.request_id


def test_a_live_model_is_used_not_copied(client, live):
    model, layer = client.model("plain"), live["plain"].get_layer("lstm")
    before, weights = model.states(X, points=["lstm.h"]).value, layer.get_weights()
    layer.set_weights([2 * weight for weight in weights])
    try:
        assert not np.allclose(model.states(X, points=["lstm.h"]).value, before)
    finally:
        layer.set_weights(weights)


def test_final_states_carry_on_where_the_sequence_was_left(client):
    model = client.model("forward")
    whole = model.states(X, points=["lstm.h"]).value
    first = model.states(X[:, :2], final_states=True)
    rest = model.states(X[:, 2:], points=["lstm.h"], initial_states=first.final_states).value
    np.testing.assert_allclose(rest, whole[:, 2:], atol=1e-6)


@pytest.mark.parametrize("name", ["plain", "convolved"])
@pytest.mark.parametrize("of", ["lstm.h[-1]", "lstm.h"])
def test_a_ragged_list_is_answered_as_each_sequence_alone(client, name, of):
    model = client.model(name)
    together = model.jacobian(RAGGED, of=of, wrt="inputs")
    assert together.value.shape[-2:] == (5, 2)
    for row, sequence in enumerate(RAGGED):
        alone = model.jacobian(sequence[None], of=of, wrt="inputs").value[0]
        valid = together.value[row][..., : len(sequence), :]
        valid = valid[: len(sequence)] if of == "lstm.h" else valid
        np.testing.assert_allclose(valid, alone, atol=1e-6)
        assert not together.value[row][..., len(sequence) :, :].any()


@pytest.mark.parametrize("of", ["lstm.h", "bi.forward.h", "bi.backward.h", "bi"])
def test_padding_reads_the_same_whether_the_server_or_the_client_tells_the_lengths_apart(client, of):
    """The same layers, with and without one before them that refuses lengths."""
    plain, convolved = (client.model(name) for name in ("plain", "convolved"))
    for model in (plain, convolved):
        states = model.states(RAGGED, points=[of])
        jacobian = model.jacobian(RAGGED, of=of, wrt="inputs")
        for answer in (states, jacobian):
            repeats = of not in ("bi", "bi.backward.h")
            expected = answer.value[1, [2, 2]] if repeats else 0
            np.testing.assert_array_equal(answer.value[1, 3:], expected)
        assert states.meta["valid"] == [[True] * 5, [True] * 3 + [False] * 2, [True] * 5]


def test_lengths_that_cannot_be_told_apart_are_refused_as_the_server_says(client):
    with pytest.raises(LengthsUnsupported, match="conv"):
        client.model("convolved").vjp(RAGGED, of="lstm.h[-1]", wrt="inputs", cotangent=np.ones((3, 3), np.float32))


def test_a_folder_of_models_is_served(live, tmp_path):
    live["plain"].save(tmp_path / "mine.keras")
    with tapehead.Client(models=tmp_path) as client:
        assert [(entry.name, entry.version) for entry in client.models()] == [("mine", 1)]
        np.testing.assert_allclose(
            client.model("mine").infer(X).value, live["plain"].predict(X, verbose=0), rtol=1e-5, atol=1e-6
        )


def test_a_folder_that_is_not_there_is_said_at_once_and_leaves_no_thread_behind(tmp_path):
    threads = threading.active_count()
    with pytest.raises(NotADirectoryError, match="absent"):
        tapehead.Client(models=tmp_path / "absent")
    assert threading.active_count() == threads


def test_the_client_says_where_it_works_and_whether_it_is_open(live, tmp_path):
    client = tapehead.Client(models={"plain": live["plain"]})
    assert repr(client) == "<Client in process, 1 models: open>"
    client.close()
    assert repr(client) == "<Client in process, 1 models: closed>"
    with pytest.raises(RuntimeError):
        client.models()


def test_an_asynchronous_client_serves_in_its_own_event_loop(live):
    async def ask():
        client = tapehead.AsyncClient(models=live)
        with pytest.raises(RuntimeError, match="async with"):
            await client.models()
        async with client:
            model = await client.model("plain")
            return await asyncio.gather(*(model.jacobian(X, of="lstm.h[-1]", wrt="inputs") for _ in range(4)))

    answers = asyncio.run(ask())
    assert len(answers) == 4
    assert all(np.array_equal(answer.value, answers[0].value) for answer in answers)


def test_a_process_that_forgets_to_close_its_client_still_ends():
    program = (
        "import keras, tapehead\n"
        "model = keras.Sequential([keras.Input((None, 2)), keras.layers.LSTM(3, name='lstm')])\n"
        "client = tapehead.Client(models={'m': model})\n"
        "print(client.model('m').states([[[1.0, 2.0]]], points=['lstm.h']).value.shape)\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "(1, 1, 3)" in ran.stdout


# -- dry runs ----------------------------------------------------------------------------------------------------------

ASKED = [
    ("infer", {}),
    ("states", {"points": ["lstm.h", "bi.forward.update_gate[-2:]"], "final_states": True}),
    ("jacobian", {"of": "lstm.h[-1]", "wrt": "inputs"}),
    ("jacobian", {"of": "lstm.h", "wrt": ["lstm.h.initial[0]", "inputs[2]"]}),
    ("jacobian", {"of": "lstm.h", "wrt": "lstm.h.initial[0]"}),
    ("jacobian", {"of": "lstm.h", "wrt": "lstm/kernel.forget_gate"}),
    ("jacobian", {"of": "lstm.h", "wrt": "lstm.c", "lag": 2}),
    ("jacobian", {"of": "lstm.h", "wrt": "inputs", "lag": 1}),
    ("jacobian", {"of": "lstm.h", "wrt": "bi", "lag": 1}),
    ("jacobian", {"of": "lstm.h", "wrt": "lstm.h", "reduce": "norm"}),
    ("jacobian", {"of": "lstm.h", "wrt": "inputs", "reduce": "singular_values", "precision": "float64"}),
    ("vjp", {"of": "lstm.h[-1]", "wrt": ["inputs", "lstm/bias"]}),
    ("vjp", {"of": "lstm.h[-1]", "wrt": "inputs", "cotangent": np.ones((4, 2, 3))}),
    ("jvp", {"of": "lstm.h", "wrt": "inputs", "tangent": np.ones((4, 2, 5, 2))}),
    ("hvp", {"of": "outputs", "wrt": "inputs", "tangent": np.ones((2, 5, 2))}),
    ("check", {"of": "lstm.h[-1]", "wrt": "inputs"}),
    ("saliency", {"target": "outputs[argmax]"}),
    ("saliency", {"target": "outputs", "method": "integrated_gradients", "n_steps": 3}),
    ("weight_gradients", {"of": "outputs", "by": ["timestep", "gate"], "values": True, "statistics": True}),
    ("diagnose", {"of": "outputs"}),
    ("diagnose", {"layer": "lstm", "steps": 2, "exponents": 3, "precision": "float64"}),
]


@pytest.mark.parametrize(("operation", "parameters"), ASKED, ids=lambda value: str(value)[:70])
def test_a_dry_run_tells_shapes_axes_bytes_and_route_of_the_real_answer(client, operation, parameters):
    model = client.model("plain")
    dry = model.ask(operation, X, dry_run=True, **parameters)
    real = model.ask(operation, X, **parameters)
    assert list(dry.tensors) == list(real.tensors)
    assert dry.axes == real.axes
    for name, array in real.tensors.items():
        assert (dry.tensors[name].shape, dry.tensors[name].dtype) == (array.shape, array.dtype)
    assert dry.meta["bytes"] == sum(array.nbytes for array in real.tensors.values())
    assert (dry.meta["route"], dry.meta["precision"]) == (real.meta["route"], real.meta["precision"])
    assert dry.meta["dry_run"] is True
    assert dry.meta["flops"] > 0
    assert dry.meta["seconds"] > 0


def test_every_operation_is_tried_dry(client):
    assert {operation for operation, _ in ASKED} == {"infer", *client.model("plain").operations}


def test_a_dry_run_holds_no_numbers_and_says_so(client, tmp_path):
    dry = client.model("plain").jacobian(X, of="lstm.h", wrt="inputs", dry_run=True)
    assert "float32 (2, 5, 3, 5, 2)" in repr(dry)
    assert "not computed, a dry run: 1,200 bytes by the route reverse" in repr(dry)
    save = functools.partial(dry.save, tmp_path / "dry.npz")
    for use in (lambda: dry.value, dry.plot, save, lambda: dry.final_states):
        with pytest.raises(BadParameter, match="a dry run computes no numbers"):
            use()
    assert not list(tmp_path.iterdir())


def test_an_answer_over_the_limit_can_be_tried_dry_and_is_refused_with_three_ways_to_ask_for_less(client):
    model, long = client.model("plain"), np.zeros((1, 6000, 2), np.float32)
    dry = model.jacobian(long, of="lstm.h", wrt="lstm.h", dry_run=True)
    assert dry.meta["bytes"] == (6000 * 3) ** 2 * 4
    with pytest.raises(AnswerTooLarge, match=r"1,236\.0 MiB.*a slice of.*; a reduction, as reduce='norm'.*; or a vjp"):
        model.jacobian(long, of="lstm.h", wrt="lstm.h")
