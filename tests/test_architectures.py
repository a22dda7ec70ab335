"""Models beyond one stack of layers: the forward sweep equals Keras, and Jacobians a plain tape over the Keras model.

The tape holds every layer's output, so that derivatives with respect to those are compared too. What a tape over Keras
cannot reach, states and gates, is held against central differences.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import tapehead
from architectures import TwoState, f64, with_random_weights
from tapehead.engine import Model

BATCH, TIMESTEPS = 2, 4
EXACT, STEPPED = 1e-10, 1e-7

L = {name: f64(getattr(layers, name)) for name in dir(layers) if name[0].isupper() and name != "Layer"}
SEQUENCE = {"return_sequences": True}
Builder = Callable[[], Any]
ARCHITECTURES: dict[str, Builder] = {}


def architecture(build: Builder) -> Builder:
    """Enters a builder in the table under its own name."""
    ARCHITECTURES[build.__name__] = build
    return build


def series(*shape: int | None, name: str = "a", batch: int | None = None) -> Any:
    return keras.Input(shape, batch_size=batch, dtype="float64", name=name)


@architecture
def skip_connections() -> Any:
    a = series(None, 3)
    gru = L["GRU"](3, name="gru", **SEQUENCE)(a)
    both = L["Concatenate"](name="both")([L["Add"](name="sum")([a, gru]), L["Multiply"](name="product")([a, gru])])
    return keras.Model(a, L["LSTM"](2, name="lstm")(both))


@architecture
def shared_layers() -> Any:
    a, b = series(None, 2), series(None, 2, name="b")
    lstm, dense = L["LSTM"](3, name="lstm"), L["Dense"](2, name="dense")
    return keras.Model([a, b], L["Add"](name="sum")([dense(lstm(a)), dense(lstm(b))]))


@architecture
def self_attention() -> Any:
    a = series(None, 4)
    gru = L["GRU"](4, name="gru", **SEQUENCE)(a)
    attended = L["MultiHeadAttention"](2, 3, name="attention")(gru, gru, use_causal_mask=True)
    normal = L["LayerNormalization"](name="normal")(L["Add"](name="sum")([attended, gru]))
    return keras.Model(a, L["Dense"](2, name="head")(normal))


@architecture
def grouped_attention() -> Any:
    a = series(5, 4)
    gru = L["GRU"](4, name="gru", **SEQUENCE)(a)
    return keras.Model(a, L["GroupQueryAttention"](4, 4, 2, name="attention")(gru, gru))


@architecture
def attention_between() -> Any:
    a, b = series(None, 3), series(None, 3, name="b")
    encoded = L["LSTM"](3, name="encoder", **SEQUENCE)(a)
    decoded = L["LSTM"](3, name="decoder", **SEQUENCE)(b)
    dot = L["Attention"](name="dot")([decoded, encoded])
    added = L["AdditiveAttention"](name="added")([decoded, encoded])
    return keras.Model([a, b], L["Dense"](2, name="head")(L["Concatenate"](name="both")([decoded, dot, added])))


@architecture
def convolution_and_pooling() -> Any:
    a = series(None, 2)
    conv = L["Conv1D"](3, 3, padding="causal", activation="tanh", name="conv")(a)
    gru = L["GRU"](3, name="gru", **SEQUENCE)(L["BatchNormalization"](name="batch")(conv))
    return keras.Model(a, [L["GlobalMaxPooling1D"](name="largest")(gru), L["AveragePooling1D"](2, name="average")(gru)])


@architecture
def shortened_by_convolution() -> Any:
    a = series(None, 2)
    conv = L["MaxPooling1D"](2, name="pool")(L["Conv1D"](3, 2, activation="tanh", name="conv")(a))
    return keras.Model(a, L["LSTM"](3, name="lstm")(conv))


@architecture
def reshaped() -> Any:
    a = series(4, 3)
    turned = L["Permute"]((2, 1), name="turned")(L["ZeroPadding1D"](1, name="padded")(a))
    gru = L["GRU"](2, name="gru", **SEQUENCE)(L["SeparableConv1D"](3, 2, name="separable")(turned))
    return keras.Model(a, L["Dense"](1, name="head")(L["Flatten"](name="flat")(L["UpSampling1D"](2, name="up")(gru))))


@architecture
def normalized() -> Any:
    a = series(4, 4)
    normal = L["GroupNormalization"](2, name="groups")(L["UnitNormalization"](name="unit")(a))
    return keras.Model(a, L["GRU"](2, name="gru")(normal))


@architecture
def repeated() -> Any:
    a = series(None, 2)
    encoded = L["LSTM"](3, name="encoder")(a)
    decoded = L["LSTM"](3, name="decoder", **SEQUENCE)(L["RepeatVector"](3, name="repeat")(encoded))
    return keras.Model(a, L["TimeDistributed"](L["Dense"](2), name="each")(decoded))


@architecture
def a_model_at_every_timestep() -> Any:
    a = series(None, 3, 2)
    inner = keras.Sequential([series(3, 2), L["LSTM"](3, name="inner")], name="sub")
    return keras.Model(a, L["GRU"](2, name="gru")(L["TimeDistributed"](inner, name="each")(a)))


@architecture
def encoder_decoder() -> Any:
    a, b = series(None, 2), series(None, 3, name="b")
    _, *states = L["LSTM"](3, name="encoder", return_state=True)(a)
    return keras.Model([a, b], L["LSTM"](3, name="decoder", **SEQUENCE)(b, initial_state=states))


@architecture
def bidirectional_encoder() -> Any:
    a, b = series(None, 2), series(None, 3, name="b")
    _, *states = L["Bidirectional"](L["LSTM"](2, return_state=True), name="encoder")(a)
    h = L["Concatenate"](name="h")([states[0], states[2]])
    c = L["Concatenate"](name="c")([states[1], states[3]])
    return keras.Model([a, b], L["LSTM"](4, name="decoder", **SEQUENCE)(b, initial_state=[h, c]))


@architecture
def two_directions_unlike() -> Any:
    backward = L["LSTM"](2, go_backwards=True, **SEQUENCE)
    a = series(None, 2)
    return keras.Model(a, L["Bidirectional"](L["GRU"](3, **SEQUENCE), backward_layer=backward, name="bi")(a))


@architecture
def two_directions_of_a_users_cell() -> Any:
    a = series(None, 2)
    layer = L["RNN"](TwoState(2, "tanh"), **SEQUENCE)
    return keras.Model(a, L["Dense"](2, name="head")(L["Bidirectional"](layer, merge_mode="mul", name="bi")(a)))


@architecture
def nested_with_an_output_unused() -> Any:
    x = series(None, 2, name="x")
    inner = keras.Model(x, [L["LSTM"](3, name="lstm", **SEQUENCE)(x), L["Dense"](2, name="dense")(x)], name="inner")
    a = series(None, 2)
    return keras.Model(a, L["GRU"](2, name="gru")(inner(a)[0]))


@architecture
def nested_and_shared() -> Any:
    x = series(None, 2, name="x")
    inner = keras.Model(x, L["LSTM"](3, name="lstm", **SEQUENCE)(x), name="inner")
    a, b = series(None, 2), series(None, 2, name="b")
    return keras.Model([a, b], L["Dense"](2, name="head")(L["Concatenate"](axis=1, name="both")([inner(a), inner(b)])))


@architecture
def operations() -> Any:
    a = series(None, 2)
    gru = L["GRU"](3, name="gru", **SEQUENCE)(a)
    return keras.Model(a, keras.ops.mean(gru * gru + keras.ops.sin(gru[:, -1:]), axis=1))


@architecture
def named_inputs_and_outputs() -> Any:
    a, b = series(None, 2), series(3, name="b")
    lstm = L["LSTM"](3, name="lstm")(a, initial_state=[b, b])
    return keras.Model({"a": a, "b": b}, {"first": lstm, "second": L["Dense"](1, name="dense")(b)})


@architecture
def stateful() -> Any:
    a = series(None, 2, batch=3)
    return keras.Model(a, L["LSTM"](3, stateful=True, name="lstm", **SEQUENCE)(a))


@architecture
def convolutional_lstm() -> Any:
    a = series(None, 4, 2)
    return keras.Model(a, L["ConvLSTM1D"](2, 3, padding="same", name="conv_lstm", **SEQUENCE)(a))


@architecture
def convolutional_lstm_backwards() -> Any:
    a = series(3, 4, 2)
    narrowed = L["ConvLSTM1D"](2, 3, go_backwards=True, name="conv_lstm")(a)
    return keras.Model(a, L["Dense"](2, name="head")(L["Flatten"](name="flat")(narrowed)))


@architecture
def convolutional_lstm_in_the_plane() -> Any:
    a = series(2, 3, 3, 1)
    return keras.Model(a, L["ConvLSTM2D"](2, 2, return_state=True, name="conv_lstm", **SEQUENCE)(a))


@architecture
def masked_attention() -> Any:
    words = keras.Input((None,), dtype="int32", name="words")
    lstm = L["LSTM"](4, name="lstm", **SEQUENCE)(L["Embedding"](9, 4, mask_zero=True, name="embedding")(words))
    attended = L["MultiHeadAttention"](2, 2, name="attention")(lstm, lstm)
    return keras.Model(words, L["GlobalAveragePooling1D"](name="average")(attended))


QUICK_TO_CHECK = ["shared_layers", "bidirectional_encoder", "convolutional_lstm", "stateful"]


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    return {name: with_random_weights(build(), seed=3) for name, build in ARCHITECTURES.items()}


@pytest.fixture(scope="module")
def client(models: dict[str, Any]) -> Iterator[tapehead.Client]:
    with tapehead.Client(models=models, timeout=None) as client:
        yield client


def data(model: Any) -> dict[str, np.ndarray]:
    """Random inputs by name; words of which the last of the second row is padding."""
    numbers = np.random.default_rng(1)
    made = {}
    for tensor in model.inputs:
        shape = (tensor.shape[0] or BATCH, *(TIMESTEPS if size is None else size for size in tensor.shape[1:]))
        made[tensor.name] = numbers.integers(1, 7, shape) if "int" in tensor.dtype else numbers.normal(size=shape)
        if "int" in tensor.dtype:
            made[tensor.name][1, -1] = 0
    return made


class Taped:
    """One eager run of the Keras model: its outputs, the outputs of layers called once, and the tape over them."""

    def __init__(self, model: Any, inputs: dict[str, np.ndarray]) -> None:
        middle = {layer.name: layer.output for layer in model.layers if _has_one_output(layer)}
        outputs = keras.tree.flatten(model.outputs)
        within = keras.Model(model.inputs, [*middle.values(), *outputs])
        self.inputs = {name: tf.constant(array) for name, array in inputs.items()}
        with tf.GradientTape(persistent=True) as self.tape:
            self.tape.watch([value for value in self.inputs.values() if value.dtype.is_floating])
            values = keras.tree.flatten(within([self.inputs[tensor.name] for tensor in model.inputs], training=False))
        self.middle = dict(zip(middle, values, strict=False))
        names = ["outputs"] if len(outputs) == 1 else [f"outputs.{n}" for n in range(len(outputs))]
        self.outputs = dict(zip(names, values[len(middle) :], strict=True))

    def jacobian(self, of: tf.Tensor, wrt: tf.Tensor) -> np.ndarray:
        """(batch, entries of `of`, *wrt): one sweep of the tape for each entry."""
        entries = []
        for n in range(int(np.prod(of.shape[1:]))):
            seed = np.zeros((of.shape[0], int(np.prod(of.shape[1:]))))
            seed[:, n] = 1
            found = self.tape.gradient(of, wrt, tf.reshape(seed, of.shape), unconnected_gradients="zero")
            entries.append(tf.convert_to_tensor(found).numpy())
        return np.stack(entries, axis=1)


def _has_one_output(layer: Any) -> bool:
    if isinstance(layer, layers.InputLayer | keras.Model) or len(layer._inbound_nodes) != 1:
        return False
    return isinstance(layer.output, keras.KerasTensor)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_values_are_those_of_keras_and_jacobians_those_of_a_tape(
    client: tapehead.Client, models: dict[str, Any], name: str
) -> None:
    inputs = data(models[name])
    model, taped = client.model(name), Taped(models[name], inputs)
    values = model.states(inputs, points=[*taped.middle, *taped.outputs]).tensors
    for point, value in {**taped.middle, **taped.outputs}.items():
        np.testing.assert_allclose(values[point], value, atol=EXACT)
    wrts = {w: value for w, value in {**taped.inputs, **taped.middle}.items() if value.dtype.is_floating}
    found = model.jacobian(inputs, of=list(taped.outputs), wrt=list(wrts)).tensors
    for of, above in taped.outputs.items():
        for wrt, below in wrts.items():
            expected = taped.jacobian(above, below)
            np.testing.assert_allclose(found[f"{of} / {wrt}"].reshape(expected.shape), expected, atol=EXACT)


@pytest.mark.parametrize(
    "name", [name if name in QUICK_TO_CHECK else pytest.param(name, marks=pytest.mark.slow) for name in ARCHITECTURES]
)
def test_derivatives_of_and_by_states_pass_their_check(
    client: tapehead.Client, models: dict[str, Any], name: str
) -> None:
    model = client.model(name)
    states = [point for point, info in model.points.items() if point.endswith(".h")][:2]
    output = next(point for point in model.points if point.startswith("outputs"))
    wrt = [*states, f"{states[-1]}.initial", *(n for n, x in data(models[name]).items() if x.dtype.kind == "f")]
    assert model.check(data(models[name]), of=[output, states[0]], wrt=wrt).meta["difference"] < STEPPED


# --------------------------------------------------------------------------------------------------------- their points


def test_each_call_of_a_shared_layer_has_its_points(client: tapehead.Client) -> None:
    model = client.model("shared_layers")
    assert {"lstm.call.0.h", "lstm.call.1.h", "dense.call.0", "dense.call.1"} <= set(model.points)
    with pytest.raises(tapehead.UnknownPoint, match=r"lstm\.call\.0.*lstm\.call\.1"):
        model.states({"a": np.zeros((1, 2, 2)), "b": np.zeros((1, 2, 2))}, points=["lstm"])


def test_an_encoders_final_state_is_what_moves_the_decoder(client: tapehead.Client, models: dict[str, Any]) -> None:
    model, inputs = client.model("encoder_decoder"), data(models["encoder_decoder"])
    of = "decoder.h[-1]"
    found = model.jacobian(inputs, of=of, wrt=["encoder.h.final", "decoder.h.initial", "encoder.h[-1]"]).tensors
    np.testing.assert_allclose(found[f"{of} / encoder.h.final"], found[f"{of} / decoder.h.initial"], atol=EXACT)
    np.testing.assert_allclose(found[f"{of} / encoder.h.final"], found[f"{of} / encoder.h[-1]"], atol=EXACT)
    given = model.jacobian(
        inputs, of=of, wrt="a", initial_states={f"decoder.{state}.initial": np.ones((BATCH, 3)) for state in "hc"}
    )
    assert not given.value.any()


def test_outputs_that_nothing_reads_are_points_too(client: tapehead.Client, models: dict[str, Any]) -> None:
    for name, point in (
        ("bidirectional_encoder", "encoder.output.0"),
        ("nested_with_an_output_unused", "inner.output.1"),
    ):
        value = client.model(name).states(data(models[name]), points=[point]).tensors[point]
        assert np.abs(value).max() > 0


def test_states_of_a_convolutional_lstm_have_their_places(client: tapehead.Client) -> None:
    info = client.model("convolutional_lstm").points["conv_lstm.c"]
    assert (tuple(info["shape"]), tuple(info["axes"])) == ((None, 4, 2), ("timestep", "unit0", "unit1"))


# --------------------------------------------------------------------------------------------------------- stateful use


def test_a_stateful_model_starts_from_zero_whatever_the_batch_and_keeps_nothing() -> None:
    model = with_random_weights(stateful(), seed=3)
    layer, x = model.get_layer("lstm"), np.random.default_rng(5).normal(size=(3, TIMESTEPS, 2))
    kept = [np.ones((3, 3)), 2 * np.ones((3, 3))]
    for variable, value in zip(layer.states, kept, strict=True):
        variable.assign(value)
    with tapehead.Client(models={"mine": model}, timeout=None) as client:
        mine = client.model("mine")
        every = [mine.states(x[:rows], points=["lstm.h"]).value for rows in (3, 1, 2, 3)]
        mine.jacobian(np.concatenate([x, x]), of="outputs[-1]", wrt="inputs")
    for value in every:
        np.testing.assert_allclose(value, every[0][: len(value)], rtol=EXACT)
    for variable, value in zip(layer.states, kept, strict=True):
        np.testing.assert_array_equal(variable, value)
    assert layer.stateful


def test_a_stateful_layer_within_a_layer_keeps_nothing_either() -> None:
    class Wrapped(layers.Layer):
        def __init__(self) -> None:
            super().__init__(dtype="float64")
            self.inner = L["GRU"](2, stateful=True)

        def build(self, shape: Any) -> None:
            self.inner.build(shape)
            self.built = True

        def call(self, x: Any) -> Any:
            return self.inner(x)

    a = series(None, 2, batch=3)
    wrapped = Wrapped()
    model = Model(with_random_weights(keras.Model(a, wrapped(a)), seed=3), "mine")
    for variable in wrapped.inner.states:
        variable.assign(np.ones(variable.shape))
    with tapehead.Client(models={"mine": model.keras}, timeout=None) as client:
        x = np.random.default_rng(5).normal(size=(2, TIMESTEPS, 2))
        first, second = (client.model("mine").infer(x).value for _ in range(2))
    np.testing.assert_array_equal(first, second)
    for variable in wrapped.inner.states:
        np.testing.assert_array_equal(variable, np.ones(variable.shape))


# ------------------------------------------------------------------------------------------------------ what is refused


def test_a_weight_given_to_an_operation_is_refused() -> None:
    a = series(None, 2)
    dense = L["Dense"](3, name="dense")
    model = keras.Model(a, keras.ops.matmul(L["GRU"](2, name="gru")(dense(a)), dense.kernel))
    with pytest.raises(tapehead.UnsupportedModel, match=r"matmul.*dense/kernel"):
        Model(model, "mine")
