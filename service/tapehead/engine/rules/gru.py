"""The gated recurrent unit's step and how it passes cotangents back (Cho et al. 2014), in Keras's two forms.

z, r = sigma(x_z + h' U_z), sigma(x_r + h' U_r)          h = z * h' + (1 - z) * g
reset_after:   g = phi(x_g + r * (h' U_g + b))           (the form cuDNN computes)
otherwise:     g = phi(x_g + (r * h') U_g)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import tensorflow as tf

from tapehead.engine.rules.activations import with_slope
from tapehead.engine.rules.cells import Keep, Kept, Nudges, Pulled, Tensor, nudged
from tapehead.engine.rules.stacks import by_gate, gate_seeds, laid_out, times_transposed


class _Local(NamedTuple):
    """A unit's numbers in one step."""

    update: Tensor  # z: d h/d h' at fixed gates
    reset: Tensor  # r
    slopes: Tensor  # sigma'(z_z), sigma'(z_r), phi'(z_g), side by side
    held: Tensor  # h' - g: d h/d z
    inner: Tensor  # what r multiplies: h' U_g + b, or h'


class GRURule:
    """The rule for `keras.layers.GRUCell`, with `reset_after` or without."""

    kind = "GRUCell"
    states = ("h",)
    gates = ("update_gate", "reset_gate", "candidate")
    output_state = 0
    within_step = False

    def __init__(self, cell: Any) -> None:
        self.cell = cell
        self.output_shape: tuple[int | None, ...] = (cell.units,)
        self.state_shapes = ((cell.units,),)
        self.gate_shapes = ((cell.units,),) * 3

    def project(self, inputs: Tensor) -> Tensor:
        """x K and the input bias, for all timesteps at once."""
        projected = tf.tensordot(inputs, tf.convert_to_tensor(self.cell.kernel), 1)
        if not self.cell.use_bias:
            return projected
        bias = tf.convert_to_tensor(self.cell.bias)
        return projected + (bias[0] if self.cell.reset_after else bias)

    def step(
        self, projected: Tensor, states: tuple[Tensor, ...], nudges: Nudges
    ) -> tuple[Tensor, tuple[Tensor, ...], Kept]:
        """h; (h,); the gates before their activations, and what the reset gate multiplies."""
        (previous,), n = states, self.cell.units
        x_zr, x_g = projected[..., : 2 * n], projected[..., 2 * n :]
        if self.cell.reset_after:
            product = tf.matmul(previous, tf.convert_to_tensor(self.cell.recurrent_kernel))
            if self.cell.use_bias:
                product += tf.convert_to_tensor(self.cell.bias)[1]
            gates, inner = x_zr + product[..., : 2 * n], product[..., 2 * n :]
            z, r = self._update_and_reset(gates, nudges)
            before = x_g + r * inner
        else:
            kernel_zr, kernel_g = self._recurrent_kernels()
            gates, inner = x_zr + tf.matmul(previous, kernel_zr), previous
            z, r = self._update_and_reset(gates, nudges)
            before = x_g + tf.matmul(r * previous, kernel_g)
        g = _moved(self.cell.activation(before), nudges, "candidate")
        (h,) = nudged(self, (z * previous + (1 - z) * g,), nudges)
        return h, (h,), (tf.concat([gates, before], axis=-1), inner)

    def local(self, inputs: Tensor, previous: tuple[Tensor, ...], kept: Kept, nudges: Nudges) -> _Local:
        """The numbers a unit that a step's derivative is made of."""
        z_z, z_r, z_g = tf.split(kept[0], 3, axis=-1)
        z, r, g = self.gate_values(kept, nudges).values()
        sigma, phi = self.cell.recurrent_activation, self.cell.activation
        slopes = [with_slope(one, part)[1] for one, part in ((sigma, z_z), (sigma, z_r), (phi, z_g))]
        return _Local(z, r, tf.concat(slopes, axis=-1), previous[0] - g, kept[1])

    def gate_values(self, kept: Kept, nudges: Nudges) -> Mapping[str, Tensor]:
        """z, r, g by name."""
        n = self.cell.units
        z, r = self._update_and_reset(kept[0][..., : 2 * n], nudges)
        g = _moved(self.cell.activation(kept[0][..., 2 * n :]), nudges, "candidate")
        return dict(zip(self.gates, (z, r, g), strict=True))

    def pull(
        self,
        local: _Local,
        arriving: tuple[Tensor, ...],
        output: Tensor | None,
        gates: Mapping[str, Tensor],
        wanted: frozenset[str],
    ) -> Pulled:
        """Back through h, the candidate, the reset gate that the candidate reads, and the pre-activations."""
        update, reset, slopes, held, inner = (value[:, None] for value in local)
        slope_z, slope_r, slope_g = tf.split(slopes, 3, axis=-1)
        h = arriving[0] if output is None else arriving[0] + output
        seeds = gate_seeds(self.gates, gates, h)
        at_z, at_g = h * held + seeds["update_gate"], h * (1 - update) + seeds["candidate"]
        z_g = at_g * slope_g
        if self.cell.reset_after:
            at_r = z_g * inner + seeds["reset_gate"]
            z = tf.concat([at_z * slope_z, at_r * slope_r], axis=-1)
            recurrent = tf.concat([z, z_g * reset], axis=-1)
            previous = h * update + times_transposed(recurrent, self.cell.recurrent_kernel)
        else:
            kernel_zr, kernel_g = self._recurrent_kernels()
            through = times_transposed(z_g, kernel_g)
            at_r = through * inner + seeds["reset_gate"]
            z = tf.concat([at_z * slope_z, at_r * slope_r], axis=-1)
            recurrent = tf.concat([z, z_g], axis=-1)
            previous = h * update + through * reset + times_transposed(z, kernel_zr)
        at_inputs = tf.concat([z, z_g], axis=-1)
        inputs = times_transposed(at_inputs, self.cell.kernel)
        read = dict(zip(self.gates, (at_z, at_r, at_g), strict=True)) if wanted else {}
        return Pulled((h,), (previous,), inputs, read, {"inputs": at_inputs, "recurrent": recurrent})

    def matrices(self) -> GRUMatrices | None:
        """The step's derivative as a matrix; none without `reset_after`: its reset gate sits between two products."""
        return GRUMatrices(self.cell) if self.cell.reset_after else None

    def weight_cotangents(
        self,
        inputs: Tensor,
        previous: tuple[Tensor, ...],
        kept: Kept,
        nudges: Nudges,
        rights: Mapping[str, Tensor],
        keep: Keep,
    ) -> list[tuple[Any, Tensor]]:
        """x^T of what reached x K; h'^T (or (r * h')^T for the candidate) of what reached h' U."""
        at_inputs, recurrent = rights["inputs"], rights["recurrent"]
        if self.cell.reset_after:
            at_kernel = keep.contracted(previous[0], recurrent)
            bias = keep.stacked([keep.contracted(None, at_inputs), keep.contracted(None, recurrent)])
        else:
            n = self.cell.units
            held = self.gate_values(kept, nudges)["reset_gate"] * previous[0]
            parts = (previous[0], recurrent[..., : 2 * n]), (held, recurrent[..., 2 * n :])
            at_kernel = keep.beside([keep.contracted(left, right) for left, right in parts])
            bias = keep.contracted(None, at_inputs)
        found = [(self.cell.kernel, keep.contracted(inputs, at_inputs)), (self.cell.recurrent_kernel, at_kernel)]
        return [*found, (self.cell.bias, bias)] if self.cell.use_bias else found

    def _update_and_reset(self, before: Tensor, nudges: Nudges) -> tuple[Tensor, Tensor]:
        """z and r, each moved by its nudge."""
        z, r = tf.split(self.cell.recurrent_activation(before), 2, axis=-1)
        return _moved(z, nudges, "update_gate"), _moved(r, nudges, "reset_gate")

    def _recurrent_kernels(self) -> tuple[Tensor, Tensor]:
        kernel = tf.convert_to_tensor(self.cell.recurrent_kernel)
        return kernel[:, : 2 * self.cell.units], kernel[:, 2 * self.cell.units :]


