"""Small Keras models in float64 for the tests: every kind of recurrent layer, and what may stand around one.

`ARCHITECTURES` names them; `build(name)` makes one with random weights, biases too, large enough that every derivative
is. Timesteps are left open. Activations are smooth: from zero states a relu would start on its kink.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import layers

FEATURES = 2
WORDS = 7


@keras.saving.register_keras_serializable("tapehead_tests")
class TwoStateCell(layers.Layer):
    """A user's own cell with two states: h' = W act(h) + b, c' = c - h + h', and an output apart from both.

    The output is sigmoid(W_o x) + c' (`output_form="text"`) or sigmoid(W_o x + c') (`"code"`).
    """

    state_names = ("h", "c")

    def __init__(self, units: int, activation: str = "relu", output_form: str = "text", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units, self.output_form = units, output_form
        self.activation = keras.activations.get(activation)
        self.state_size, self.output_size = [units, units], units
        self.linear_rec = layers.Dense(units, dtype=self.dtype_policy, name="linear_rec")
        self.linear_out = layers.Dense(units, dtype=self.dtype_policy, name="linear_out")

    def build(self, input_shape: Any) -> None:
        self.linear_rec.build((input_shape[0], self.units))
        self.linear_out.build(input_shape)
        super().build(input_shape)

    def call(self, inputs: Any, states: Any) -> Any:
        h, c = states
        after = self.linear_rec(self.activation(h))
        c = c - h + after
        read = self.linear_out(inputs)
        out = keras.ops.sigmoid(read + c) if self.output_form == "code" else keras.ops.sigmoid(read) + c
        return out, [after, c]

    def get_config(self) -> dict[str, Any]:
        own = {"units": self.units, "activation": self.activation.__name__, "output_form": self.output_form}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable("tapehead_tests")
class ContraryCell(layers.Layer):
    """A cell with two states, named by itself, that gives out the second or something apart, and starts from ones.

    slow' = (slow + fast) / 2, fast' = tanh(W [x, slow, fast]); out = fast' or 2 fast'.
    """

    def __init__(self, units: int, apart: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units, self.apart = units, apart
        self.state_size, self.output_size = [units, units], units

    def build(self, input_shape: Any) -> None:
        self.kernel = self.add_weight(shape=(input_shape[-1] + 2 * self.units, self.units), name="kernel")

    def call(self, inputs: Any, states: Any) -> Any:
        slow, fast = states
        after = keras.ops.tanh(keras.ops.concatenate([inputs, slow, fast], -1) @ self.kernel)
        return (2 * after if self.apart else after), [(slow + fast) / 2, after]

    def get_initial_state(self, batch_size: Any = None) -> list[Any]:
        return [keras.ops.ones((batch_size, self.units), self.compute_dtype)] * 2

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units, "apart": self.apart}


@keras.saving.register_keras_serializable("tapehead_tests")
class Unmasked(layers.Flatten):
    """Flattens, and ends the mask without Keras's warning that it does."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True

    def compute_mask(self, *_: Any, **__: Any) -> None:
        return None


def f64(kind: Callable[..., Any]) -> Callable[..., Any]:
    """A layer's class, made in float64."""
    return lambda *args, **kwargs: kind(*args, dtype="float64", **kwargs)


SimpleRNN, GRU, LSTM = f64(layers.SimpleRNN), f64(layers.GRU), f64(layers.LSTM)
RNN, Bidirectional = f64(layers.RNN), f64(layers.Bidirectional)
Dense, TimeDistributed, LayerNormalization = (
    f64(layers.Dense),
    f64(layers.TimeDistributed),
    f64(layers.LayerNormalization),
)
Masking, Embedding = f64(layers.Masking), f64(layers.Embedding)
Concatenate, Add, GlobalAveragePooling1D = f64(layers.Concatenate), f64(layers.Add), f64(layers.GlobalAveragePooling1D)
SimpleRNNCell, GRUCell, LSTMCell = f64(layers.SimpleRNNCell), f64(layers.GRUCell), f64(layers.LSTMCell)
StackedRNNCells, TwoState, Contrary = f64(layers.StackedRNNCells), f64(TwoStateCell), f64(ContraryCell)
Dropout = f64(layers.Dropout)

