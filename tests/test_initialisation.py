"""The write-ups' check of an initialisation (B2): the variance of d h[t] / d h[t-1], times the units, tells whether
gradients keep their size through time. Glorot's is 1.0 for a linear recurrence and 0.5 through a relu.

A step multiplies a gradient by W diag(act'). Glorot and Bengio 2010 draw W with variance 2 / (n + n) = 1 / n, and about
half of a relu's slopes are 0. Twenty draws of a network with 100 units, each from states of unit variance: from zero
states a relu's slope is 0 and the answer says nothing.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import architectures
import tapehead
from architectures import RNN, SEQUENCE, TwoState
from oracle.agreement import assert_agree
from test_sources import serving

UNITS, TIMESTEPS, SEEDS = 100, 4, range(20)
EXPECTED = {"relu": (0.5, 0.02), "linear": (1.0, 0.005)}
"""The mean over the draws, and how near to it the twenty must come."""


def initialised(activation: str, seed: int) -> Any:
    """The write-ups' two-state network as Keras initialises it: Glorot's uniform kernels, zero biases."""
    keras.utils.set_random_seed(seed)
    return architectures.chain(RNN(TwoState(UNITS, activation), name="rnn", **SEQUENCE))


def asked(seed: int) -> dict[str, Any]:
    """One sequence of four timesteps, and states drawn from N(0, 1) to start from."""
    rng = np.random.default_rng(seed)
    states = {f"rnn.{state}.initial": rng.normal(size=(1, UNITS)) for state in "hc"}
    return {"inputs": rng.normal(size=(1, TIMESTEPS, architectures.FEATURES)), "initial_states": states}


def step_jacobian(model: Any, seed: int) -> np.ndarray:
    """d h[t] / d h[t-1] at every timestep: (1, timesteps, units, units)."""
    return model.jacobian(**asked(seed), of="rnn.h", wrt="rnn.h", lag=1).value


def expected_jacobian(network: Any, activation: str, seed: int) -> np.ndarray:
    """W diag(act') along the trajectory, stepped by hand."""
    kernel = np.asarray(network.get_layer("rnn").cell.linear_rec.kernel).T
    h, steps = asked(seed)["initial_states"]["rnn.h.initial"][0], []
    for _ in range(TIMESTEPS):
        slope = (h > 0) * 1.0 if activation == "relu" else np.ones(UNITS)
        steps.append(kernel * slope)
        h = kernel @ (h * slope)
    return np.stack(steps)[None]


@cache
@cache
def variances(activation: str) -> np.ndarray:
    """For each seed, the variance of the entries times the units: one live model that takes each seed's weights."""
    network = initialised(activation, 0)
    found = []
    with tapehead.Client(models={"m": network}, timeout=None) as client:
        for seed in SEEDS:
            network.set_weights(initialised(activation, seed).get_weights())
            jacobian = step_jacobian(client.model("m"), seed)
            assert_agree(jacobian, expected_jacobian(network, activation, seed), f"seed {seed}", 1e-13)
            found.append(jacobian.var() * UNITS)
    return np.array(found)


@pytest.mark.parametrize("activation", EXPECTED)
def test_b2_the_variance_of_a_steps_jacobian_tells_glorots_scale(activation: str) -> None:
    mean, tolerance = EXPECTED[activation]
    found = variances(activation)
    assert len(found) == 20
    assert abs(found.mean() - mean) < tolerance, f"mean {found.mean():.4f}, sd {found.std(ddof=1):.4f}"


def test_b2_from_zero_states_a_relu_passes_nothing() -> None:
    """Its input is exactly 0 at every step, where its slope is taken as 0."""
    network = initialised("relu", 0)
    with tapehead.Client(models={"m": network}, timeout=None) as client:
        found = client.model("m").jacobian(asked(0)["inputs"], of="rnn.h", wrt="rnn.h", lag=1).value
    assert not found.any()


def test_b2_over_http(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    networks = {activation: initialised(activation, 7) for activation in EXPECTED}
    for activation, network in networks.items():
        network.save(folder / f"{activation}.keras")
    with serving(folder) as url, tapehead.Client(url, timeout=None) as client:
        for activation, network in networks.items():
            jacobian = step_jacobian(client.model(activation), 7)
            assert_agree(jacobian, expected_jacobian(network, activation, 7), activation, 1e-13)
            np.testing.assert_allclose(jacobian.var() * UNITS, variances(activation)[7], rtol=1e-12)
