"""Derivatives agree with each other, and with a plain tape over the model itself.

Nothing here needs the oracle: each test is an identity that holds for every network, asked through the client.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import architectures
import tapehead
from architectures import SEQUENCE
from oracle.agreement import assert_agree
from oracle.cases import some

SAME = 1e-10
NAMES = [
    "simple_rnn",
    "lstm_sequence",
    "gru",
    "gru_reset_before",
    "lstm_backwards",
    "two_state_text",
    "two_state_code",
    "stacked_cells",
    "stacked_two_cells",
    "bidirectional_concat",
    "bidirectional_mul",
    "bidirectional_custom",
    "stack",
    "stack_after_backwards",
    "stack_of_bidirectional",
    "side_by_side",
    "masked_lstm",
    "masked_bidirectional",
    "stateful",
]


USUAL = [
    "simple_rnn",
    "lstm_sequence",
    "gru_reset_before",
    "two_state_code",
    "stacked_cells",
    "stacked_two_cells",
    "bidirectional_mul",
    "stack_after_backwards",
    "masked_bidirectional",
    "stateful",
]
"""Those that the default suite asks about; the slow suite asks about all."""


@cache
def network(name: str) -> Any:
    return architectures.build(name, seed=4)


def series(timesteps: int = 6, batch: int = 3, seed: int = 7) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(batch, timesteps, architectures.FEATURES))


@pytest.fixture(scope="module")
def client() -> Iterator[tapehead.Client]:
    with tapehead.Client(models={name: network(name) for name in NAMES}, timeout=None) as client:
        yield client


def states_of(model: Any) -> list[str]:
    """The trajectories of all recurrent layers, in a fixed order."""
    return [f"{layer}.{state}" for layer, told in model.metadata["recurrent"].items() for state in told["states"]]


# ------------------------------------------------------------------------------------------------------- the plain tape


@pytest.mark.parametrize("name", some(NAMES, USUAL))
def test_a_vjp_with_ones_is_the_tapes_gradient(client: tapehead.Client, name: str) -> None:
    x = tf.constant(series())
    with tf.GradientTape() as tape:
        tape.watch(x)
        outputs = network(name)(x, training=False)
    found = client.model(name).vjp(x.numpy(), of="outputs", wrt="inputs").value
    assert_agree(found, tape.gradient(outputs, x).numpy(), name, SAME)


@pytest.mark.parametrize("name", ["simple_rnn", "gru", "lstm_sequence", "bidirectional_concat"])
def test_a_jacobian_is_the_tapes_own(client: tapehead.Client, name: str) -> None:
    x = tf.constant(series())
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        outputs = network(name)(x, training=False)
    found = client.model(name).jacobian(x.numpy(), of="outputs", wrt="inputs").value
    assert_agree(found, tape.batch_jacobian(outputs, x, experimental_use_pfor=False).numpy(), name, SAME)


# -------------------------------------------------------------------------------------------------- sums, zeros, chains


@pytest.mark.parametrize("name", some(NAMES, USUAL))
def test_the_jacobian_summed_over_what_is_differentiated_is_the_vjp_with_ones(
    client: tapehead.Client, name: str
) -> None:
    model, x = client.model(name), series()
    of = f"{states_of(model)[-1]}[2]"
    jacobian = model.jacobian(x, of=of, wrt="inputs").value
    assert_agree(jacobian.sum(1), model.vjp(x, of=of, wrt="inputs").value, of, SAME)


@pytest.mark.parametrize("name", ["simple_rnn", "lstm_sequence", "gru", "stacked_cells", "stack"])
def test_nothing_depends_on_what_comes_later(client: tapehead.Client, name: str) -> None:
    model, x = client.model(name), series()
    of = f"{states_of(model)[-1]}[2]"
    for point, value in model.jacobian(x, of=of, wrt=["inputs", *states_of(model)]).tensors.items():
        assert value[:, :, :2].any(), point
        assert not value[:, :, 3:].any(), point
    assert not model.vjp(x, of=of, wrt="inputs").value[:, 3:].any()


def test_a_layer_that_runs_backwards_does_not_depend_on_what_comes_earlier(client: tapehead.Client) -> None:
    for name, state in (("lstm_backwards", "lstm.h"), ("bidirectional_mul", "bi.backward.c")):
        jacobian = client.model(name).jacobian(series(), of=f"{state}[2]", wrt=["inputs", state])
        for point, value in jacobian.tensors.items():
            assert not value[:, :, :2].any(), point
            assert value[:, :, 2:].any(), point


@pytest.mark.parametrize("name", ["lstm_sequence", "two_state_text", "bidirectional_custom"])
def test_states_of_one_timestep_do_not_depend_on_each_other(client: tapehead.Client, name: str) -> None:
    model, x = client.model(name), series()
    states = [state for state in states_of(model) if "backward" not in state]
    here = [f"{state}[3]" for state in states]
    jacobian = model.jacobian(x, of=here, wrt=here)
    for of in here:
        for wrt in here:
            value = jacobian.tensors[f"{of} / {wrt}"]
            expected = np.eye(value.shape[1]) if of == wrt else np.zeros(value.shape[1:])
            np.testing.assert_array_equal(value, np.broadcast_to(expected, value.shape))


def test_no_sample_depends_on_another(client: tapehead.Client) -> None:
    model, x = client.model("stack"), series()
    other = x.copy()
    other[1] = series(seed=8)[1]
    one, two = (model.jacobian(batch, of="rnn.h[-1]", wrt="inputs").value for batch in (x, other))
    assert_agree(one[[0, 2]], two[[0, 2]], "the others", SAME)
    assert np.abs(one[1] - two[1]).max() > 1e-3


@pytest.mark.parametrize(
    "name",
    some(
        ["lstm_sequence", "gru_reset_before", "two_state_code", "stacked_two_cells"],
        ["lstm_sequence", "two_state_code"],
    ),
)
def test_a_long_jacobian_is_the_product_of_those_of_single_steps(client: tapehead.Client, name: str) -> None:
    """d s[4] / d s[1] is the product of the steps' Jacobians, s being the whole state: h alone does not do.

    In stacked cells a nudge of one cell's h moves the next cell within the step. That is counted once, at the start:
    a step is d s[t] / d s[t-1] without what d s[t-1] / d s[t-1] already holds.
    """
    model, x = client.model(name), series()
    states = states_of(model)
    lag = {k: whole_state(model.jacobian(x, of=states, wrt=states, lag=k), states, axis=2) for k in (0, 1)}
    step = {t: lag[1][:, t] @ np.linalg.inv(lag[0][:, t - 1]) for t in (2, 3, 4)}
    of, wrt, initial = ([f"{state}{at}" for state in states] for at in ("[4]", "[1]", ".initial"))
    found = model.jacobian(x, of=of, wrt=[*wrt, *initial])
    product = step[4] @ step[3] @ lag[1][:, 2]
    assert_agree(whole_state(found, of, wrt), product, name, SAME)
    product = step[4] @ step[3] @ step[2] @ lag[1][:, 1] @ np.linalg.inv(lag[0][:, 0]) @ lag[1][:, 0]
    assert_agree(whole_state(found, of, initial), product, "initial", SAME)


def whole_state(answer: tapehead.Answer, of: list[str], wrt: list[str] | None = None, *, axis: int = 1) -> np.ndarray:
    """The Jacobian of the states of all cells together; `axis` is the first one's unit axis."""
    rows = [np.concatenate([pair(answer, o, w) for w in wrt or of], axis + 1) for o in of]
    return np.concatenate(rows, axis)