SEQUENCE = {"return_sequences": True}


def chain(*parts: Any, features: int = FEATURES, batch: int | None = None) -> Any:
    """A Sequential model of these layers over sequences of floats."""
    inputs = keras.Input((None, features), batch_size=batch, dtype="float64", name="series")
    return keras.Sequential([inputs, *parts])


def words(*parts: Any) -> Any:
    """A Sequential model of these layers over sequences of words, 0 being padding."""
    inputs = keras.Input((None,), dtype="int32", name="words")
    return keras.Sequential([inputs, Embedding(WORDS, FEATURES, mask_zero=True, name="embedding"), *parts])


def head(units: int = 2) -> Any:
    return Dense(units, name="head")


def mask() -> Any:
    return Masking(mask_value=-1.0, name="masking")


def side_by_side() -> Any:
    """Two recurrent layers over one input, one of them backwards, and a skip connection."""
    series = keras.Input((None, FEATURES), dtype="float64", name="series")
    left = LSTM(2, name="left", **SEQUENCE)(series)
    right = GRU(3, name="right", go_backwards=True, **SEQUENCE)(series)
    joined = Concatenate(name="joined")([left, right, series])
    top = SimpleRNN(2, name="top", **SEQUENCE)(joined)
    added = Add(name="added")([left, top])
    return keras.Model(series, Dense(2, name="head")(added))


def encoder_decoder() -> Any:
    """An encoder whose final states are the decoder's initial states; two inputs."""
    source = keras.Input((None, FEATURES), dtype="float64", name="source")
    target = keras.Input((None, 3), dtype="float64", name="target")
    _, h, c = LSTM(3, name="encoder", return_state=True)(source)
    decoded = LSTM(3, name="decoder", **SEQUENCE)(target, initial_state=[h, c])
    return keras.Model([source, target], Dense(2, name="head")(decoded))


def nested() -> Any:
    """A model inside a model, itself recurrent."""
    inner = keras.Sequential(
        [keras.Input((None, FEATURES), dtype="float64"), GRU(2, name="gru", **SEQUENCE)], name="encoder"
    )
    series = keras.Input((None, FEATURES), dtype="float64", name="series")
    return keras.Model(series, head()(LSTM(2, name="lstm")(inner(series))))


def two_outputs() -> Any:
    """One recurrent layer read by two heads."""
    series = keras.Input((None, FEATURES), dtype="float64", name="series")
    states = GRU(3, name="gru", **SEQUENCE)(series)
    return keras.Model(series, [Dense(2, name="each")(states), Dense(1, name="last")(LSTM(2, name="lstm")(states))])


def bidirectional(merge_mode: str | None, layer: Any) -> Any:
    if merge_mode is None:
        series = keras.Input((None, FEATURES), dtype="float64", name="series")
        return keras.Model(series, Bidirectional(layer, merge_mode=None, name="bi")(series))
    return chain(Bidirectional(layer, merge_mode=merge_mode, name="bi"), head())


def deep() -> Any:
    """A model in a model in a model; in the middle a Bidirectional of stacked cells."""
    inner = keras.Sequential(
        [
            keras.Input((None, FEATURES), dtype="float64"),
            Bidirectional(RNN(StackedRNNCells([GRUCell(2), Contrary(2)]), **SEQUENCE), name="bi"),
        ],
        name="inner",
    )
    middle_input = keras.Input((None, FEATURES), dtype="float64", name="middle_input")
    middle = keras.Model(middle_input, LSTM(2, name="lstm", **SEQUENCE)(inner(middle_input)), name="middle")
    series = keras.Input((None, FEATURES), dtype="float64", name="series")
    return keras.Model(series, SimpleRNN(2, name="rnn")(middle(series)))


