"""Random networks, two hundred of them, agree with the oracle: some rows of each one's grid, weights and gates too."""

from __future__ import annotations

import random

import numpy as np
import pytest

import tapehead
from oracle.agreement import apart
from oracle.grid import Grid
from random_models import RandomModel, draw

TOLERANCE = 1e-7
CANCELLED = 1e-14
"""Below this, in float64 and of numbers near one, there is nothing but the rounding of what cancels."""
MODELS, FEW = 200, 3
ROWS = 2


def assert_agrees(drawn: RandomModel, of: list[str] | None = None) -> None:
    """Some rows of the grid of a random network; or those of the points named."""
    lengths = None if drawn.lengths is None else list(drawn.lengths)
    with tapehead.Client(models={"m": drawn.model}, timeout=None) as client:
        model = client.model("m")
        here = Grid(drawn.model, model.points, tuple(model.metadata["weights"]), drawn.inputs, drawn.lengths)
        assert not [point for point in here.wrt if not here.knows(point)]
        for point in of or random.Random(len(here.of)).sample(here.of, ROWS):
            found = model.jacobian(drawn.inputs, of=[point], wrt=here.wrt, lengths=lengths).tensors
            assert_row_agrees(here, point, found)


def assert_row_agrees(here: Grid, of: str, found: dict[str, np.ndarray]) -> None:
    far = {}
    for wrt in here.wrt:
        value, expected = (here.answer.where_valid(of, j) for j in (found[f"{of} / {wrt}"], here.jacobian(of, wrt)))
        largest, size = np.abs(value).max(), np.abs(expected).max()
        if (largest > CANCELLED) if 0 < size < CANCELLED else (apart(value, expected) > TOLERANCE):
            far[wrt] = (np.abs(value - expected).max(), size)
    assert not far, f"{of} with respect to these is off by (largest difference, largest entry): {far}"


@pytest.mark.parametrize(
    "seed", [seed if seed < FEW else pytest.param(seed, marks=pytest.mark.slow) for seed in range(MODELS)]
)
def test_a_random_network_agrees_with_the_oracle(seed: int) -> None:
    assert_agrees(draw(seed))
