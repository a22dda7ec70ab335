"""Weight gradients by timestep and by gate, against copies of each weight, a timestep at a time; their norms; and which
weights are reached."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import architectures
from oracle.agreement import assert_agree
from oracle.cases import HOLES, LENGTHS, some
from oracle.weights import weight_gradients
from tapehead.engine import Model
from tapehead.engine.rules.cells import Keep
from tapehead.engine.rules.factors import Factors, arranged, formed, gram_norms, measures
from tapehead.errors import BadParameter
from tapehead.keras import GradientCell
from weights_asked import NUMBERS, SERIES, asked, model_of

EXACT = 1e-8
USUAL = (
    "gru",
    "gru_reset_before",
    "stacked_cells_backwards",
    "stack_with_layers_between",
    "contrary_cell_apart",
    "masked_bidirectional",
    "shared",
)
NAMES = [*architectures.ARCHITECTURES, *architectures.AROUND]
NOT_WRITTEN_OUT = ("convolution", "attention", "autoencoder", "normalised")
"""Architectures whose outputs have not the input's timesteps, or that hold layers the formulas lack."""


def targets_of(model: Any, seed: int = 2) -> dict[str, np.ndarray]:
    """Random targets for every output, by its point."""
    inputs = inputs_of(model)
    given = [tf.constant(x) for x in inputs.values()]
    outputs = model(given if len(given) > 1 else given[0])
    outputs = outputs if isinstance(outputs, list | tuple) else [outputs]
    numbers = np.random.default_rng(seed)
    names = ["outputs"] if len(outputs) == 1 else [f"outputs.{n}" for n in range(len(outputs))]
    return {name: numbers.normal(size=out.shape) for name, out in zip(names, outputs, strict=True)}


def inputs_of(model: Any) -> dict[str, np.ndarray]:
    return architectures.data(model)


def squares(run: Any, targets: Any) -> Any:
    """The mean squared error of one sample's outputs, over the timesteps that a mask leaves."""
    total = 0.0
    for name, target in targets.items():
        point = run.aliases.get(name, name)
        error = (run.values[point] - target) ** 2
        mask = run.valid.get(point)
        if mask is not None and error.ndim > 1:
            error = error * mask[:, None]
            total += error.sum() / (mask.sum() * error.shape[-1])
        else:
            total += error.mean()
    return total


def over_the_batch(model: Model, per_sample: np.ndarray, counts: np.ndarray | None) -> np.ndarray:
    """The gradient of the mean over all that counts, from the gradients of each sample's own mean."""
    share = np.full(len(per_sample), 1 / len(per_sample)) if counts is None else counts / counts.sum()
    return np.einsum("b,b...->...", share, per_sample)


# ---------------------------------------------------------------------------- by timestep and gate, against the oracle


@pytest.mark.parametrize("name", some([n for n in NAMES if n not in NOT_WRITTEN_OUT], USUAL))
def test_each_timesteps_gradient_is_that_of_its_own_copy_of_the_weight(name: str) -> None:
    model = model_of(name)
    inputs, targets = inputs_of(model.keras), targets_of(model.keras)
    if name in architectures.MASKED | architectures.EMBEDDED | architectures.ODDLY_MASKED:
        inputs = architectures.masked(inputs, HOLES)
    expected = weight_gradients(model.keras, inputs, squares, targets)
    found = asked(model, inputs, targets=targets, loss="mse", by=["timestep"], per_sample=True, values=True)
    assert set(expected) == set(model.weights)
    assert found.meta["disconnected"] == []
    for weight, gradient in expected.items():
        assert_agree(found.tensors[f"{weight}:value"], gradient, weight, EXACT)
        assert_agree(found.tensors[weight], norms(gradient, found.axes[weight]), weight, EXACT)


CELLS = {
    "two states": lambda: architectures.TwoState(3, "tanh"),
    "gradient": lambda: GradientCell(3, widths=(4,), dtype="float64"),
}


