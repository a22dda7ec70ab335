"""The numbers of one layer, over all samples: rates, horizons, spectra, exponents, gates, units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tapehead.engine.diagnosis.examined import Examined
from tapehead.engine.diagnosis.fits import Estimate, Fit, fitted, mean
from tapehead.engine.diagnosis.gates import rectified
from tapehead.engine.diagnosis.initialisation import Initialisation, initialisation
from tapehead.engine.diagnosis.learning import Learning
from tapehead.engine.diagnosis.spectra import Spectra, spectra
from tapehead.engine.diagnosis.subject import Subject
from tapehead.operations.request import Array

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Influence:
    """How influence on the end changes with every step back from it, over its value at the end.

    `rate` is the slope of its logarithm (below 0 it decays, above it grows), `horizon` after how many steps the median
    over the samples is below each level, `least` the median's lowest and `largest` any sample's highest value, `reach`
    the most steps that any sample goes back.
    """

    rate: Fit | None
    horizon: Mapping[str, int | None]
    least: float
    largest: float
    reach: int


@dataclass(frozen=True)
class GateUse:
    """A gate's numbers at the bounds of its activation, `low` and `high` as shares; how many units are stuck there."""

    low: float
    high: float
    stuck: int
    units: int


@dataclass(frozen=True)
class Measures:
    """All that is known of one layer. `singular_values` are the least and the largest of each step's, averaged, and the
    largest of all; `dead` of how many units."""

    subject: Subject
    hidden: Influence
    state: Influence
    singular_values: tuple[float, float, float] | None
    spectral_radius: tuple[float, float] | None
    exponents: Sequence[Estimate]
    gates: Mapping[str, GateUse]
    dead: tuple[int, int] | None
    initialisation: Initialisation | None
    learning: Learning | None


def measured(
    subject: Subject,
    seen: Examined,
    valid: Bools,
    times: npt.NDArray[np.int64],
    exponents: Array,
    found: Spectra | None,
    learnt: Learning | None,
    thresholds: Mapping[str, float],
) -> Measures:
    """The numbers of one layer; `valid` (batch, timesteps) says which timesteps count, `times` where spectra were."""
    counts = valid[:, times]
    samples: Bools = np.asarray(valid.any(axis=1))
    return Measures(
        subject,
        _influence(seen.influence[..., 0], valid, subject.call.backwards, thresholds),
        _influence(seen.influence[..., 1], valid, subject.call.backwards, thresholds),
        None if found is None else _singular(found.singular_values[counts]),
        None if found is None else _radius(found.spectral_radius[counts]),
        [_estimate(row, thresholds) for row in exponents[samples].T],
        _gates(subject, seen, valid, thresholds),
        _dead(seen, samples) if rectified(subject) is not None else None,
        None if found is None else initialisation(subject, _sound(seen.jacobians[counts])),
        learnt,
    )


def curves(influence: Array, valid: Bools, *, backwards: bool) -> list[npt.NDArray[np.float64]]:
    """Of each sample with valid timesteps, influence over its value at the end, at 0, 1, 2 … valid steps back."""
    found = []
    for row, counts in zip(influence.astype(np.float64), valid, strict=True):
        steps = row[counts] if backwards else row[counts][::-1]
        if len(steps):
            found.append(steps / steps[0])
    return found


def spectrum(seen: Examined, valid: Bools, times: npt.NDArray[np.int64]) -> Spectra | None:
    """The spectra of the local Jacobians at `times`."""
    return spectra(seen.jacobians, valid[:, times]) if len(times) else None


def _influence(influence: Array, valid: Bools, backwards: bool, thresholds: Mapping[str, float]) -> Influence:
    ratios = curves(influence, valid, backwards=backwards)
    longest = max(map(len, ratios), default=1)
    middle = np.array([_median([curve[k] for curve in ratios if len(curve) > k]) for k in range(longest)])
    tops = [float(curve.max()) if not np.isnan(curve).any() else np.inf for curve in ratios]
    return Influence(
        fitted([_logarithm(curve) for curve in ratios], thresholds["confidence"]),
        {name: _first_below(middle, thresholds[name]) for name in ("faint", "lost")},
        float(middle.min()),
        max(tops, default=1.0),
        longest - 1,
    )


def _logarithm(curve: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Steps back and ln influence, where that is a number; the end itself, an identity and no product, left out."""
    steps = np.arange(len(curve), dtype=np.float64)
    usable = np.isfinite(curve) & (curve > 0) & (steps > 0)
    return steps[usable], np.log(curve[usable])


def _median(values: Sequence[float]) -> float:
    """The lower median, what is no number counting as infinite."""
    ordered = np.sort(np.where(np.isnan(values), np.inf, values)) if len(values) else np.ones(1)
    return float(ordered[(len(ordered) - 1) // 2])


def _first_below(curve: npt.NDArray[np.float64], level: float) -> int | None:
    below = np.flatnonzero(curve < level)
    return int(below[0]) if len(below) else None


def _singular(values: Array) -> tuple[float, float, float] | None:
    if not len(values) or not np.isfinite(values).all():
        return None
    return float(values[:, -1].mean()), float(values[:, 0].mean()), float(values[:, 0].max())


def _radius(values: Array) -> tuple[float, float] | None:
    if not len(values) or not np.isfinite(values).all():
        return None
    return float(values.mean()), float(values.max())


def _estimate(values: Array, thresholds: Mapping[str, float]) -> Estimate:
    return mean(values.astype(np.float64), thresholds["confidence"]) or Estimate(np.nan, None, None, 0)


def _sound(jacobians: Array) -> Array:
    return jacobians[np.isfinite(jacobians).all(axis=(1, 2))]


def _gates(subject: Subject, seen: Examined, valid: Bools, thresholds: Mapping[str, float]) -> dict[str, GateUse]:
    if seen.gates == ():
        return {}
    steps = max(1, int(valid.sum()))
    shares = np.einsum("btgs,bt->gs", seen.gates.shares, valid) / steps
    at_bounds = seen.gates.counts.sum(axis=0) / steps
    stuck = (at_bounds >= thresholds["stuck"]).any(axis=1).sum(axis=1)
    return {
        name: GateUse(float(low), float(high), int(units), at_bounds.shape[-1])
        for name, (low, high), units in zip(subject.cell.activated, shares, stuck, strict=True)
    }


def _dead(seen: Examined, samples: Bools) -> tuple[int, int] | None:
    if not samples.any():
        return None
    alive = seen.gates.alive[samples].any(axis=0)
    return int((~alive).sum()), len(alive)
