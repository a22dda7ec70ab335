"""Random networks, two hundred of them, agree with the oracle: some rows of each one's grid, weights and gates too."""

from __future__ import annotations

import random

import pytest

import tapehead
from oracle.grid import Grid, assert_row_agrees
from random_models import RandomModel, draw

MODELS, FEW = 200, 1
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
            assert_row_agrees(here, point, here.wrt, found)


@pytest.mark.parametrize(
    "seed", [seed if seed < FEW else pytest.param(seed, marks=pytest.mark.slow) for seed in range(MODELS)]
)
def test_a_random_network_agrees_with_the_oracle(seed: int) -> None:
    assert_agrees(draw(seed))
