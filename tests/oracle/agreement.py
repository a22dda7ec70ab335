"""How far two answers are apart, in the issue's own measure."""

from __future__ import annotations

import numpy as np

from oracle.answers import Answer

ORACLE_TOLERANCE = 1e-9
"""Two exact derivatives in float64, a few hundred operations deep."""
DIFFERENCES_TOLERANCE = 1e-6
"""Central differences in float64: `central_differences` tells their error."""


def apart(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference over the largest entry; of zeros, 0 if they are exactly zero, else infinite."""
    assert found.shape == expected.shape, f"shapes differ: {found.shape}, expected {expected.shape}"
    assert found.dtype == np.float64, f"computed in {found.dtype}"
    difference, size = np.max(np.abs(found - expected), initial=0.0), np.max(np.abs(expected), initial=0.0)
    return float(difference / size) if size else float(np.inf if difference else 0.0)


def assert_agree(found: np.ndarray, expected: np.ndarray, what: str = "", tolerance: float = ORACLE_TOLERANCE) -> None:
    """Fails, with the numbers, where two answers are further apart than the tolerance."""
    distance = apart(found, expected)
    if distance > tolerance:
        worst = np.unravel_index(np.argmax(np.abs(found - expected)), found.shape)
        message = f"{what} is {distance:.3g} apart, at {tuple(map(int, worst))}: {found[worst]} not {expected[worst]}"
        raise AssertionError(message)


def assert_agrees_with_oracle(answer: Answer, of: str, wrt: str, found: np.ndarray) -> None:
    """Fails where a Jacobian is not near the oracle's, or not exactly zero where nothing depends."""
    found, expected = (answer.where_valid(of, jacobian) for jacobian in (found, answer.jacobian(of, wrt)))
    assert_agree(found, expected, f"{of} / {wrt}")
    assert not found[expected == 0].any(), f"{of} / {wrt} is not exactly zero where nothing depends"
