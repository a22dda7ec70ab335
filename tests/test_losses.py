"""The losses of weight gradients against Keras's own, compiled, named and from a file; what is refused; the client."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
from tapehead.engine import Model
from tapehead.errors import BadDtype, BadParameter, BadShape, TapeheadError
from tapehead.operations import Card, Request, check
from tapehead.residency import screening
from tapehead.wire.messages import decode_request, encode_plain
from weights_asked import NUMBERS, SERIES, asked, small

CLASSES = np.array([[0, 2, 1, 1, 2]] * 4)
CHANCES = np.abs(NUMBERS) / np.abs(NUMBERS).sum(-1, keepdims=True)


def tape(model: Any, x: np.ndarray, y: Any) -> tuple[float, dict[str, np.ndarray]]:
    """What Keras's own compiled loss and a gradient tape give."""
    with tf.GradientTape() as recorded:
        value = model.compute_loss(x, y, model(tf.constant(x, tf.float32)))
    gradients = recorded.gradient(value, model.trainable_variables)
    return float(value), {v.path: np.asarray(g) for v, g in zip(model.trainable_variables, gradients, strict=True)}


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


ONE_NUMBER_A_SAMPLE = [(kind, False) for kind in ("a name", "classes with an axis", "a sum")]


@pytest.mark.parametrize(("kind", "sequences"), [*((kind, True) for kind in LOSSES), *ONE_NUMBER_A_SAMPLE])
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
