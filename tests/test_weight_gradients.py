"""Weight gradients: by timestep and by gate against copies of each weight, a timestep at a time, in JAX; the losses
against Keras's own; what is reached and what is not; errors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import architectures
import tapehead
from oracle.agreement import assert_agree
from oracle.cases import HOLES, LENGTHS, some
from oracle.weights import weight_gradients
from tapehead.engine import OPERATIONS, Model
from tapehead.engine.rules.cells import Keep
from tapehead.engine.rules.factors import Factors, arranged, formed, gram_norms, measures
from tapehead.errors import BadDtype, BadParameter, BadShape, TapeheadError
from tapehead.operations import Card, Plan, Request, Result, check
from tapehead.residency import screening
from tapehead.wire.messages import decode_request, encode_plain

EXACT = 1e-8
USUAL = (
    "lstm_sequence",
    "gru",
    "gru_reset_before",
    "two_state_text",
    "stacked_cells_backwards",
    "bidirectional_mul",
    "stack_with_layers_between",
    "contrary_cell_apart",
    "masked_bidirectional",
    "masked_encoder_decoder",
    "shared",
)
NAMES = [*architectures.ARCHITECTURES, *architectures.AROUND]
NOT_WRITTEN_OUT = ("convolution", "attention", "autoencoder", "normalised")
"""Architectures whose outputs have not the input's timesteps, or that hold layers the formulas lack."""


@cache
def model_of(name: str) -> Model:
    return Model(architectures.build(name), name, live=True)


def asked(model: Model, inputs: Any, **parameters: Any) -> Result:
    """The answer of the engine to a checked request."""
    given = {name: parameters.pop(name) for name in ("lengths", "initial_states") if name in parameters}
    lengths = {"": np.asarray(given["lengths"])} if "lengths" in given else None
    named = inputs if isinstance(inputs, Mapping) else {"": inputs}
    request, plans = check(
        model.card, "weight_gradients", Request(named, lengths, given.get("initial_states", {}), parameters)
    )
    result = OPERATIONS["weight_gradients"](model, request)
    assert_as_planned(result, plans)
    return result


def assert_as_planned(result: Result, plans: Sequence[Plan]) -> None:
    """Every tensor has the shape, axes and dtype that were foretold; those not answered are of disconnected weights."""
    foretold = {plan.name: plan for plan in plans}
    for name, tensor in result.tensors.items():
        plan = foretold.pop(name)
        assert result.axes[name] == plan.axes, name
        assert tensor.dtype == plan.dtype
        assert all(n in (None, m) for n, m in zip(plan.shape, tensor.shape, strict=True)), (name, tensor.shape)
    assert {name.partition(":")[0] for name in foretold} <= set(result.meta["disconnected"])


def targets_of(model: Any, seed: int = 2) -> dict[str, np.ndarray]:
    """Random targets for every output, by its point."""
    inputs = inputs_of(model)
    given = [tf.constant(x) for x in inputs.values()]
    outputs = model(given if len(given) > 1 else given[0])
    outputs = outputs if isinstance(outputs, list) else [outputs]
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


# ----------------------------------------------------------------------------------------------------------- the losses


def small(outputs: int = 3, *, sequences: bool = False, activation: str | None = None, mask: bool = False) -> Any:
    """A float32 network of one recurrent layer."""
    series = keras.Input((None, 2), name="series")
    read = layers.Masking(name="masking")(series) if mask else series
    states = layers.SimpleRNN(3, name="rnn", return_sequences=sequences)(read)
    model = keras.Model(series, layers.Dense(outputs, activation=activation, name="head")(states))
    return architectures.with_random_weights(model)


def tape(model: Any, x: np.ndarray, y: Any) -> tuple[float, dict[str, np.ndarray]]:
    """What Keras's own compiled loss and a gradient tape give."""
    with tf.GradientTape() as recorded:
        value = model.compute_loss(x, y, model(tf.constant(x, tf.float32)))
    gradients = recorded.gradient(value, model.trainable_variables)
    return float(value), {v.path: np.asarray(g) for v, g in zip(model.trainable_variables, gradients, strict=True)}