def turned_bidirectional() -> Any:
    """A Bidirectional whose first direction runs backwards, with a backward layer of another kind."""
    return chain(
        Bidirectional(
            LSTM(2, go_backwards=True, **SEQUENCE),
            backward_layer=GRU(2, name="other", **SEQUENCE),
            name="bi",
        ),
        head(),
    )


def masked_then_flattened(*recurrent: Any) -> Any:
    """What a recurrent layer gives out at masked timesteps is read, for the mask ends here."""
    series = keras.Input((5, FEATURES), dtype="float64", name="series")
    return keras.Sequential([series, mask(), *recurrent, f64(Unmasked)(name="flat"), head()])


def masked_encoder_decoder() -> Any:
    """An encoder of masked timesteps, whose states start a decoder of words."""
    source = keras.Input((None, FEATURES), dtype="float64", name="source")
    target = keras.Input((None,), dtype="int32", name="target")
    _, h = GRU(3, name="encoder", return_state=True)(mask()(source))
    decoded = GRU(3, name="decoder", **SEQUENCE)(
        Embedding(WORDS, 2, mask_zero=True, name="embedding")(target), initial_state=h
    )
    return keras.Model([source, target], Dense(2, name="head")(decoded))


Builder = Callable[[], Any]
SINGLE: dict[str, Builder] = {
    "simple_rnn": lambda: chain(SimpleRNN(3, name="rnn"), head()),
    "simple_rnn_no_bias": lambda: chain(SimpleRNN(3, name="rnn", use_bias=False, activation="sigmoid", **SEQUENCE)),
    "lstm": lambda: chain(LSTM(3, name="lstm"), head()),
    "lstm_sequence": lambda: chain(LSTM(3, name="lstm", **SEQUENCE), head()),
    "lstm_other_activations": lambda: chain(
        LSTM(2, name="lstm", use_bias=False, activation="softsign", recurrent_activation="tanh", **SEQUENCE)
    ),
    "gru": lambda: chain(GRU(3, name="gru"), head()),
    "gru_no_bias": lambda: chain(GRU(3, name="gru", use_bias=False, activation="softsign"), head()),
    "gru_reset_before": lambda: chain(GRU(3, name="gru", reset_after=False, **SEQUENCE), head()),
    "two_state_text": lambda: chain(RNN(TwoState(3, "softplus"), name="rnn", **SEQUENCE), head()),
    "two_state_code": lambda: chain(RNN(TwoState(3, "tanh", "code"), name="rnn"), head()),
    "lstm_backwards": lambda: chain(LSTM(3, name="lstm", go_backwards=True), head()),
    "gru_backwards_sequence": lambda: chain(GRU(2, name="gru", go_backwards=True, **SEQUENCE), head()),
    "two_state_backwards": lambda: chain(RNN(TwoState(2, "tanh"), name="rnn", go_backwards=True), head()),
    "stateful": lambda: chain(LSTM(2, name="lstm", stateful=True, **SEQUENCE), head(), batch=3),
}
CELLS: dict[str, Builder] = {
    "stacked_cells": lambda: chain(
        RNN(StackedRNNCells([LSTMCell(2), GRUCell(3), SimpleRNNCell(2)]), name="rnn"), head()
    ),
    "stacked_two_cells": lambda: chain(RNN(StackedRNNCells([GRUCell(2), SimpleRNNCell(3)]), name="rnn"), head()),
    "stacked_cells_sequence": lambda: chain(
        RNN(StackedRNNCells([TwoState(2, "tanh"), LSTMCell(3)]), name="rnn", **SEQUENCE)
    ),
    "stacked_cells_backwards": lambda: chain(
        RNN(StackedRNNCells([GRUCell(2, reset_after=False), LSTMCell(2)]), name="rnn", go_backwards=True, **SEQUENCE),
        head(),
    ),
}
DIRECTIONS: dict[str, Builder] = {
    "bidirectional_concat": lambda: bidirectional("concat", LSTM(2)),
    "bidirectional_sum": lambda: bidirectional("sum", GRU(2, **SEQUENCE)),
    "bidirectional_ave": lambda: bidirectional("ave", SimpleRNN(2)),
    "bidirectional_mul": lambda: bidirectional("mul", LSTM(2, **SEQUENCE)),
    "bidirectional_none": lambda: bidirectional(None, GRU(2, reset_after=False)),
    "bidirectional_none_sequence": lambda: bidirectional(None, LSTM(2, **SEQUENCE)),
    "bidirectional_custom": lambda: bidirectional("concat", RNN(TwoState(2, "tanh"), **SEQUENCE)),
}
STACKS: dict[str, Builder] = {
    "stack": lambda: chain(
        LSTM(3, name="lstm", **SEQUENCE), GRU(2, name="gru", **SEQUENCE), SimpleRNN(2, name="rnn"), head()
    ),
    "stack_after_backwards": lambda: chain(
        GRU(2, name="gru", go_backwards=True, **SEQUENCE), LSTM(2, name="lstm"), head()
    ),
    "stack_of_bidirectional": lambda: chain(
        Bidirectional(GRU(2, **SEQUENCE), name="bi"), Bidirectional(LSTM(2), merge_mode="sum", name="bi_2"), head()
    ),
    "stack_with_layers_between": lambda: chain(
        Dense(3, name="mix", activation="tanh"),
        LSTM(3, name="lstm", **SEQUENCE),
        LayerNormalization(name="norm"),
        TimeDistributed(Dense(2), name="each"),
        GRU(2, name="gru", **SEQUENCE),
        GlobalAveragePooling1D(name="average"),
    ),
    "stack_of_customs": lambda: chain(
        RNN(TwoState(2, "tanh", "code"), name="rnn", **SEQUENCE), LSTM(2, name="lstm", **SEQUENCE)
    ),
    "side_by_side": side_by_side,
    "nested": nested,
    "two_outputs": two_outputs,
}
MASKED: dict[str, Builder] = {
    "masked_lstm": lambda: chain(mask(), LSTM(3, name="lstm", **SEQUENCE), head()),
    "masked_gru": lambda: chain(mask(), GRU(3, name="gru"), head()),
    "masked_two_state": lambda: chain(mask(), RNN(TwoState(2, "tanh"), name="rnn"), head()),
    "masked_backwards": lambda: chain(mask(), LSTM(2, name="lstm", go_backwards=True), head()),
    "masked_bidirectional": lambda: chain(mask(), Bidirectional(LSTM(2, **SEQUENCE), name="bi"), head()),
    "masked_stack": lambda: chain(mask(), GRU(2, name="gru", **SEQUENCE), LSTM(2, name="lstm"), head()),
    "masked_cells": lambda: chain(mask(), RNN(StackedRNNCells([GRUCell(2), LSTMCell(2)]), name="rnn"), head()),
}
EMBEDDED: dict[str, Builder] = {
    "embedding_gru": lambda: words(GRU(3, name="gru"), head()),
    "embedding_bidirectional": lambda: words(
        Bidirectional(GRU(2, **SEQUENCE), name="bi"), LSTM(2, name="lstm"), head()
    ),
}
ODD: dict[str, Builder] = {
    "contrary_cell": lambda: chain(RNN(Contrary(2), name="rnn", **SEQUENCE), head()),
    "contrary_cell_apart": lambda: chain(RNN(Contrary(2, apart=True), name="rnn"), head()),
    "deep": deep,
    "turned_bidirectional": turned_bidirectional,
    "odd_name": lambda: chain(LSTM(2, name="a.b", **SEQUENCE), GRU(2, name="über layer"), head()),
    "unrolled": lambda: keras.Sequential(
        [keras.Input((5, FEATURES), dtype="float64", name="series"), LSTM(2, name="lstm", unroll=True), head()]
    ),
    "dropout": lambda: chain(
        Dropout(0.5), LSTM(2, name="lstm", dropout=0.5, recurrent_dropout=0.5, **SEQUENCE), Dropout(0.5), head()
    ),
}
ODDLY_MASKED: dict[str, Builder] = {
    "masked_then_flattened": lambda: masked_then_flattened(LSTM(2, name="lstm", **SEQUENCE)),
    "masked_bidirectional_then_flattened": lambda: masked_then_flattened(Bidirectional(GRU(2, **SEQUENCE), name="bi")),
    "masked_backwards_then_flattened": lambda: masked_then_flattened(
        LSTM(2, name="lstm", go_backwards=True, zero_output_for_mask=True, **SEQUENCE)
    ),
    "masked_stack_after_backwards": lambda: chain(
        mask(), GRU(2, name="gru", go_backwards=True, **SEQUENCE), LSTM(2, name="lstm"), head()
    ),
    "masked_average": lambda: chain(
        mask(), LSTM(2, name="lstm", **SEQUENCE), LayerNormalization(name="norm"), GlobalAveragePooling1D(name="mean")
    ),
    "masked_encoder_decoder": masked_encoder_decoder,
}
SEVERAL_INPUTS: dict[str, Builder] = {"encoder_decoder": encoder_decoder}
ARCHITECTURES = SINGLE | CELLS | DIRECTIONS | STACKS | MASKED | EMBEDDED | ODD | ODDLY_MASKED | SEVERAL_INPUTS


