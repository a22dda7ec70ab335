"""The thresholds of a diagnosis: one row each, all of them a request's to set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tapehead.errors import BadParameter


@dataclass(frozen=True)
class Threshold:
    """A number that a finding is held against, and the range it may be set in."""

    name: str
    default: float
    least: float
    most: float
    doc: str


_ROWS = (
    Threshold("faint", 1e-2, 1e-30, 0.5, "Influence, over its value at the end, below which a timestep hardly counts."),
    Threshold("lost", 1e-7, 1e-37, 0.5, "Influence, likewise, below which single precision adds nothing."),
    Threshold("exploding", 1e2, 1.5, 1e30, "Influence, over its value at the end, above which it explodes."),
    Threshold("overflowing", 1e7, 1.5, 1e37, "Influence, likewise, above which the explosion is critical."),
    Threshold("chaotic", 0.02, 0.0, 10.0, "Lyapunov exponent a timestep above which neighbouring states part."),
    Threshold("margin", 0.05, 0.0, 0.5, "How near to a bound of its activation a number counts as saturated."),
    Threshold("saturated", 0.5, 0.01, 1.0, "Share of a gate's numbers at its bounds from which it is saturated."),
    Threshold("stuck", 0.95, 0.01, 1.0, "Share of timesteps at a bound from which a unit is stuck there."),
    Threshold("dead", 0.5, 0.001, 1.0, "Share of dead units from which the layer is dead."),
    Threshold("variance", 0.2, 0.0, 10.0, "How far from 1 the variance of a step's Jacobian times the units may lie."),
    Threshold("confidence", 0.95, 0.5, 0.9999, "The confidence of every interval."),
)

THRESHOLDS: Mapping[str, Threshold] = {row.name: row for row in _ROWS}


def checked_thresholds(given: Mapping[str, Any]) -> dict[str, float]:
    """Every threshold, given or by default.

    Raises:
        BadParameter: one is unknown or out of its range.
    """
    unknown = sorted(set(given) - set(THRESHOLDS))
    if unknown:
        raise BadParameter(f"thresholds has no {unknown[0]!r}; it takes {', '.join(THRESHOLDS)}")
    for name, value in given.items():
        row = THRESHOLDS[name]
        if not row.least <= value <= row.most:
            raise BadParameter(f"thresholds[{name!r}] is {value:g}; it must be from {row.least:g} to {row.most:g}")
    return {name: float(given.get(name, row.default)) for name, row in THRESHOLDS.items()}
