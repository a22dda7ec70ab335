"""Any point with respect to any point: every pair of them, for many architectures, is what the oracle says.

The oracle (tests/oracle) differentiates an architecture's every point with respect to every nudge in one call and
shares no code with the engine. The default suite asks some rows of each grid, the slow suite all of them. The measure
is the largest difference over the largest entry.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import cache

import pytest

import architectures
import tapehead
from oracle.cases import network, some
from oracle.grid import Grid, assert_row_agrees

BATCH, TIMESTEPS = 2, 4
HOLES = ((1, 1, 0, 1), (0, 1, 1, 0))
LENGTHS = (4, 2)
ROWS = 1
"""How many rows of a grid the default suite asks."""

NAMES = [
    "simple_rnn",
    "lstm_sequence",
    "gru_reset_before",
    "two_state_code",
    "lstm_backwards",
    "stacked_cells",
    "stacked_cells_backwards",
    "bidirectional_mul",
    "bidirectional_custom",
    "bidirectional_none_sequence",
    "stack_of_bidirectional",
    "stack_with_layers_between",
    "side_by_side",
    "nested",
    "two_outputs",
    "masked_two_state",
    "masked_bidirectional",
    "masked_cells",
    "embedding_gru",
    "encoder_decoder",
    *architectures.AROUND,
]
RARE = {
    "simple_rnn",
    "lstm_sequence",
    "stacked_cells",
    "bidirectional_none_sequence",
    "stack_of_bidirectional",
    "masked_two_state",
}
"""Those left to the slow suite: test_derivatives asks about them, or others here are like them."""
WITH_LENGTHS = [
    "lstm_sequence",
    "two_state_backwards",
    "stacked_cells",
    "bidirectional_mul",
    "stack_after_backwards",
    "masked_backwards",
    "embedding_bidirectional",
    "two_outputs",
]


@pytest.fixture
def model(name: str) -> Iterator[tapehead.Model]:
    """The architecture, served by itself: what was compiled for it goes when the test ends."""
    with tapehead.Client(models={name: network(name)}, timeout=None) as client:
        yield client.model(name)


@cache
def grid(name: str, lengths: tuple[int, ...] | None = None) -> Grid:
    network_ = network(name)
    with tapehead.Client(models={name: network_}, timeout=None) as client:
        points, weights = client.model(name).points, tuple(client.model(name).metadata["weights"])
    inputs = architectures.data(network_, BATCH, TIMESTEPS)
    if name in architectures.MASKED or (name in architectures.EMBEDDED and lengths is None):
        inputs = architectures.masked(inputs, HOLES)
    return Grid(network_, points, weights, inputs, lengths)


def chosen(name: str, among: list[str], count: int) -> list[str]:
    """The same few of them in every run."""
    return random.Random(name).sample(among, count)


def assert_asked_row_agrees(model: tapehead.Model, here: Grid, of: str, wrt: list[str]) -> None:
    """One `of` with respect to many points, asked in one request."""
    lengths = None if here.lengths is None else list(here.lengths)
    assert_row_agrees(here, of, wrt, model.jacobian(here.inputs, of=[of], wrt=wrt, lengths=lengths).tensors)


@pytest.mark.parametrize("name", NAMES)
def test_the_oracle_knows_every_point_that_is_served(name: str) -> None:
    here = grid(name)
    names, aliases = here.named
    assert not [point for point in here.wrt if not here.knows(point)]
    assert names <= {aliases.get(point, point) for point in here.wrt}


def test_the_whole_grid_is_thousands_of_pairs() -> None:
    grids = [grid(name) for name in NAMES]
    assert len(grids) >= 12
    assert sum(len(here.of) * len(here.wrt) for here in grids) > 20_000


@pytest.mark.parametrize("name", some(NAMES, [name for name in NAMES[::2] if name not in RARE]))
def test_some_rows_of_the_grid_are_those_of_the_oracle(model: tapehead.Model, name: str) -> None:
    here = grid(name)
    for of in chosen(name, here.of, ROWS):
        assert_asked_row_agrees(model, here, of, here.wrt)


@pytest.mark.parametrize("name", some(WITH_LENGTHS, ("lstm_sequence", "two_outputs", "masked_backwards")))
def test_some_rows_of_the_grid_of_sequences_of_many_lengths_are_those_of_the_oracle(
    model: tapehead.Model, name: str
) -> None:
    here = grid(name, LENGTHS)
    for of in chosen(name, here.of, 1):
        assert_asked_row_agrees(model, here, of, here.wrt)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_whole_grid_is_that_of_the_oracle(model: tapehead.Model, name: str) -> None:
    here = grid(name)
    for of in here.of:
        assert_asked_row_agrees(model, here, of, here.wrt)


@pytest.mark.slow
@pytest.mark.parametrize("name", WITH_LENGTHS)
def test_the_whole_grid_of_sequences_of_many_lengths_is_that_of_the_oracle(model: tapehead.Model, name: str) -> None:
    here = grid(name, LENGTHS)
    for of in here.of:
        assert_asked_row_agrees(model, here, of, here.wrt)


# ------------------------------------------------------------------------------------------------------ parts of points


def indexed(point: str, axes: list[str], choose: random.Random) -> str:
    """The point with an index: any timestep or slice of them that every sequence has, and units at random."""
    times = ["[-1]", "[1:]", "[:]", "[::-1]", "[-2:]", "[1:3:1]", "[...]"]
    return point + choose.choice(times if "timestep" in axes else ["", "[0]", "[0:1]", "[::-1]"])


UNMASKED = [name for name in NAMES if name not in architectures.MASKED]


@pytest.mark.parametrize(
    "name", [name if i % 3 == 0 else pytest.param(name, marks=pytest.mark.slow) for i, name in enumerate(UNMASKED)]
)
def test_parts_of_points_are_parts_of_the_oracles_grid(model: tapehead.Model, name: str) -> None:
    here, choose = grid(name), random.Random(name)
    of = choose.choice(here.of)
    axes = {point: told["axes"] for point, told in here.points.items()}
    wrt = [indexed(point, axes.get(point, []), choose) for point in here.wrt if "/" not in point]
    assert_asked_row_agrees(model, here, indexed(of, axes.get(of, ["timestep"]), choose), wrt)
