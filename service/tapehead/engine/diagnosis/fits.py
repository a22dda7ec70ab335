"""Straight lines through numbers that follow one another in time, and means, with their intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_FEWEST = 3
"""Points that a line and its uncertainty take."""


@dataclass(frozen=True)
class Estimate:
    """A number with the bounds of its interval (None where too little is known), and of how many sequences it is."""

    value: float
    low: float | None
    high: float | None
    sequences: int


@dataclass(frozen=True)
class Fit:
    """The slope of lines through sequences, where they begin, and the share of the variance that they explain."""

    slope: Estimate
    intercept: float
    explained: float


@dataclass(frozen=True)
class _Line:
    slope: float
    intercept: float
    error: float
    freedom: float
    left: float
    whole: float


def fitted(curves: Sequence[tuple[Floats, Floats]], confidence: float) -> Fit | None:
    """A line through each of the curves (x, y), and the mean of their slopes; None where none has enough points.

    Neighbours in time are not independent: each line's standard error counts n (1 - r) / (1 + r) points, r being the
    first autocorrelation of what the line leaves (Santer et al. 2000). The interval is the wider of two: from the
    lines' own errors, and from the spread of the slopes between the sequences.
    """
    lines = [_line(x, y) for x, y in curves if len(x) >= _FEWEST]
    if not lines:
        return None
    slopes, whole = np.array([line.slope for line in lines]), sum(line.whole for line in lines)
    within = math.sqrt(sum(line.error**2 for line in lines)) / len(lines)
    half = quantile(confidence, sum(line.freedom for line in lines)) * within
    if len(lines) > 1:
        between = float(slopes.std(ddof=1)) / math.sqrt(len(lines))
        half = max(half, quantile(confidence, len(lines) - 1) * between)
    slope = float(slopes.mean())
    explained = 1.0 if whole == 0 else 1 - sum(line.left for line in lines) / whole
    intercept = sum(line.intercept for line in lines) / len(lines)
    return Fit(Estimate(slope, slope - half, slope + half, len(lines)), intercept, explained)


def mean(values: Floats, confidence: float) -> Estimate | None:
    """The mean of one number a sequence; its interval is of the spread between them."""
    if not len(values):
        return None
    middle = float(values.mean())
    if len(values) < 2 or not np.isfinite(values).all():
        return Estimate(middle, None, None, len(values))
    half = quantile(confidence, len(values) - 1) * float(values.std(ddof=1)) / math.sqrt(len(values))
    return Estimate(middle, middle - half, middle + half, len(values))


def quantile(confidence: float, freedom: float) -> float:
    """How many standard errors an interval reaches to either side: Student's t, by its expansion in 1 / freedom
    (Abramowitz and Stegun 1964, 26.7.5)."""
    x = NormalDist().inv_cdf(0.5 + confidence / 2)
    terms = (
        (x**3 + x) / 4,
        (5 * x**5 + 16 * x**3 + 3 * x) / 96,
        (3 * x**7 + 19 * x**5 + 17 * x**3 - 15 * x) / 384,
        (79 * x**9 + 776 * x**7 + 1482 * x**5 - 1920 * x**3 - 945 * x) / 92160,
    )
    return x + sum(term / freedom**n for n, term in enumerate(terms, start=1))


def _line(x: Floats, y: Floats) -> _Line:
    """The least-squares line."""
    along, up = x - x.mean(), y - y.mean()
    spread = float(along @ along)
    slope = float(along @ up) / spread
    left = up - slope * along
    remaining, whole = float(left @ left), float(up @ up)
    freedom = max(1.0, _independent(left) - 2)
    intercept = float(y.mean() - slope * x.mean())
    return _Line(slope, intercept, math.sqrt(remaining / freedom / spread), freedom, remaining, whole)


def _independent(left: Floats) -> float:
    """How many independent points the residuals amount to."""
    squares = float(left @ left)
    r = 0.0 if squares == 0 else max(0.0, float(left[1:] @ left[:-1]) / squares)
    return len(left) * (1 - r) / (1 + r)
