"""A step's derivative formed as matrices is the one that passes through the gates, or through the cell."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from tests.user_cells import FastWeights

from tapehead.engine import OPERATIONS, Model, programs
from tapehead.engine.rules import recurrence
from tapehead.engine.rules.any_cell import AnyCellRule
from tapehead.engine.rules.recurrence import Seeds, Wave
from tapehead.operations import Request, check

CELLS: dict[str, Callable[[], Any]] = {
    "lstm": lambda: keras.layers.LSTM(3, name="rnn", recurrent_activation="hard_sigmoid", return_sequences=True),
    "lstm_of_other_activations": lambda: keras.layers.LSTM(3, name="rnn", activation="softplus"),
    "gru": lambda: keras.layers.GRU(3, name="rnn", return_sequences=True),
    "gru_of_other_activations": lambda: keras.layers.GRU(3, name="rnn", activation="gelu", go_backwards=True),
    "gru_resetting_before": lambda: keras.layers.GRU(3, name="rnn", reset_after=False),
    "gru_resetting_before_of_other_activations": lambda: keras.layers.GRU(
        3, name="rnn", reset_after=False, recurrent_activation="silu", use_bias=False
    ),
    "a_users_cell": lambda: keras.layers.RNN(FastWeights(3), name="rnn"),
    "convolutional": lambda: keras.layers.ConvLSTM1D(2, 2, padding="same", name="rnn"),
}


LAG_2 = pytest.param({"lag": 2}, id="lag 2", marks=pytest.mark.slow)


@pytest.mark.parametrize("asked", [pytest.param({}, id="whole"), pytest.param({"lag": 1}, id="lag 1"), LAG_2])
@pytest.mark.parametrize("cell", CELLS)
def test_forming_a_steps_derivative_changes_no_number(
    cell: str, asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    keras.utils.set_random_seed(3)
    shape = (None, 3, 2) if cell == "convolutional" else (None, 2)
    layer = CELLS[cell]()
    keras_model = keras.Sequential([keras.Input(shape, name="x"), layer])
    draw = np.random.default_rng(4)
    layer.set_weights([weight + draw.normal(0, 0.3, weight.shape) for weight in layer.get_weights()])
    x, lengths = draw.normal(size=(2, 4, *shape[1:])), {"x": np.array([4, 3])}
    found = []
    for enough in (0, 1 << 30):
        monkeypatch.setattr(programs, "_enough", lambda *_, enough=enough: enough)
        model = Model(keras_model, "m")
        wrt = "rnn.h" if asked else ["inputs", "rnn.h", "rnn.h.initial"]
        parameters = {"of": "rnn.h", "wrt": wrt, "precision": "float64", **asked}
        request, _ = check(model.card, "jacobian", Request({"x": x}, lengths, {}, parameters))
        found.append(OPERATIONS["jacobian"](model, request).tensors)
    through, formed = found
    for name, expected in through.items():
        np.testing.assert_allclose(formed[name], expected, rtol=0, atol=1e-12 * np.abs(expected).max())
    assert all(np.abs(expected).max() > 0 for name, expected in through.items() if not name.endswith("initial"))


STACKED: dict[str, Callable[[], Any]] = {
    "stacked": lambda: keras.layers.RNN([keras.layers.GRUCell(3), keras.layers.LSTMCell(3)], name="rnn"),
    "simple": lambda: keras.layers.SimpleRNN(3, name="rnn", activation="softsign"),
}


@pytest.mark.parametrize("cell", [*CELLS, *STACKED])
def test_what_reaches_the_inputs_is_the_same_made_in_the_steps_or_after(
    cell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule, inputs, initial, valid, draw = _started(cell)
    run = recurrence.forward(rule, inputs, initial, valid, {})
    stack = tf.constant(draw.normal(size=(4, 2, 3, *run.outputs.shape[2:])), tf.float32)
    found = []
    for few in (0, 6):
        monkeypatch.setattr(recurrence, "_FEW", few)
        adjoint = recurrence.back(run, tf.constant(3), Seeds(output=Wave(stack)), frozenset())
        assert (recurrence.PROJECTED in adjoint.points) == (few > 0 and not isinstance(rule, AnyCellRule))
        found.append(adjoint.inputs.numpy())
    np.testing.assert_allclose(found[1], found[0], rtol=1e-5, atol=1e-6)
    assert np.abs(found[0]).max() > 0


@pytest.mark.parametrize("cell", CELLS)
def test_a_steps_own_numbers_are_those_made_for_all_timesteps_at_once(
    cell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule, inputs, initial, valid, draw = _started(cell)
    nudges = {rule.states[0]: tf.constant(draw.normal(size=(4, 2, *rule.state_shapes[0])), tf.float32)}
    found = []
    for most in (recurrence._CACHE_BYTES, 0):
        monkeypatch.setattr(recurrence, "_CACHE_BYTES", most)
        run = recurrence.forward(rule, inputs, initial, valid, nudges)
        assert (run.made is None) == (most > 0)
        found.append([value.numpy() for value in tf.nest.flatten((run.local, run.states, run.outputs))])
    for at_once, in_steps in zip(*found, strict=True):
        np.testing.assert_allclose(in_steps, at_once, rtol=1e-5, atol=1e-6)


def _started(cell: str) -> tuple[Any, ...]:
    """A cell's rule, what it starts from, which timesteps count, and more numbers to come."""
    keras.utils.set_random_seed(5)
    shape = (None, 3, 2) if cell == "convolutional" else (None, 2)
    keras_model = keras.Sequential([keras.Input(shape, name="x"), {**CELLS, **STACKED}[cell]()])
    (call,) = Model(keras_model, "m").graph.recurrences
    draw = np.random.default_rng(6)
    inputs = tf.constant(draw.normal(size=(4, 2, *shape[1:])), tf.float32)
    initial = tuple(tf.constant(draw.normal(size=(2, *state)), tf.float32) for state in call.rule.state_shapes)
    return call.rule, inputs, initial, tf.constant([[True, True], [True, False], [False, True], [True, True]]), draw
