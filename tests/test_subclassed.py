"""Subclassed models: opened where their call is made of layers and keras.ops, else taken as one layer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import tapehead
from architectures import with_random_weights
from tapehead.engine import Model
from tapehead.residency import screening

EXACT, STEPPED = 1e-10, 1e-7
SEQUENCE: dict[str, Any] = {"return_sequences": True, "dtype": "float64"}


@keras.saving.register_keras_serializable("tapehead_tests")
class Plain(keras.Model):
    """Layers alone."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float64"} | kwargs)
        self.lstm = layers.LSTM(3, name="lstm", **SEQUENCE)
        self.head = layers.Dense(2, dtype="float64", name="head")

    def call(self, inputs: Any, training: bool | None = None) -> Any:  # noqa: ARG002 - as Keras's guides write it
        return self.head(ops.tanh(self.lstm(inputs)) + 1.0)


@keras.saving.register_keras_serializable("tapehead_tests")
class Translator(keras.Model):
    """Two inputs by name; the encoder's states are the decoder's first."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float64"} | kwargs)
        self.encoder = layers.LSTM(3, return_state=True, dtype="float64", name="encoder")
        self.decoder = layers.LSTM(3, name="decoder", **SEQUENCE)

    def call(self, inputs: Any) -> Any:
        _, h, c = self.encoder(inputs["source"])
        return {"decoded": self.decoder(inputs["target"], initial_state=[h, c]), "context": h}


@keras.saving.register_keras_serializable("tapehead_tests")
class WithTensorFlow(Plain):
    """TensorFlow's own function on the way."""

    def call(self, inputs: Any) -> Any:
        return self.head(tf.sin(self.lstm(inputs)))


class Scaled(Plain):
    """A weight of the model's own."""

    def build(self, input_shape: Any) -> None:
        self.scale = self.add_weight(shape=(2,), dtype="float64", name="scale")
        super().build(input_shape)

    def call(self, inputs: Any) -> Any:
        return self.scale * super().call(inputs)


class Tied(Plain):
    """A layer's weight used beside the layer."""

    def call(self, inputs: Any) -> Any:
        return ops.matmul(self.head(self.lstm(inputs)), ops.transpose(self.head.kernel))


class Unrolled(keras.Model):
    """A loop over timesteps written out."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float64"} | kwargs)
        self.cell = layers.GRUCell(3, dtype="float64", name="cell")

    def call(self, inputs: Any) -> Any:
        state = ops.zeros_like(ops.concatenate([inputs[:, 0], inputs[:, 0, :1]], axis=-1))
        for t in range(inputs.shape[1]):
            state, _ = self.cell(inputs[:, t], [state])
        return state


class Words(keras.Model):
    """Words looked up, padding masked."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float64"} | kwargs)
        self.embedding = layers.Embedding(7, 3, mask_zero=True, dtype="float64", name="embedding")
        self.gru = layers.GRU(2, dtype="float64", name="gru")

    def call(self, inputs: Any) -> Any:
        return self.gru(self.embedding(inputs))


def series(rows: int = 2, timesteps: int = 4) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(rows, timesteps, 2))


def built(kind: Any, inputs: Any = None) -> Any:
    model = kind(name="mine")
    model(series() if inputs is None else inputs)
    return with_random_weights(model, seed=4)


MODELS: dict[str, Any] = {
    "plain": lambda: built(Plain),
    "with_tensorflow": lambda: built(WithTensorFlow),
    "scaled": lambda: built(Scaled),
    "tied": lambda: built(Tied),
    "unrolled": lambda: built(Unrolled),
}


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    return {name: make() for name, make in MODELS.items()}


@pytest.fixture(scope="module")
def client(models: dict[str, Any]) -> Iterator[tapehead.Client]:
    with tapehead.Client(models=models, timeout=None) as client:
        yield client


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in ("scaled", "unrolled") else ()) for name in MODELS]
)
def test_inputs_outputs_and_weights_are_points(client: tapehead.Client, models: dict[str, Any], name: str) -> None:
    model, x = client.model(name), tf.constant(series())
    weights = {variable.path.split("/", 1)[1]: variable for variable in models[name].weights}
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        outputs = models[name](x)
    np.testing.assert_allclose(model.infer(x.numpy()).value, outputs, atol=EXACT)
    found = model.jacobian(x.numpy(), of="outputs", wrt="inputs").value
    np.testing.assert_allclose(found, tape.batch_jacobian(outputs, x, experimental_use_pfor=False), atol=EXACT)
    assert len(model.metadata["weights"]) == len(weights)
    for point in model.metadata["weights"]:
        variable = next(v for path, v in weights.items() if v.path.endswith(path) and _ends(path, point))
        expected = tape.gradient(outputs, variable.value)
        np.testing.assert_allclose(model.vjp(x.numpy(), of="outputs", wrt=point).value, expected, atol=EXACT)


