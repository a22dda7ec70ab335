"""A workload made concrete: its weights and its input, the same arrays for everyone who answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.workloads import OUTPUTS, Workload

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Problem:
    """Weights in Keras' layout: kernel (d, g n), recurrent (n, g n), bias (g n) or (2, g n); dense (n, 3) and (3,)."""

    workload: Workload
    kernel: Array
    recurrent: Array
    bias: Array
    dense: Array
    dense_bias: Array
    x: Array

    @property
    def attributes(self) -> bool:
        """Whether the question is about an output behind the recurrent layer."""
        return self.workload.question in ("saliency", "integrated")

    @property
    def input_bias(self) -> Array:
        """The bias that is added to the input's product."""
        return self.bias if self.bias.ndim == 1 else self.bias[0]

    @property
    def recurrent_bias(self) -> Array | None:
        """The bias that is added to the state's product, where a cell has one."""
        return None if self.bias.ndim == 1 else self.bias[1]


def problem(workload: Workload, seed: int = 0) -> Problem:
    """Weights as large as Keras starts with, a bias that is not zero, and a standard normal input."""
    draw = np.random.default_rng(seed)
    (batch, timesteps, d, n), gates = workload.size, workload.cell.gates

    def scaled(*shape: int) -> Array:
        array: Array = (draw.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32)
        return array

    bias = (2, gates * n) if workload.cell.name == "gru" else (gates * n,)
    return Problem(
        workload,
        scaled(d, gates * n),
        scaled(n, gates * n),
        draw.normal(0, 0.1, bias).astype(np.float32),
        scaled(n, OUTPUTS),
        draw.normal(0, 0.1, OUTPUTS).astype(np.float32),
        draw.standard_normal((batch, timesteps, d)).astype(np.float32),
    )


def keras_model(given: Problem) -> Any:
    """The problem as a Keras model: one recurrent layer `rnn`, and behind it `outputs` where they are asked about."""
    import keras

    n, d = given.workload.size.units, given.workload.size.features
    layer = {
        "lstm": lambda: keras.layers.LSTM(n, name="rnn", use_cudnn=False),
        "gru": lambda: keras.layers.GRU(n, name="rnn", reset_after=True, use_cudnn=False),
        "gru-before": lambda: keras.layers.GRU(n, name="rnn", reset_after=False, use_cudnn=False),
        "rnn": lambda: keras.layers.SimpleRNN(n, name="rnn"),
    }[given.workload.cell.name]()
    behind = [keras.layers.Dense(given.dense.shape[1], name="outputs")] if given.attributes else []
    model = keras.Sequential([keras.Input((None, d), name="x"), layer, *behind])
    layer.set_weights([given.kernel, given.recurrent, given.bias])
    for dense in behind:
        dense.set_weights([given.dense, given.dense_bias])
    return model
