"""What `diagnose` measures, held against explicit Jacobians, known systems, and each sequence alone.

In float64, in process; over HTTP where that makes a difference. `test_verdicts.py` holds the verdicts.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import keras
import numpy as np
import pytest
from keras import layers

import architectures
import tapehead
from architectures import LSTM, RNN, SEQUENCE, Bidirectional, Dense, SimpleRNN, TwoState, chain
from tapehead import errors
from tapehead.engine import seeds
from test_gradient_cell import mlp
from test_initialisation import EXPECTED, UNITS, asked, expected_jacobian, initialised
from test_sources import serving

EXACT = 1e-10
TIMESTEPS = 7

NAMES = ("lstm", "gru", "contrary_cell_apart", "stacked_cells_backwards")
MORE = (
    "simple_rnn",
    "lstm_other_activations",
    "lstm_backwards",
    "gru_reset_before",
    "two_state_code",
    "contrary_cell",
    "stacked_cells",
    "bidirectional_custom",
    "stack_after_backwards",
    "shared_in_turn",
    "deep",
)


@pytest.fixture(scope="module")
def networks() -> dict[str, Any]:
    return {name: architectures.build(name) for name in (*NAMES, *MORE)} | {"gradient_cell": mlp()}


@pytest.fixture(scope="module")
def client(networks: dict[str, Any]) -> Iterator[tapehead.Client]:
    with tapehead.Client(models=networks, timeout=None) as client:
        yield client


def diagnosed(network: Any, x: Any, **given: Any) -> Any:
    with tapehead.Client(models={"m": network}, timeout=None) as client:
        return client.model("m").diagnose(x, **given)


def cells(model: Any) -> Iterator[tuple[str, dict[str, Any], list[str]]]:
    """Each recurrent cell's name, what is told of its layer, and the points of its states."""
    for layer, told in model.metadata["recurrent"].items():
        groups: dict[str, list[str]] = {}
        for state in told["states"]:
            groups.setdefault(f"{layer}.{state}".rpartition(".")[0], []).append(f"{layer}.{state}")
        for name, states in groups.items():
            yield name, told, states


def explicit(model: Any, x: Any, states: list[str]) -> np.ndarray:
    """∂s_t/∂s_{t-1} of all the states together, put together from Jacobians at lag 1: (batch, timesteps, n, n)."""
    found = model.jacobian(x, of=states, wrt=states, lag=1).tensors
    return np.block([[found[f"{of} / {wrt}"] for wrt in states] for of in states])


# ------------------------------------------------------------------------------------------------- against the Jacobian


@pytest.mark.parametrize(
    "name", [*NAMES, "gradient_cell", *(pytest.param(name, marks=pytest.mark.slow) for name in MORE)]
)
def test_influence_and_spectra_are_those_of_the_explicit_jacobians(
    client: tapehead.Client, networks: dict[str, Any], name: str
) -> None:
    model, x = client.model(name), architectures.data(networks[name], timesteps=TIMESTEPS)
    found = model.diagnose(x)
    for cell, told, states in cells(model):
        hidden = found.meta["hidden"][cell]
        steps = explicit(model, x, states)
        values = np.linalg.svd(steps, compute_uv=False)
        np.testing.assert_allclose(found.tensors[f"{cell}:singular_values"], values, rtol=1e-8, atol=EXACT)
        radii = np.abs(np.linalg.eigvals(steps)).max(axis=-1)
        np.testing.assert_allclose(found.tensors[f"{cell}:spectral_radius"], radii, rtol=1e-8, atol=EXACT)
        end = 0 if told["direction"] == "backward" else -1
        maps = model.jacobian(x, of=f"{hidden}[{end}]", wrt=states, reduce="norm").tensors
        own = maps[f"{hidden}[{end}] / {hidden}"]
        np.testing.assert_allclose(found.tensors[f"{cell}:influence"], own, rtol=EXACT, atol=1e-14)
        if len(states) > 1:
            whole = np.sqrt(sum(one**2 for one in maps.values()))
            np.testing.assert_allclose(found.tensors[f"{cell}:state_influence"], whole, rtol=EXACT, atol=1e-14)
    assert list(found.meta["verdict"]) == [cell for cell, *_ in cells(model)]
    assert all(axes[0] == "batch" or name.endswith(":saturation") for name, axes in found.axes.items())


