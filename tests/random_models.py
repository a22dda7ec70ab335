"""Random networks for the tests: a few layers of any kind over one or two inputs, their branches merged.

`draw(seed)` is always the same network. Streams are tensors over time; each carries what its masks allow: a network
that masks, or is asked about with lengths, has no layer that mixes timesteps without heeding them.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from keras import layers

import architectures
from architectures import (
    GRU,
    LSTM,
    RNN,
    SEQUENCE,
    Add,
    Bidirectional,
    Concatenate,
    Dense,
    GRUCell,
    LayerNormalization,
    LSTMCell,
    Masking,
    SimpleRNN,
    SimpleRNNCell,
    StackedRNNCells,
    TimeDistributed,
    TwoState,
    f64,
)

Recurrent = Callable[..., Any]
BATCH, TIMESTEPS = 2, 4
SMOOTH = ("tanh", "sigmoid", "softplus", "softsign", "linear")
BENT = ("tanh", "sigmoid", "softsign")
RECURRENT: dict[str, Recurrent] = {
    "SimpleRNN": SimpleRNN,
    "GRU": GRU,
    "GRU, reset before": lambda units, **ways: GRU(units, reset_after=False, **ways),
    "LSTM": LSTM,
    "LSTM of others": lambda units, **ways: LSTM(
        units, activation="softsign", recurrent_activation="tanh", use_bias=False, **ways
    ),
    "two states": lambda units, **ways: RNN(TwoState(units, "tanh", "code"), **ways),
    "stacked": lambda units, **ways: RNN(StackedRNNCells([SimpleRNNCell(2), GRUCell(2), LSTMCell(units)]), **ways),
    "stacked with two states": lambda units, **ways: RNN(
        StackedRNNCells([LSTMCell(2), TwoState(units, "tanh")]), **ways
    ),
}


@dataclass
class Drawing:
    """A network being drawn: its random choices, its streams so far, and whether its timesteps may be mixed freely."""

    choose: random.Random
    heeds_time: bool
    streams: list[Any] = field(default_factory=list)
    count: int = 0

    def name(self, kind: str) -> str:
        self.count += 1
        return f"{kind}_{self.count}"

    @property
    def stream(self) -> Any:
        """One of the last few."""
        return self.choose.choice(self.streams[-3:])

    @property
    def units(self) -> int:
        return self.choose.randint(1, 3)


def recurrent(here: Drawing, x: Any, **ways: Any) -> Any:
    """A recurrent layer in either direction or both."""
    kind, units = RECURRENT[here.choose.choice(list(RECURRENT))], here.units
    direction = here.choose.choice(["forward", "forward", "backward", "concat", "sum", "ave", "mul"])
    if direction in ("forward", "backward"):
        return kind(units, name=here.name("rnn"), go_backwards=direction == "backward", **ways)(x)
    return Bidirectional(kind(units, **ways), merge_mode=direction, name=here.name("bi"))(x)


def grow(here: Drawing) -> None:
    """One more stream, made from those there are."""
    growths = [in_sequence, in_sequence, in_sequence, mixed, normalised, merged, merged, distributed, carried, twice]
    growth = here.choose.choice(growths if here.heeds_time else [*growths, convolved, attending])
    here.streams.append(growth(here))


def in_sequence(here: Drawing) -> Any:
    return recurrent(here, here.stream, **SEQUENCE)


def mixed(here: Drawing) -> Any:
    return dense(here, "mix", here.stream)


def dense(here: Drawing, kind: str, x: Any) -> Any:
    units = here.units
    activation = here.choose.choice([*SMOOTH, *(["softmax"] if units > 1 else [])])
    return Dense(units, activation=activation, name=here.name(kind))(x)


def normalised(here: Drawing) -> Any:
    scaled = LayerNormalization(epsilon=0.1, name=here.name("norm"))(here.stream)
    return f64(layers.Activation)(here.choose.choice(BENT), name=here.name("bent"))(scaled)


def merged(here: Drawing) -> Any:
    """Two streams of this network's own making, side by side or one on the other."""
    left, right = here.stream, here.stream
    kinds = {"add": Add, "multiply": f64(layers.Multiply), "average": f64(layers.Average)}
    kind = here.choose.choice(["concat", *kinds])
    if kind == "concat" or left.shape[-1] != right.shape[-1] or left is right:
        return Concatenate(name=here.name("joined"))([left, right])
    return kinds[kind](name=here.name(kind))([left, right])


def distributed(here: Drawing) -> Any:
    return TimeDistributed(Dense(here.units, activation="tanh"), name=here.name("each"))(here.stream)


def carried(here: Drawing) -> Any:
    """A layer that starts from where another ended; where timesteps are masked, from zero."""
    units = here.units
    first, h, c = LSTM(units, return_state=True, name=here.name("encoder"), **SEQUENCE)(here.stream)
    if here.heeds_time:
        return first
    return LSTM(units, name=here.name("decoder"), **SEQUENCE)(here.stream, initial_state=[h, c])


def twice(here: Drawing) -> Any:
    """One layer on a stream and then on what it made of it."""
    x = here.stream
    again = GRU(x.shape[-1], name=here.name("again"), go_backwards=here.choose.random() < 0.3, **SEQUENCE)
    return again(again(x))


def convolved(here: Drawing) -> Any:
    padding = here.choose.choice(["causal", "same"])
    return f64(layers.Conv1D)(here.units, 2, padding=padding, activation="tanh", name=here.name("conv"))(here.stream)


def attending(here: Drawing) -> Any:
    x = here.stream
    return f64(layers.Attention)(name=here.name("attention"))([x, x])


@dataclass(frozen=True)
class RandomModel:
    """A network with an input for it, and lengths or None."""

    model: Any
    inputs: dict[str, np.ndarray]
    lengths: tuple[int, ...] | None


def draw(seed: int) -> RandomModel:
    """The network of that seed: of three kinds in turn, free, masked, and asked about with lengths."""
    choose = random.Random(seed)
    kind = ("free", "masked", "lengths")[seed % 3]
    here = Drawing(choose, heeds_time=kind != "free")
    series = keras.Input((None, choose.randint(1, 3)), dtype="float64", name="series")
    here.streams.append(Masking(mask_value=-1.0, name="masking")(series) if kind == "masked" else series)
    for _ in range(choose.randint(1, 4)):
        grow(here)
    model = keras.Model(series, heads(here))
    architectures.with_random_weights(model, seed)
    inputs = architectures.data(model, BATCH, TIMESTEPS, seed)
    if kind == "masked":
        inputs = architectures.masked(inputs, [holes(choose) for _ in range(BATCH)])
    lengths = tuple(choose.randint(1, TIMESTEPS) for _ in range(BATCH)) if kind == "lengths" else None
    return RandomModel(model, inputs, lengths)


def heads(here: Drawing) -> list[Any]:
    """One or two outputs, over time or at the end."""
    made = []
    for i in range(min(here.choose.randint(1, 2), len(here.streams))):
        x = here.streams[-1 - i]
        end = here.choose.choice(["over time", "last state", "last state"])
        read = x if end == "over time" else recurrent(here, x)
        made.append(dense(here, "head", read))
    return made


def holes(choose: random.Random) -> list[bool]:
    """Which timesteps are valid: any but none."""
    valid = [choose.random() < 0.7 for _ in range(TIMESTEPS)]
    valid[choose.randrange(TIMESTEPS)] = True
    return valid
