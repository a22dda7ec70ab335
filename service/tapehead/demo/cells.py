"""A recurrent cell of our own with two states, written the way a user brings one to a server (`--import`)."""

from __future__ import annotations

from typing import Any

import keras


@keras.saving.register_keras_serializable(package="tapehead")
class TwoStateCell(keras.layers.Layer):
    """A cell that carries a hidden state h and the running sum c of h's changes.

        h_t = W act(h_{t-1}) + b
        c_t = c_{t-1} - h_{t-1} + h_t
        o_t = sigmoid(W_o x_t + b_o) + c_t

    so that ∂h_t/∂h_{t-1} = W diag(act'(h_{t-1})) and ∂c_t/∂c_{t-1} = I, exactly. With `activation="relu"` and Glorot's
    W the entries' variance times `units` starts near 1/2; with "linear", near 1.
    """

    state_names = ("h", "c")

    def __init__(self, units: int, activation: str = "relu", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.activation = keras.activations.get(activation)
        self.state_size = [units, units]
        self.output_size = units
        self.linear_rec = keras.layers.Dense(units, name="linear_rec")
        self.linear_in = keras.layers.Dense(units, name="linear_in")

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Makes the variables; without it a saved file reloads with fresh ones."""
        self.linear_in.build(input_shape)
        self.linear_rec.build((None, self.units))
        self.built = True

    def call(self, inputs: Any, states: Any) -> tuple[Any, list[Any]]:
        """One timestep: inputs (batch, features), states [h, c] of (batch, units) each."""
        h, c = states
        h_next = self.linear_rec(self.activation(h))
        c_next = c - h + h_next
        return keras.ops.sigmoid(self.linear_in(inputs)) + c_next, [h_next, c_next]

    def get_config(self) -> dict[str, Any]:
        """What `__init__` needs to make the cell again."""
        activation = keras.activations.serialize(self.activation)
        return {**super().get_config(), "units": self.units, "activation": activation}