SERIES = np.random.default_rng(7).normal(size=(4, 5, 2))
NUMBERS = np.random.default_rng(8).normal(size=(4, 5, 3))
CLASSES = np.array([[0, 2, 1, 1, 2]] * 4)
CHANCES = np.abs(NUMBERS) / np.abs(NUMBERS).sum(-1, keepdims=True)


def cubes(y_true: Any, y_pred: Any) -> Any:
    """A loss of the user's own."""
    return keras.ops.mean(keras.ops.abs(y_true - y_pred) ** 3, axis=-1)


LOSSES: Mapping[str, tuple[Any, str | None, np.ndarray]] = {
    "a name": ("mae", None, NUMBERS),
    "a class": ("Huber", None, NUMBERS),
    "classes": ("sparse_categorical_crossentropy", "softmax", CLASSES),
    "classes with an axis": ("sparse_categorical_crossentropy", "softmax", CLASSES[..., None]),
    "chances": ("categorical_crossentropy", "softmax", CHANCES),
    "logits": (keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=2), None, CLASSES),
    "a sum": (keras.losses.MeanSquaredError(reduction="sum"), None, NUMBERS),
    "a function": (cubes, None, NUMBERS),
}


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("sequences", [False, True])
def test_a_compiled_loss_and_its_gradient_are_keras_own(kind: str, sequences: bool) -> None:
    loss, activation, y = LOSSES[kind]
    y = y if sequences else y[:, 0]
    own = small(sequences=sequences, activation=activation, mask=sequences)
    own.compile(loss=loss)
    x = SERIES.astype("float32")
    x[1, 3:] = 0  # masked, where there is a mask
    value, gradients = tape(own, x, y)
    model = Model(own, "own", live=True)
    found = asked(model, x, targets=y, values=True)
    assert found.meta["loss_value"] == pytest.approx(value, rel=1e-5)
    for name, variable in model.weights.items():
        np.testing.assert_allclose(found.tensors[f"{name}:value"], gradients[variable.path], rtol=1e-4, atol=1e-6)
    named = found.meta["loss"]
    assert named == (loss if isinstance(loss, str) else getattr(loss, "name", None) or loss.__name__)


def test_a_loss_that_is_named_takes_the_place_of_the_compiled_one() -> None:
    own = small()
    own.compile(loss="mae")
    model = Model(own, "own", live=True)
    by_name = asked(model, SERIES, targets=NUMBERS[:, 0], loss="mse")
    assert by_name.meta["loss"] == "mse"
    own.compile(loss="mse")
    assert asked(model, SERIES, targets=NUMBERS[:, 0]).meta["loss_value"] == by_name.meta["loss_value"]


def test_each_samples_loss_is_its_own_and_not_divided_by_the_batch() -> None:
    model = Model(small(sequences=True, mask=True), "own")
    x = SERIES.copy()
    x[1, 3:], x[2, 1:] = 0, 0
    given: dict[str, Any] = {"targets": NUMBERS, "loss": "mse", "values": True}
    each, whole = asked(model, x, per_sample=True, **given), asked(model, x, **given)
    counts = np.array([5, 3, 1, 5])
    assert np.average(each.meta["loss_value"], weights=counts) == pytest.approx(whole.meta["loss_value"], rel=1e-5)
    for row, steps in enumerate(counts):
        one = asked(model, x[row : row + 1, :steps], **(given | {"targets": NUMBERS[row : row + 1, :steps]}))
        assert each.meta["loss_value"][row] == pytest.approx(one.meta["loss_value"], rel=1e-5)
        for weight in model.weights:
            np.testing.assert_allclose(
                each.tensors[f"{weight}:value"][row], one.tensors[f"{weight}:value"], rtol=1e-4, atol=1e-6
            )