@pytest.mark.parametrize("kind", CELLS)
def test_a_users_cells_timesteps_are_those_of_as_many_cells_by_tape(kind: str) -> None:
    """The layer unrolled over a cell of its own for each timestep, all with the same weights."""
    cells = [CELLS[kind]() for _ in range(4)]
    own = architectures.with_random_weights(architectures.chain(architectures.RNN(cells[0], name="rnn")))
    x = np.random.default_rng(5).normal(size=(3, 4, 2))
    for cell in cells[1:]:
        cell.build((None, 2))
        cell.set_weights(cells[0].get_weights())
    states: Any = [tf.zeros((3, 3), tf.float64)] * (2 if kind == "two states" else 1)
    with tf.GradientTape() as recorded:
        out = None
        for t, cell in enumerate(cells):
            out, states = cell(tf.constant(x[:, t]), states)
        value = tf.reduce_sum(out[:, 0])
    gradients = recorded.gradient(value, [cell.weights for cell in cells])
    model = Model(own, "own")
    found = asked(model, x, of="outputs[0]", by=["timestep"], values=True)
    for n, variable in enumerate(cells[0].weights):
        (name,) = (name for name, one in model.weights.items() if one is variable)
        by_time = [one[n] for one in gradients]
        reached = [one for one in by_time if one is not None]
        assert (name in found.meta["disconnected"]) == (not reached)
        if reached:
            expected = np.stack([np.zeros(variable.shape) if one is None else np.asarray(one) for one in by_time])
            assert_agree(found.tensors[f"{name}:value"], expected, name, EXACT)


def norms(gradient: np.ndarray, axes: Sequence[str]) -> np.ndarray:
    lead = gradient.shape[: len(axes)]
    return np.linalg.norm(gradient.reshape(*lead, -1), axis=-1)


@pytest.mark.parametrize("name", some([n for n in NAMES if n not in NOT_WRITTEN_OUT], ("gru_reset_before", "shared")))
def test_norms_by_gate_and_timestep_are_those_of_the_columns_of_the_batchs_gradient(name: str) -> None:
    model = model_of(name)
    inputs, targets = inputs_of(model.keras), targets_of(model.keras)
    expected = weight_gradients(model.keras, inputs, squares, targets)
    found = asked(model, inputs, targets=targets, loss="mse", by=["gate", "timestep"])
    for weight, gradients in expected.items():
        gradient = gradients.mean(axis=0)
        gates = found.meta["gates"].get(weight.rpartition("/")[0], [])
        if gates:
            gradient = np.stack(np.split(gradient, len(gates), axis=-1))
        elif "timestep" in found.axes[weight]:
            assert found.axes[weight] == ("timestep",)
        assert_agree(found.tensors[weight], norms(gradient, found.axes[weight]), weight, EXACT)


@pytest.mark.parametrize(
    "name", some(["lstm_sequence", "bidirectional_concat", "stack_after_backwards"], ["bidirectional_concat"])
)
def test_lengths_give_each_sequence_the_gradient_it_has_alone(name: str) -> None:
    model = model_of(name)
    inputs, targets = inputs_of(model.keras), targets_of(model.keras)
    states = [point for point, info in model.card.points.items() if info.kind == "initial"]
    numbers = np.random.default_rng(4)
    initial = {point: numbers.normal(size=(3, *model.card.points[point].shape)) for point in states}
    expected = weight_gradients(model.keras, inputs, squares, targets, lengths=LENGTHS, initial_states=initial)
    given: dict[str, Any] = {"targets": targets, "loss": "mse", "lengths": LENGTHS, "initial_states": initial}
    found = asked(model, inputs, by=["timestep"], per_sample=True, values=True, **given)
    for weight, gradient in expected.items():
        assert_agree(found.tensors[f"{weight}:value"], gradient, weight, EXACT)
    whole = asked(model, inputs, values=True, **given)
    timed = targets["outputs"].ndim == 3
    for weight, gradient in expected.items():
        each = gradient.sum(axis=1) if "timestep" in found.axes[weight] else gradient
        mean = over_the_batch(model, each, np.array(LENGTHS, float) if timed else None)
        assert_agree(whole.tensors[f"{weight}:value"], mean, weight, EXACT)


