"""What the walk carries: values with their masks, the nudges to add, and what was found at each point."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import keras
import numpy as np

Array = Any
Weight = Callable[[str], Array]
Gate = Callable[[str, Array], Array]


@dataclass(frozen=True)
class Signal:
    """What flows along an edge of the graph: a value, the Keras mask that travels with it, and the point that it is."""

    value: Array
    mask: Array | None = None
    point: str = ""


class Book(Protocol):
    """How cells and plain layers compute, and the array functions to compute with."""

    xp: Any

    def cell(self, cell: Any, x: Array, states: list[Array], weight: Weight, gate: Gate) -> tuple[Array, list[Array]]:
        """A step of a cell: what it gives out and its next states; each gate is passed through `gate`."""

    def layer(self, layer: Any, arguments: list[Signal], weight: Weight) -> Array:
        """What a layer without a recurrence gives out."""


@dataclass
class Run:
    """One forward pass: what to add at which point, and what was found there.

    `nudges` and `initial` are by point. `held` are the masks an earlier run made, by the layer that made them; without
    them the run makes its own. `order` tells the recurrent points: +1, or -1 where time runs backwards. `by_time` are
    the weights that timesteps read.
    """

    book: Book
    nudges: Mapping[str, Array] = field(default_factory=dict)
    initial: Mapping[str, Array] = field(default_factory=dict)
    held: Mapping[str, Array] | None = None
    values: dict[str, Array] = field(default_factory=dict)
    valid: dict[str, Array | None] = field(default_factory=dict)
    order: dict[str, int] = field(default_factory=dict)
    masks: dict[str, Array] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    by_time: set[str] = field(default_factory=set)

    def nudged(self, point: str, value: Array, t: int | None = None) -> Array:
        """The value with the nudge of its point, if any: the whole nudge, or that of timestep `t`."""
        nudge = self.nudges.get(point)
        if nudge is None:
            return value
        return value + (nudge if t is None else nudge[..., t, :])

    def at(self, point: str, signal: Signal) -> Signal:
        """A signal nudged and recorded under its name."""
        self.values[point] = self.nudged(point, signal.value)
        self.valid[point] = signal.mask
        return Signal(self.values[point], signal.mask, point)

    def also(self, name: str, signals: list[Signal]) -> None:
        """Another name for what is a point already; for several, `name.0`, `name.1` …"""
        names = [name] if len(signals) == 1 else [f"{name}.{i}" for i in range(len(signals))]
        self.aliases |= {name: signal.point for name, signal in zip(names, signals, strict=True)}

    def weights_of(self, layer: Any, path: str, t: int | None = None) -> Weight:
        """A reader of a layer's weights by attribute (a dot reaches into a sublayer), each nudged and recorded.

        A weight goes by its sublayers' own names, and by one name whichever call of its layer reads it. What a timestep
        reads is nudged by that timestep's own nudge too, `name@`: every timestep has a copy of the weight.
        """
        owner = re.sub(r"\.call\.\d+", "", path)

        def weight(name: str) -> Array | None:
            found, names = layer, [owner]
            for part in name.split("."):
                found = getattr(found, part)
                names.append(found.name if isinstance(found, keras.Layer) else part)
            if found is None:
                return None
            point = "/".join(names)
            value = self.at(point, Signal(np.asarray(found))).value
            if t is None:
                return value
            self.by_time.add(point)
            copies = self.nudges.get(f"{point}@")
            return value if copies is None else value + copies[t]

        return weight

    def held_mask(self, path: str, mask: Array) -> Array:
        """The mask as it was first chosen, whatever a nudge would make of it."""
        self.masks[path] = mask if self.held is None else self.held[path]
        return self.masks[path]
