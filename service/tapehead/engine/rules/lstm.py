"""The LSTM's step and how it passes cotangents back (Hochreiter & Schmidhuber 1997; Gers et al. 2000).

    i, f, o = sigma(z_i), sigma(z_f), sigma(z_o)     g = phi(z_g)     z = x K + h' U + b, in the order i f g o
    c = f * c' + i * g                               h = o * phi(c)

The gates are diagonal, so a step's derivative is a few numbers a unit and one product with U.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import tensorflow as tf

from tapehead.engine.rules.activations import Activation, beside, reads_z, slope
from tapehead.engine.rules.cells import Keep, Kept, Nudges, Pulled, Tensor, nudged
from tapehead.engine.rules.stacks import by_gate, gate_seeds, laid_out, times, transposed


class _Local(NamedTuple):
    """d c/d z and d h/d z_o a unit, with the factors of the gates themselves."""

    carry: Tensor  # f: d c/d c'
    read: Tensor  # o * phi'(c): d h/d c
    slopes: tuple[Tensor, ...]  # sigma'(z_i), sigma'(z_f), phi'(z_g), sigma'(z_o)
    factors: tuple[Tensor, ...]  # d c/d i, d c/d f, d c/d g, d h/d o
    through: Tensor  # d c/d z_i, d c/d z_f, d c/d z_g, d h/d z_o, side by side


class LSTMRule:
    """The rule for `keras.layers.LSTMCell`."""

    kind = "LSTMCell"
    states = ("h", "c")
    gates = ("input_gate", "forget_gate", "cell_candidate", "output_gate")
    output_state = 0
    within_step = False

    def __init__(self, cell: Any) -> None:
        self.cell = cell
        self.output_shape: tuple[int | None, ...] = (cell.units,)
        self.state_shapes = ((cell.units,), (cell.units,))
        self.gate_shapes = ((cell.units,),) * 4

    def project(self, inputs: Tensor) -> Tensor:
        """x K, for all timesteps at once: the bias is added in the step, where it costs no pass through memory."""
        return tf.tensordot(inputs, tf.convert_to_tensor(self.cell.kernel), 1)

    def unproject(self, cotangents: Tensor, kernels: tuple[Tensor, Tensor]) -> Tensor:
        """z K^T."""
        return times(cotangents, kernels[1])

    def step(
        self, projected: Tensor, states: tuple[Tensor, ...], nudges: Nudges
    ) -> tuple[Tensor, tuple[Tensor, ...], Kept]:
        """h; (h, c); the gates, and z where their slopes take it."""
        h, c = states
        z = projected + tf.matmul(h, tf.convert_to_tensor(self.cell.recurrent_kernel))
        if self.cell.use_bias:
            z += tf.convert_to_tensor(self.cell.bias)
        gates = beside([(kind, self.cell.units) for kind in self._kinds], z)
        i, f, g, o = self._moved(gates, nudges)
        c = f * c + i * g
        h, c = nudged(self, (o * self.cell.activation(c), c), nudges)
        return h, (h, c), (gates, z) if reads_z(*self._kinds) else (gates,)

    def local(self, inputs: Tensor, previous: tuple[Tensor, ...], kept: Kept, nudges: Nudges) -> _Local:
        """The numbers a unit that a step's derivative is made of."""
        phi = self.cell.activation
        parts = zip(self._kinds, *(tf.split(value, 4, axis=-1) for value in (kept[0], kept[-1])), strict=True)
        slopes = tuple(slope(kind, gate, z) for kind, gate, z in parts)
        i, f, g, o = self._moved(kept[0], nudges)
        c = f * previous[1] + i * g
        a = phi(c)
        factors = (g, previous[1], i, a)
        through = tf.concat([one * other for one, other in zip(factors, slopes, strict=True)], axis=-1)
        return _Local(f, o * slope(phi, a, c), slopes, factors, through)

    def gate_values(self, kept: Kept, nudges: Nudges) -> Mapping[str, Tensor]:
        """i, f, g, o by name."""
        return dict(zip(self.gates, self._moved(kept[0], nudges), strict=True))

    def kernels(self) -> tuple[Tensor, Tensor]:
        """U and K turned: apart, for a product with both side by side takes longer where their widths do not fit."""
        return transposed(self.cell.recurrent_kernel), transposed(self.cell.kernel)

    def pull(
        self,
        local: _Local,
        kernels: tuple[Tensor, Tensor],
        arriving: tuple[Tensor, ...],
        output: Tensor | None,
        gates: Mapping[str, Tensor],
        wanted: frozenset[str],
    ) -> Pulled:
        """Back through h = o * phi(c), c = f * c' + i * g, the gates, and z."""
        carry, read, slopes, factors, through = tf.nest.map_structure(lambda value: value[:, None], local)
        h = arriving[0] if output is None else arriving[0] + output
        c = arriving[1] + h * read
        # A nudge of o moves h, not c; a nudge of i, f or g moves c within the step, hence h: that is in `c` already.
        reached = (c, c, c, h)
        z = tf.concat(reached, axis=-1) * through
        read_gates = {}
        if gates or wanted:
            seeds = gate_seeds(self.gates, gates, h)
            z += tf.concat([seed * one for seed, one in zip(seeds.values(), slopes, strict=True)], axis=-1)
            at_gates = (seed + one * factor for seed, one, factor in zip(seeds.values(), reached, factors, strict=True))
            read_gates = dict(zip(self.gates, at_gates, strict=True))
        previous = (times(z, kernels[0]), c * carry)
        return Pulled((h, arriving[1]), previous, self.unproject(z, kernels), read_gates, {"z": z}, z)

    many = 48

    def matrices(self, *, inputs: bool = True) -> LSTMMatrices:
        """The step's derivative as matrices."""
        return LSTMMatrices(self.cell, inputs=inputs)

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

    @property
    def _kinds(self) -> tuple[Activation, ...]:
        """The activations of i, f, g and o."""
        sigma = self.cell.recurrent_activation
        return (sigma, sigma, self.cell.activation, sigma)

    def _moved(self, gates: Tensor, nudges: Nudges) -> tuple[Tensor, ...]:
        """i, f, g, o, each moved by its nudge."""
        parts = zip(self.gates, tf.split(gates, 4, axis=-1), strict=True)
        return tuple(part + nudges[name] if name in nudges else part for name, part in parts)