def test_all_exponents_together_are_the_logarithm_of_the_determinant(client: tapehead.Client) -> None:
    """Σ λ_i = mean of ln |det J_t|, whatever the orthonormal vectors are; and over stacks, directions, masks alike."""
    for name in ("lstm", "stacked_cells_backwards"):
        model, x = client.model(name), np.random.default_rng(0).normal(size=(2, 9, 2))
        found = model.diagnose(x, lengths=[9, 6], exponents=99, transient=0)
        for cell, _, states in cells(model):
            _, logarithms = np.linalg.slogdet(explicit(model, x[:1], states))
            summed = found.tensors[f"{cell}:lyapunov"].sum(axis=1)
            np.testing.assert_allclose(summed[0], logarithms[0].mean(), rtol=1e-9)
            _, logarithms = np.linalg.slogdet(explicit(model, x[1:, :6], states))
            np.testing.assert_allclose(summed[1], logarithms[0].mean(), rtol=1e-9)


def test_what_is_taken_a_few_samples_at_a_time_is_the_same(
    client: tapehead.Client, networks: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    x = architectures.data(networks["lstm"], batch=5, timesteps=TIMESTEPS)
    whole = client.model("lstm").diagnose(x, lengths=[7, 3, 7, 1, 5])
    monkeypatch.setattr(seeds, "CHUNK_BYTES", 1 << 15)
    parts = client.model("lstm").diagnose(x, lengths=[7, 3, 7, 1, 5])
    assert parts.meta["verdict"] == whole.meta["verdict"]
    for name, array in whole.tensors.items():
        np.testing.assert_allclose(parts.tensors[name], array, rtol=1e-9, atol=1e-12, err_msg=name)


# --------------------------------------------------------------------------------------------------- Lyapunov exponents


def linear(kernel: Any) -> Any:
    """h' = h U: a network that is the linear system, its U given."""
    kernel = np.asarray(kernel, np.float64)
    network = chain(SimpleRNN(len(kernel), activation="linear", name="rnn", **SEQUENCE))
    network.set_weights([np.zeros((architectures.FEATURES, len(kernel))), kernel, np.zeros(len(kernel))])
    return network


def test_the_exponents_of_a_linear_recurrence_are_the_logarithms_of_its_eigenvalues() -> None:
    rng = np.random.default_rng(3)
    eigenvalues = np.array([1.1, -0.9, 0.5, 0.1])
    basis = rng.normal(size=(4, 4))
    network = linear(basis @ np.diag(eigenvalues) @ np.linalg.inv(basis))
    found = diagnosed(network, np.zeros((1, 360, 2)), transient=120).tensors["rnn:lyapunov"]
    np.testing.assert_allclose(found[0], np.log(np.abs(eigenvalues)), atol=1e-9)


def test_the_exponents_of_an_orthogonal_network_are_zero() -> None:
    rotation = np.linalg.qr(np.random.default_rng(4).normal(size=(6, 6)))[0]
    found = diagnosed(linear(rotation), np.zeros((2, 50, 2)), exponents=6)
    assert np.abs(found.tensors["rnn:lyapunov"]).max() < 1e-13
    assert found.meta["verdict"] == {"rnn": "healthy"}
    np.testing.assert_allclose(found.tensors["rnn:influence"], np.sqrt(6), rtol=1e-12)


@pytest.mark.parametrize("transient", [0, 5, None])
def test_the_exponent_of_a_scalar_tanh_map_is_the_mean_logarithm_of_its_slope(transient: int | None) -> None:
    """h' = tanh(w h + u x), so ∂h'/∂h = w (1 - h'^2)."""
    w, u, timesteps = 1.7, 0.8, 40
    network = chain(SimpleRNN(1, name="rnn", **SEQUENCE), features=1)
    network.set_weights([np.array([[u]]), np.array([[w]]), np.zeros(1)])
    x = np.random.default_rng(5).normal(size=timesteps)
    h, slopes = 0.0, []
    for value in x:
        h = np.tanh(w * h + u * value)
        slopes.append(np.log(abs(w * (1 - h * h))))
    skipped = timesteps // 10 if transient is None else transient
    found = diagnosed(network, x[None, :, None], transient=transient).tensors["rnn:lyapunov"]
    np.testing.assert_allclose(found, [[np.mean(slopes[skipped : timesteps - skipped])]], rtol=1e-11)


def test_backwards_and_forwards_qr_meet(client: tapehead.Client) -> None:
    """The textbook's way, vectors pushed forward through explicit Jacobians, comes to the same exponents."""
    model, x = client.model("lstm"), np.random.default_rng(6).normal(size=(1, 1500, 2))
    steps = explicit(model, x, ["lstm.h", "lstm.c"])[0]
    q, grown = np.linalg.qr(np.random.default_rng(7).normal(size=(6, 3)))[0], []
    for step in steps:
        q, r = np.linalg.qr(step @ q)
        grown.append(np.log(np.abs(np.diag(r))))
    found = model.diagnose(x, exponents=3, steps=1).tensors["lstm:lyapunov"][0]
    np.testing.assert_allclose(found, np.mean(grown[150:-150], axis=0), atol=0.01)


def test_a_direction_that_is_lost_has_an_exponent_of_minus_infinity() -> None:
    """An answer, not an error."""
    network = linear([[0.5, 0.0], [0.0, 0.0]])
    found = diagnosed(network, np.zeros((1, 20, 2)))
    np.testing.assert_allclose(found.tensors["rnn:lyapunov"], [[np.log(0.5), -np.inf]])
    assert found.meta["finite"] is False
    assert found.meta["verdict"] == {"rnn": "vanishing"}


# --------------------------------------------------------------------------------------------------- rates and horizons


def test_rate_and_horizon_of_a_scaled_rotation_are_its_scale() -> None:
    rotation = np.linalg.qr(np.random.default_rng(8).normal(size=(5, 5)))[0]
    found = diagnosed(linear(0.9 * rotation), np.zeros((3, 200, 2)), lengths=[200, 60, 20])
    influence = found.meta["numbers"]["rnn"]["influence"]
    for bound in ("value", "low", "high"):
        assert influence["rate"][bound] == pytest.approx(np.log(0.9), rel=1e-9)
    assert influence["rate"]["explained"] == pytest.approx(1)
    assert influence["rate"]["sequences"] == 3
    assert influence["horizon"] == {"faint": 44, "lost": 153}  # 0.9^44 < 1e-2 <= 0.9^43, 0.9^153 < 1e-7 <= 0.9^152
    assert influence["least"] == pytest.approx(0.9**199)
    assert influence["reach"] == 199


def test_a_horizon_that_is_not_reached_is_none_and_thresholds_move_it() -> None:
    rotation = np.linalg.qr(np.random.default_rng(8).normal(size=(5, 5)))[0]
    found = diagnosed(linear(0.9 * rotation), np.zeros((1, 50, 2)), thresholds={"faint": 1e-3, "lost": 1e-3})
    assert found.meta["numbers"]["rnn"]["influence"]["horizon"] == {"faint": None, "lost": None}
    assert found.meta["verdict"] == {"rnn": "healthy"}
    assert found.meta["thresholds"]["faint"] == 1e-3
    assert found.meta["thresholds"]["exploding"] == 100


def test_influence_is_told_far_below_and_above_what_its_square_could_be() -> None:
    """In single precision, where squares end at 1e-45 and 3e38."""
    network = keras.Sequential([keras.Input((None, 1)), layers.SimpleRNN(2, activation="linear", name="rnn")])
    for scale in (1e-3, 1e3):
        network.set_weights([np.zeros((1, 2)), scale * np.eye(2), np.zeros(2)])
        found = diagnosed(network, np.zeros((1, 11, 1)), steps=1).tensors["rnn:influence"][0]
        np.testing.assert_allclose(found, np.sqrt(2) * scale ** np.arange(10.0, -1, -1), rtol=1e-5)


# ------------------------------------------------------------------------------------------------------- masks, padding


@pytest.mark.parametrize(
    "name", ["lstm", "stacked_cells_backwards", "gradient_cell", pytest.param("deep", marks=pytest.mark.slow)]
)
def test_padded_sequences_are_diagnosed_as_each_is_alone(
    client: tapehead.Client, networks: dict[str, Any], name: str
) -> None:
    model, lengths = client.model(name), [7, 4, 1]
    x = next(iter(architectures.data(networks[name], timesteps=TIMESTEPS).values()))
    together = model.diagnose(x, lengths=lengths)
    for row, length in enumerate(lengths):
        alone = model.diagnose(x[row : row + 1, :length])
        for tensor, axes in together.axes.items():
            if axes[0] != "batch":
                continue
            own = together.tensors[tensor][row]
            if "timestep" in axes:
                assert not own[length:].any(), tensor
                own = own[:length]
            np.testing.assert_allclose(own, alone.tensors[tensor][0], rtol=1e-9, atol=1e-12, err_msg=tensor)


def test_masked_timesteps_count_for_nothing_wherever_they_stand() -> None:
    network, valid = architectures.build("masked_lstm"), [[1, 0, 1, 1, 0, 1], [0, 1, 1, 1, 1, 1]]
    x = architectures.masked({"series": np.random.default_rng(9).normal(size=(2, 6, 2))}, valid)["series"]
    found = diagnosed(network, x)
    for row, counts in enumerate(np.asarray(valid, bool)):
        alone = diagnosed(network, x[row : row + 1, counts])
        for tensor in ("influence", "state_influence", "singular_values", "spectral_radius"):
            own = found.tensors[f"lstm:{tensor}"][row]
            np.testing.assert_allclose(own[counts], alone.tensors[f"lstm:{tensor}"][0], rtol=1e-9, atol=1e-13)
            assert not own[~counts].any()
        np.testing.assert_allclose(found.tensors["lstm:lyapunov"][row], alone.tensors["lstm:lyapunov"][0], rtol=1e-9)


# --------------------------------------------------------------------------------------------------------- gates, units


def test_saturation_is_the_share_of_each_gates_numbers_at_its_bounds() -> None:
    network = architectures.with_random_weights(chain(LSTM(4, name="lstm", **SEQUENCE)), seed=2)
    network.set_weights([4 * weight for weight in network.get_weights()])
    x, lengths = np.random.default_rng(10).normal(size=(3, 6, 2)), [6, 3, 5]
    with tapehead.Client(models={"m": network}, timeout=None) as client:
        model = client.model("m")
        found = model.diagnose(x, lengths=lengths, thresholds={"margin": 0.1})
        gates = [f"lstm.{gate}" for gate in found.meta["gates"]["lstm"]]
        values = model.states(x, lengths=lengths, points=gates).tensors
    valid = np.arange(6) < np.array(lengths)[:, None]
    for gate, own in zip(gates, found.tensors["lstm:saturation"], strict=True):
        low, high = (-0.9, 0.9) if gate.endswith("candidate") else (0.1, 0.9)
        for side, beyond in enumerate((values[gate] <= low, values[gate] >= high)):
            shares = (beyond.mean(axis=-1) * valid).sum(axis=0) / valid.sum(axis=0)
            np.testing.assert_allclose(own[:, side], shares, atol=1e-12)
            told = found.meta["numbers"]["lstm"]["gates"][gate.removeprefix("lstm.")]
            assert told[("low", "high")[side]] == pytest.approx(beyond[valid].mean())
    assert 0 < found.tensors["lstm:saturation"].mean() < 1


def test_dead_and_stuck_units_are_counted() -> None:
    network = chain(SimpleRNN(5, activation="relu", name="rnn", **SEQUENCE))
    bias = np.array([-9.0, 1.0, -9.0, 1.0, 1.0])
    network.set_weights([0.1 * np.ones((2, 5)), np.zeros((5, 5)), bias])
    x = np.random.default_rng(11).uniform(-1, 1, size=(2, 8, 2))
    found = diagnosed(network, x)
    assert found.meta["numbers"]["rnn"]["dead_units"] == 2
    (finding,) = [one for one in found.meta["findings"] if one["kind"] == "dead"]
    assert (finding["severity"], finding["number"], finding["threshold"]) == ("info", 0.4, 0.5)
    assert "2 of 5 rectified units" in finding["meaning"]
    assert diagnosed(network, x, thresholds={"dead": 0.4}).meta["verdict"] == {"rnn": "dead"}
    stuck = chain(SimpleRNN(5, name="rnn", **SEQUENCE))
    stuck.set_weights([0.1 * np.ones((2, 5)), np.zeros((5, 5)), bias])
    told = diagnosed(stuck, x).meta["numbers"]["rnn"]
    assert told["gates"]["h"] == {"low": pytest.approx(0.4), "high": 0, "stuck": 2, "units": 5}
    assert told["dead_units"] is None


def test_a_cell_of_its_users_own_has_no_gates_to_look_at(client: tapehead.Client) -> None:
    found = client.model("two_state_code").diagnose(np.zeros((1, 4, 2)))
    assert found.meta["gates"] == {"rnn": []}
    assert "rnn:saturation" not in found.tensors


# ----------------------------------------------------------------------------------------------------------- not finite


def test_the_first_number_that_is_not_finite_is_located() -> None:
    """h' = 1e10 h + x in single precision: from 1, infinite four timesteps on."""
    network = keras.Sequential(
        [
            keras.Input((None, 1)),
            layers.SimpleRNN(1, activation="linear", return_sequences=True, name="before"),
            layers.SimpleRNN(1, activation="linear", return_sequences=True, name="bursting"),
            layers.LSTM(2, name="after"),
        ]
    )
    one, zero = np.ones((1, 1)), np.zeros(1)
    network.set_weights([one, one, zero, one, 1e10 * one, zero, *network.get_weights()[6:]])
    x = np.zeros((3, 9, 1))
    x[1, 2] = 1
    found = diagnosed(network, x)
    assert found.meta["not_finite"] == {"layer": "bursting", "sample": 1, "timestep": 6}
    assert found.meta["verdict"] == {"before": "healthy", "bursting": "not_finite", "after": "not_finite"}
    told = [one for one in found.meta["findings"] if one["kind"] == "not_finite"]
    assert [one["layer"] for one in told] == ["bursting", "after"]
    assert all("layer 'bursting', sample 1, timestep 6" in one["meaning"] for one in told)


def test_a_weight_that_is_no_number_is_found_in_the_layer_that_has_it() -> None:
    network = architectures.with_random_weights(chain(Dense(2, name="mix"), LSTM(2, name="lstm")))
    kernel, *rest = network.get_weights()
    network.set_weights([np.full_like(kernel, np.nan), *rest])
    found = diagnosed(network, np.ones((2, 3, 2)))
    assert found.meta["not_finite"] == {"layer": "mix", "sample": 0, "timestep": 0}
    assert found.meta["verdict"] == {"lstm": "not_finite"}
    assert np.isnan(found.tensors["lstm:singular_values"]).all()
    assert found.meta["numbers"]["lstm"]["influence"]["rate"] is None


def test_a_backward_layer_is_searched_in_its_own_time() -> None:
    network = chain(SimpleRNN(1, activation="linear", go_backwards=True, name="rnn"), features=1)
    network.set_weights([np.ones((1, 1)), np.full((1, 1), 1e300), np.zeros(1)])
    found = diagnosed(network, np.ones((1, 6, 1)))
    assert found.meta["not_finite"] == {"layer": "rnn", "sample": 0, "timestep": 3}


# ------------------------------------------------------------------------------------------------------- initialisation


@pytest.mark.parametrize("activation", EXPECTED)
def test_b2_the_variance_times_the_units_is_told_with_its_theory(activation: str) -> None:
    network, found = initialised(activation, 0), []
    with tapehead.Client(models={"m": network}, timeout=None) as client:
        for seed in range(4):
            network.set_weights(initialised(activation, seed).get_weights())
            answer = client.model("m").diagnose(**asked(seed))
            check = answer.meta["numbers"]["rnn"]["initialisation"]
            by_hand = expected_jacobian(network, activation, seed)
            assert check["found"] == pytest.approx(by_hand.var() * UNITS, rel=1e-9)
            assert check["theory"] == EXPECTED[activation][0]
            (told,) = [one for one in answer.meta["findings"] if one["kind"] == "initialisation"]
            assert told["severity"] == ("warning" if activation == "relu" else "info")
            found.append(check["found"])
    assert np.mean(found) == pytest.approx(EXPECTED[activation][0], abs=0.05)


INITIALISED = {
    "glorot_uniform linear": (1.0, 0.05),
    "he_normal relu": (1.0, 0.25),
    "orthogonal linear": (1.0, 1e-3),
    "orthogonal relu": (0.5, 0.1),
    "identity linear": (0.99, 1e-9),
    "zeros linear": (0.0, 0.0),
}


@pytest.mark.parametrize("drawn", INITIALISED)
def test_theory_is_what_an_initialiser_gives(drawn: str) -> None:
    initializer, activation = drawn.split()
    theory, tolerance = INITIALISED[drawn]
    keras.utils.set_random_seed(3)
    network = chain(
        SimpleRNN(100, activation=activation, recurrent_initializer=initializer, name="rnn", **SEQUENCE), features=50
    )
    x = np.random.default_rng(12).normal(size=(4, 3, 50))
    check = diagnosed(network, x).meta["numbers"]["rnn"]["initialisation"]
    if drawn.startswith("zeros"):
        assert check["why"].startswith("Every entry is 0")
        assert check["theory"] is None
    else:
        assert check["theory"] == pytest.approx(theory)
    assert check["found"] == pytest.approx(theory, abs=tolerance)


@pytest.mark.parametrize("name", ["lstm", "gru", "contrary_cell_apart", "gradient_cell"])
def test_where_no_theory_is_known_none_is_told(client: tapehead.Client, networks: dict[str, Any], name: str) -> None:
    found = client.model(name).diagnose(architectures.data(networks[name]))
    for cell in found.meta["numbers"].values():
        assert cell["initialisation"]["theory"] is None
        assert cell["initialisation"]["why"].startswith("No theory")


# ----------------------------------------------------------------------------------------------- the weights' gradients


@pytest.mark.parametrize("name", ["lstm", "stacked_cells_backwards", pytest.param("deep", marks=pytest.mark.slow)])
def test_the_gradients_of_a_layers_weights_are_those_of_weight_gradients(
    client: tapehead.Client, networks: dict[str, Any], name: str
) -> None:
    model, x = client.model(name), next(iter(architectures.data(networks[name], timesteps=TIMESTEPS).values()))
    given = {"targets": np.full(model.infer(x).value.shape, 0.3), "loss": "mse", "lengths": [7, 4, 2]}
    found, norms = model.diagnose(x, steps=1, **given), model.weight_gradients(x, by="timestep", **given)
    assert found.meta["loss"] == norms.meta["loss"]
    assert found.meta["loss_value"] == pytest.approx(norms.meta["loss_value"])
    assert found.meta["disconnected"] == []
    seen = [weight for weights in found.meta["weights"].values() for weight in weights]
    assert seen == [weight for weight, axes in norms.axes.items() if axes == ("timestep",)]
    for layer, weights in found.meta["weights"].items():
        tensor = found.tensors[f"{layer}:weight_gradients"]
        assert found.axes[f"{layer}:weight_gradients"] == ("weight", "timestep")
        np.testing.assert_allclose(tensor, [norms.tensors[weight] for weight in weights], rtol=1e-9)
        assert list(found.meta["numbers"][layer]["weight_gradients"]["rates"]) == weights


def test_the_rate_of_the_weights_gradients_is_that_of_what_reaches_them() -> None:
    """x_t is 1, so that the kernel's gradient at t is as long as the cotangent there: 0.9 times what it is at t + 1."""
    rotation = np.linalg.qr(np.random.default_rng(8).normal(size=(5, 5)))[0]
    found = diagnosed(linear(0.9 * rotation), np.ones((1, 40, 2)), of="rnn.h[-1, 0]")
    rates = found.meta["numbers"]["rnn"]["weight_gradients"]["rates"]
    for weight in ("rnn/kernel", "rnn/bias"):
        assert rates[weight]["value"] == pytest.approx(np.log(0.9), rel=1e-9)
        assert rates[weight]["intercept"] == pytest.approx(0.5 * np.log(2) if weight == "rnn/kernel" else 0, abs=1e-9)
    assert rates["rnn/recurrent_kernel"] is None  # the states are 0
    (told,) = [one for one in found.meta["findings"] if one["kind"] == "weight_gradients"]
    assert told["number"] == pytest.approx(np.log(0.9))


def test_a_layer_that_the_point_does_not_reach_has_no_gradients_and_that_is_said() -> None:
    network = architectures.build("two_outputs")
    x = next(iter(architectures.data(network).values()))
    found = diagnosed(network, x, of="gru.h[-1, 0]", steps=1)
    assert list(found.meta["weights"]) == ["gru", "lstm"]
    assert found.meta["weights"]["lstm"] == []
    assert "lstm:weight_gradients" not in found.tensors
    assert {"lstm/kernel", "lstm/recurrent_kernel", "lstm/bias"} <= set(found.meta["disconnected"])
    assert "weight_gradients" not in found.meta["numbers"]["lstm"]


def test_a_gradient_that_runs_over_is_located_where_the_values_do_not() -> None:
    network = chain(SimpleRNN(1, activation="linear", name="rnn"), features=1)
    network.set_weights([np.ones((1, 1)), np.full((1, 1), 1e200), np.zeros(1)])
    x = np.zeros((1, 6, 1))
    x[0, 5] = 1.0
    found = diagnosed(network, x, of="rnn.h[-1, 0]")
    assert found.meta["not_finite"] is None
    told = [one for one in found.meta["findings"] if one["kind"] == "not_finite"]
    sound = np.isfinite(found.tensors["rnn:weight_gradients"]).all(axis=0)
    assert sound[-1]
    assert [one["number"] for one in told] == [float(np.flatnonzero(~sound)[-1])]
    assert "The gradient of rnn/" in told[0]["meaning"]
    assert found.meta["verdict"] == {"rnn": "not_finite"}


# ----------------------------------------------------------------------------------------------------- asking, refusing


def test_one_layer_or_one_direction_can_be_asked_for(client: tapehead.Client) -> None:
    deep, x = client.model("deep"), np.ones((1, 4, 2))

    def asked(layer: str | None) -> list[str]:
        found = deep.diagnose(x, layer=layer, dry_run=True).tensors
        return list(dict.fromkeys(name.partition(":")[0] for name in found))

    stacks = [f"middle.inner.bi.{way}.cells.{n}" for way in ("forward", "backward") for n in (0, 1)]
    assert asked(None) == [*stacks, "middle.lstm", "rnn"]
    assert asked("middle.inner.bi") == asked("middle.inner") == stacks
    assert asked("middle.inner.bi.forward") == stacks[:2]
    assert asked("middle.inner.bi.forward.cells.1") == [stacks[1]]
    assert list(deep.diagnose(x, layer="rnn").meta["verdict"]) == ["rnn"]


def test_a_few_timesteps_are_spread_from_the_first_to_the_last(client: tapehead.Client) -> None:
    x = np.random.default_rng(13).normal(size=(2, 21, 2))
    few, every = (client.model("gru").diagnose(x, steps=steps) for steps in (5, None))
    assert few.meta["jacobian_timesteps"] == {"gru": [0, 5, 10, 15, 20]}
    assert every.meta["jacobian_timesteps"] == {"gru": list(range(21))}
    np.testing.assert_allclose(
        few.tensors["gru:singular_values"], every.tensors["gru:singular_values"][:, ::5], rtol=1e-12
    )


@pytest.mark.parametrize(
    ("error", "says", "given"),
    [
        (errors.BadParameter, "both `of` and 'targets' are given", {"of": "outputs[0]", "targets": np.zeros((1, 2))}),
        (errors.BadParameter, "needs targets for a loss, or `of`", {"loss": "mse"}),
        (errors.BadParameter, "expected one: index it", {"of": "outputs"}),
        (errors.UnknownPoint, "no recurrent layer 'gruu'; those of this model: gru", {"layer": "gruu"}),
        (errors.UnknownPoint, "no recurrent layer 'gr'", {"layer": "gr"}),
        (errors.BadParameter, "thresholds has no 'feint'; it takes faint, lost", {"thresholds": {"feint": 1}}),
        (
            errors.BadParameter,
            r"thresholds\['faint'\] is 2; it must be from 1e-30 to 0.5",
            {"thresholds": {"faint": 2}},
        ),
        (errors.BadParameter, "thresholds is .*; expected a map of names to numbers", {"thresholds": {"faint": "x"}}),
        (errors.BadParameter, "left out at either end of 6 timesteps it leaves none", {"transient": 3}),
        (errors.BadParameter, "exponents is 0; it must be at least 1", {"exponents": 0}),
        (errors.BadParameter, "steps is 0; it must be at least 1", {"steps": 0}),
    ],
)
def test_what_cannot_be_diagnosed_is_refused(
    client: tapehead.Client, error: type[Exception], says: str, given: dict[str, Any]
) -> None:
    with pytest.raises(error, match=says):
        client.model("gru").diagnose(np.zeros((1, 6, 2)), **given)


def test_a_model_without_recurrent_layers_is_refused() -> None:
    with pytest.raises(errors.BadParameter, match="model 'm' has no recurrent layer to diagnose"):
        diagnosed(chain(Dense(2, name="head")), np.zeros((1, 3, 2)))


def test_a_state_too_large_for_matrices_has_none_unless_they_are_asked_for() -> None:
    network = keras.Sequential([keras.Input((None, 1)), layers.GRU(1025, name="gru")])
    found = diagnosed(network, np.zeros((1, 3, 1)))
    assert set(found.tensors) == {"gru:influence", "gru:lyapunov", "gru:saturation"}
    assert found.meta["numbers"]["gru"]["initialisation"] is None
    assert found.meta["jacobian_timesteps"] == {"gru": []}


def test_every_finding_says_what_it_means_what_to_do_and_who_found_it(client: tapehead.Client) -> None:
    told = [one for name in NAMES[:3] for one in client.model(name).diagnose(np.ones((2, 9, 2))).meta["findings"]]
    assert {one["kind"] for one in told} >= {"rate", "initialisation", "contracting"}
    for one in told:
        assert set(one) == {"severity", "layer", "kind", "number", "threshold", "meaning", "advice", "source"}
        assert one["severity"] in ("info", "warning", "critical")
        assert all(one[text].strip() for text in ("meaning", "advice", "source"))
        assert any(year in one["source"] for year in ("19", "20"))


def test_layers_side_by_side_are_judged_apart() -> None:
    network = chain(
        Bidirectional(SimpleRNN(3, activation="linear", **SEQUENCE), name="bi"),
        RNN(TwoState(3, "linear"), name="rnn", **SEQUENCE),
    )
    kernel, bias = np.zeros((2, 3)), np.zeros(3)
    network.set_weights(
        [kernel, 0.5 * np.eye(3), bias, kernel, 2 * np.eye(3), bias, np.eye(3), bias, np.zeros((6, 3)), bias]
    )
    found = diagnosed(network, np.zeros((2, 30, 2)))
    assert found.meta["verdict"] == {"bi.forward": "vanishing", "bi.backward": "exploding", "rnn": "healthy"}


def test_over_http_the_answer_is_the_same(tmp_path: Path) -> None:
    """B2's network from msgpack, as in process; and in JSON minus infinity is written as text."""
    folder = tmp_path / "models"
    folder.mkdir()
    network, lost = initialised("relu", 7), linear([[0.5, 0.0], [0.0, 0.0]])
    network.save(folder / "b2.keras")
    lost.save(folder / "lost.keras")
    with serving(folder) as url, tapehead.Client(url, timeout=None) as client:
        served = client.model("b2").diagnose(**asked(7))
        body = {"inputs": np.zeros((1, 20, 2)).tolist(), "thresholds": {"faint": 1e-3}}
        plain = httpx2.post(f"{url}/v2/models/lost/diagnose", json=body, timeout=60).json()
    live = diagnosed(network, asked(7)["inputs"], initial_states=asked(7)["initial_states"])
    for said in ("numbers", "findings", "verdict"):
        assert served.meta[said] == live.meta[said]
    assert served.axes == live.axes
    assert plain["tensors"]["rnn:lyapunov"]["data"][0][1] == "-Infinity"
    assert plain["meta"]["numbers"]["rnn"]["lyapunov"][1]["value"] == "-Infinity"
    assert plain["meta"]["numbers"]["rnn"]["influence"]["horizon"] == {"faint": 10, "lost": None}
    assert plain["meta"]["verdict"] == {"rnn": "vanishing"}