def test_timesteps_gates_and_samples_add_up_to_the_whole() -> None:
    model = model_of("lstm_sequence")
    inputs, targets = inputs_of(model.keras), targets_of(model.keras)
    given: dict[str, Any] = {"targets": targets, "loss": "mse", "values": True}
    whole, by_time, by_sample = (
        asked(model, inputs, **given, **more) for more in ({}, {"by": ["timestep"]}, {"per_sample": True})
    )
    by_gate = asked(model, inputs, by=["gate"], **given)
    for weight in model.weights:
        value = whole.tensors[f"{weight}:value"]
        np.testing.assert_array_equal(by_gate.tensors[f"{weight}:value"], value)
        assert_agree(by_sample.tensors[f"{weight}:value"].mean(axis=0), value, weight, EXACT)
        np.testing.assert_array_equal(whole.tensors[f"{weight}:weight"], model.weights[weight])
        if "timestep" in by_time.axes[weight]:
            assert_agree(by_time.tensors[f"{weight}:value"].sum(axis=0), value, weight, EXACT)
        norm = by_gate.tensors[weight]
        assert_agree(np.sqrt((norm * norm).sum(keepdims=True)).reshape(()), whole.tensors[weight], weight, EXACT)


def test_the_order_of_by_is_the_order_of_the_axes() -> None:
    model = model_of("gru")
    given: dict[str, Any] = {"targets": targets_of(model.keras), "loss": "mse", "per_sample": True}
    one = asked(model, inputs_of(model.keras), by=["gate", "timestep"], **given)
    other = asked(model, inputs_of(model.keras), by=["timestep", "gate"], **given)
    assert one.axes["gru/kernel"] == ("batch", "gate", "timestep")
    assert other.axes["gru/kernel"] == ("batch", "timestep", "gate")
    np.testing.assert_array_equal(one.tensors["gru/kernel"], np.swapaxes(other.tensors["gru/kernel"], 1, 2))
    assert one.axes["head/kernel"] == ("batch",)


def test_statistics_are_those_of_the_entries() -> None:
    model = model_of("gru_reset_before")
    given: dict[str, Any] = {"targets": targets_of(model.keras), "loss": "mse", "by": ["timestep", "gate"]}
    found = asked(model, inputs_of(model.keras), statistics=True, **given)
    values = asked(model, inputs_of(model.keras), values=True, **given)
    for weight in model.weights:
        value = values.tensors[f"{weight}:value"]
        if "gate" in found.axes[weight]:
            value = np.stack(np.split(value, 3, axis=-1), axis=1)
        entries = value.reshape(*found.tensors[weight].shape, -1)
        for name, expected in (
            ("mean", entries.mean(-1)),
            ("minimum", entries.min(-1)),
            ("maximum", entries.max(-1)),
            ("zeros", (entries == 0).mean(-1)),
        ):
            np.testing.assert_allclose(found.tensors[f"{weight}:{name}"], expected, rtol=1e-12, atol=1e-15)
        assert found.axes[f"{weight}:mean"] == found.axes[weight]
    # From zero states the first timestep's recurrent kernel gets nothing, and is reached all the same.
    assert (found.tensors["gru/recurrent_kernel:zeros"][0] == 1).all()
    assert (found.tensors["gru/recurrent_kernel"][0] == 0).all()


# ------------------------------------------------------------------------------------------------------------ the norms


@pytest.mark.parametrize("kept", [Keep(), Keep(rows=True), Keep(timesteps=True), Keep(rows=True, timesteps=True)])
@pytest.mark.parametrize("gates", [0, 3])
def test_norms_from_gram_matrices_are_those_of_what_is_formed(kept: Keep, gates: int) -> None:
    numbers = np.random.default_rng(0)

    def random(width: int, timesteps: int) -> Any:
        return tf.constant(numbers.normal(size=(timesteps, 4, width)))

    # Two calls of one layer, of different lengths; the last gate's columns have a left factor of their own.
    parts = [
        Factors((random(5, 7), random(5, 7 if kept.timesteps else 6)), (random(2 * n, 7), random(2 * n, 7)))
        for n in (2, 1)
    ]
    if not kept.timesteps:
        parts = [Factors(part.lefts, (part.rights[0], part.rights[1][:6])) for part in parts]
    pairs: Any = [arranged(part, kept) for part in parts]
    whole = formed(pairs, "beside")
    expected = measures(whole, 1, gates, statistics=False)["norm"]
    np.testing.assert_allclose(gram_norms(pairs, gates)["norm"], expected, rtol=1e-10)
    np.testing.assert_allclose(expected if not gates else tf.norm(expected, axis=-1), tf.norm(whole, axis=(1, 2)))


