"""The callback that looks at the gradients while a model is trained: what it records, writes and warns of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import tapehead
from tapehead.engine import OPERATIONS, Model
from tapehead.errors import BadParameter, BadShape
from tapehead.keras import GradientMonitor, GradientWarning
from tapehead.keras.gradient_monitor import record_of
from tapehead.keras.records import decay
from tapehead.operations import Request, check

NUMBERS = np.random.default_rng(0)
X = NUMBERS.normal(size=(24, 6, 2)).astype("float32")
Y = X.sum(axis=(1, 2), keepdims=True)[:, :, 0]


def network(kind: Any = layers.LSTM, **options: Any) -> Any:
    keras.utils.set_random_seed(0)
    series = keras.Input((None, 2), name="series")
    model = keras.Model(series, layers.Dense(1, name="head")(kind(3, name="rnn", **options)(series)))
    model.compile(optimizer=keras.optimizers.SGD(0.05), loss="mse")
    return model


def trained(model: Any, monitor: GradientMonitor, **options: Any) -> GradientMonitor:
    given = {"epochs": 2, "batch_size": 4, "shuffle": False, "verbose": 0} | options
    model.fit(X, Y, callbacks=[monitor], **given)
    return monitor


def norms_now(model: Any, by: tuple[str, ...]) -> dict[str, np.ndarray]:
    watched = Model(model, "now", live=True)
    request, _ = check(watched.card, "weight_gradients", Request({"": X[:8]}, parameters={"targets": Y[:8], "by": by}))
    return dict(OPERATIONS["weight_gradients"](watched, request).tensors)


def test_it_records_before_training_every_few_batches_and_at_the_end(tmp_path: Path) -> None:
    model = network()
    before = norms_now(model, ("gate", "timestep"))
    monitor = trained(model, GradientMonitor(X[:8], Y[:8], every=5, file=tmp_path / "gradients.jsonl"))
    assert [record.step for record in monitor.history] == [0, 5, 10, 12]
    assert [record.epoch for record in monitor.history] == [0, 0, 1, 1]
    after = norms_now(model, ("gate", "timestep"))
    for expected, record in ((before, monitor.history[0]), (after, monitor.history[-1])):
        for weight, norm in expected.items():
            np.testing.assert_allclose(record.answer.tensors[weight], norm, rtol=1e-5, atol=1e-9)
    last = monitor.history[-1]
    assert last.loss == pytest.approx(float(np.mean((model.predict(X[:8], verbose=0) - Y[:8]) ** 2)), rel=1e-5)
    whole = norms_now(model, ())
    for weight, norm in whole.items():
        assert last.weights[weight] == pytest.approx(float(norm), rel=1e-5)
    head = np.hypot(last.weights["head/kernel"], last.weights["head/bias"])
    assert last.layers["head"] == pytest.approx(head)
    assert monitor.seconds > 0


def test_training_goes_on_as_it_would_without_it() -> None:
    plain, watched = network(), network()
    plain.fit(X, Y, epochs=2, batch_size=4, shuffle=False, verbose=0)
    trained(watched, GradientMonitor(X[:8], Y[:8], every=2))
    for one, other in zip(plain.get_weights(), watched.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_file_holds_the_records_a_line_each(tmp_path: Path) -> None:
    file = tmp_path / "gradients.jsonl"
    file.write_text("an older run\n")
    monitor = trained(network(), GradientMonitor(X[:8], Y[:8], every=6, file=str(file)))
    lines = file.read_text().splitlines()
    assert [json.loads(line)["meta"]["step"] for line in lines] == [0, 6, 12]
    read = [record_of(answer) for answer in tapehead.Answer.load_lines(file)]
    for one, other in zip(monitor.history, read, strict=True):
        assert (one.step, one.loss, one.layers) == (other.step, other.loss, other.layers)
        assert other.answer.asked["operation"] == "weight_gradients"
        for name, tensor in one.answer.tensors.items():
            np.testing.assert_array_equal(other.answer.tensors[name], tensor)
            assert other.answer.axes[name] == one.answer.axes[name]


def test_a_second_fit_goes_on_in_the_same_history_and_file(tmp_path: Path) -> None:
    model, monitor = network(), GradientMonitor(X[:8], Y[:8], every=4, file=tmp_path / "gradients.jsonl")
    trained(model, monitor, epochs=1)
    trained(model, monitor, epochs=1)
    assert [record.step for record in monitor.history] == [0, 4, 6, 6, 8, 12]
    assert len(tapehead.Answer.load_lines(tmp_path / "gradients.jsonl")) == 6


def test_several_batches_in_one_call_of_the_device_are_counted() -> None:
    model = network()
    model.compile(optimizer="sgd", loss="mse", steps_per_execution=3)
    monitor = trained(model, GradientMonitor(X[:8], Y[:8], every=4), epochs=1)
    assert [record.step for record in monitor.history] == [0, 6]


def test_the_probe_may_be_sequences_of_any_lengths_and_a_point_needs_no_targets() -> None:
    ragged = [row[:n] for row, n in zip(X[:3], (6, 2, 4), strict=True)]
    monitor = trained(network(), GradientMonitor(ragged, of="outputs[0]", every=100), epochs=1)
    assert monitor.history[0].answer.meta["loss"] is None
    assert monitor.history[0].answer.tensors["rnn/kernel"].shape == (4, 6)


@pytest.mark.parametrize("backwards", [False, True])
def test_a_fading_recurrence_is_told_by_its_decay(backwards: bool) -> None:
    """Of h' = x + h U with U = 0.5 I the gradient at a timestep halves with each timestep before the last."""
    series = keras.Input((None, 1), name="series")
    states = layers.SimpleRNN(1, "linear", use_bias=False, go_backwards=backwards, name="rnn")(series)
    model = keras.Model(series, states)
    model.set_weights([np.ones((1, 1)), np.full((1, 1), 0.5)])
    model.compile(optimizer=keras.optimizers.SGD(0.0), loss="mse")
    ones = np.ones((2, 6, 1))
    monitor = GradientMonitor(ones, of="outputs[0]", verdicts=False)
    model.fit(ones, np.zeros((2, 1)), callbacks=[monitor], verbose=0)
    norms = monitor.history[0].answer.tensors["rnn/kernel"]
    np.testing.assert_allclose(norms if backwards else norms[::-1], 2 * 0.5 ** np.arange(6), rtol=1e-6)
    assert monitor.history[0].verdict == {}
    factor = monitor.history[0].decay["rnn"]
    assert factor is not None
    assert 0.4 < factor < 0.6


