"""An answer as the pictures see it, and the sheet of panels that is made of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tapehead.pictures.panel import Array, Labels, NoPicture, NoSample, Panel, samples

MOST_PANELS = 6


@dataclass(frozen=True)
class Shown:
    """An answer: its tensors, their axes, and `meta`, which also holds what was asked. `row` is the sample drawn."""

    tensors: Mapping[str, Array]
    axes: Mapping[str, Sequence[str]]
    meta: Mapping[str, Any]
    row: int = 0
    labels: Labels = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuses a sample that there is not.

        Raises:
            NoSample: there is no such sample.
            NoPicture: there is nothing at all.
        """
        if not self.tensors:
            raise NoPicture("the answer holds no tensors, so there is nothing to draw")
        if not 0 <= self.row < self.samples:
            raise NoSample(f"row is {self.row}; this answer has the samples 0 to {self.samples - 1}")

    @property
    def samples(self) -> int:
        """How many samples the answer is of."""
        return max(samples(tensor, self.axes[name]) for name, tensor in self.tensors.items())

    @property
    def valid(self) -> Sequence[Sequence[bool]] | None:
        """Which timesteps count, sample by sample; None where all do."""
        found: Sequence[Sequence[bool]] | None = self.meta.get("valid")
        return found


@dataclass(frozen=True)
class Sheet:
    """Panels with the kind of each, in so many columns; `notes` go into the title."""

    panels: Sequence[tuple[str, Panel]]
    notes: Sequence[str] = ()
    columns: int = 1
