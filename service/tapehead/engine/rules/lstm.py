"""The LSTM's step and how it passes cotangents back (Hochreiter & Schmidhuber 1997; Gers et al. 2000).

    i, f, o = sigma(z_i), sigma(z_f), sigma(z_o)     g = phi(z_g)     z = x K + h' U + b, in the order i f g o
    c = f * c' + i * g                               h = o * phi(c)

The gates are diagonal, so a step's derivative is a few numbers a unit and one product with U.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import tensorflow as tf

from tapehead.engine.rules.activations import with_slope
from tapehead.engine.rules.cells import Keep, Kept, Nudges, Pulled, Tensor, nudged
from tapehead.engine.rules.stacks import by_gate, gate_seeds, laid_out, times_transposed


class _Local(NamedTuple):
    """d c/d z and d h/d z_o a unit, with the factors of the gates themselves."""

    carry: Tensor  # f: d c/d c'
    read: Tensor  # o * phi'(c): d h/d c
    slopes: Tensor  # sigma'(z_i), sigma'(z_f), phi'(z_g), sigma'(z_o), side by side
    factors: Tensor  # d c/d i, d c/d f, d c/d g, d h/d o, side by side


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
        """x K + b, for all timesteps at once."""
        projected = tf.tensordot(inputs, tf.convert_to_tensor(self.cell.kernel), 1)
        return projected + tf.convert_to_tensor(self.cell.bias) if self.cell.use_bias else projected

    def step(
        self, projected: Tensor, states: tuple[Tensor, ...], nudges: Nudges
    ) -> tuple[Tensor, tuple[Tensor, ...], Kept]:
        """h; (h, c); (z,)."""
        h, c = states
        z = projected + tf.matmul(h, tf.convert_to_tensor(self.cell.recurrent_kernel))
        i, f, g, o = self._activated(z, nudges)
        c = f * c + i * g
        h, c = nudged(self, (o * self.cell.activation(c), c), nudges)
        return h, (h, c), (z,)

    def local(self, inputs: Tensor, previous: tuple[Tensor, ...], kept: Kept, nudges: Nudges) -> _Local:
        """The numbers a unit that a step's derivative is made of."""
        z_i, z_f, z_g, z_o = tf.split(kept[0], 4, axis=-1)
        i, f, g, o = self._activated(kept[0], nudges)
        sigma, phi = self.cell.recurrent_activation, self.cell.activation
        slopes = [with_slope(one, z)[1] for one, z in ((sigma, z_i), (sigma, z_f), (phi, z_g), (sigma, z_o))]
        a, slope_a = with_slope(phi, f * previous[1] + i * g)
        return _Local(f, o * slope_a, tf.concat(slopes, axis=-1), tf.concat([g, previous[1], i, a], axis=-1))

    def gate_values(self, kept: Kept, nudges: Nudges) -> Mapping[str, Tensor]:
        """i, f, g, o by name."""
        return dict(zip(self.gates, self._activated(kept[0], nudges), strict=True))

    def pull(
        self,
        local: _Local,
        arriving: tuple[Tensor, ...],
        output: Tensor | None,
        gates: Mapping[str, Tensor],
        wanted: frozenset[str],
    ) -> Pulled:
        """Back through h = o * phi(c), c = f * c' + i * g, the gates, and z."""
        carry, read, slopes, factors = (value[:, None] for value in local)
        h = arriving[0] if output is None else arriving[0] + output
        c = arriving[1] + h * read
        at_gates = tf.concat([c, c, c, h], axis=-1) * factors
        if gates:
            at_gates += tf.concat(list(gate_seeds(self.gates, gates, h).values()), axis=-1)
        # A nudge of o moves h, not c; a nudge of i, f or g moves c within the step, hence h: that is in `c` above.
        z = at_gates * slopes
        previous = (times_transposed(z, self.cell.recurrent_kernel), c * carry)
        read_gates = dict(zip(self.gates, tf.split(at_gates, 4, axis=-1), strict=True)) if wanted else {}
        return Pulled((h, arriving[1]), previous, times_transposed(z, self.cell.kernel), read_gates, {"z": z})

    def matrices(self) -> LSTMMatrices:
        """The step's derivative as matrices."""
        return LSTMMatrices(self.cell)

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

    def _activated(self, z: Tensor, nudges: Nudges) -> tuple[Tensor, ...]:
        """i, f, g, o, each moved by its nudge."""
        sigma, phi = self.cell.recurrent_activation, self.cell.activation
        parts = zip(self.gates, (sigma, sigma, phi, sigma), tf.split(z, 4, axis=-1), strict=True)
        return tuple(one(part) + nudges[name] if name in nudges else one(part) for name, one, part in parts)


class LSTMMatrices:
    """An LSTM step's derivative as two matrices a row: of c and of h with respect to h' and x, through the gates.

        C = diag(g i') U_i^T + diag(c' f') U_f^T + diag(i g') U_g^T          O = diag(phi(c) o') U_o^T

    2 m n^2 multiplications for m cotangents where the way through the gates takes 4 m n^2.
    """

    def __init__(self, cell: Any) -> None:
        self.units = cell.units
        self.kernels = by_gate([cell.recurrent_kernel, cell.kernel], 4)

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
        i, f, g, o = tf.split((local.factors * local.slopes)[..., None], 4, axis=1)
        return i * kernels[0] + f * kernels[1] + g * kernels[2], o * kernels[3]
