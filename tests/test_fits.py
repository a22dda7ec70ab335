"""Lines through numbers that follow one another in time: their slopes, and intervals that hold what they promise."""

from __future__ import annotations

import numpy as np
import pytest

from tapehead.engine.diagnosis.fits import fitted, mean, quantile


def correlated(rng: np.random.Generator, count: int, memory: float) -> np.ndarray:
    """Noise of unit variance, each number `memory` times the one before it and something new."""
    found = [rng.normal()]
    for _ in range(count - 1):
        found.append(memory * found[-1] + np.sqrt(1 - memory**2) * rng.normal())
    return np.array(found)


@pytest.mark.parametrize(("freedom", "expected"), [(3, 3.182), (5, 2.571), (10, 2.228), (30, 2.042), (1e6, 1.960)])
def test_the_quantile_is_students(freedom: float, expected: float) -> None:
    """From the printed tables of the distribution, to a per cent and a half."""
    assert quantile(0.95, freedom) == pytest.approx(expected, rel=0.015)


def test_a_straight_line_is_found_exactly() -> None:
    x = np.arange(10.0)
    found = fitted([(x, 3 - 2 * x), (x[:4], -2 * x[:4])], 0.95)
    assert found is not None
    assert found.slope.value == pytest.approx(-2)
    assert found.intercept == pytest.approx(1.5)
    assert (found.slope.low, found.slope.high) == (pytest.approx(-2), pytest.approx(-2))
    assert found.explained == pytest.approx(1)


def test_too_few_points_are_no_line() -> None:
    assert fitted([(np.arange(2.0), np.ones(2))], 0.95) is None
    assert fitted([], 0.95) is None


def test_a_constant_is_explained() -> None:
    found = fitted([(np.arange(5.0), np.ones(5))], 0.95)
    assert found is not None
    assert (found.slope.value, found.explained) == (0, 1)


@pytest.mark.parametrize("sequences", [1, 4])
@pytest.mark.parametrize("memory", [0.0, 0.6])
def test_the_interval_holds_the_slope_as_often_as_it_says(memory: float, sequences: int) -> None:
    """Of 300 draws at least nine in ten, neighbours correlated or not; plain least squares would hold about 2 in 3."""
    rng, x, held = np.random.default_rng(1), np.arange(60.0), 0
    for _ in range(300):
        found = fitted([(x, 0.02 * x + correlated(rng, 60, memory)) for _ in range(sequences)], 0.95)
        assert found is not None
        assert found.slope.low is not None
        assert found.slope.high is not None
        held += found.slope.low <= 0.02 <= found.slope.high
    assert held / 300 >= 0.9


def test_a_mean_of_one_has_no_interval() -> None:
    one, two = mean(np.array([1.0]), 0.95), mean(np.array([1.0, 3.0]), 0.95)
    assert one is not None
    assert (one.value, one.low, one.high) == (1, None, None)
    assert two is not None
    assert two.low is not None
    assert two.low < -5
    assert mean(np.array([]), 0.95) is None