class LSTMMatrices:
    """An LSTM step's derivative as two matrices a row: of c and of h with respect to h' and x, through the gates.

        C = diag(g i') U_i^T + diag(c' f') U_f^T + diag(i g') U_g^T          O = diag(phi(c) o') U_o^T

    2 m n^2 multiplications for m cotangents where the way through the gates takes 4 m n^2.
    """

    def __init__(self, cell: Any, *, inputs: bool) -> None:
        self.units = cell.units
        self.kernels = by_gate([cell.recurrent_kernel, *([cell.kernel] if inputs else [])], 4)

    def pull(self, local: _Local, arriving: tuple[Tensor, ...], output: Tensor | None) -> Pulled:
        """Back through h = o * phi(c), c = f * c' + i * g, and the two matrices."""
        h = arriving[0] if output is None else arriving[0] + output
        c = arriving[1] + h * local.read[:, None]
        candidate, output_gate = self._formed(local, self.kernels)
        both = tf.matmul(c, candidate) + tf.matmul(h, output_gate)
        previous = (both[..., : self.units], c * local.carry[:, None])
        return Pulled((h, arriving[1]), previous, both[..., self.units :], {}, {})

    def of_state(self, local: _Local, state: str) -> tuple[Tensor, ...]:
        """d c/d (h', c') or d h/d (h', c')."""
        candidate, output_gate = self._formed(local, laid_out(self.kernels[..., : self.units]))
        if state == "c":
            return candidate, tf.linalg.diag(local.carry)
        return local.read[..., None] * candidate + output_gate, tf.linalg.diag(local.read * local.carry)

    def _formed(self, local: _Local, kernels: Tensor) -> tuple[Tensor, Tensor]:
        """C and O, (rows, units, columns)."""
        i, f, g, o = tf.split(local.through[..., None], 4, axis=1)
        return i * kernels[0] + f * kernels[1] + g * kernels[2], o * kernels[3]