def build(name: str, seed: int = 0) -> Any:
    """The architecture of that name, its weights drawn afresh."""
    return with_random_weights((ARCHITECTURES | AROUND)[name](), seed)


def with_random_weights(model: Any, seed: int = 0) -> Any:
    """The same model with weights of variance about 1/fan-in, and biases that matter."""
    rng = np.random.default_rng(seed)
    drawn = [rng.normal(0, 1 / np.sqrt(max(1, w.shape[0] if w.ndim > 1 else 4)), w.shape) for w in model.get_weights()]
    variances = [variable.name == "moving_variance" for variable in model.weights]
    model.set_weights([0.5 + np.abs(w) if is_variance else w for w, is_variance in zip(drawn, variances, strict=True)])
    return model


def data(model: Any, batch: int = 3, timesteps: int = 5, seed: int = 1) -> dict[str, np.ndarray]:
    """Random inputs by name: numbers of unit variance, or words none of which is padding."""
    rng = np.random.default_rng(seed)
    made = {}
    for tensor in model.inputs:
        shape = (batch, timesteps, *tensor.shape[2:])
        is_word = tensor.dtype.startswith("int")
        made[tensor.name] = rng.integers(1, WORDS, shape).astype("int32") if is_word else rng.normal(size=shape)
    return made


