"""The four demo models, layer by layer, as they are before training: they see and say numbers of order one.

After training `in_own_units` folds the scale into the kernels at both ends, so that a file takes sunspot numbers and
answers sunspot numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import keras
from keras import layers

from tapehead.demo.cells import TwoStateCell


@dataclass(frozen=True)
class Network:
    """A model to train: its layers, the size of its numbers, how long and from which seed."""

    layers: Callable[[], Sequence[keras.layers.Layer]]
    features: tuple[float, ...]
    answer: float
    epochs: int
    learning_rate: float = 5e-3
    seed: int = 1


def _sunspots() -> Sequence[keras.layers.Layer]:
    return layers.LSTM(16, name="lstm"), layers.Dense(1, name="forecast")


def _co2() -> Sequence[keras.layers.Layer]:
    return layers.GRU(24, name="gru"), layers.Dense(12, name="forecast")


def _sunspots_bidirectional() -> Sequence[keras.layers.Layer]:
    both = layers.Bidirectional(layers.LSTM(12, return_sequences=True, name="lstm"), name="bi")
    return both, layers.Dense(1, name="filled")


def _sunspots_delays() -> Sequence[keras.layers.Layer]:
    return layers.RNN(TwoStateCell(16), name="rnn"), layers.Dense(1, name="forecast")


NETWORKS: Mapping[str, Network] = {
    "sunspots": Network(_sunspots, features=(100.0,), answer=100.0, epochs=60),
    "co2": Network(_co2, features=(1.0, 1.0, 1.0), answer=1.0, epochs=80),
    "sunspots_bidirectional": Network(_sunspots_bidirectional, features=(100.0, 1.0), answer=100.0, epochs=30),
    "sunspots_delays": Network(_sunspots_delays, features=(100.0,) * 12, answer=100.0, epochs=150),
}


def untrained(name: str) -> keras.Model:
    """The model `name` with fresh weights, for sequences of any length."""
    network = NETWORKS[name]
    return keras.Sequential([keras.Input((None, len(network.features))), *network.layers()], name=name)


def in_own_units(model: keras.Model, network: Network) -> None:
    """Folds the scales into the model: input kernels are divided by the features' scale, the readout multiplied."""
    recurrent, readout = model.layers
    scale = keras.ops.convert_to_tensor(network.features)[:, None]
    for kernel in _input_kernels(recurrent):
        kernel.assign(kernel / scale)
    for variable in readout.weights:
        variable.assign(variable * network.answer)


def _input_kernels(layer: keras.layers.Layer) -> list[keras.Variable]:
    if isinstance(layer, layers.Bidirectional):
        return [layer.forward_layer.cell.kernel, layer.backward_layer.cell.kernel]
    cell = layer.cell
    return [cell.linear_in.kernel if isinstance(cell, TwoStateCell) else cell.kernel]
