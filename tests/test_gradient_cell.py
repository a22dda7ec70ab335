"""A cell that contains a gradient (E1 to E4): it is saved, served, trained, and differentiated again.

With a scalar F, y_t = F(x_t, h_{t-1}) and h_t = ∂F/∂h (x_t, h_{t-1}), so that ∂h_t/∂h_{t-1} = ∂²F/∂h².
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import tapehead
from tapehead.keras import GradientCell
from tapehead.residency import screening
from test_sources import serving
from user_cells import Cubic

BATCH, TIMESTEPS, FEATURES, UNITS = 3, 5, 2, 3
EXACT, STEPPED = 1e-10, 1e-6


def cubic(dtype: str = "float64") -> Any:
    x, h = (keras.Input((n,), dtype=dtype, name=name) for n, name in ((FEATURES, "x"), (UNITS, "h")))
    return keras.Model([x, h], Cubic(dtype=dtype, name="cubic")([x, h]))


def network(cell: Any, dtype: str = "float64", scale: float = 0.6) -> Any:
    """The cell in a layer, random weights."""
    series = keras.Input((None, FEATURES), dtype=dtype, name="series")
    model = keras.Model(series, keras.layers.RNN(cell, return_sequences=True, dtype=dtype, name="rnn")(series))
    numbers = np.random.default_rng(3)
    model.set_weights([scale * numbers.normal(size=weight.shape) for weight in model.get_weights()])
    return model


def mlp(dtype: str = "float64", activation: str = "tanh") -> Any:
    return network(GradientCell(UNITS, widths=(4, 4), activation=activation, dtype=dtype), dtype)


def data(dtype: str = "float64") -> tuple[np.ndarray, np.ndarray]:
    numbers = np.random.default_rng(4)
    x = numbers.normal(size=(BATCH, TIMESTEPS, FEATURES)).astype(dtype)
    return x, np.cumsum(0.3 * x.sum(axis=-1, keepdims=True), axis=1).astype(dtype)


@pytest.fixture(scope="module", params=["over HTTP", "in process"])
def client(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tapehead.Client]:
    models = {"mlp": mlp(), "cubic": network(GradientCell(UNITS, function=cubic(), dtype="float64"))}
    with ExitStack() as stack:
        if request.param == "in process":
            yield stack.enter_context(tapehead.Client(models=models, timeout=None))
        else:
            folder = tmp_path_factory.mktemp("gradients")
            for name, model in models.items():
                model.save(folder / f"{name}.keras")
            url = stack.enter_context(serving(folder, "user_cells"))
            yield stack.enter_context(tapehead.Client(url, timeout=None))


# --------------------------------------------------------------------------------------------------------- E1, the cell


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("given", [False, True])
def test_a_saved_file_gives_the_cell_back_with_its_weights(tmp_path: Path, dtype: str, given: bool) -> None:
    cell = GradientCell(UNITS, function=cubic(dtype), dtype=dtype) if given else GradientCell(UNITS, (4,), "softplus")
    model = network(cell, dtype)
    model.save(tmp_path / "model.keras")
    loaded = screening.load_keras(str(tmp_path / "model.keras"))
    again = loaded.get_layer("rnn").cell
    x, _ = data(dtype)
    assert (again.units, again.widths, again.output_size) == (UNITS, cell.widths, 1)
    assert type(again) is GradientCell
    np.testing.assert_array_equal(loaded(x), model(x))


def test_build_makes_all_weights() -> None:
    cell = GradientCell(UNITS, widths=(5, 4))
    cell.build((None, FEATURES))
    shapes = [tuple(weight.shape) for weight in cell.weights]
    assert shapes == [(FEATURES + UNITS, 5), (5,), (5, 4), (4,), (4, 1), (1,)]


def test_a_step_gives_the_function_and_its_gradient() -> None:
    function = cubic()
    cell = GradientCell(UNITS, function=function, dtype="float64")
    numbers = np.random.default_rng(5)
    x, h = numbers.normal(size=(BATCH, FEATURES)), numbers.normal(size=(BATCH, UNITS))
    y, (after,) = cell(x, [h])
    a, s, b = (np.asarray(weight) for weight in function.layers[-1].weights)
    np.testing.assert_allclose(y, function([x, h]), rtol=EXACT)
    np.testing.assert_allclose(after, a * h**2 / 2 + h @ (s + s.T) / 2 + x @ b.T, rtol=EXACT)


def test_a_function_of_other_shapes_is_refused() -> None:
    with pytest.raises(ValueError, match=r"h of shape \(batch, 4\)"):
        GradientCell(4, function=cubic())


def test_a_function_whose_second_derivative_tensorflow_gets_wrong_is_refused() -> None:
    x, h = keras.Input((FEATURES,)), keras.Input((UNITS,))
    value = keras.layers.Dense(1)(
        keras.layers.LayerNormalization(name="normal")(keras.ops.concatenate([x, h], axis=-1))
    )
    with pytest.raises(ValueError, match=r"\['normal'\], whose second derivatives"):
        GradientCell(UNITS, function=keras.Model([x, h], value))


def test_another_backend_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(RuntimeError, match="KERAS_BACKEND=tensorflow"):
        GradientCell(UNITS)


# ---------------------------------------------------------------------------------------------------- E2, it is trained


@pytest.mark.parametrize(("dtype", "eagerly"), [("float32", False), ("float64", False), ("float32", True)])
def test_fit_lowers_the_loss(dtype: str, eagerly: bool) -> None:
    model = mlp(dtype)
    model.compile(keras.optimizers.Adam(0.02), "mse", run_eagerly=eagerly)
    history = model.fit(*data(dtype), epochs=8 if eagerly else 40, batch_size=BATCH, verbose=0).history["loss"]
    assert history[-1] < (0.95 if eagerly else 0.6) * history[0]


def test_gradients_of_the_parameters_equal_central_differences() -> None:
    model = mlp()
    x, y = data()

    @tf.function
    def gradients() -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(x) - y) ** 2)
        return tape.gradient(loss, [weight.value for weight in model.weights], unconnected_gradients="zero")

    step = 1e-5
    for weight, found in zip(model.weights, gradients(), strict=True):
        start, stepped = np.asarray(weight), np.zeros(weight.shape)
        for index in np.ndindex(*weight.shape):
            sides = []
            for sign in (1, -1):
                moved = start.copy()
                moved[index] += sign * step
                weight.assign(moved)
                sides.append(float(np.mean((np.asarray(model(x)) - y) ** 2)))
            stepped[index] = (sides[0] - sides[1]) / (2 * step)
        weight.assign(start)
        np.testing.assert_allclose(found, stepped, rtol=STEPPED, atol=STEPPED)


# ----------------------------------------------------------------------------------- E3 and E4, its derivatives, served


@pytest.mark.parametrize("name", ["mlp", "cubic"])
def test_the_jacobian_of_a_step_is_symmetric(client: tapehead.Client, name: str) -> None:
    x, _ = data()
    found = client.model(name).jacobian(x, of="rnn.h", wrt="rnn.h", lag=1).value
    assert found.shape == (BATCH, TIMESTEPS, UNITS, UNITS)
    assert np.abs(found).max() > 0.1
    np.testing.assert_allclose(found, np.swapaxes(found, -1, -2), atol=EXACT)


def test_the_jacobian_of_a_step_is_the_hessian_in_closed_form(client: tapehead.Client) -> None:
    x, _ = data()
    model = client.model("cubic")
    first = np.random.default_rng(6).normal(size=(BATCH, UNITS))
    given: dict[str, Any] = {"initial_states": {"rnn.h.initial": first}}
    found = model.jacobian(x, of="rnn.h", wrt="rnn.h", lag=1, **given).value
    states = model.states(x, points=["rnn.h"], **given).tensors["rnn.h"]
    a, s, _ = network(GradientCell(UNITS, function=cubic(), dtype="float64")).get_weights()
    before = np.concatenate([first[:, None], states[:, :-1]], axis=1)
    np.testing.assert_allclose(found, a * before[..., None] * np.eye(UNITS) + (s + s.T) / 2, atol=EXACT)


def test_the_jacobian_of_a_step_is_the_hessian_by_jax(client: tapehead.Client) -> None:
    jax = pytest.importorskip("jax")
    x, _ = data()
    model = client.model("mlp")
    found = model.jacobian(x, of="rnn.h", wrt="rnn.h", lag=1).value
    states = model.states(x, points=["rnn.h"]).tensors["rnn.h"]
    before = np.concatenate([np.zeros((BATCH, 1, UNITS)), states[:, :-1]], axis=1)
    kernels = mlp().get_weights()

    def function(h: Any, x: Any) -> Any:
        flowing = jax.numpy.concatenate([x, h])
        for kernel, bias in zip(kernels[:-2:2], kernels[1:-2:2], strict=True):
            flowing = jax.numpy.tanh(flowing @ kernel + bias)
        return (flowing @ kernels[-2] + kernels[-1])[0]

    expected = jax.vmap(jax.vmap(jax.hessian(function)))(before, x)
    np.testing.assert_allclose(found, expected, atol=EXACT)


@pytest.mark.parametrize("name", ["mlp", "cubic"])
def test_its_derivatives_pass_their_check(client: tapehead.Client, name: str) -> None:
    x, _ = data()
    weights = [
        weight for weight in client.model(name).metadata["weights"] if weight.endswith(("head/kernel", "/a", "/s"))
    ]
    wrt = ["inputs", "rnn.h[1]", "rnn.h.initial", *weights]
    assert len(weights) == {"mlp": 1, "cubic": 2}[name]
    assert client.model(name).check(x, of=["outputs[-1]", "rnn.h[-1]"], wrt=wrt).meta["difference"] < STEPPED


@pytest.mark.parametrize("name", ["mlp", "cubic"])
def test_products_agree_with_its_jacobian_and_its_hessian_is_symmetric(client: tapehead.Client, name: str) -> None:
    x, _ = data()
    model, (u, v) = client.model(name), np.random.default_rng(8).normal(size=(2, *x.shape))
    jacobian = model.jacobian(x, of="outputs", wrt="inputs").value
    pushed = model.jvp(x, of="outputs", wrt="inputs", tangent=v).value
    np.testing.assert_allclose(pushed, np.einsum("btysf,bsf->bty", jacobian, v), atol=EXACT)
    one, other = (model.hvp(x, of="outputs[-1]", wrt="inputs", tangent=w).value for w in (u, v))
    np.testing.assert_allclose((one * v).sum(axis=(1, 2)), (other * u).sum(axis=(1, 2)), atol=EXACT)
    step = 1e-5
    sides = [model.vjp(x + sign * step * v, of="outputs[-1]", wrt="inputs").value for sign in (1, -1)]
    np.testing.assert_allclose(other, (sides[0] - sides[1]) / (2 * step), atol=STEPPED)