def masked(inputs: dict[str, np.ndarray], valid: Sequence[Sequence[int]]) -> dict[str, np.ndarray]:
    """The same inputs with the invalid timesteps (0) set to what the models here mask: -1.0, or word 0."""
    keep = np.asarray(valid, bool)
    return {
        name: np.where(keep if x.ndim == 2 else keep[..., None], x, 0 if x.dtype.kind == "i" else -1.0)
        for name, x in inputs.items()
    }


# -------------------------------------------------------------------- what may stand around, before and between layers


def series_input(name: str = "series", timesteps: int | None = None) -> Any:
    return keras.Input((timesteps, FEATURES), dtype="float64", name=name)


def attention() -> Any:
    """One recurrent layer looks at another: plain attention, several heads of it, and a residual path around."""
    series = series_input()
    seen = GRU(4, name="gru", **SEQUENCE)(series)
    asking = SimpleRNN(4, name="rnn", **SEQUENCE)(series)
    read = f64(layers.Attention)(name="attention")([asking, seen])
    heads = f64(layers.MultiHeadAttention)(2, 4, name="heads")(asking, read)
    joined = LayerNormalization(name="norm")(Add(name="added")([asking, heads]))
    return keras.Model(series, Dense(2, activation="softmax", name="head")(joined))