def test_in_float32_norms_come_from_gram_matrices_and_lose_no_digits_to_cancellation() -> None:
    numbers = np.random.default_rng(1)
    x, z = numbers.normal(size=(1, 6, 3)), numbers.normal(size=(1, 6, 4))
    x, z = np.concatenate([x, x], 1), np.concatenate([z, (1e-4 - 1) * z], 1)
    pair: Any = (tf.constant(x, tf.float32), tf.constant(z, tf.float32))
    exact = np.linalg.norm(np.swapaxes(pair[0].numpy().astype(float), 1, 2) @ pair[1].numpy().astype(float))
    assert float(gram_norms([pair], 0)["norm"][0]) == pytest.approx(exact, rel=1e-6)


def test_a_gradient_far_below_the_root_of_the_smallest_number_keeps_its_norm() -> None:
    tiny = tf.constant([[3e-30, -4e-30]], tf.float32)
    assert float(measures(tiny, 1, 0, statistics=False)["norm"][0]) == pytest.approx(5e-30, rel=1e-6)
    gram = gram_norms([(tf.constant([[[1e-15]]], tf.float32), tf.constant([[[1e-20]]], tf.float32))], 0)
    assert float(gram["norm"][0]) == pytest.approx(1e-35, rel=1e-5)
    assert np.isnan(measures(tf.constant([[np.nan, 1.0]]), 1, 0, statistics=False)["norm"])
    assert np.isinf(measures(tf.constant([[np.inf, 1.0]]), 1, 0, statistics=False)["norm"])


def test_the_model_in_float32_answers_the_norms_of_its_values_by_either_way() -> None:
    series = keras.Input((None, 24), name="series")
    stack = layers.GRU(24, name="gru")(layers.LSTM(24, name="lstm", return_sequences=True)(series))
    model = Model(keras.Model(series, layers.Dense(1)(stack)), "wide")
    numbers = np.random.default_rng(3)
    x, y = numbers.normal(size=(2, 6, 24)), numbers.normal(size=(2, 1))
    given: dict[str, Any] = {"targets": y, "loss": "mse", "by": ["timestep", "gate"]}
    by_gram, by_values = asked(model, x, **given), asked(model, x, values=True, **given)
    for weight in model.weights:
        np.testing.assert_allclose(by_gram.tensors[weight], by_values.tensors[weight], rtol=2e-5, atol=1e-9)
    float64 = asked(model, x, precision="float64", **given)
    for weight in model.weights:
        np.testing.assert_allclose(by_gram.tensors[weight], float64.tensors[weight], rtol=2e-4, atol=1e-8)


# -------------------------------------------------------------------------------------------------- what is reached


def test_the_gradient_of_a_point_needs_no_targets_and_is_what_a_tape_gives() -> None:
    model = model_of("lstm_sequence")
    x = inputs_of(model.keras)["series"]
    found = asked(model, x, of="outputs[-1, 1]", values=True)
    with tf.GradientTape() as recorded:
        value = tf.reduce_sum(model.keras(tf.constant(x))[:, -1, 1])
    gradients = recorded.gradient(value, list(model.weights.values()))
    for weight, gradient in zip(model.weights, gradients, strict=True):
        assert_agree(found.tensors[f"{weight}:value"], np.asarray(gradient), weight, EXACT)
    assert found.meta["loss"] is None
    assert found.meta["loss_value"] == pytest.approx(float(value), rel=1e-12)
    each = asked(model, x, of="outputs[-1, 1]", per_sample=True, values=True)
    np.testing.assert_allclose(each.meta["loss_value"], model.keras(x)[:, -1, 1], rtol=1e-12)
    for weight in model.weights:
        assert_agree(each.tensors[f"{weight}:value"].sum(0), found.tensors[f"{weight}:value"], weight, EXACT)


