"""What every rule for a recurrent cell offers: how the cell steps, and how a step passes cotangents back.

Shapes, here and in all rules: a row is one sample, or one (sample, timestep). States are (rows, *state). A stack of m
cotangents that travel together is (rows, m, *state). `local` values are a step's own numbers, made for all timesteps
at once; `pull` meets them row by row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import tensorflow as tf

Tensor = Any
Local = Any
Kept = Any
Nudges = Mapping[str, Tensor]  # what is added to states and gates where they are made, by name


@dataclass(frozen=True)
class Keep:
    """Which axes a weight's cotangents keep instead of being summed over them."""

    rows: bool = False
    timesteps: bool = False

    def contracted(self, left: Tensor | None, right: Tensor) -> Tensor:
        """left^T right at every timestep, (timesteps, rows, a) and (timesteps, rows, m, b): (…, m, a, b), summed over
        the axes that are not kept; with no left, (…, m, b)."""
        kept = ("r" if self.rows else "") + ("t" if self.timesteps else "")
        if left is None:
            return tf.einsum(f"trmb->{kept}mb", right)
        return tf.einsum(f"tra,trmb->{kept}mab", left, right)

    def beside(self, parts: Sequence[Tensor]) -> Tensor:
        """The cotangents of a weight from those of its columns."""
        return tf.concat(parts, axis=-1)

    def stacked(self, parts: Sequence[Tensor]) -> Tensor:
        """The cotangents of a weight from those of its rows."""
        return tf.stack(parts, axis=-2)

    def entry(self, variable: Any, cotangents: Tensor) -> Any:
        """What is kept of a weight's cotangents of one entry of the axes kept: a nest of tensors."""
        return cotangents

    def entry_spec(self, variable: Any, dtype: Any) -> Any:
        """The shapes of what `entry` gives."""
        return tf.TensorSpec(variable.shape, dtype)


@dataclass(frozen=True)
class Pulled:
    """What one step passes back.

    `totals` are the cotangents of the states that the step returned, everything that reads them within the step
    included; `previous` those of the states that it took; `inputs` that of what `project` was given; `gates` those
    of the gates asked for; `rights` what the weights' cotangents are made of, by the rule's own names. `projected` are
    the cotangents of what `project` returned, where the rule has them: `inputs` is `unproject` of them.
    """

    totals: tuple[Tensor, ...]
    previous: tuple[Tensor, ...]
    inputs: Tensor
    gates: Mapping[str, Tensor]
    rights: Mapping[str, Tensor]
    projected: Tensor | None = None


class StepMatrices(Protocol):
    """A step's derivative formed first, and applied to the whole stack after: fewer multiplications for many vectors.

    A gate is diagonal, so what a gate's columns of a kernel pass back is those columns scaled by a few numbers a unit;
    columns of several gates that the same cotangent reaches are added up before any product.
    """

    def pull(self, local: Local, arriving: tuple[Tensor, ...], output: Tensor | None) -> Pulled:
        """As the rule's `pull`, without gates and without rights."""

    def of_state(self, local: Local, state: str) -> tuple[Tensor, ...]:
        """d state / d each state that the step took: (rows, units, units), output unit first."""


class CellRule(Protocol):
    """How one kind of cell steps, and passes a stack of cotangents back through a step."""

    @property
    def kind(self) -> str:
        """The cell's class name."""

    @property
    def states(self) -> tuple[str, ...]:
        """The names of its states, in flattened order; a cell of a stack puts `cells.0.` before."""

    @property
    def state_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Their shapes without the batch axis."""

    @property
    def gates(self) -> tuple[str, ...]:
        """The names of its gates, in the kernel's order; empty where the rule knows none."""

    @property
    def gate_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Their shapes without the batch axis."""

    @property
    def output_state(self) -> int | None:
        """Which state the cell returns as its output too, one and the same tensor; None where its output is apart."""

    @property
    def within_step(self) -> bool:
        """Whether a returned state is read again within the step, so that totals differ from what arrived."""

    @property
    def output_shape(self) -> tuple[int | None, ...]:
        """The shape of its output without the batch axis."""

    def project(self, inputs: Tensor) -> Tensor:
        """The part of a step that needs no state, for all timesteps at once: (..., features) to (..., any)."""

    def unproject(self, cotangents: Tensor, kernels: Any) -> Tensor:
        """From what `project` returned back to what it was given: (..., any) to (..., features)."""

    def step(
        self, projected: Tensor, states: tuple[Tensor, ...], nudges: Nudges
    ) -> tuple[Tensor, tuple[Tensor, ...], Kept]:
        """One step: its output, the states it returns, and a nest of what `local` needs of it."""

    def local(self, inputs: Tensor, previous: tuple[Tensor, ...], kept: Kept, nudges: Nudges) -> Local:
        """The step's own numbers, a nest of tensors with any leading axes; `previous` are the states it took."""

    def gate_values(self, kept: Kept, nudges: Nudges) -> Mapping[str, Tensor]:
        """The gates after their activations."""

    def kernels(self) -> Any:
        """What `pull` multiplies cotangents by, made once for all timesteps: XLA is slow to multiply by a transpose."""

    def pull(
        self,
        local: Local,
        kernels: Any,
        arriving: tuple[Tensor, ...],
        output: Tensor | None,
        gates: Mapping[str, Tensor],
        wanted: frozenset[str],
    ) -> Pulled:
        """Cotangents back through one step.

        `arriving` reach the returned states from later steps, `output` the output, `gates` the gates; `wanted` names
        the gates whose cotangents are read.
        """

    @property
    def many(self) -> int | None:
        """How many vectors a sweep must carry for `matrices` to pay; None where the rule has none."""

    def matrices(self, *, inputs: bool = True) -> StepMatrices | None:
        """The step's derivative as matrices, for sweeps that carry many vectors; None where the rule has none.

        Without `inputs` what `project` was given is left out, and its cotangents may be empty.
        """

    def weight_cotangents(
        self,
        inputs: Tensor,
        previous: tuple[Tensor, ...],
        kept: Kept,
        nudges: Nudges,
        rights: Mapping[str, Tensor],
        keep: Keep,
    ) -> list[tuple[Any, Tensor]]:
        """The cotangents of the cell's weights, each beside its variable.

        All of `inputs`, `previous`, `kept` and `nudges` are (timesteps, rows, …), `rights` (timesteps, rows, m, …) as
        `pull` gave them. What is summed over is `keep`'s to say: the answer is (m, *weight), behind rows where they are
        kept, behind timesteps where those are.
        """


SUMMED = Keep()


def forming_pays(rule: CellRule, vectors: int) -> bool:
    """Whether a sweep of so many vectors is to form each step's derivative before it applies it."""
    return rule.many is not None and vectors >= rule.many


def float_weights(layer: Any) -> list[Any]:
    """A layer's or cell's weights that derivatives can be taken with respect to."""
    return [variable for variable in getattr(layer, "weights", ()) if "float" in variable.dtype]


def nudged(rule: CellRule, states: tuple[Tensor, ...], nudges: Nudges) -> tuple[Tensor, ...]:
    """The states that a step returns, each moved by its nudge."""
    return tuple(
        state + nudges[name] if name in nudges else state for name, state in zip(rule.states, states, strict=True)
    )
