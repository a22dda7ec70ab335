"""Networks built to vanish, explode, saturate, die or carry gradients well, each of them recognised by `diagnose`.

A few draws of each by default; all fifty are marked slow. One model a kind stays live and takes each draw's weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest
from keras import layers

import tapehead
from architectures import TwoStateCell

BATCH, TIMESTEPS, FEATURES, UNITS = 3, 60, 3, 16
FEW, ALL = range(3), range(50)

Weights = list[np.ndarray]


def orthogonal(rng: np.random.Generator, units: int = UNITS) -> np.ndarray:
    return np.linalg.qr(rng.normal(size=(units, units)))[0]


def glorot(rng: np.random.Generator, *shape: int) -> np.ndarray:
    limit = np.sqrt(6 / sum(shape))
    return rng.uniform(-limit, limit, size=shape)


def simple(rng: np.random.Generator, *, inputs: float = 1.0, recurrent: float = 1.0, bias: float = 0.0) -> Weights:
    """A SimpleRNN's weights: its recurrent kernel orthogonal, scaled."""
    return [inputs * glorot(rng, FEATURES, UNITS), recurrent * orthogonal(rng), np.full(UNITS, bias)]


def gated(
    rng: np.random.Generator, gates: int, *, inputs: float = 1.0, recurrent: float = 1.0, biases: dict[int, float]
) -> Weights:
    """An LSTM's or GRU's weights: each gate's recurrent kernel orthogonal, scaled; biases by gate."""
    bias = np.zeros((gates, UNITS))
    for gate, value in biases.items():
        bias[gate] = value
    kernels = [recurrent * orthogonal(rng) for _ in range(gates)]
    return [inputs * glorot(rng, FEATURES, gates * UNITS), np.concatenate(kernels, axis=1), bias.reshape(-1)]


def gru(rng: np.random.Generator, **scales: Any) -> Weights:
    kernel, recurrent, bias = gated(rng, 3, **scales)
    return [kernel, recurrent, np.stack([bias, 0 * bias])]


def two_state(rng: np.random.Generator, recurrent: float) -> Weights:
    """The weights of `TwoStateCell`: h' = W act(h) + b from states that the request gives."""
    return [recurrent * orthogonal(rng), np.zeros(UNITS), glorot(rng, FEATURES, UNITS), np.zeros(UNITS)]


class Built(NamedTuple):
    layer: Callable[[], Any]
    weights: Callable[[np.random.Generator], Weights]
    verdict: str


def rnn(activation: str) -> Callable[[], Any]:
    return lambda: layers.SimpleRNN(UNITS, activation=activation, name="layer")


def lstm() -> Any:
    return layers.LSTM(UNITS, name="layer")


def gru_layer() -> Any:
    return layers.GRU(UNITS, name="layer")


def custom() -> Any:
    return layers.RNN(TwoStateCell(UNITS, activation="linear"), name="layer")


FORGET, UPDATE = 1, 0
BUILT = {
    "tanh, half an orthogonal kernel": Built(rnn("tanh"), lambda r: simple(r, recurrent=0.5), "vanishing"),
    "linear, eigenvalues of 0.85": Built(rnn("linear"), lambda r: simple(r, recurrent=0.85), "vanishing"),
    "relu, half an orthogonal kernel": Built(rnn("relu"), lambda r: simple(r, recurrent=0.5), "vanishing"),
    "LSTM that forgets": Built(lstm, lambda r: gated(r, 4, recurrent=0.5, biases={FORGET: -4}), "vanishing"),
    "GRU that drops its state": Built(gru_layer, lambda r: gru(r, recurrent=0.5, biases={UPDATE: -6}), "vanishing"),
    "a cell of its user's own, shrinking": Built(custom, lambda r: two_state(r, 0.8), "vanishing"),
    "linear, eigenvalues of 1.3": Built(rnn("linear"), lambda r: simple(r, recurrent=1.3), "exploding"),
    "relu, three times orthogonal": Built(rnn("relu"), lambda r: simple(r, recurrent=3), "exploding"),
    "LSTM with a huge candidate": Built(
        lstm, lambda r: gated(r, 4, inputs=0.01, recurrent=12, biases={FORGET: 2}), "exploding"
    ),
    "a cell of its user's own, growing": Built(custom, lambda r: two_state(r, 1.25), "exploding"),
    "tanh of huge inputs": Built(rnn("tanh"), lambda r: simple(r, inputs=100), "saturated"),
    "LSTM of huge inputs": Built(lstm, lambda r: gated(r, 4, inputs=100, biases={}), "saturated"),
    "GRU of huge inputs": Built(gru_layer, lambda r: gru(r, inputs=100, biases={}), "saturated"),
    "relu below a bias": Built(rnn("relu"), lambda r: simple(r, bias=-20), "dead"),
    "linear, orthogonal": Built(rnn("linear"), simple, "healthy"),
    "relu, the identity, inputs that keep it on": Built(
        rnn("relu"), lambda r: [glorot(r, FEATURES, UNITS), np.eye(UNITS), np.full(UNITS, 2.0)], "healthy"
    ),
    "tanh, orthogonal, small inputs": Built(rnn("tanh"), lambda r: simple(r, inputs=0.02), "healthy"),
    "LSTM that keeps its state": Built(
        lstm, lambda r: gated(r, 4, inputs=0.5, recurrent=0.1, biases={FORGET: 5}), "healthy"
    ),
    "GRU that keeps its state": Built(
        gru_layer, lambda r: gru(r, inputs=0.5, recurrent=0.1, biases={UPDATE: 5}), "healthy"
    ),
    "a cell of its user's own, orthogonal": Built(custom, lambda r: two_state(r, 1.0), "healthy"),
}


@pytest.fixture(scope="module")
def networks() -> dict[str, Any]:
    return {
        name: keras.Sequential([keras.Input((None, FEATURES), name="series"), built.layer()])
        for name, built in BUILT.items()
    }


@pytest.fixture(scope="module")
def client(networks: dict[str, Any]) -> Iterator[tapehead.Client]:
    with tapehead.Client(models=networks, timeout=None) as client:
        yield client


def verdict(client: tapehead.Client, networks: dict[str, Any], name: str, seed: int) -> str:
    rng = np.random.default_rng([seed, sorted(BUILT).index(name)])
    networks[name].set_weights(BUILT[name].weights(rng))
    x = rng.normal(size=(BATCH, TIMESTEPS, FEATURES))
    states = {"layer.h.initial": rng.normal(size=(BATCH, UNITS))} if BUILT[name].layer is custom else None
    if states is not None:
        states["layer.c.initial"] = np.zeros((BATCH, UNITS))
    return client.model(name).diagnose(x, initial_states=states, steps=4).meta["verdict"]["layer"]


@pytest.mark.parametrize("name", BUILT)
def test_what_a_network_was_built_for_is_recognised(
    client: tapehead.Client, networks: dict[str, Any], name: str
) -> None:
    assert [verdict(client, networks, name, seed) for seed in FEW] == [BUILT[name].verdict] * len(FEW)


@pytest.mark.slow
@pytest.mark.parametrize("name", BUILT)
def test_in_fifty_draws_none_is_mistaken(client: tapehead.Client, networks: dict[str, Any], name: str) -> None:
    assert [verdict(client, networks, name, seed) for seed in ALL] == [BUILT[name].verdict] * len(ALL)
