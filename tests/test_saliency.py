"""Attributions: the target's gradient, times the input, and integrated along a path, against the oracle in float64."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest

import architectures
import tapehead
from architectures import GRU
from oracle import Oracle
from oracle.agreement import assert_agree
from oracle.cases import case, network

TARGETS = [
    ("lstm", "outputs[1]", "inputs"),
    ("lstm_sequence", "lstm.h[-1, 2]", "inputs"),
    ("lstm_sequence", "outputs[2, 0]", "lstm.c.initial"),
    ("gru_backwards_sequence", "gru.h[0, 1]", "inputs"),
    ("stack", "outputs[0]", "inputs"),
    ("two_outputs", "outputs.1", "inputs"),
    ("masked_gru", "outputs[1]", "inputs"),
    ("embedding_gru", "outputs[0]", "embedding"),
]
NAMES = sorted({"gru", *(name for name, *_ in TARGETS)})


@pytest.fixture(scope="module")
def client() -> Iterator[tapehead.Client]:
    with tapehead.Client(models={name: network(name) for name in NAMES}, timeout=None) as client:
        yield client


@pytest.mark.parametrize(("name", "target", "wrt"), TARGETS)
def test_gradient_saliency_is_the_targets_gradient(client: tapehead.Client, name: str, target: str, wrt: str) -> None:
    here, model = case(name), client.model(name)
    gradient = here.answer.jacobian(target, wrt).reshape(here.answer.value(wrt).shape)
    found = model.saliency(here.inputs, target=target, wrt=wrt)
    assert_agree(found.value, gradient, "gradient")
    assert "completeness_gap" not in found.tensors
    found = model.saliency(here.inputs, target=target, wrt=wrt, method="gradient_x_input")
    assert_agree(found.value, gradient * here.answer.value(wrt), "gradient x input")


def test_argmax_is_chosen_for_each_row(client: tapehead.Client) -> None:
    here = case("gru")
    index = here.answer.value("outputs").argmax(-1)
    assert len(set(index.tolist())) > 1
    found = client.model("gru").saliency(here.inputs, target="outputs[argmax]")
    jacobian = here.answer.jacobian("outputs", "inputs")
    assert_agree(found.value, np.stack([block[k] for block, k in zip(jacobian, index, strict=True)]))
    np.testing.assert_array_equal(found.meta["target_index"], index)


PATHS = [
    ("lstm", "outputs[1]", 0.0),
    ("gru", "gru.h[-1, 2]", 0.3),
    ("stack", "outputs[0]", 0.0),
]


@pytest.mark.parametrize(("name", "target", "baseline"), PATHS)
def test_integrated_gradients_converge_to_the_integral(
    client: tapehead.Client, name: str, target: str, baseline: float
) -> None:
    here, model = case(name), client.model(name)
    x = here.inputs["series"]
    exact, change = integral(Oracle(here.model), x, np.full_like(x, baseline), target)
    gaps, distances = [], []
    for n_steps in (4, 16, 64, 256):
        found = model.saliency(
            here.inputs, target=target, method="integrated_gradients", baseline=baseline, n_steps=n_steps
        )
        gap = found.tensors["completeness_gap"]
        np.testing.assert_allclose(gap, found.value.sum((1, 2)) - change, rtol=0, atol=1e-12)
        gaps.append(np.abs(gap).max())
        distances.append(np.abs(found.value - exact).max())
    assert max(distances[-1], gaps[-1]) < 1e-5
    for errors in (gaps, distances):
        assert all(after < before / 4 or after < 1e-12 for before, after in pairwise(errors)), errors


def integral(
    oracle: Oracle, x: np.ndarray, baseline: np.ndarray, target: str, lengths: list[int] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Integrated gradients by Gauss and Legendre's rule with 30 nodes, and the target's change between the ends."""
    nodes, weights = np.polynomial.legendre.leggauss(30)
    places = np.concatenate([[0.0, 1.0], (nodes + 1) / 2])
    path = np.concatenate([baseline + place * (x - baseline) for place in places])
    answer = oracle(path, wrt=["inputs"], lengths=None if lengths is None else lengths * len(places))
    before, after, *_ = answer.value(target).reshape(len(places), len(x))
    gradients = answer.jacobian(target, "inputs").reshape(len(places), *x.shape)[2:]
    return (x - baseline) * np.tensordot(weights / 2, gradients, 1), after - before


def test_masks_are_held_along_the_path(client: tapehead.Client) -> None:
    """A baseline of 0 is no masked timestep, and yet the padding stays padding: as the sequences alone, unmasked."""
    model = architectures.build("masked_gru")
    alone = architectures.chain(GRU(3, name="gru"), architectures.head())
    alone.set_weights(model.get_weights())
    inputs = architectures.masked(architectures.data(model), [[1] * 5, [1, 1, 1, 0, 0], [1, 0, 0, 0, 0]])
    x = inputs["series"]
    exact, change = integral(Oracle(alone), x, np.zeros_like(x), "outputs[0]", lengths=[5, 3, 1])
    found = client.model("masked_gru").saliency(inputs, target="outputs[0]", method="integrated_gradients", n_steps=400)
    assert_agree(found.value, exact, "attributions", 1e-5)
    assert_agree(found.value.sum((1, 2)) - found.tensors["completeness_gap"], change, "change")
    assert not found.value[1, 3:].any()
    assert not found.value[2, 1:].any()


def test_a_baseline_may_be_an_array(client: tapehead.Client) -> None:
    here = case("lstm")
    x = here.inputs["series"]
    baseline = np.random.default_rng(5).normal(size=x.shape)
    exact, _ = integral(Oracle(here.model), x, baseline, "outputs[0]")
    found = client.model("lstm").saliency(
        here.inputs, target="outputs[0]", method="integrated_gradients", baseline=baseline, n_steps=400
    )
    assert_agree(found.value, exact, "attributions", 1e-5)
