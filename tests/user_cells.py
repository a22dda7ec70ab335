"""Cells and layers as users bring them, in a module that a server imports: states of every shape, and a function F."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

registered = keras.saving.register_keras_serializable("user_cells")


class Cell(keras.layers.Layer):
    """A cell with one kernel on its inputs."""

    units: int

    def build(self, input_shape: Any) -> None:
        self.kernel = self.add_weight(shape=(input_shape[-1], self.units), name="kernel")
        self.built = True

    def zeros(self, batch_size: Any, *shape: int) -> Any:
        return ops.zeros((batch_size, *shape), dtype=self.compute_dtype)


@registered
class FastWeights(Cell):
    """A vector and a matrix: h' = tanh(x K + M h), M' = 0.7 M + h' h'ᵀ / 2."""

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = self.output_size = units
        self.state_size = [units, (units, units)]
        self.state_names = ("h", "fast")

    def get_initial_state(self, batch_size: Any = None) -> Any:
        return [self.zeros(batch_size, self.units), self.zeros(batch_size, self.units, self.units)]

    def call(self, inputs: Any, states: Any) -> Any:
        h, fast = states
        h = ops.tanh(ops.matmul(inputs, self.kernel) + ops.einsum("bij,bj->bi", fast, h))
        return h, [h, 0.7 * fast + 0.5 * ops.einsum("bi,bj->bij", h, h)]

    def get_config(self) -> Any:
        return {**super().get_config(), "units": self.units}


@registered
class Matrix(Cell):
    """One matrix, its size a tuple: M' = tanh(0.6 M M + a aᵀ), a = x K; the output is the sum of its rows."""

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = self.output_size = units
        self.state_size = (units, units)

    def get_initial_state(self, batch_size: Any = None) -> Any:
        return self.zeros(batch_size, self.units, self.units)

    def call(self, inputs: Any, states: Any) -> Any:
        (matrix,) = states
        a = ops.matmul(inputs, self.kernel)
        matrix = ops.tanh(0.6 * ops.matmul(matrix, matrix) + ops.einsum("bi,bj->bij", a, a))
        return ops.sum(matrix, axis=1), [matrix]

    def get_config(self) -> Any:
        return {**super().get_config(), "units": self.units}


@registered
class Nested(Cell):
    """Three states, two of them in a list of their own: [p, [q, M]]."""

    units = 3

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.output_size = 3
        self.state_size = [4, [3, (2, 2)]]

    def get_initial_state(self, batch_size: Any = None) -> Any:
        return [self.zeros(batch_size, 4), [self.zeros(batch_size, 3), self.zeros(batch_size, 2, 2)]]

    def call(self, inputs: Any, states: Any) -> Any:
        p, (q, matrix) = states
        p_next = ops.tanh(0.8 * p + ops.reshape(matrix, (-1, 4)))
        q_next = ops.tanh(0.5 * q + ops.matmul(inputs, self.kernel) + p[:, :3])
        matrix = 0.4 * ops.tanh(matrix) + ops.einsum("bi,bj->bij", q_next[:, :2], p_next[:, 1:3])
        return q_next + matrix[:, 0, :1], [p_next, [q_next, matrix]]


@registered
class Cubic(keras.layers.Layer):
    """F(x, h) = a Σ h³ / 6 + hᵀ S h / 2 + hᵀ B x, whose Hessian in h is a diag(h) + (S + Sᵀ) / 2."""

    def build(self, shapes: Any) -> None:
        features, units = shapes[0][-1], shapes[1][-1]
        self.a = self.add_weight(shape=(), name="a", initializer="ones")
        self.s = self.add_weight(shape=(units, units), name="s", initializer=keras.initializers.RandomNormal(0, 0.3, 1))
        self.b = self.add_weight(shape=(units, features), name="b", initializer=keras.initializers.RandomNormal(seed=2))
        self.built = True

    def call(self, inputs: Any) -> Any:
        x, h = inputs
        quadratic = ops.sum(h * ops.matmul(h, ops.transpose(self.s)), axis=-1, keepdims=True) / 2
        linear = ops.sum(h * ops.matmul(x, ops.transpose(self.b)), axis=-1, keepdims=True)
        return self.a * ops.sum(h**3, axis=-1, keepdims=True) / 6 + quadratic + linear
