"""A recurrent cell whose next state is the gradient of a scalar function with respect to the state before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

Tensor = Any


@keras.saving.register_keras_serializable(package="tapehead")
class GradientCell(keras.layers.Layer):
    """A cell that contains a gradient: with a function F of the inputs and the state that gives one number a sample,

        y_t = F(x_t, h_{t-1})                 (batch, 1)
        h_t = ∂F/∂h (x_t, h_{t-1})            (batch, units)

    so that ∂h_t/∂h_{t-1} is the Hessian of F in h, which is symmetric, and the gradients of a loss on y with respect to
    F's weights hold its third derivatives. A smooth F is needed for that: where F is piecewise linear, as an MLP of
    relu is, its Hessian is zero.

    Args:
        units: the length of the state h.
        widths: the widths of F's hidden layers, where F is an MLP: Dense layers on [x, h], then one number.
        activation: their activation.
        function: F itself instead, a built Keras model of [x, h] with outputs (batch, 1); it is saved with the cell.

    Raises:
        RuntimeError: Keras runs on a backend other than TensorFlow.
        ValueError: `function` does not take [x, h], or does not give one number a sample.
    """

    state_names = ("h",)

    def __init__(
        self,
        units: int,
        widths: Sequence[int] = (32, 32),
        activation: Any = "tanh",
        function: Any = None,
        **kwargs: Any,
    ) -> None:
        _refuse_other_backends()
        super().__init__(**kwargs)
        self.units, self.widths = int(units), tuple(widths)
        self.activation = keras.activations.get(activation)
        self.function = function
        self.state_size, self.output_size = self.units, 1
        if function is None:
            self.hidden = [self._dense(width, f"hidden_{n}", self.activation) for n, width in enumerate(self.widths)]
            self.head = self._dense(1, "head", None)
        else:
            _refuse_other_functions(function, self.units)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Makes F's weights, where F is an MLP; a function that was given has its own."""
        if self.function is None:
            width = int(input_shape[-1] or 0) + self.units
            for layer in (*self.hidden, self.head):
                layer.build((None, width))
                width = layer.units
        self.built = True

    def call(self, inputs: Tensor, states: Any, training: bool | None = None) -> tuple[Tensor, list[Tensor]]:
        """One timestep: inputs (batch, features) and [h], (batch, units), to y (batch, 1) and [∂F/∂h]."""
        state = tf.convert_to_tensor(states[0] if isinstance(states, list | tuple) else states)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(state)
            value = self.value(inputs, state, training=training)
        # A row's value reads no other row, so that the gradient of all values' sum is each row's own.
        return value, [tape.gradient(value, state, unconnected_gradients="zero")]

    def value(self, inputs: Tensor, state: Tensor, *, training: bool | None = None) -> Tensor:
        """F(x, h), (batch, 1)."""
        if self.function is not None:
            return self.function([inputs, state], training=training)
        flowing = tf.concat([inputs, state], axis=-1)
        for layer in self.hidden:
            flowing = layer(flowing)
        return self.head(flowing)

    def get_config(self) -> dict[str, Any]:
        """What `from_config` needs to make the cell again, F's own config included."""
        return {
            **super().get_config(),
            "units": self.units,
            "widths": list(self.widths),
            "activation": keras.activations.serialize(self.activation),
            "function": keras.saving.serialize_keras_object(self.function),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> GradientCell:
        """The cell of that config."""
        return cls(**{**config, "function": keras.saving.deserialize_keras_object(config.get("function"))})

    def _dense(self, units: int, name: str, activation: Any) -> Any:
        return keras.layers.Dense(units, activation=activation, dtype=self.dtype_policy, name=name)


def _refuse_other_backends() -> None:
    backend = keras.backend.backend()
    if backend != "tensorflow":
        raise RuntimeError(
            f"GradientCell takes its gradient with TensorFlow, and Keras runs on {backend!r}: set "
            f"KERAS_BACKEND=tensorflow"
        )


def _refuse_other_functions(function: Any, units: int) -> None:
    """Says what is wrong with a function of [x, h] that cannot be F."""
    inputs, outputs = (getattr(function, name, None) or [] for name in ("inputs", "outputs"))
    shapes = [tuple(tensor.shape) for tensor in inputs], [tuple(tensor.shape) for tensor in outputs]
    if len(inputs) != 2 or inputs[1].shape[1:] != (units,) or [shape[1:] for shape in shapes[1]] != [(1,)]:
        raise ValueError(
            f"GradientCell's function takes [x, h], h of shape (batch, {units}), and gives (batch, 1); this one takes "
            f"{shapes[0]} and gives {shapes[1]}"
        )
    # They use tf.nn.moments, which stops a gradient that counts from the second derivative on.
    wrong = [layer.name for layer in function._flatten_layers() if type(layer).__name__ in _STOPPED]
    if wrong:
        raise ValueError(f"GradientCell's function holds {wrong}, whose second derivatives TensorFlow gets wrong")


_STOPPED = ("GroupNormalization", "LayerNormalization", "SpectralNormalization")