def pair(answer: tapehead.Answer, of: str, wrt: str) -> np.ndarray:
    """One pair's Jacobian; where it was the only one it is the answer's value."""
    return answer.tensors[f"{of} / {wrt}"] if len(answer.tensors) > 1 else answer.value


def test_a_cells_states_within_one_step_are_reached_through_what_it_gives_out(client: tapehead.Client) -> None:
    """In stacked cells the next cell sees a nudge of h within the step, and none of an LSTM's c."""
    found = client.model("stacked_cells").jacobian(
        series(), of="rnn.cells.1.h[2]", wrt=["rnn.cells.0.h[2]", "rnn.cells.0.c[2]"]
    )
    assert found.tensors["rnn.cells.1.h[2] / rnn.cells.0.h[2]"].any()
    assert not found.tensors["rnn.cells.1.h[2] / rnn.cells.0.c[2]"].any()


@pytest.mark.parametrize("lag", [0, 1, 3])
def test_a_lag_is_the_diagonal_of_the_whole(client: tapehead.Client, lag: int) -> None:
    model, x = client.model("lstm_sequence"), series()
    whole = model.jacobian(x, of="lstm.h", wrt="lstm.c").value
    found = model.jacobian(x, of="lstm.h", wrt="lstm.c", lag=lag).value
    for t in range(lag, 6):
        assert_agree(found[:, t], whole[:, t, :, t - lag], f"timestep {t}", SAME)