def two_heads(*, as_map: bool = True) -> Any:
    """Two outputs; as a map of keys, whose order is the names'."""
    series = keras.Input((None, 2), name="series")
    states = layers.SimpleRNN(3, name="rnn")(series)
    heads = [layers.Dense(2, name="first")(states), layers.Dense(1, name="second")(states)]
    named = dict(zip(("ark", "zoo"), heads, strict=True))
    return architectures.with_random_weights(keras.Model(series, named if as_map else heads))


def test_several_outputs_have_a_loss_each_with_its_weight() -> None:
    own = two_heads()
    own.compile(loss={"ark": "mse", "zoo": "mae"}, loss_weights={"ark": 0.5, "zoo": 3.0})
    y = {"ark": NUMBERS[:, 0, :2], "zoo": NUMBERS[:, 0, :1]}
    value, gradients = tape(own, SERIES, y)
    model = Model(own, "two", live=True)
    found = asked(model, SERIES, targets=y, values=True)
    assert found.meta["loss_value"] == pytest.approx(value, rel=1e-5)
    assert found.meta["loss"] == {"first": "mse", "second": "mae"}
    for name, variable in model.weights.items():
        np.testing.assert_allclose(found.tensors[f"{name}:value"], gradients[variable.path], rtol=1e-4, atol=1e-6)
    alone = asked(model, SERIES, targets={"zoo": y["zoo"]}, loss={"second": "mae"}, values=True)
    assert alone.meta["disconnected"] == ["first/kernel", "first/bias"]
    np.testing.assert_allclose(
        3 * alone.tensors["second/kernel:value"], gradients["second/kernel"], rtol=1e-4, atol=1e-6
    )
    assert alone.meta["loss"] == {"second": "mae"}


@keras.saving.register_keras_serializable("tapehead_tests")
class Forecaster(keras.Model):
    """A subclassed model, opened into its layers."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rnn = layers.SimpleRNN(3, name="rnn")
        self.head = layers.Dense(1, name="head")

    def call(self, inputs: Any) -> Any:
        return self.head(self.rnn(inputs))


def test_a_subclassed_models_compiled_loss_is_used() -> None:
    own = Forecaster()
    own(SERIES)
    own.compile(loss="mse")
    found = asked(Model(own, "own", live=True), SERIES, targets=NUMBERS[:, 0, 0])
    assert found.meta["loss"] == "mse"
    predicted = own(SERIES).numpy()[:, 0]
    assert found.meta["loss_value"] == pytest.approx(np.mean((predicted - NUMBERS[:, 0, 0]) ** 2), rel=1e-5)


@keras.saving.register_keras_serializable("tapehead_tests")
def fourth_powers(y_true: Any, y_pred: Any) -> Any:
    """A registered loss of the user's own."""
    return keras.ops.mean((y_true - y_pred) ** 4, axis=-1)


FILED: Mapping[str, tuple[Any, Any]] = {
    "by key": ({"zoo": "mse", "ark": fourth_powers}, {"zoo": 0.5, "ark": 3.0}),
    "by name": ({"first": keras.losses.BinaryCrossentropy(from_logits=True), "second": "mae"}, None),
    "in order": ([keras.losses.MeanSquaredError(reduction="sum"), "mae"], [2.0, 1.0]),
    "one for all": ("mse", None),
}


