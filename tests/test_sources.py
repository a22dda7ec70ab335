"""What the five write-ups ask for (A1 to A4, B1, B3, C1 to C4, D1 to D5), over HTTP from the client and in process.

Each test runs twice: against a real server process that serves saved files, and against the live models in process.
The references are plain tapes over cells unrolled by hand, as the write-ups have them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import architectures
import tapehead
from architectures import GRU, LSTM, RNN, SEQUENCE, Dense, SimpleRNN, TwoState
from oracle.agreement import assert_agree
from serving import serving as a_server

BATCH, TIMESTEPS, FEATURES, UNITS = 32, 20, 5, 10
TAPE = 1e-10
LENGTHS = [20, 13, 1, 7] * 8


@cache
def networks() -> dict[str, Any]:
    """The write-ups' networks at their sizes; the two-state cell with 100 units, in both forms of its output."""
    made = {
        "simple_rnn": architectures.chain(SimpleRNN(UNITS, name="rnn"), features=FEATURES),
        "lstm": architectures.chain(LSTM(UNITS, name="lstm"), Dense(3, name="head"), features=FEATURES),
        "stack": architectures.chain(
            LSTM(UNITS, name="lstm", **SEQUENCE), GRU(UNITS, name="gru"), Dense(1, name="head"), features=FEATURES
        ),
        "two_state": architectures.chain(RNN(TwoState(100), name="rnn", **SEQUENCE), features=FEATURES),
        "two_state_code": architectures.chain(
            RNN(TwoState(100, output_form="code"), name="rnn", **SEQUENCE), features=FEATURES
        ),
    }
    made["lstm"].compile(loss="mse")
    return {name: architectures.with_random_weights(model, seed=5) for name, model in made.items()}


@pytest.fixture(scope="session", params=["over HTTP", "in process"])
def client(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tapehead.Client]:
    if request.param == "in process":
        with tapehead.Client(models=networks(), timeout=None) as client:
            yield client
    else:
        folder = tmp_path_factory.mktemp("models")
        for name, model in networks().items():
            model.save(folder / f"{name}.keras")
        with serving(folder) as url, tapehead.Client(url, timeout=None) as client:
            yield client


@contextmanager
def serving(folder: Path, module: str = "architectures") -> Iterator[str]:
    """A server of a folder, the module of its users' cells imported; gives its address."""
    with a_server(folder, imports=(module,)) as server:
        yield server.url


def series() -> np.ndarray:
    return np.random.default_rng(6).normal(size=(BATCH, TIMESTEPS, FEATURES))


def unrolled(
    name: str, layer: str, x: tf.Tensor, states: list[tf.Tensor] | None = None
) -> tuple[list[list[tf.Tensor]], Any]:
    """The states after each timestep of a layer's cell, called one step at a time; and what it gave out last."""
    cell = networks()[name].get_layer(layer).cell
    states = states or [tf.zeros((x.shape[0], UNITS), tf.float64) for _ in range(2 if "lstm" in layer else 1)]
    passed, out = [], None
    for t in range(x.shape[1]):
        out, states = cell(x[:, t], states)
        passed.append(states)
    return passed, out