@pytest.mark.parametrize(
    ("name", "of", "wrt"),
    [
        ("lstm_sequence", "lstm.h", "inputs"),
        ("gru", "outputs", "gru.h"),
        ("stacked_cells", "rnn.cells.2.h[-1]", "rnn.cells.0.h"),
        ("bidirectional_mul", "outputs", "bi.backward.h.initial"),
        ("stack", "rnn.h[2:4]", "lstm.c"),
    ],
)
def test_a_vjp_is_its_cotangent_times_the_jacobian(client: tapehead.Client, name: str, of: str, wrt: str) -> None:
    model, x = client.model(name), series()
    jacobian = model.jacobian(x, of=of, wrt=wrt).value
    shape = model.states(x, points=[of]).tensors[of].shape
    stacked = np.random.default_rng(0).normal(size=(3, *shape))
    found = model.vjp(x, of=of, wrt=wrt, cotangent=stacked).value
    for u, product in zip(stacked, found, strict=True):
        expected = [np.tensordot(a, j, a.ndim) for a, j in zip(u, jacobian, strict=True)]
        assert_agree(product, np.stack(expected), of, SAME)


# ---------------------------------------------------------------------------------------------------- lengths and masks


@pytest.mark.parametrize(
    "name",
    some(
        [name for name in NAMES if name != "stateful"],
        ["lstm_sequence", "two_state_code", "stacked_two_cells", "bidirectional_mul", "stack_after_backwards"],
    ),
)
def test_a_padded_batch_is_each_sequence_alone(client: tapehead.Client, name: str) -> None:
    model, x, lengths = client.model(name), series(), [6, 4, 1]
    first, last = states_of(model)[0], states_of(model)[-1]
    of, wrt = [last, f"{last}.final"], ["inputs", first, f"{first}.initial"]
    values = model.states(x, points=of, lengths=lengths).tensors
    padded = model.jacobian(x, of=of, wrt=wrt, lengths=lengths).tensors
    for row, length in enumerate(lengths):
        one = x[row : row + 1, :length]
        alone = model.states(one, points=of).tensors
        jacobian = model.jacobian(one, of=of, wrt=wrt).tensors
        for point in of:
            assert_agree(cut(values[point][row], length, [point]), alone[point][0], point, SAME)
            for w in wrt:
                found, expected = padded[f"{point} / {w}"][row], jacobian[f"{point} / {w}"][0]
                assert_agree(cut(found, length, [point, w]), expected, f"{point} / {w}", SAME)


def cut(value: np.ndarray, length: int, points: list[str]) -> np.ndarray:
    """The valid timesteps of a sequence's value or derivative, whose axes are those of the points in turn."""
    index: list[slice] = []
    for point in points:
        index += [slice(None)] if point.endswith((".initial", ".final")) else [slice(length), slice(None)]
    return value[tuple(index)]


def test_outputs_with_lengths_are_those_of_each_sequence_alone(client: tapehead.Client) -> None:
    for name in ("simple_rnn", "lstm_backwards", "bidirectional_concat", "stack", "stack_after_backwards"):
        model, x, lengths = client.model(name), series(), [6, 4, 1]
        padded = model.jacobian(x, of="outputs", wrt="inputs", lengths=lengths).value
        for row, length in enumerate(lengths):
            alone = model.jacobian(x[row : row + 1, :length], of="outputs", wrt="inputs").value
            assert_agree(padded[row : row + 1, :, :length], alone, name, SAME)
            assert not padded[row, :, length:].any()


def test_padding_is_never_read(client: tapehead.Client) -> None:
    for name in ("lstm_sequence", "bidirectional_mul", "stack_of_bidirectional", "masked_lstm"):
        model, x = client.model(name), series()
        other = x.copy()
        other[1, 4:], other[2, 1:] = 1e3, -7.0
        asked = {"of": states_of(model)[-1], "wrt": "inputs", "lengths": [6, 4, 1]}
        one, two = (model.jacobian(batch, **asked).value for batch in (x, other))
        np.testing.assert_array_equal(one, two)


def test_ragged_sequences_are_a_padded_batch_with_lengths(client: tapehead.Client) -> None:
    model, x = client.model("lstm_sequence"), series()
    ragged = model.jacobian([x[0], x[1, :4], x[2, :1]], of="lstm.h[-1]", wrt="inputs")
    padded = model.jacobian(x, of="lstm.h[-1]", wrt="inputs", lengths=[6, 4, 1])
    assert_agree(ragged.value, padded.value, "", SAME)
    assert ragged.meta["valid"] == padded.meta["valid"]


