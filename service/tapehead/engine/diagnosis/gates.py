"""Gates at the bounds of their activations, where these are flat, and units that a rectifier keeps at 0."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from tapehead.engine.diagnosis.subject import Subject
from tapehead.engine.rules.cells import Tensor
from tapehead.engine.rules.ranges import BOUNDS, RECTIFIERS
from tapehead.engine.rules.recurrence import Run


class Bound(NamedTuple):
    """What one activation gives, held against its bounds: `shares` of units at the low and the high bound,
    (timesteps, rows, 2), and for every unit at how many valid timesteps it was there, (rows, 2, units)."""

    shares: Tensor
    counts: Tensor


class Gates(NamedTuple):
    """The bounds of a cell's gates, in the order of `cell.activated`: shares (timesteps, rows, gates, 2) and counts
    (rows, gates, 2, units); and of what a rectifier gives, whether each unit was ever other than 0, (rows, units)."""

    shares: Tensor
    counts: Tensor
    alive: Tensor


def gates(subject: Subject, run: Run, margin: Tensor) -> Gates | None:
    """The cell's gates against their bounds; None where no activation of it is known."""
    named = subject.cell.activated
    if not named:
        return None
    values = _values(subject, run)
    bounds = [_bound(run, values[name], activation, margin) for name, activation in named.items()]
    return Gates(
        tf.stack([bound.shares for bound in bounds], axis=2),
        tf.stack([bound.counts for bound in bounds], axis=1),
        _alive(run, _rectified(subject, values)),
    )


def rectified(subject: Subject) -> str | None:
    """What a rectifier gives in the cell: dead units are looked for there. None where nothing is."""
    return next((name for name, activation in subject.cell.activated.items() if activation in RECTIFIERS), None)


def _rectified(subject: Subject, values: dict[str, Tensor]) -> Tensor:
    name = rectified(subject)
    return values[name] if name is not None else tf.ones_like(next(iter(values.values())))


def _values(subject: Subject, run: Run) -> dict[str, Tensor]:
    """What each activation gives, (timesteps, rows, units), by name."""
    prefix = subject.cell.prefix
    found = run.rule.gate_values(run.kept, run.nudges)
    if subject.rule.gates:
        return {name: found[prefix + name] for name in subject.cell.activated}
    return dict(zip(subject.cell.activated, subject.states(run), strict=True))


def _bound(run: Run, value: Tensor, activation: str, margin: Tensor) -> Bound:
    low, high = BOUNDS.get(activation, (None, None))
    nowhere = tf.zeros_like(value, tf.bool)
    # A rectifier is flat at its bounds, not near them.
    near = tf.zeros_like(margin) if activation in RECTIFIERS else margin
    at_low = nowhere if low is None else value - low <= near
    at_high = nowhere if high is None else high - value <= near
    sides = tf.stack([at_low, at_high], axis=2)
    if run.valid is not None:
        sides &= run.valid[..., None, None]
    numbers = tf.cast(sides, value.dtype)
    return Bound(tf.reduce_mean(numbers, axis=-1), tf.reduce_sum(numbers, axis=0))


def _alive(run: Run, value: Tensor) -> Tensor:
    moved = value != 0
    if run.valid is not None:
        moved &= run.valid[..., None]
    return tf.reduce_any(moved, axis=0)
