"""Cells that users bring: named at start, imported by the worker, with states of any shape."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import architectures
import tapehead
from tapehead.engine import Model
from test_sources import serving
from user_cells import FastWeights, Matrix, Nested

BATCH, TIMESTEPS, FEATURES = 2, 4, 2
EXACT, STEPPED = 1e-10, 1e-7


def chain(layer: Any, *before: Any) -> Any:
    """A model of that one layer with random weights."""
    series = keras.Input((None, FEATURES), dtype="float64", name="series")
    return architectures.with_random_weights(keras.Sequential([series, *before, layer]), seed=2)


def rnn(cell: Any, **options: Any) -> Any:
    return keras.layers.RNN(cell, return_sequences=True, dtype="float64", **options)


NETWORKS: dict[str, Any] = {
    "fast": lambda: chain(rnn(FastWeights(3, dtype="float64"), name="rnn")),
    "matrix": lambda: chain(rnn(Matrix(2, dtype="float64"), name="rnn")),
    "nested": lambda: chain(rnn(Nested(dtype="float64"), name="rnn")),
    "backwards": lambda: chain(rnn(FastWeights(2, dtype="float64"), name="rnn", go_backwards=True)),
    "stacked": lambda: chain(
        rnn(
            architectures.StackedRNNCells(
                [FastWeights(2, dtype="float64"), architectures.LSTMCell(2), Matrix(2, dtype="float64")]
            ),
            name="rnn",
        )
    ),
    "bidirectional": lambda: chain(
        architectures.Bidirectional(rnn(FastWeights(2, dtype="float64")), name="rnn"),
        keras.layers.Masking(-1.0, dtype="float64"),
    ),
}
STATES = {
    "fast": {"rnn.h": (3,), "rnn.fast": (3, 3)},
    "matrix": {"rnn.h": (2, 2)},
    "nested": {"rnn.state0": (4,), "rnn.state1": (3,), "rnn.state2": (2, 2)},
    "backwards": {"rnn.h": (2,), "rnn.fast": (2, 2)},
    "stacked": {"rnn.cells.0.h": (2,), "rnn.cells.0.fast": (2, 2), "rnn.cells.1.c": (2,), "rnn.cells.2.h": (2, 2)},
    "bidirectional": {"rnn.forward.h": (2,), "rnn.backward.fast": (2, 2)},
}


def data() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(BATCH, TIMESTEPS, FEATURES))


@pytest.fixture(scope="module")
def networks() -> dict[str, Any]:
    return {name: make() for name, make in NETWORKS.items()}


@pytest.fixture(scope="module")
def client(networks: dict[str, Any]) -> Iterator[tapehead.Client]:
    with tapehead.Client(models=networks, timeout=None) as client:
        yield client


# ------------------------------------------------------------------------------------------ states that are not vectors


@pytest.mark.parametrize("name", NETWORKS)
def test_states_have_names_shapes_and_axes(client: tapehead.Client, name: str) -> None:
    points = client.model(name).points
    for state, shape in STATES[name].items():
        assert tuple(points[state]["shape"]) == (None, *shape)
        assert tuple(points[f"{state}.initial"]["shape"]) == shape
        units = ("unit",) if len(shape) == 1 else ("unit0", "unit1")
        assert tuple(points[state]["axes"]) == ("timestep", *units)


@pytest.mark.parametrize("name", ["fast", "matrix", "nested"])
def test_states_are_those_of_the_cell_stepped_by_hand(
    client: tapehead.Client, networks: dict[str, Any], name: str
) -> None:
    layer, x = networks[name].get_layer("rnn"), data()
    states, passed = layer.get_initial_state(batch_size=BATCH), []
    for t in range(TIMESTEPS):
        _, states = layer.cell(x[:, t], states)
        passed.append(keras.tree.flatten(states))
    found = client.model(name).states(x, points=list(STATES[name])).tensors
    for n, state in enumerate(STATES[name]):
        np.testing.assert_allclose(found[state], np.stack([step[n] for step in passed], axis=1), rtol=EXACT)


@pytest.mark.parametrize("name", NETWORKS)
def test_their_jacobians_pass_the_check(client: tapehead.Client, name: str) -> None:
    *_, last = STATES[name]
    first = next(iter(STATES[name]))
    wrt = [first, f"{last}.initial", "series"]
    assert client.model(name).check(data(), of=["outputs", last], wrt=wrt).meta["difference"] < STEPPED


@pytest.mark.parametrize("name", ["fast", "nested"])
def test_at_a_lag_they_are_the_diagonals_of_the_whole(client: tapehead.Client, name: str) -> None:
    model, (first, *_, last) = client.model(name), STATES[name]
    whole = model.jacobian(data(), of=first, wrt=last).value
    lagged = model.jacobian(data(), of=first, wrt=last, lag=1).value
    assert lagged.shape == (BATCH, TIMESTEPS, *STATES[name][first], *STATES[name][last])
    for t in range(1, TIMESTEPS):
        np.testing.assert_allclose(lagged[:, t], whole[:, t, :, t - 1], atol=EXACT)


@pytest.mark.parametrize("name", ["fast", "matrix", "nested"])
def test_final_states_begin_the_next_call(client: tapehead.Client, name: str) -> None:
    model, points = client.model(name), list(STATES[name])
    first = model.states(data()[:, :2], points=points, final_states=True)
    second = model.states(data()[:, 2:], points=points, initial_states=first.final_states)
    whole = model.states(data(), points=points)
    for state in points:
        np.testing.assert_allclose(second.tensors[state], whole.tensors[state][:, 2:], rtol=EXACT)


def test_an_entry_of_a_matrix_state_has_a_second_derivative(client: tapehead.Client) -> None:
    model, (u, v) = client.model("fast"), np.random.default_rng(2).normal(size=(2, *data().shape))
    one, other = (model.hvp(data(), of="rnn.fast[-1, 0, 1]", wrt="series", tangent=w).value for w in (u, v))
    assert np.abs(one).max() > 0.01
    np.testing.assert_allclose((one * v).sum(axis=(1, 2)), (other * u).sum(axis=(1, 2)), atol=EXACT)


# ------------------------------------------------------------------------------------ a module of the user's, over HTTP

MY_CELLS = '''
    import keras

    @keras.saving.register_keras_serializable("mycells")
    class TwoState(keras.layers.Layer):
        """h' = W relu(h) + b, c' = c - h + h', o = sigmoid(W_o x) + c'."""

        state_names = ("h", "c")

        def __init__(self, units, **kwargs):
            super().__init__(**kwargs)
            self.units, self.state_size, self.output_size = units, [units, units], units
            self.linear_rec = keras.layers.Dense(units, name="linear_rec")
            self.linear_in = keras.layers.Dense(units, name="linear_in")

        def build(self, input_shape):
            self.linear_in.build(input_shape)
            self.linear_rec.build((None, self.units))
            self.built = True

        def call(self, inputs, states):
            h, c = states
            after = self.linear_rec(keras.ops.relu(h))
            c = c - h + after
            return keras.ops.sigmoid(self.linear_in(inputs)) + c, [after, c]

        def get_config(self):
            return {**super().get_config(), "units": self.units}
'''


def install(folder: Path) -> None:
    """The module `mycells`, to be named at start; and a package with an entry point, which needs no naming."""
    (folder / "mycells.py").write_text(textwrap.dedent(MY_CELLS))
    (folder / "plugin.py").write_text(textwrap.dedent(MY_CELLS).replace('"mycells"', '"plugin"'))
    about = folder / "plugin-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[tapehead.cells]\nplugin = plugin\n")


def test_a_module_named_at_start_and_an_entry_point_serve_their_cells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    import mycells
    import plugin

    (tmp_path / "models").mkdir()
    for name, cell in (("two", mycells.TwoState(3)), ("plugged", plugin.TwoState(3))):
        model = keras.Sequential([keras.Input((None, FEATURES)), keras.layers.RNN(cell, True, name="rnn")])
        model.set_weights([np.random.default_rng(7).normal(size=weight.shape) for weight in model.get_weights()])
        model.save(tmp_path / "models" / f"{name}.keras")
    kernel, bias = (np.asarray(weight) for weight in model.get_layer("rnn").cell.linear_rec.weights)
    numbers = np.random.default_rng(3)
    x = data().astype("float32")
    first = {f"rnn.{state}.initial": numbers.normal(size=(BATCH, 3)).astype("float32") for state in ("h", "c")}
    with serving(tmp_path / "models", "mycells") as url, tapehead.Client(url, timeout=None) as client:
        remote = client.model("two")
        found = remote.jacobian(x, of=["rnn.h", "rnn.c"], wrt=["rnn.h", "rnn.c"], lag=1, initial_states=first).tensors
        values = remote.states(x, points=["rnn.h"], initial_states=first).tensors["rnn.h"]
        plugged = client.model("plugged").states(x, points=["rnn.h"], initial_states=first).tensors["rnn.h"]
    np.testing.assert_array_equal(plugged, values)
    h = np.concatenate([first["rnn.h.initial"][:, None], values[:, :-1]], axis=1)
    by_h = kernel.T * (h > 0)[:, :, None, :]
    np.testing.assert_allclose(values, np.maximum(h, 0) @ kernel + bias, atol=1e-6)
    np.testing.assert_allclose(found["rnn.h / rnn.h"], by_h, atol=1e-6)
    np.testing.assert_allclose(found["rnn.c / rnn.h"], by_h - np.eye(3), atol=1e-6)
    np.testing.assert_allclose(found["rnn.c / rnn.c"], np.broadcast_to(np.eye(3), by_h.shape), atol=1e-6)
    assert not found["rnn.h / rnn.c"].any()


@pytest.mark.filterwarnings("ignore:`build\\(\\)` was called:UserWarning")  # that is what is tested
def test_a_live_cell_without_build_or_config_is_served_in_its_own_precision() -> None:
    class Written(keras.layers.Layer):
        """Nothing but what Keras asks of a cell, in a notebook."""

        def __init__(self, units: int) -> None:
            super().__init__(dtype="float64")
            self.state_size, self.kernel = units, keras.layers.Dense(units, dtype="float64")

        def call(self, inputs: Any, states: Any) -> Any:
            h = keras.ops.tanh(self.kernel(keras.ops.concatenate([inputs, states[0]], axis=-1)))
            return h, h

    model = chain(rnn(Written(3), name="rnn"))
    x = tf.constant(data())
    with tapehead.Client(models={"mine": model}, timeout=None) as client:
        found = client.model("mine").jacobian(x.numpy(), of="outputs[-1]", wrt="series").value
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        last = model(x)[:, -1]
    np.testing.assert_allclose(found, tape.batch_jacobian(last, x, experimental_use_pfor=False), atol=EXACT)


def test_a_cell_that_normalizes_its_layer_has_no_second_derivative() -> None:
    @keras.saving.register_keras_serializable("tapehead_tests")
    class Normalized(FastWeights):
        def build(self, input_shape: Any) -> None:
            self.normal = keras.layers.LayerNormalization(dtype="float64")
            self.normal.build((None, self.units))
            super().build(input_shape)

        def call(self, inputs: Any, states: Any) -> Any:
            h, after = super().call(self.normal(inputs), states)
            return h, after

    with tapehead.Client(models={"mine": chain(rnn(Normalized(2, dtype="float64"), name="rnn"))}) as client:
        mine = client.model("mine")
        assert mine.check(data(), of="outputs[-1]", wrt="series").meta["difference"] < STEPPED
        with pytest.raises(tapehead.NotDifferentiable, match="LayerNormalization"):
            mine.hvp(data(), of="outputs[-1, 0]", wrt="series", tangent=data())


def test_state_names_that_do_not_fit_the_states_are_left_aside() -> None:
    cell = FastWeights(2, dtype="float64")
    cell.state_names = ("h",)
    assert {"rnn.state0", "rnn.state1"} <= set(Model(chain(rnn(cell, name="rnn")), "mine").card.points)