@pytest.mark.parametrize("kind", FILED)
def test_a_file_keeps_the_loss_its_model_was_compiled_with(kind: str, tmp_path: Path) -> None:
    own = two_heads(as_map=kind != "by name" and kind != "in order")
    loss, weights = FILED[kind]
    own.compile(loss=loss, loss_weights=weights)
    own.save(tmp_path / "two.keras")
    y = {"first": NUMBERS[:, 0, :2], "second": NUMBERS[:, 0, :1]}
    live = asked(Model(own, "two", live=True), SERIES, targets=y)
    filed = asked(Model(screening.load_keras(str(tmp_path / "two.keras")), "two"), SERIES, targets=y)
    assert filed.meta["loss"] == live.meta["loss"]
    assert filed.meta["loss_value"] == pytest.approx(live.meta["loss_value"], rel=1e-6)
    predicted = [np.asarray(part) for part in tf.nest.flatten(own(SERIES))]
    value = own.compute_loss(y=tf.nest.pack_sequence_as(own(SERIES), list(y.values())), y_pred=own(SERIES))
    assert [part.shape for part in predicted] == [part.shape for part in y.values()]
    assert live.meta["loss_value"] == pytest.approx(float(value), rel=1e-5)


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


# -------------------------------------------------------------------------------------------------------------- errors


@cache
def plain() -> Model:
    return Model(small(), "plain", live=True)


@cache
def classifying() -> Model:
    return Model(small(activation="softmax"), "classifying")