def reached(name: str, of: str) -> set[str]:
    model = model_of(name)
    found = asked(model, inputs_of(model.keras), of=of)
    assert set(found.tensors) | set(found.meta["disconnected"]) == set(model.weights)
    assert not set(found.tensors) & set(found.meta["disconnected"])
    return set(found.tensors)


def test_weights_that_nothing_leads_from_are_disconnected_and_have_no_tensor() -> None:
    lstm = {f"lstm/{name}" for name in ("kernel", "recurrent_kernel", "bias")}
    assert reached("lstm", "lstm.forget_gate[0, 1]") == lstm
    assert reached("lstm", "lstm.c.final[0]") == lstm
    assert reached("stack", "gru.h[2, 0]") == lstm | {f"gru/{name}" for name in ("kernel", "recurrent_kernel", "bias")}


def test_a_cells_own_wiring_decides_what_a_state_depends_on() -> None:
    """The two-state cell's output layer leads to no state; c leads to h nowhere, h to c at every timestep."""
    recurrent, read = {"rnn/linear_rec/kernel", "rnn/linear_rec/bias"}, {"rnn/linear_out/kernel", "rnn/linear_out/bias"}
    assert reached("two_state_text", "rnn.h[1, 0]") == recurrent
    assert reached("two_state_text", "rnn.c[1, 0]") == recurrent
    assert reached("two_state_text", "outputs[1, 0]") == recurrent | read | {"head/kernel", "head/bias"}


def test_the_path_through_fed_initial_states_counts_and_ends_where_the_request_gives_them() -> None:
    model = model_of("encoder_decoder")
    inputs = inputs_of(model.keras)
    encoder = {f"encoder/{name}" for name in ("kernel", "recurrent_kernel", "bias")}
    assert encoder <= set(asked(model, inputs, of="decoder.h[0, 0]").tensors)
    states = {f"decoder.{name}.initial": np.zeros((3, 3)) for name in "hc"}
    assert set(asked(model, inputs, of="decoder.h[0, 0]", initial_states=states).meta["disconnected"]) >= encoder


def test_what_a_layer_stops_is_disconnected_and_what_is_frozen_is_told() -> None:
    series = keras.Input((None, 2), name="series")
    states = layers.SimpleRNN(3, name="rnn", kernel_regularizer="l2")(series)
    left = layers.Dense(1, name="left")(keras.ops.stop_gradient(states))
    right = layers.BatchNormalization(name="norm")(layers.Dense(1, name="right")(states))
    own = keras.Model(series, layers.Add()([left, right]))
    own.get_layer("right").trainable = False
    model = Model(own, "own")
    stopped = asked(model, SERIES, of="left[0]")
    assert {"rnn/kernel", "rnn/recurrent_kernel", "rnn/bias"} <= set(stopped.meta["disconnected"])
    assert "left/kernel" in stopped.tensors
    found = asked(model, SERIES, targets=NUMBERS[:, 0, :1], loss="mse")
    assert found.meta["disconnected"] == []
    assert set(found.meta["not_trainable"]) == {
        "right/kernel",
        "right/bias",
        "norm/moving_mean",
        "norm/moving_variance",
    }
    assert found.tensors["norm/moving_mean"] > 0
    assert found.meta["regularized"] == ["rnn/kernel"]


def test_a_weight_used_within_and_outside_of_a_recurrence_has_no_gradient_at_a_timestep() -> None:
    shared = architectures.TwoState(2, "tanh")
    series = architectures.series_input()
    states = architectures.RNN(shared, name="rnn")(series)
    model = Model(keras.Model(series, shared.linear_rec(states)), "own")
    found = asked(model, inputs_of(model.keras), of="outputs[0]", values=True)
    name = next(name for name in model.weights if name.endswith("linear_rec/kernel"))
    with tf.GradientTape() as recorded:
        value = tf.reduce_sum(model.keras(tf.constant(inputs_of(model.keras)["series"]))[:, 0])
    gradient = recorded.gradient(value, model.weights[name])
    assert_agree(found.tensors[f"{name}:value"], np.asarray(gradient), name, EXACT)
    with pytest.raises(BadParameter, match="outside"):
        asked(model, inputs_of(model.keras), of="outputs[0]", by=["timestep"])
