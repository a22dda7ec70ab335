"""The gated recurrent unit's step and how it passes cotangents back (Cho et al. 2014), in Keras's two forms.

z, r = sigma(x_z + h' U_z), sigma(x_r + h' U_r)          h = z * h' + (1 - z) * g
reset_after:   g = phi(x_g + r * (h' U_g + b))           (the form cuDNN computes)
otherwise:     g = phi(x_g + (r * h') U_g)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import tensorflow as tf

from tapehead.engine.rules.activations import reads_z, slope
from tapehead.engine.rules.cells import Keep, Kept, Nudges, Pulled, Tensor, nudged
from tapehead.engine.rules.stacks import by_gate, gate_seeds, laid_out, times, transposed


class _Local(NamedTuple):
    """A unit's numbers in one step."""

    update: Tensor  # z: d h/d h' at fixed gates
    reset: Tensor  # r
    slope_z: Tensor  # sigma' where z was made
    slope_r: Tensor  # sigma' where r was made
    slope_g: Tensor  # phi' where g was made
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

    def unproject(self, cotangents: Tensor, kernels: tuple[Tensor, ...]) -> Tensor:
        """From x K to x."""
        return times(cotangents, kernels[-1])

    def step(
        self, projected: Tensor, states: tuple[Tensor, ...], nudges: Nudges
    ) -> tuple[Tensor, tuple[Tensor, ...], Kept]:
        """h; (h,); the gates, what the reset gate multiplies, and the pre-activations where slopes take them."""
        (previous,), n = states, self.cell.units
        x_zr, x_g = projected[..., : 2 * n], projected[..., 2 * n :]
        if self.cell.reset_after:
            product = tf.matmul(previous, tf.convert_to_tensor(self.cell.recurrent_kernel))
            if self.cell.use_bias:
                product += tf.convert_to_tensor(self.cell.bias)[1]
            before, inner = x_zr + product[..., : 2 * n], product[..., 2 * n :]
            gates = self.cell.recurrent_activation(before)
            z, r = _update_and_reset(gates, nudges)
            before_g = x_g + r * inner
        else:
            kernel_zr, kernel_g = self._recurrent_kernels()
            before, inner = x_zr + tf.matmul(previous, kernel_zr), previous
            gates = self.cell.recurrent_activation(before)
            z, r = _update_and_reset(gates, nudges)
            before_g = x_g + tf.matmul(r * previous, kernel_g)
        candidate = self.cell.activation(before_g)
        g = _moved(candidate, nudges, "candidate")
        (h,) = nudged(self, (z * previous + (1 - z) * g,), nudges)
        kept = (gates, candidate, inner)
        return h, (h,), (*kept, before, before_g) if self._reads_z else kept

    def local(self, inputs: Tensor, previous: tuple[Tensor, ...], kept: Kept, nudges: Nudges) -> _Local:
        """The numbers a unit that a step's derivative is made of."""
        gates, candidate, inner = kept[:3]
        before, before_g = kept[3:] or (None, None)
        z, r, g = self.gate_values(kept, nudges).values()
        slope_z, slope_r = tf.split(slope(self.cell.recurrent_activation, gates, before), 2, axis=-1)
        slope_g = slope(self.cell.activation, candidate, before_g)
        return _Local(z, r, slope_z, slope_r, slope_g, previous[0] - g, inner)

    def gate_values(self, kept: Kept, nudges: Nudges) -> Mapping[str, Tensor]:
        """z, r, g by name."""
        z, r = _update_and_reset(kept[0], nudges)
        return dict(zip(self.gates, (z, r, _moved(kept[1], nudges, "candidate")), strict=True))

    def kernels(self) -> tuple[Tensor, ...]:
        """U and K turned; where r is applied before the product, U in two parts: of z and r, and of g."""
        turned = transposed(self.cell.kernel)
        if self.cell.reset_after:
            return transposed(self.cell.recurrent_kernel), turned
        return (*map(transposed, self._recurrent_kernels()), turned)

    def pull(
        self,
        local: _Local,
        kernels: tuple[Tensor, ...],
        arriving: tuple[Tensor, ...],
        output: Tensor | None,
        gates: Mapping[str, Tensor],
        wanted: frozenset[str],
    ) -> Pulled:
        """Back through h, the candidate, the reset gate that the candidate reads, and the pre-activations."""
        update, reset, slope_z, slope_r, slope_g, held, inner = (value[:, None] for value in local)
        h = arriving[0] if output is None else arriving[0] + output
        seeds = gate_seeds(self.gates, gates, h)
        at_z, at_g = h * held + seeds["update_gate"], h * (1 - update) + seeds["candidate"]
        z_g = at_g * slope_g
        if self.cell.reset_after:
            at_r = z_g * inner + seeds["reset_gate"]
            z = tf.concat([at_z * slope_z, at_r * slope_r], axis=-1)
            recurrent = tf.concat([z, z_g * reset], axis=-1)
            previous = h * update + times(recurrent, kernels[0])
        else:
            through = times(z_g, kernels[1])
            at_r = through * inner + seeds["reset_gate"]
            z = tf.concat([at_z * slope_z, at_r * slope_r], axis=-1)
            recurrent = tf.concat([z, z_g], axis=-1)
            previous = h * update + through * reset + times(z, kernels[0])
        at_inputs = tf.concat([z, z_g], axis=-1)
        inputs = self.unproject(at_inputs, kernels)
        read = dict(zip(self.gates, (at_z, at_r, at_g), strict=True)) if wanted else {}
        return Pulled((h,), (previous,), inputs, read, {"inputs": at_inputs, "recurrent": recurrent}, at_inputs)

    @property
    def many(self) -> int:
        """Without `reset_after` forming the matrix takes a product of its own, as many multiplications as n vectors."""
        return 32 if self.cell.reset_after else max(32, 3 * self.cell.units // 4)

    def matrices(self, *, inputs: bool = True) -> GRUMatrices:
        """The step's derivative as a matrix."""
        return GRUMatrices(self.cell, inputs=inputs)

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

    @property
    def _reads_z(self) -> bool:
        return reads_z(self.cell.recurrent_activation, self.cell.activation)

    def _recurrent_kernels(self) -> tuple[Tensor, Tensor]:
        kernel = tf.convert_to_tensor(self.cell.recurrent_kernel)
        return kernel[:, : 2 * self.cell.units], kernel[:, 2 * self.cell.units :]


def _update_and_reset(gates: Tensor, nudges: Nudges) -> tuple[Tensor, Tensor]:
    """z and r, each moved by its nudge."""
    z, r = tf.split(gates, 2, axis=-1)
    return _moved(z, nudges, "update_gate"), _moved(r, nudges, "reset_gate")


def _moved(value: Tensor, nudges: Nudges, name: str) -> Tensor:
    return value + nudges[name] if name in nudges else value


class GRUMatrices:
    """A GRU step's derivative as one matrix a row to h' and one to x, formed from the gates' columns.

        with reset_after    J = diag(z) + diag(held z') U_z^T + diag(g) [diag(inner r') U_r^T + diag(r) U_g^T]
        otherwise           J = diag(z) + diag(held z') U_z^T + diag(g) U_g^T [diag(inner r') U_r^T + diag(r)]

    with g = (1 - z) phi'. Once formed, m n^2 multiplications for m cotangents, where the way through the gates takes
    3 m n^2; forming the second takes n^3.
    """

    def __init__(self, cell: Any, *, inputs: bool) -> None:
        self.reset_after, self.units = cell.reset_after, cell.units
        self.kernels = by_gate([cell.recurrent_kernel, *([cell.kernel] if inputs else [])], 3)

    def pull(self, local: _Local, arriving: tuple[Tensor, ...], output: Tensor | None) -> Pulled:
        """Back through the two matrices."""
        h = arriving[0] if output is None else arriving[0] + output
        to_state, to_inputs = self._formed(local, self.kernels)
        return Pulled((h,), (tf.matmul(h, to_state) + h * local.update[:, None],), tf.matmul(h, to_inputs), {}, {})

    def of_state(self, local: _Local, state: str) -> tuple[Tensor, ...]:
        """d h/d h'."""
        return (self._formed(local, laid_out(self.kernels))[0] + tf.linalg.diag(local.update),)

    def _formed(self, local: _Local, kernels: Tensor) -> tuple[Tensor, Tensor]:
        """J without diag(z), and the matrix to x: (rows, units, units) and (rows, units, features)."""
        state, inputs = kernels[..., : self.units], kernels[..., self.units :]
        z, g = (local.held * local.slope_z)[..., None], ((1 - local.update) * local.slope_g)[..., None]
        at_r = local.inner * local.slope_r
        if self.reset_after:
            r = g * at_r[..., None]
            to_state = z * state[0] + r * state[1] + g * local.reset[..., None] * state[2]
            return to_state, z * inputs[0] + r * inputs[1] + g * inputs[2]
        through = times(state[2] * at_r[:, None], kernels[1])
        to_state = z * state[0] + g * (through[..., : self.units] + state[2] * local.reset[:, None])
        return to_state, z * inputs[0] + g * (through[..., self.units :] + inputs[2])