def _ends(path: str, point: str) -> bool:
    """Whether a weight's path in Keras, `lstm/lstm_cell/kernel`, and a point, `lstm/kernel`, name the same weight."""
    return path.split("/")[-1] == point.split("/")[-1] and path.split("/")[0] in point


def test_a_model_of_layers_is_opened(client: tapehead.Client) -> None:
    model = client.model("plain")
    assert {"lstm.h", "lstm.c.final", "lstm.forget_gate", "lstm", "head"} <= set(model.points)
    wrt = ["lstm.h[1]", "lstm.c.initial", "lstm/kernel.forget_gate", "lstm.forget_gate"]
    assert model.check(series(), of=["outputs[-1]", "lstm.c[-1]"], wrt=wrt).meta["difference"] < STEPPED


def test_its_timesteps_are_open_whatever_it_was_built_with(client: tapehead.Client, models: dict[str, Any]) -> None:
    longer = series(rows=5, timesteps=9)
    np.testing.assert_allclose(client.model("plain").infer(longer).value, models["plain"](longer), atol=EXACT)


def test_a_loop_written_out_has_its_number_of_timesteps(client: tapehead.Client) -> None:
    with pytest.raises(tapehead.BadShape):
        client.model("unrolled").infer(series(timesteps=5))
    assert "cell.call.3" in {point.rpartition(".output")[0] or point for point in client.model("unrolled").points}


@pytest.mark.parametrize("name", ["with_tensorflow", "scaled", "tied"])
def test_a_model_that_cannot_be_opened_says_why_its_states_are_no_points(client: tapehead.Client, name: str) -> None:
    with pytest.raises(tapehead.UnknownPoint, match=r"'lstm' lies inside 'mine'.*layers and keras\.ops"):
        client.model(name).states(series(), points=["lstm.h"])


def test_inputs_and_outputs_of_a_dict_keep_their_names(tmp_path: Path) -> None:
    given = {"source": series(), "target": series(timesteps=3)}
    model = built(Translator, given)
    with tapehead.Client(models={"mine": model}, timeout=None) as client:
        mine = client.model("mine")
        found = mine.jacobian(given, of="decoder.h[-1]", wrt=["encoder.h[-1]", "decoder.h.initial", "source"])
        assert mine.check(given, of="decoder.h[-1]", wrt="encoder.h[-1]").meta["difference"] < STEPPED
    by_encoder, by_first = (found.tensors[f"decoder.h[-1] / {wrt}"] for wrt in ("encoder.h[-1]", "decoder.h.initial"))
    np.testing.assert_allclose(by_encoder, by_first, atol=EXACT)


def test_words_are_whole_numbers() -> None:
    model = Model(built(Words, np.array([[1, 2, 3, 0], [4, 5, 0, 0]])), "mine")
    (spec,) = model.card.inputs
    assert (spec.dtype, spec.shape) == ("int32", (None, None))
    assert model.seen.masks
    assert "gru.h" in model.card.points


@pytest.mark.parametrize("kind", [Plain, WithTensorFlow])
def test_a_registered_one_loads_from_its_file(tmp_path: Path, kind: Any) -> None:
    model = built(kind)
    model.save(tmp_path / "mine.keras")
    loaded = screening.load_keras(str(tmp_path / "mine.keras"))
    with tapehead.Client(models={"mine": loaded}, timeout=None) as client:
        found = client.model("mine")
        np.testing.assert_allclose(found.infer(series()).value, model(series()), atol=EXACT)
        assert found.check(series(), of="outputs[-1]", wrt="inputs").meta["difference"] < STEPPED


def test_a_live_ones_present_weights_count() -> None:
    model = built(Plain)
    with tapehead.Client(models={"mine": model}, timeout=None) as client:
        before = client.model("mine").infer(series()).value
        model.head.kernel.assign(2 * model.head.kernel)
        after = client.model("mine").infer(series()).value
    np.testing.assert_allclose(after, model(series()), atol=EXACT)
    assert np.abs(after - before).max() > 0.01


def test_one_that_was_never_called_is_refused() -> None:
    with pytest.raises(tapehead.UnsupportedModel, match="not built: call it once"):
        Model(Plain(), "mine")


def test_one_of_several_arguments_is_refused() -> None:
    class Pair(Plain):
        def call(self, one: Any, other: Any) -> Any:
            return super().call(one + other)

    model = Pair()
    model(series(), series())
    with pytest.raises(tapehead.UnsupportedModel, match=r"2 arguments, \['one', 'other'\]; expected one"):
        Model(model, "mine")
