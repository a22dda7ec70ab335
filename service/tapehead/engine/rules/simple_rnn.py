"""The simple recurrent cell's step and how it passes cotangents back (Elman 1990).

h = phi(z)     z = x K + h' U + b
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from tapehead.engine.rules.activations import reads_z, slope
from tapehead.engine.rules.cells import Keep, Kept, Nudges, Pulled, Tensor, nudged
from tapehead.engine.rules.stacks import times, transposed


class SimpleRNNRule:
    """The rule for `keras.layers.SimpleRNNCell`."""

    kind = "SimpleRNNCell"
    states = ("h",)
    gates: tuple[str, ...] = ()
    gate_shapes: tuple[tuple[int, ...], ...] = ()
    output_state = 0
    within_step = False

    def __init__(self, cell: Any) -> None:
        self.cell = cell
        self.output_shape: tuple[int | None, ...] = (cell.units,)
        self.state_shapes = ((cell.units,),)

    def project(self, inputs: Tensor) -> Tensor:
        """x K + b, for all timesteps at once."""
        projected = tf.tensordot(inputs, tf.convert_to_tensor(self.cell.kernel), 1)
        return projected + tf.convert_to_tensor(self.cell.bias) if self.cell.use_bias else projected

    def unproject(self, cotangents: Tensor, kernels: tuple[Tensor, Tensor]) -> Tensor:
        """z K^T."""
        return times(cotangents, kernels[1])

    def step(
        self, projected: Tensor, states: tuple[Tensor, ...], nudges: Nudges
    ) -> tuple[Tensor, tuple[Tensor, ...], Kept]:
        """h; (h,); phi(z), and z where its slope takes it."""
        z = projected + tf.matmul(states[0], tf.convert_to_tensor(self.cell.recurrent_kernel))
        value = self.cell.activation(z)
        (h,) = nudged(self, (value,), nudges)
        return h, (h,), (value, z) if reads_z(self.cell.activation) else (value,)

    def local(self, inputs: Tensor, previous: tuple[Tensor, ...], kept: Kept, nudges: Nudges) -> Tensor:
        """phi'(z)."""
        return slope(self.cell.activation, kept[0], kept[-1])

    def gate_values(self, kept: Kept, nudges: Nudges) -> Mapping[str, Tensor]:
        """None: the cell has no gates."""
        return {}

    def kernels(self) -> tuple[Tensor, Tensor]:
        """U and K turned: apart, for a product with both side by side takes longer where their widths do not fit."""
        return transposed(self.cell.recurrent_kernel), transposed(self.cell.kernel)

    def pull(
        self,
        local: Tensor,
        kernels: tuple[Tensor, Tensor],
        arriving: tuple[Tensor, ...],
        output: Tensor | None,
        gates: Mapping[str, Tensor],
        wanted: frozenset[str],
    ) -> Pulled:
        """Back through h = phi(z), z = x K + h' U + b."""
        h = arriving[0] if output is None else arriving[0] + output
        z = h * local[:, None]
        return Pulled((h,), (times(z, kernels[0]),), self.unproject(z, kernels), {}, {"z": z}, z)

    many = None

    def matrices(self, *, inputs: bool = True) -> None:
        """None: one product with the kernel is all a step takes."""

    def weight_cotangents(
        self,
        inputs: Tensor,
        previous: tuple[Tensor, ...],
        kept: Kept,
        nudges: Nudges,
        rights: Mapping[str, Tensor],
        keep: Keep,
    ) -> list[tuple[Any, Tensor]]:
        """x^T z, h'^T z and z."""
        found = [
            (self.cell.kernel, keep.contracted(inputs, rights["z"])),
            (self.cell.recurrent_kernel, keep.contracted(previous[0], rights["z"])),
        ]
        return [*found, (self.cell.bias, keep.contracted(None, rights["z"]))] if self.cell.use_bias else found