def test_the_decay_is_the_slope_of_the_logarithms() -> None:
    assert decay(0.9 ** np.arange(5)[::-1], backward=False) == pytest.approx(0.9)
    assert decay(np.array([2.0, 1.0, 0.0]), backward=True) == pytest.approx(0.5)
    assert decay(np.array([0.0, 1.0]), backward=False) is None
    assert decay(np.array([np.inf, 2.0, 1.0]), backward=False) == pytest.approx(2.0)


def test_gradients_that_are_not_finite_are_warned_of(tmp_path: Path) -> None:
    model = network(layers.SimpleRNN, activation="linear")
    model.compile(optimizer=keras.optimizers.SGD(0.0), loss="mse")
    weights = model.get_weights()
    model.set_weights([1e30 * weight for weight in weights])
    monitor = GradientMonitor(X[:8], Y[:8], verdicts=False, file=tmp_path / "gradients.jsonl")
    with pytest.warns(GradientWarning, match=r"step 0: the gradients of .*rnn.* are not finite") as told:
        trained(model, monitor, epochs=1)
    assert len(told) == 1
    (first, *_) = tapehead.Answer.load_lines(tmp_path / "gradients.jsonl")
    assert not np.isfinite(first.tensors["rnn/kernel"]).all()


@pytest.mark.skipif("diagnose" not in OPERATIONS, reason="the engine has no diagnose here")
def test_a_verdict_that_turns_bad_is_warned_of_once_with_its_reason() -> None:
    model = network(layers.SimpleRNN, recurrent_initializer=keras.initializers.RandomNormal(stddev=0.01))
    monitor = GradientMonitor(np.repeat(X[:8], 5, axis=1), Y[:8], every=2)
    with pytest.warns(GradientWarning, match="step 0: rnn is vanishing. .*influence") as told:
        trained(model, monitor, epochs=1)
    assert len(told) == 1
    assert [record.verdict["rnn"] for record in monitor.history] == ["vanishing"] * 4


def test_tensor_float_32_stays_as_training_has_it() -> None:
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(True)
    try:
        trained(network(), GradientMonitor(X[:8], Y[:8]), epochs=1)
        assert tf.config.experimental.tensor_float_32_execution_enabled()
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)


def test_a_probe_that_does_not_fit_ends_training_before_it_begins() -> None:
    model = network()
    weights = model.get_weights()
    with pytest.raises(BadShape, match="targets"):
        trained(model, GradientMonitor(X[:8], Y[:7]))
    with pytest.raises(BadParameter, match="needs targets"):
        trained(model, GradientMonitor(X[:8]))
    with pytest.raises(ValueError, match="at least 1"):
        GradientMonitor(X[:8], Y[:8], every=0)
    for one, other in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