WRONG: Mapping[str, tuple[dict[str, Any], type[TapeheadError], str]] = {
    "nothing": ({}, BadParameter, "needs targets"),
    "both": ({"targets": NUMBERS[:, 0], "of": "outputs[0]"}, BadParameter, "both"),
    "of and a loss": ({"loss": "mse", "of": "outputs[0]"}, BadParameter, "both"),
    "several numbers": ({"of": "outputs"}, BadParameter, "expected one"),
    "no compiled loss": ({"targets": NUMBERS[:, 0]}, BadParameter, "no compiled loss"),
    "unknown loss": ({"targets": NUMBERS[:, 0], "loss": "best"}, BadParameter, "none of Keras's"),
    "open loss": ({"targets": NUMBERS[:, 0], "loss": "crossentropy"}, BadParameter, "binary_crossentropy"),
    "loss of a kind": ({"targets": NUMBERS[:, 0], "loss": 3}, BadParameter, "expected a name"),
    "another shape": ({"targets": NUMBERS, "loss": "mse"}, BadShape, r"takes \(4, 3\)"),
    "a scalar's shape": ({"targets": NUMBERS[:, 0, 0], "loss": "mse"}, BadShape, r"takes \(4, 3\)"),
    "too few samples": ({"targets": NUMBERS[:3, 0], "loss": "mse"}, BadShape, "expected 4 samples"),
    "text": ({"targets": np.array(["a"] * 4), "loss": "mse"}, BadDtype, "expected numbers"),
    "unknown output": ({"targets": {"tail": NUMBERS[:, 0]}, "loss": "mse"}, BadParameter, "outputs here: .'head'"),
    "other outputs": (
        {"targets": {"head": NUMBERS[:, 0]}, "loss": {"tail": "mse"}},
        BadParameter,
        "loss names the output 'tail'",
    ),
    "unknown by": ({"of": "outputs[0]", "by": ["unit"]}, BadParameter, "by holds 'unit'"),
    "by twice": ({"of": "outputs[0]", "by": ["gate", "gate"]}, BadParameter, "at most once"),
    "by of a kind": ({"of": "outputs[0]", "by": 3}, BadParameter, "expected a list of texts"),
    "per_sample of a kind": ({"of": "outputs[0]", "per_sample": 1}, BadParameter, "expected true or false"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_wrong_is_refused_with_what_was_expected(kind: str) -> None:
    parameters, error, message = WRONG[kind]
    with pytest.raises(error, match=message):
        asked(plain(), SERIES, **parameters)


@pytest.mark.parametrize(("y", "message"), [(3, "0 to 2"), (-1, "0 to 2"), (0.5, "0 to 2")])
def test_what_is_no_class_is_refused_before_any_work(y: float, message: str) -> None:
    with pytest.raises(BadParameter, match=message):
        asked(classifying(), SERIES, targets=np.full(4, y), loss="sparse_categorical_crossentropy")


def test_beyond_the_lengths_targets_may_be_anything() -> None:
    model = Model(small(sequences=True, activation="softmax"), "own")
    given: dict[str, Any] = {"loss": "sparse_categorical_crossentropy", "lengths": [5, 3, 1, 2]}
    wild = CLASSES.copy()
    wild[1, 3:] = 99
    one, other = (asked(model, SERIES, targets=y, **given) for y in (CLASSES, wild))
    for weight in model.weights:
        np.testing.assert_array_equal(one.tensors[weight], other.tensors[weight])


def test_a_compiled_loss_needs_targets_for_all_of_its_outputs() -> None:
    own = two_heads()
    own.compile(loss={"zoo": "mse", "ark": "mae"})
    with pytest.raises(BadParameter, match="lacks"):
        asked(Model(own, "own"), SERIES, targets={"zoo": NUMBERS[:, 0, :1]})
    with pytest.raises(BadParameter, match="map of outputs"):
        asked(Model(own, "own"), SERIES, targets=NUMBERS[:, 0, :1])


def test_an_answer_that_is_too_large_is_refused_from_the_plan() -> None:
    model = plain()
    request = Request({"": SERIES}, parameters={"of": "outputs[0]", "by": ["timestep"], "values": True})
    with pytest.raises(TapeheadError, match="over the limit"):
        check(model.card, "weight_gradients", request, answer_limit=100)
    again, plans = check(model.card, "weight_gradients", request)
    assert check(Card.from_plain(model.card.to_plain()), "weight_gradients", again)[1] == plans


# ----------------------------------------------------------------------------------------------- from the client


@pytest.fixture(scope="module")
def client() -> Iterator[tapehead.Client]:
    own = small(sequences=True)
    own.compile(loss="mse")
    with tapehead.Client(models={"own": own}, timeout=None) as client:
        yield client


def test_lists_of_sequences_take_targets_as_lists(client: tapehead.Client) -> None:
    model, lengths = client.model("own"), [5, 3, 1, 2]
    ragged = [[row[:n] for row, n in zip(rows, lengths, strict=True)] for rows in (SERIES, NUMBERS)]
    found = model.weight_gradients(ragged[0], targets=ragged[1], by="timestep")
    padded = model.weight_gradients(SERIES, targets=NUMBERS, lengths=lengths, by=["timestep"])
    assert found.meta["loss"] == "mse"
    for weight, norm in padded.tensors.items():
        np.testing.assert_allclose(found.tensors[weight], norm, rtol=1e-5)


def test_a_dry_run_foretells_the_answer(client: tapehead.Client) -> None:
    asked_for: dict[str, Any] = {"of": "outputs[-1, 0]", "by": ["timestep"], "statistics": True, "values": True}
    foretold = client.model("own").weight_gradients(SERIES, dry_run=True, **asked_for)
    found = client.model("own").weight_gradients(SERIES, **asked_for)
    assert {name: plan.shape for name, plan in foretold.tensors.items()} == {
        name: tensor.shape for name, tensor in found.tensors.items()
    }
    assert foretold.meta["route"] == found.meta["route"]
    assert foretold.meta["bytes"] == sum(tensor.nbytes for tensor in found.tensors.values())
    assert foretold.meta["flops"] > 0


def test_in_json_targets_are_nested_lists_and_by_names() -> None:
    given = {"inputs": SERIES.tolist(), "targets": {"head": NUMBERS.tolist()}, "loss": {"head": "mae"}}
    request = decode_request(encode_plain(given, "json"), "json")
    np.testing.assert_array_equal(request.parameters["targets"]["head"], NUMBERS)
    assert request.parameters["loss"] == {"head": "mae"}
    bare = decode_request(encode_plain({"inputs": SERIES.tolist(), "targets": NUMBERS.tolist()}, "json"), "json")
    np.testing.assert_array_equal(bare.parameters["targets"], NUMBERS)