def _moved(value: Tensor, nudges: Nudges, name: str) -> Tensor:
    return value + nudges[name] if name in nudges else value


class GRUMatrices:
    """A GRU step's derivative, with `reset_after`, as one matrix a row to h' and one to x.

        J = diag(z) + diag(held z') U_z^T + diag((1 - z) g' inner r') U_r^T + diag((1 - z) g' r) U_g^T

    m n^2 multiplications for m cotangents where the way through the gates takes 3 m n^2.
    """

    def __init__(self, cell: Any) -> None:
        kernels = by_gate([cell.recurrent_kernel, cell.kernel], 3)
        self.recurrent, self.kernel = kernels[..., : cell.units], kernels[..., cell.units :]

    def pull(self, local: _Local, arriving: tuple[Tensor, ...], output: Tensor | None) -> Pulled:
        """Back through the two matrices."""
        h = arriving[0] if output is None else arriving[0] + output
        z, r, g = self._scales(local)
        to_state = z * self.recurrent[0] + r * self.recurrent[1] + g * local.reset[..., None] * self.recurrent[2]
        to_inputs = z * self.kernel[0] + r * self.kernel[1] + g * self.kernel[2]
        previous = tf.matmul(h, to_state) + h * local.update[:, None]
        return Pulled((h,), (previous,), tf.matmul(h, to_inputs), {}, {})

    def of_state(self, local: _Local, state: str) -> tuple[Tensor, ...]:
        """d h/d h'."""
        (z, r, g), kernels = self._scales(local), laid_out(self.recurrent)
        formed = z * kernels[0] + r * kernels[1] + g * local.reset[..., None] * kernels[2]
        return (formed + tf.linalg.diag(local.update),)

    def _scales(self, local: _Local) -> tuple[Tensor, Tensor, Tensor]:
        """What each gate's columns are scaled by, (rows, units, 1)."""
        slope_z, slope_r, slope_g = tf.split(local.slopes, 3, axis=-1)
        g = (1 - local.update) * slope_g
        scales = (local.held * slope_z, g * local.inner * slope_r, g)
        return scales[0][..., None], scales[1][..., None], scales[2][..., None]
