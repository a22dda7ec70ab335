"""Random networks of one or two recurrent layers agree with the oracle: masked, cut to lengths, in any direction."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import architectures
import tapehead
from architectures import GRU, LSTM, RNN, Bidirectional, LSTMCell, SimpleRNN, SimpleRNNCell, StackedRNNCells, TwoState
from oracle import Oracle
from oracle.agreement import assert_agrees_with_oracle
from oracle.cases import Case, grid

KINDS = {
    "SimpleRNN": SimpleRNN,
    "GRU": GRU,
    "GRU, reset before": partial(GRU, reset_after=False),
    "LSTM": LSTM,
    "LSTM without bias": partial(LSTM, use_bias=False, recurrent_activation="softsign"),
    "two-state cell": lambda units, **ways: RNN(TwoState(units, "tanh"), **ways),
    "stacked cells": lambda units, **ways: RNN(StackedRNNCells([SimpleRNNCell(2), LSTMCell(units)]), **ways),
}


@dataclass(frozen=True)
class Network:
    """A network of a few recurrent layers, each (kind, units, direction or merge mode), and an input for it.

    `masked` are the valid timesteps of each row where a Masking layer stands in front.
    """

    layers: list[tuple[str, int, str]]
    return_sequences: bool
    features: int
    timesteps: int
    masked: list[list[bool]] | None
    lengths: list[int] | None
    batch: int
    seed: int

    def build(self) -> Any:
        parts = [] if self.masked is None else [architectures.mask()]
        for i, (kind, units, direction) in enumerate(self.layers):
            ways = {"return_sequences": self.return_sequences or i + 1 < len(self.layers)}
            if direction in ("forward", "backward"):
                parts.append(KINDS[kind](units, name=f"layer_{i}", go_backwards=direction == "backward", **ways))
            else:
                parts.append(Bidirectional(KINDS[kind](units, **ways), merge_mode=direction, name=f"layer_{i}"))
        model = architectures.chain(*parts, architectures.head(), features=self.features)
        return architectures.with_random_weights(model, self.seed)

    def inputs(self, model: Any) -> dict[str, np.ndarray]:
        inputs = architectures.data(model, self.batch, self.timesteps, self.seed)
        return inputs if self.masked is None else architectures.masked(inputs, self.masked)


@st.composite
def networks(draw: st.DrawFn) -> Network:
    """Any network of one or two layers; in each row the model leaves at least one timestep within its length."""
    directions = st.sampled_from(["forward", "backward", "concat", "sum", "mul", "ave"])
    batch, timesteps = draw(st.integers(1, 3)), draw(st.integers(1, 5))
    lengths = draw(st.none() | st.lists(st.integers(1, timesteps), min_size=batch, max_size=batch))
    row = st.lists(st.booleans(), min_size=timesteps, max_size=timesteps)
    masked = draw(st.none() | st.lists(row, min_size=batch, max_size=batch))
    for valid, length in zip(masked or [], lengths or [timesteps] * batch, strict=False):
        valid[draw(st.integers(0, length - 1))] = True
    return Network(
        layers=draw(
            st.lists(st.tuples(st.sampled_from(sorted(KINDS)), st.integers(1, 3), directions), min_size=1, max_size=2)
        ),
        return_sequences=draw(st.booleans()),
        features=draw(st.integers(1, 3)),
        timesteps=timesteps,
        masked=masked,
        lengths=lengths,
        batch=batch,
        seed=draw(st.integers(0, 99)),
    )


def assert_random_network_agrees(network: Network, *, whole: bool) -> None:
    model = network.build()
    inputs = network.inputs(model)
    here = Case(model, inputs, Oracle(model)(inputs, lengths=network.lengths))
    with tapehead.Client(models={"m": model}, timeout=None) as client:
        for (of, wrt), found in grid(client.model("m"), here, whole=whole, lengths=network.lengths).items():
            assert_agrees_with_oracle(here.answer, of, wrt, found)


@pytest.mark.slow
@given(networks())
@settings(max_examples=6)
def test_random_networks_agree_with_the_oracle(network: Network) -> None:
    assert_random_network_agrees(network, whole=False)


@pytest.mark.slow
@given(networks())
@settings(max_examples=100)
def test_many_random_networks_agree_with_the_oracle(network: Network) -> None:
    assert_random_network_agrees(network, whole=True)