def test_what_a_model_masks_at_the_end_is_what_lengths_would_cut_off(client: tapehead.Client) -> None:
    model, x = client.model("masked_bidirectional"), series()
    x[1, 4:], x[2, 1:] = -1.0, -1.0
    of, wrt = ["bi.forward.h", "bi.backward.h"], ["inputs", "bi.forward.c", "bi.backward.c", "bi.backward.h.initial"]
    masked, cut_off = (model.jacobian(x, of=of, wrt=wrt, lengths=lengths).tensors for lengths in (None, [6, 4, 1]))
    for point in masked:
        assert_agree(masked[point], cut_off[point], point, SAME)


def test_derivatives_at_invalid_timesteps(client: tapehead.Client) -> None:
    """Of a state there: those of the state it repeats. With respect to it: exactly zero."""
    model, x = client.model("masked_lstm"), series()
    x[1, 2:4] = -1.0
    whole = model.jacobian(x, of=["lstm.h", "lstm.c"], wrt=["inputs", "lstm.h", "lstm.c"]).tensors
    for point, value in whole.items():
        for t in (2, 3):
            np.testing.assert_array_equal(value[1, t], value[1, 1], err_msg=point)
            assert not value[1, :, :, t].any(), point


# ---------------------------------------------------------------------------------------------- carried states, repeats


@pytest.mark.parametrize(
    "name", some(["simple_rnn", "two_state_code", "stacked_two_cells", "stack", "stateful"], USUAL)
)
def test_one_call_is_stepping_one_timestep_at_a_time(client: tapehead.Client, name: str) -> None:
    model, x = client.model(name), series()
    states = states_of(model)
    whole = model.states(x, points=states, final_states=True)
    single = model.jacobian(x, of=states, wrt=states, lag=1)
    initial = [f"{state}.initial" for state in states]
    of_one_cell = [(of, wrt) for of in states for wrt in states if of.rpartition(".")[0] == wrt.rpartition(".")[0]]
    carried: dict[str, np.ndarray] | None = None
    for t in range(x.shape[1]):
        now = x[:, t : t + 1]
        if carried is not None:
            here = model.jacobian(now, of=states, wrt=initial, initial_states=carried)
            for of, wrt in of_one_cell:
                assert_agree(pair(here, of, f"{wrt}.initial")[:, 0], pair(single, of, wrt)[:, t], of, SAME)
        step = model.states(now, points=states, final_states=True, initial_states=carried)
        for state in states:
            assert_agree(step.tensors[state][:, 0], whole.tensors[state][:, t], state, SAME)
        carried = step.final_states
    assert carried is not None
    for point, value in whole.final_states.items():
        assert_agree(carried[point], value, point, SAME)


def test_a_stateful_model_starts_from_zero_whatever_the_batch(client: tapehead.Client) -> None:
    model = client.model("stateful")
    first, again = (model.states(series(), points=["lstm.h"]).tensors["lstm.h"] for _ in range(2))
    np.testing.assert_array_equal(first, again)
    alone = model.states(series()[:1], points=["lstm.h"]).tensors["lstm.h"]
    assert_agree(alone, first[:1], "a batch of one", SAME)


def test_a_live_models_present_weights_count() -> None:
    model = architectures.build("gru", seed=1)
    x = series()
    with tapehead.Client(models={"m": model}, timeout=None) as client:
        before = client.model("m").jacobian(x, of="gru.h[-1]", wrt="inputs").value
        architectures.with_random_weights(model, seed=2)
        after = client.model("m").jacobian(x, of="gru.h[-1]", wrt="inputs").value
    with tapehead.Client(models={"m": model}, timeout=None) as client:
        expected = client.model("m").jacobian(x, of="gru.h[-1]", wrt="inputs").value
    assert np.abs(before - expected).max() > 1e-3
    assert_agree(after, expected, "after", SAME)


def test_timesteps_may_differ_from_call_to_call(client: tapehead.Client) -> None:
    model, x = client.model("stack"), series(timesteps=9)
    whole = model.jacobian(x, of="lstm.h[:3]", wrt="inputs[:3]").value
    for timesteps in (9, 5, 3):
        found = model.jacobian(x[:, :timesteps], of="lstm.h[:3]", wrt="inputs[:3]").value
        assert_agree(found, whole, f"{timesteps} timesteps", SAME)


# --------------------------------------------------------------------------------------------------- the two-state cell


