"""Cells on top of each other within a step (`keras.layers.StackedRNNCells`): each reads the output of the one below."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

from tapehead.engine.rules.cells import CellRule, Keep, Kept, Nudges, Pulled, Tensor


class StackedCellsRule:
    """The rule for a stack of cells, made of the rules of its cells; states and gates stand in the cells' order."""

    kind = "StackedRNNCells"
    within_step = True

    def __init__(self, rules: Sequence[CellRule]) -> None:
        self.rules = tuple(rules)
        self.states = tuple(f"cells.{n}.{state}" for n, rule in enumerate(self.rules) for state in rule.states)
        self.state_shapes = tuple(shape for rule in self.rules for shape in rule.state_shapes)
        self.gates = tuple(f"cells.{n}.{gate}" for n, rule in enumerate(self.rules) for gate in rule.gates)
        self.gate_shapes = tuple(shape for rule in self.rules for shape in rule.gate_shapes)
        ends = list(accumulate(len(rule.states) for rule in self.rules))
        self._slices = [slice(end - len(rule.states), end) for end, rule in zip(ends, self.rules, strict=True)]
        last = self.rules[-1]
        self.output_shape = last.output_shape
        self.output_state = None if last.output_state is None else self._slices[-1].start + last.output_state

    def project(self, inputs: Tensor) -> Tensor:
        """The lowest cell's part."""
        return self.rules[0].project(inputs)

    def unproject(self, cotangents: Tensor, kernels: tuple[Any, ...]) -> Tensor:
        """The lowest cell's part."""
        return self.rules[0].unproject(cotangents, kernels[0])

    def step(
        self, projected: Tensor, states: tuple[Tensor, ...], nudges: Nudges
    ) -> tuple[Tensor, tuple[Tensor, ...], Kept]:
        """The topmost output, every cell's states, and what each cell keeps with the inputs that it was given."""
        returned: list[Tensor] = []
        kept: list[Any] = []
        output = None
        for n, rule in enumerate(self.rules):
            given = (output,) if n else ()
            moved = _part(n, nudges)
            output, new, own = rule.step(rule.project(output) if n else projected, states[self._slices[n]], moved)
            kept.append((given, own))
            returned.extend(new)
        return output, tuple(returned), tuple(kept)

    def local(self, inputs: Tensor, previous: tuple[Tensor, ...], kept: Kept, nudges: Nudges) -> tuple[Any, ...]:
        """Each cell's own numbers."""
        return tuple(
            rule.local(given[0] if n else inputs, previous[self._slices[n]], own, _part(n, nudges))
            for n, (rule, (given, own)) in enumerate(zip(self.rules, kept, strict=True))
        )

    def gate_values(self, kept: Kept, nudges: Nudges) -> Mapping[str, Tensor]:
        """Every cell's gates."""
        return {
            f"cells.{n}.{gate}": value
            for n, (rule, (_, own)) in enumerate(zip(self.rules, kept, strict=True))
            for gate, value in rule.gate_values(own, _part(n, nudges)).items()
        }

    def kernels(self) -> tuple[Any, ...]:
        """Each cell's own."""
        return tuple(rule.kernels() for rule in self.rules)

    def pull(
        self,
        local: tuple[Any, ...],
        kernels: tuple[Any, ...],
        arriving: tuple[Tensor, ...],
        output: Tensor | None,
        gates: Mapping[str, Tensor],
        wanted: frozenset[str],
    ) -> Pulled:
        """Back from the topmost cell to the lowest: what a cell passes to its inputs is its neighbour's output."""
        totals: tuple[Tensor, ...] = ()
        previous: tuple[Tensor, ...] = ()
        read: dict[str, Tensor] = {}
        rights: dict[str, Tensor] = {}
        projected = None
        for n in reversed(range(len(self.rules))):
            own, asked = arriving[self._slices[n]], frozenset(_part(n, dict.fromkeys(wanted)))
            pulled = self.rules[n].pull(local[n], kernels[n], own, output, _part(n, gates), asked)
            totals, previous = pulled.totals + totals, pulled.previous + previous
            read.update({f"cells.{n}.{gate}": value for gate, value in pulled.gates.items()})
            rights.update({f"cells.{n}.{name}": value for name, value in pulled.rights.items()})
            output, projected = pulled.inputs, pulled.projected
        return Pulled(totals, previous, output, read, rights, projected)

    many = None

    def matrices(self, *, inputs: bool = True) -> None:
        """None: each cell passes on what the one above gave."""

    def weight_cotangents(
        self,
        inputs: Tensor,
        previous: tuple[Tensor, ...],
        kept: Kept,
        nudges: Nudges,
        rights: Mapping[str, Tensor],
        keep: Keep,
    ) -> list[tuple[Any, Tensor]]:
        """Each cell's own."""
        found: list[tuple[Any, Tensor]] = []
        for n, (rule, (given, own)) in enumerate(zip(self.rules, kept, strict=True)):
            states, at = previous[self._slices[n]], given[0] if n else inputs
            found.extend(rule.weight_cotangents(at, states, own, _part(n, nudges), _part(n, rights), keep))
        return found


def _part(cell: int, named: Mapping[str, Any]) -> dict[str, Any]:
    prefix = f"cells.{cell}."
    return {name[len(prefix) :]: value for name, value in named.items() if name.startswith(prefix)}