def tape_gradient(name: str, layer: str, timestep: int, state: int) -> np.ndarray:
    """What the write-ups call the gradient of a state with respect to the input: the sum over its units."""
    x = tf.constant(series())
    with tf.GradientTape() as tape:
        tape.watch(x)
        target = unrolled(name, layer, x)[0][timestep][state]
    gradient = tape.gradient(target, x, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    return np.asarray(gradient)


# ----------------------------------------------------------------------------------------------------- A: hidden states


def test_a1_gradient_of_the_last_hidden_state_and_the_states_themselves(client: tapehead.Client) -> None:
    model, x = client.model("simple_rnn"), series()
    found = model.vjp(x, of="rnn.h[-1]", wrt="inputs").value
    assert found.shape == (32, 20, 5)
    assert_agree(found, tape_gradient("simple_rnn", "rnn", -1, 0), "gradient", TAPE)
    states = model.states(x, points=["rnn.h"]).tensors["rnn.h"]
    assert states.shape == (32, 20, 10)
    expected = np.stack([h for (h,) in unrolled("simple_rnn", "rnn", tf.constant(x))[0]], 1)
    assert_agree(states, expected, "states", TAPE)


@pytest.mark.parametrize(("point", "state"), [("lstm.h", 0), ("lstm.c", 1)])
def test_a2_the_same_for_both_parts_of_an_lstm(client: tapehead.Client, point: str, state: int) -> None:
    model, x = client.model("lstm"), series()
    found = model.vjp(x, of=f"{point}[-1]", wrt="inputs").value
    assert_agree(found, tape_gradient("lstm", "lstm", -1, state), "gradient", TAPE)
    expected = np.stack([states[state] for states in unrolled("lstm", "lstm", tf.constant(x))[0]], 1)
    assert_agree(model.states(x, points=[point]).tensors[point], expected, "states", TAPE)


@pytest.mark.parametrize(("name", "point"), [("simple_rnn", "rnn.h"), ("lstm", "lstm.h"), ("lstm", "lstm.c")])
def test_a3_a_chosen_timestep_depends_on_nothing_after_it(client: tapehead.Client, name: str, point: str) -> None:
    model, layer = client.model(name), point.split(".")[0]
    found = model.vjp(series(), of=f"{point}[5]", wrt="inputs").value
    assert not found[:, 6:].any()
    assert found[:, :6].any((1, 2)).all()
    assert_agree(found, tape_gradient(name, layer, 5, int(point.endswith("c"))), point, TAPE)
    jacobian = model.jacobian(series(), of=f"{point}[5]", wrt="inputs").value
    assert not jacobian[:, :, 6:].any()


@pytest.mark.parametrize(("name", "point"), [("simple_rnn", "rnn.h"), ("lstm", "lstm.h"), ("lstm", "lstm.c")])
def test_a4_the_full_jacobian_sums_over_units_to_that_gradient(client: tapehead.Client, name: str, point: str) -> None:
    answer = client.model(name).jacobian(series(), of=f"{point}[-1]", wrt="inputs")
    assert answer.value.shape == (32, 10, 20, 5)
    assert answer.axes["value"] == ("batch", "of.unit", "wrt.timestep", "wrt.feature")
    layer, state = point.split(".")[0], int(point.endswith("c"))
    assert_agree(answer.value.sum(1), tape_gradient(name, layer, -1, state), "sum over units", TAPE)
    x = tf.constant(series()[:2])
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        target = unrolled(name, layer, x)[0][-1][state]
    whole = tape.batch_jacobian(target, x, experimental_use_pfor=False)
    assert_agree(answer.value[:2], np.asarray(whole), "Jacobian", TAPE)


# ------------------------------------------------------------------------------------ B: state by state, carried states


@pytest.mark.parametrize("name", ["two_state", "two_state_code"])
def test_b1_every_steps_state_jacobian_of_a_users_own_cell(client: tapehead.Client, name: str) -> None:
    """d h[t] / d h[t-1] is W diag(relu'), to the last bit but one; and so are all four blocks of h and c."""
    model, x = client.model(name), series()[:2, :4]
    rng = np.random.default_rng(8)
    initial = {f"rnn.{state}.initial": rng.normal(size=(2, 100)) for state in "hc"}
    h = model.states(x, points=["rnn.h"], initial_states=initial).tensors["rnn.h"]
    before = np.concatenate([initial["rnn.h.initial"][:, None], h[:, :-1]], 1)
    kernel = np.asarray(networks()[name].get_layer("rnn").cell.linear_rec.kernel)
    a = kernel.T * (before > 0)[:, :, None, :]
    eye = np.broadcast_to(np.eye(100), a.shape)
    expected = {("h", "h"): a, ("h", "c"): 0 * a, ("c", "h"): a - eye, ("c", "c"): eye}
    assert_agree(
        model.jacobian(x, of="rnn.h[:]", wrt="rnn.h[:]", lag=1, initial_states=initial).value, a, "h / h", 1e-15
    )
    of_both = ["rnn.h[:]", "rnn.c[:]"]
    found = model.jacobian(x, of=of_both, wrt=of_both, lag=1, initial_states=initial).tensors
    for (of, wrt), block in expected.items():
        assert_agree(found[f"rnn.{of}[:] / rnn.{wrt}[:]"], block, f"{of} / {wrt}", 1e-15)


def test_b3_stepping_with_carried_states_is_one_call(client: tapehead.Client) -> None:
    for name, points in (("lstm", ["lstm.h", "lstm.c"]), ("stack", ["lstm.h", "gru.h"]), ("two_state", ["rnn.c"])):
        model, x = client.model(name), series()[:3]
        whole = model.states(x, points=points, final_states=True)
        carried = None
        for t in range(TIMESTEPS):
            step = model.states(x[:, t : t + 1], points=points, final_states=True, initial_states=carried)
            carried = step.final_states
            for point in points:
                assert_agree(step.tensors[point][:, 0], whole.tensors[point][:, t], f"{point}[{t}]", TAPE)
        assert carried is not None
        for point, state in whole.final_states.items():
            assert_agree(carried[point], state, point, TAPE)


# --------------------------------------------------------------------------- C: weight gradients by timestep and gate

GATES = ["input_gate", "forget_gate", "cell_candidate", "output_gate"]


def aims(units: int = 3) -> np.ndarray:
    return np.random.default_rng(7).normal(size=(BATCH, units))


def copies_of_weights(states: list[tf.Tensor] | None = None) -> dict[str, np.ndarray]:
    """The gradients of the LSTM's mean squared error with respect to a copy of its weights for each timestep, by tape.

    (timesteps, *weight), of the LSTM written out (Hochreiter and Schmidhuber 1997; Gers et al. 2000).
    """
    model = networks()["lstm"]
    cell, head = model.get_layer("lstm").cell, model.get_layer("head")
    names = ("kernel", "recurrent_kernel", "bias")
    copies = {name: [tf.constant(np.asarray(getattr(cell, name))) for _ in range(TIMESTEPS)] for name in names}
    x = tf.constant(series())
    h, c = states or [tf.zeros((BATCH, UNITS), tf.float64)] * 2
    with tf.GradientTape() as tape:
        tape.watch(copies)
        for t in range(TIMESTEPS):
            z = x[:, t] @ copies["kernel"][t] + h @ copies["recurrent_kernel"][t] + copies["bias"][t]
            i, f, g, o = tf.split(z, 4, axis=-1)
            c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(g)
            h = tf.sigmoid(o) * tf.tanh(c)
        loss = tf.reduce_mean((head(h) - aims()) ** 2)
    return {name: np.stack(gradients) for name, gradients in tape.gradient(loss, copies).items()}


def whole_gradients() -> dict[str, np.ndarray]:
    """The same for the weights themselves, the head's too, as Keras runs the model."""
    model = networks()["lstm"]
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean((model(tf.constant(series())) - aims()) ** 2)
    gradients = tape.gradient(loss, model.trainable_variables)
    return {named(v): np.asarray(g) for v, g in zip(model.trainable_variables, gradients, strict=True)}


def named(variable: Any) -> str:
    """A weight's name: its layer and its own, without the model's and the cell's."""
    layer, *_, own = variable.path.split("/")[-2 - ("lstm_cell" in variable.path) :]
    return f"{layer}/{own}"


def test_c1_gradient_norms_over_timesteps_whose_gradients_sum_to_the_whole(client: tapehead.Client) -> None:
    model, expected = client.model("lstm"), copies_of_weights()
    norms = model.weight_gradients(series(), targets=aims(), by=["timestep"])
    values = model.weight_gradients(series(), targets=aims(), by=["timestep"], values=True)
    whole = model.weight_gradients(series(), targets=aims(), values=True)
    assert norms.meta["loss"] == "mse"  # the compiled one, which the file keeps
    for name, gradient in expected.items():
        weight = f"lstm/{name}"
        assert norms.axes[weight] == ("timestep",)
        norm = np.linalg.norm(gradient.reshape(TIMESTEPS, -1), axis=-1)
        assert_agree(norms.tensors[weight], norm, weight, TAPE)
        assert_agree(values.tensors[f"{weight}:value"], gradient, weight, TAPE)
        assert_agree(values.tensors[f"{weight}:value"].sum(0), whole.tensors[f"{weight}:value"], weight, TAPE)


def test_c2_each_weights_magnitude_beside_its_gradients(client: tapehead.Client) -> None:
    found = client.model("lstm").weight_gradients(series(), targets=aims(), values=True, statistics=True)
    variables = {named(v): v for v in networks()["lstm"].trainable_variables}
    gradients = whole_gradients()
    assert set(found.tensors) >= set(variables)
    for name, variable in variables.items():
        np.testing.assert_array_equal(found.tensors[f"{name}:weight"], np.asarray(variable))
        assert_agree(found.tensors[f"{name}:value"], gradients[name], name, TAPE)
        assert_agree(found.tensors[f"{name}:maximum"], np.asarray(gradients[name].max()), name, TAPE)
        assert found.tensors[f"{name}:zeros"] == 0


@pytest.mark.parametrize("name", ["kernel", "recurrent_kernel", "bias"])
def test_c3_the_four_gates_apart_join_back_to_the_whole(client: tapehead.Client, name: str) -> None:
    by_gate = client.model("lstm").weight_gradients(series(), targets=aims(), by=["gate", "timestep"])
    assert by_gate.meta["gates"]["lstm"] == GATES
    columns = np.stack(np.split(copies_of_weights()[name], 4, axis=-1)).reshape(4, TIMESTEPS, -1)
    assert_agree(by_gate.tensors[f"lstm/{name}"], np.linalg.norm(columns, axis=-1), name, TAPE)
    gates = client.model("lstm").weight_gradients(series(), targets=aims(), by="gate").tensors[f"lstm/{name}"]
    whole = client.model("lstm").weight_gradients(series(), targets=aims()).tensors[f"lstm/{name}"]
    assert gates.shape == (4,)
    assert_agree(np.sqrt((gates**2).sum(keepdims=True))[0], whole, name, TAPE)


def test_c4_input_to_hidden_apart_from_hidden_to_hidden_layer_by_layer(client: tapehead.Client) -> None:
    found = client.model("stack").weight_gradients(series(), targets=aims(1), loss="mse", by=["timestep"])
    recurrent = [f"{layer}/{name}" for layer in ("lstm", "gru") for name in ("kernel", "recurrent_kernel", "bias")]
    assert list(found.tensors) == [*recurrent, "head/kernel", "head/bias"]
    assert {found.axes[name] for name in recurrent} == {("timestep",)}
    assert found.axes["head/kernel"] == ()
    assert found.tensors["lstm/recurrent_kernel"][0] == 0  # from zero states the first timestep's product is of zeros
    assert (found.tensors["lstm/recurrent_kernel"][1:] > 0).all()


# ---------------------------------------------------------------------- D: explicit states, stateful loops, any lengths


def test_d1_weight_gradients_with_explicit_initial_states(client: tapehead.Client) -> None:
    rng = np.random.default_rng(9)
    states = [tf.constant(rng.normal(size=(BATCH, UNITS))) for _ in range(2)]
    initial = {"lstm.h.initial": states[0].numpy(), "lstm.c.initial": states[1].numpy()}
    found = client.model("lstm").weight_gradients(series(), targets=aims(), values=True, initial_states=initial)
    for name, gradient in copies_of_weights(states).items():
        assert_agree(found.tensors[f"lstm/{name}:value"], gradient.sum(0), name, TAPE)


def test_d5_what_a_tape_calls_none_is_disconnected_and_apart_from_zero(client: tapehead.Client) -> None:
    model = networks()["lstm"]
    with tf.GradientTape() as tape:
        target = unrolled("lstm", "lstm", tf.constant(series()))[0][0][0]
    gradients = tape.gradient(target, model.trainable_variables)
    none = [named(v) for v, gradient in zip(model.trainable_variables, gradients, strict=True) if gradient is None]
    found = client.model("lstm").weight_gradients(series(), of="lstm.h[0, 3]")
    assert found.meta["disconnected"] == none == ["head/kernel", "head/bias"]
    assert set(found.tensors) == {"lstm/kernel", "lstm/recurrent_kernel", "lstm/bias"}
    assert found.tensors["lstm/recurrent_kernel"] == 0  # reached, through a state that is zero
    assert found.tensors["lstm/kernel"] > 0


@pytest.mark.parametrize("given", [False, True], ids=["from zero", "from given states"])
def test_d2_gradients_with_respect_to_initial_states(client: tapehead.Client, given: bool) -> None:
    model, x = client.model("lstm"), series()
    rng = np.random.default_rng(9)
    states = [tf.constant(rng.normal(size=(BATCH, UNITS)) * given) for _ in range(2)]
    initial = {"lstm.h.initial": states[0].numpy(), "lstm.c.initial": states[1].numpy()} if given else None
    with tf.GradientTape() as tape:
        tape.watch(states)
        target = unrolled("lstm", "lstm", tf.constant(x), states)[0][-1][0]
    expected = tape.gradient(target, states)
    for point, gradient in zip(("lstm.h.initial", "lstm.c.initial"), expected, strict=True):
        found = model.vjp(x, of="lstm.h[-1]", wrt=point, initial_states=initial).value
        assert_agree(found, gradient.numpy(), point, TAPE)
        jacobian = model.jacobian(x, of="lstm.h[-1]", wrt=point, initial_states=initial).value
        assert_agree(jacobian.sum(1), gradient.numpy(), point, TAPE)


def test_d3_the_final_state_of_one_call_starts_the_next(client: tapehead.Client) -> None:
    model, x = client.model("stack"), series()
    whole = model.states(x, points=["gru.h"], final_states=True)
    carried, passed = None, []
    for part in np.split(x, 4, 1):
        answer = model.states(part, points=["gru.h"], final_states=True, initial_states=carried)
        carried = answer.final_states
        passed.append(answer.tensors["gru.h"])
    assert carried is not None
    assert set(carried) == {"lstm.h.initial", "lstm.c.initial", "gru.h.initial"}
    assert_agree(np.concatenate(passed, 1), whole.tensors["gru.h"], "states", TAPE)
    for point, state in whole.final_states.items():
        assert_agree(carried[point], state, point, TAPE)


@pytest.mark.parametrize(
    ("name", "of", "wrt"),
    [
        ("simple_rnn", "rnn.h[-1]", "inputs"),
        ("lstm", "lstm.c[-1]", "inputs"),
        ("lstm", "outputs", "lstm.h"),
        ("stack", "gru.h[-1]", "inputs"),
        ("stack", "outputs", "lstm.c.initial"),
    ],
)
def test_d4_a_padded_batch_is_each_sequence_alone(client: tapehead.Client, name: str, of: str, wrt: str) -> None:
    model, x = client.model(name), series()
    padded = model.jacobian(x, of=of, wrt=wrt, lengths=LENGTHS).value
    ragged = model.jacobian([row[:n] for row, n in zip(x, LENGTHS, strict=True)], of=of, wrt=wrt).value
    assert_agree(ragged, padded, "ragged", TAPE)
    for row in range(4):
        length = LENGTHS[row]
        alone = model.jacobian(x[row : row + 1, :length], of=of, wrt=wrt).value[0]
        if wrt.endswith("initial"):
            assert_agree(padded[row], alone, f"row {row}", TAPE)
        else:
            assert_agree(padded[row, :, :length], alone, f"row {row}", TAPE)
            assert not padded[row, :, length:].any()