@pytest.mark.parametrize("activation", ["relu", "tanh", "linear"])
@pytest.mark.parametrize("form", ["text", "code"])
def test_a_two_state_cells_lag_one_jacobian_is_known_in_closed_form(form: str, activation: str) -> None:
    """h' = W act(h) + b and c' = c - h + h': the blocks are A = W diag(act'), 0, A - 1 and 1."""
    cell = architectures.TwoState(4, activation, form)
    network = architectures.with_random_weights(architectures.chain(architectures.RNN(cell, name="rnn", **SEQUENCE)))
    rng, x = np.random.default_rng(0), series()
    initial = {f"rnn.{state}.initial": rng.normal(size=(3, 4)) for state in "hc"}
    with tapehead.Client(models={"m": network}, timeout=None) as client:
        model = client.model("m")
        found = model.jacobian(x, of=["rnn.h", "rnn.c"], wrt=["rnn.h", "rnn.c"], lag=1, initial_states=initial).tensors
        h = model.states(x, points=["rnn.h"], initial_states=initial).tensors["rnn.h"]
    before = np.concatenate([initial["rnn.h.initial"][:, None], h[:, :-1]], 1)
    slope = {"relu": (before > 0) * 1.0, "tanh": 1 - np.tanh(before) ** 2, "linear": np.ones_like(before)}[activation]
    a = np.asarray(cell.linear_rec.kernel).T * slope[:, :, None, :]
    eye = np.broadcast_to(np.eye(4), a.shape)
    for pair, expected in {"h / rnn.h": a, "h / rnn.c": 0 * a, "c / rnn.h": a - eye, "c / rnn.c": eye}.items():
        assert_agree(found[f"rnn.{pair}"], expected, pair, 1e-15)


def test_a_user_may_write_a_cell_without_build() -> None:
    """A live model's cell need only follow Keras's protocol: call(inputs, states) and state_size."""

    class Written(keras.layers.Layer):
        def __init__(self, units: int) -> None:
            super().__init__(dtype="float64")
            self.state_size = [units, units]
            self.linear_rec = keras.layers.Dense(units, dtype="float64")
            self.linear_out = keras.layers.Dense(units, dtype="float64")

        def call(self, inputs: Any, states: Any) -> Any:
            h = self.linear_rec(keras.ops.relu(states[0]))
            c = states[1] - states[0] + h
            return keras.ops.sigmoid(self.linear_out(inputs) + c), [h, c]

    with pytest.warns(UserWarning, match="does not have a `build"):
        model = architectures.chain(architectures.RNN(Written(4), name="rnn", **SEQUENCE))
    initial = {f"rnn.state{i}.initial": np.random.default_rng(i).normal(size=(3, 4)) for i in range(2)}
    with tapehead.Client(models={"mine": model}, timeout=None) as client:
        mine = client.model("mine")
        found = mine.jacobian(series(), of="rnn.state0[:]", wrt="rnn.state0[:]", lag=1, initial_states=initial).value
        h = mine.states(series(), points=["rnn.state0"], initial_states=initial).tensors["rnn.state0"]
    before = np.concatenate([initial["rnn.state0.initial"][:, None], h[:, :-1]], 1)
    kernel = np.asarray(model.get_layer("rnn").cell.linear_rec.kernel)
    assert_agree(found, kernel.T * (before > 0)[:, :, None, :], "W diag(relu')", 1e-14)


# --------------------------------------------------------------------------------------------------------- completeness


@pytest.mark.parametrize("name", some(["lstm_sequence", "gru", "bidirectional_mul", "stack"], ["gru", "stack"]))
def test_attributions_and_their_gap_add_up_to_the_change_of_the_target(client: tapehead.Client, name: str) -> None:
    model, x = client.model(name), series()
    target = "outputs[0]" if name in ("gru", "stack") else "outputs[2, 0]"
    ends = [model.states(end, points=[target]).tensors[target] for end in (x, 0 * x)]
    gaps = []
    for n_steps in (8, 32, 128):
        found = model.saliency(x, target=target, method="integrated_gradients", n_steps=n_steps)
        gap = found.tensors["completeness_gap"]
        assert_agree(found.value.sum((1, 2)) - gap, ends[0] - ends[1], f"{n_steps} steps", SAME)
        gaps.append(np.abs(gap).max())
    assert gaps[1] < gaps[0] / 4 or gaps[1] < 1e-12
    assert gaps[2] < gaps[1] / 4 or gaps[2] < 1e-12