def convolution() -> Any:
    """Convolutions and pooling over time, before and after a recurrent layer, and one more after those."""
    return chain(
        f64(layers.Conv1D)(3, 2, padding="causal", activation="tanh", name="conv"),
        LSTM(3, name="lstm", **SEQUENCE),
        f64(layers.AveragePooling1D)(2, strides=1, name="pool"),
        f64(layers.Conv1D)(2, 2, name="conv_2"),
        GRU(2, name="gru", **SEQUENCE),
        f64(layers.GlobalMaxPooling1D)(name="most"),
        head(),
    )


def shared() -> Any:
    """One recurrent layer over two inputs in turn, and its two ends compared."""
    left, right = series_input("left"), series_input("right")
    twice = GRU(3, name="shared")
    ends = [twice(left), twice(right)]
    far = f64(layers.Subtract)(name="far")(ends)
    return keras.Model([left, right], Dense(2, activation="sigmoid", name="head")(far))


def shared_in_turn() -> Any:
    """One layer applied to what it gave out itself, the second time with its own final states."""
    series = series_input()
    again = LSTM(FEATURES, name="again", return_state=True, **SEQUENCE)
    first, h, c = again(series)
    second, *_ = again(first, initial_state=[h, c])
    mix = Dense(2, activation="tanh", name="mix")
    return keras.Model(series, mix(mix(second)))


def shared_model() -> Any:
    """A recurrent model used twice inside another."""
    inner = keras.Sequential([series_input("inner"), LSTM(2, name="lstm"), Dense(2, name="out")], name="encoder")
    left, right = series_input("left"), series_input("right")
    joined = f64(layers.Multiply)(name="product")([inner(left), inner(right)])
    return keras.Model([left, right], head()(joined))


def autoencoder() -> Any:
    """What a whole sequence leaves behind, repeated and unfolded again."""
    return chain(
        LSTM(3, name="lstm"),
        f64(layers.RepeatVector)(3, name="again"),
        GRU(2, name="gru", **SEQUENCE),
        TimeDistributed(Dense(2, activation="softplus"), name="each"),
    )


def bidirectional_encoder() -> Any:
    """A bidirectional encoder whose four final states are joined into the decoder's initial states."""
    source, target = series_input("source"), series_input("target")
    _, h, c, back_h, back_c = Bidirectional(LSTM(2, return_state=True), name="encoder")(source)
    states = [Concatenate(name="join_h")([h, back_h]), Concatenate(name="join_c")([c, back_c])]
    decoded = LSTM(4, name="decoder", **SEQUENCE)(target, initial_state=states)
    return keras.Model([source, target], TimeDistributed(Dense(2, activation="softmax"), name="each")(decoded))


def normalised() -> Any:
    """Normalisations, merges and gates of other layers' making, with a skip around them all."""
    series = series_input()
    states = GRU(3, name="gru", **SEQUENCE)(series)
    scaled = f64(layers.BatchNormalization)(name="batch_norm")(states)
    door = Dense(3, activation="sigmoid", name="door")(series)
    passed = f64(layers.Multiply)(name="passed")([LayerNormalization(name="norm")(scaled), door])
    mean = f64(layers.Average)(name="mean")([states, passed])
    last = SimpleRNN(2, name="rnn")(f64(layers.Activation)("softsign", name="bent")(mean))
    flat = f64(layers.Flatten)(name="flat")(f64(layers.RepeatVector)(2, name="twice")(last))
    return keras.Model(series, Concatenate(name="joined")([head()(last), flat]))


AROUND: dict[str, Builder] = {
    "attention": attention,
    "convolution": convolution,
    "shared": shared,
    "shared_in_turn": shared_in_turn,
    "shared_model": shared_model,
    "autoencoder": autoencoder,
    "bidirectional_encoder": bidirectional_encoder,
    "normalised": normalised,
}
"""Not among `ARCHITECTURES`, which are compared with central differences too."""
