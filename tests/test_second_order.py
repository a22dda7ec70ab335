"""Products, second derivatives, reductions and checks are what the Jacobian, the oracle and NumPy say they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import pytest

import architectures
import tapehead
from oracle.agreement import DIFFERENCES_TOLERANCE, assert_agree
from oracle.cases import network, some
from oracle.second_order import hessian

SAME = 1e-10
CHECKED = 1e-7
HOLES = ((1, 1, 0, 1), (0, 1, 1, 0))
NAMES = [
    "lstm_sequence",
    "gru",
    "gru_reset_before",
    "two_state_code",
    "stacked_cells",
    "bidirectional_mul",
    "masked_stack",
    "masked_backwards",
    "attention",
    "encoder_decoder",
    "shared_in_turn",
]


@pytest.fixture(scope="module")
def client() -> Iterator[tapehead.Client]:
    with tapehead.Client(models={name: network(name) for name in NAMES}, timeout=None) as client:
        yield client


def batch_of(name: str) -> dict[str, np.ndarray]:
    inputs = architectures.data(network(name), 2, 4)
    return architectures.masked(inputs, HOLES) if name in architectures.MASKED else inputs


def drawn(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


# ------------------------------------------------------------------------------------------------- products, both ways

PAIRS = [
    ("lstm_sequence", "lstm.h", "inputs"),
    pytest.param("lstm_sequence", "lstm.c[1:3, 0]", "lstm.forget_gate", marks=pytest.mark.slow),
    ("lstm_sequence", "outputs", "lstm/recurrent_kernel"),
    pytest.param("gru_reset_before", "outputs", "gru/kernel.reset_gate", marks=pytest.mark.slow),
    ("two_state_code", "rnn.c", "rnn/linear_rec/kernel"),
    pytest.param("stacked_cells", "rnn.cells.2.h", "rnn.cells.0.c.initial", marks=pytest.mark.slow),
    ("bidirectional_mul", "outputs", "bi.backward.h"),
    ("masked_stack", "lstm.h", "gru.h"),
    pytest.param("masked_backwards", "lstm.c", "lstm/bias", marks=pytest.mark.slow),
    ("attention", "outputs", "gru.h"),
    pytest.param("encoder_decoder", "outputs", "source", marks=pytest.mark.slow),
    pytest.param("shared_in_turn", "outputs", "again/kernel", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("name", "of", "wrt"), PAIRS)
def test_products_from_both_sides_are_those_of_the_jacobian(
    client: tapehead.Client, name: str, of: str, wrt: str
) -> None:
    """vjp(u) = uJ, jvp(v) = Jv and <u, Jv> = <J'u, v>, one vector or a stack; a weight counts over the whole batch."""
    model, x = client.model(name), batch_of(name)
    jacobian = model.jacobian(x, of=of, wrt=wrt).value
    is_weight, of_shape = "/" in wrt, model.states(x, points=[of]).tensors[of].shape
    wrt_shape = jacobian.shape[len(of_shape) :]
    tangents = drawn(3, *(() if is_weight else (2,)), *wrt_shape)
    cotangents = drawn(3, *of_shape, seed=1)
    pushed = model.jvp(x, of=of, wrt=wrt, tangent=tangents).value
    pulled = model.vjp(x, of=of, wrt=wrt, cotangent=cotangents).value
    flat = jacobian.reshape(2, int(np.prod(of_shape[1:])), int(np.prod(wrt_shape)))
    each = np.broadcast_to(tangents[:, None], (3, 2, *wrt_shape)) if is_weight else tangents
    expected = np.einsum("bow,kbw->kbo", flat, each.reshape(3, 2, -1)).reshape(3, *of_shape)
    assert_agree(pushed, expected, "Jv", SAME)
    by_sample = np.einsum("kbo,bow->kbw", cotangents.reshape(3, 2, -1), flat)
    expected = (by_sample.sum(1) if is_weight else by_sample).reshape(tangents.shape)
    assert_agree(pulled, expected, "uJ", SAME)
    assert_agree((cotangents * pushed).reshape(3, -1).sum(1), (pulled * tangents).reshape(3, -1).sum(1), "<>", SAME)
    assert_agree(model.jvp(x, of=of, wrt=wrt, tangent=tangents[0]).value, pushed[0], "one tangent", SAME)
    assert_agree(model.vjp(x, of=of, wrt=wrt, cotangent=cotangents[0]).value, pulled[0], "one cotangent", SAME)


def test_many_points_share_a_push(client: tapehead.Client) -> None:
    """With several points each pair is a product of its own."""
    model, x = client.model("lstm_sequence"), batch_of("lstm_sequence")
    tangents = {"inputs": drawn(2, 4, 2), "lstm.c": drawn(2, 4, 3), "lstm/bias": drawn(12)}
    of = ["lstm.h", "outputs"]
    found = model.jvp(x, of=of, wrt=list(tangents), tangent=tangents).tensors
    assert set(found) == {f"{o} / {w}" for o in of for w in tangents}
    for pair, value in found.items():
        o, w = pair.split(" / ")
        assert_agree(value, model.jvp(x, of=o, wrt=w, tangent=tangents[w]).value, pair, SAME)


ROUTES = [
    ("lstm_sequence", "lstm.h", "inputs", "[2, 1]", "[0, 0]"),
    ("lstm_sequence", "lstm.h", "lstm.c.initial", "[3, 0]", "[1]"),
    ("gru_reset_before", "gru.h", "gru.h", "[3, 2]", "[0, 1]"),
    ("stacked_cells", "rnn.cells.1.h", "rnn.cells.0.h", "[2, 1]", "[1, 0]"),
    ("bidirectional_mul", "bi", "inputs", "[1, 0]", "[2, 1]"),
    ("masked_stack", "gru.h", "inputs", "[3, 1]", "[1, 1]"),
]


@pytest.mark.parametrize(("name", "of", "wrt", "one_of", "one_wrt"), ROUTES)
def test_the_forward_and_the_reverse_route_agree(
    client: tapehead.Client, name: str, of: str, wrt: str, one_of: str, one_wrt: str
) -> None:
    """Much of one number goes forward, one number of much in reverse; where they cross they are the same."""
    model, x = client.model(name), batch_of(name)
    row, column = model.jacobian(x, of=of + one_of, wrt=wrt), model.jacobian(x, of=of, wrt=wrt + one_wrt)
    assert (row.meta["route"], column.meta["route"]) == ("reverse", "forward")
    crossing = [(slice(None), *numbers(index)) for index in (one_wrt, one_of)]
    assert_agree(row.value[crossing[0]], column.value[crossing[1]], "where they cross", SAME)
    whole = model.jacobian(x, of=of, wrt=wrt).value
    assert_agree(whole[(slice(None), slice(None), slice(None), *numbers(one_wrt))], column.value, "column", SAME)
    assert_agree(whole[(slice(None), *numbers(one_of))], row.value, "row", SAME)


def numbers(index: str) -> tuple[int, ...]:
    return tuple(int(part) for part in index[1:-1].split(","))


# --------------------------------------------------------------------------------------------------------- second order

SECOND = [
    ("lstm_sequence", "lstm.h[-1, 0]", "inputs"),
    pytest.param("lstm_sequence", "outputs[2, 1]", "lstm.h", marks=pytest.mark.slow),
    ("lstm_sequence", "lstm.c[3, 2]", "lstm/recurrent_kernel"),
    pytest.param("gru", "outputs[1]", "gru.h.initial", marks=pytest.mark.slow),
    ("gru_reset_before", "gru.h[-1, 1]", "inputs"),
    pytest.param("two_state_code", "outputs[0]", "rnn.h", marks=pytest.mark.slow),
    pytest.param("stacked_cells", "outputs[0]", "rnn.cells.0.h.initial", marks=pytest.mark.slow),
    ("bidirectional_mul", "outputs[1, 0]", "inputs"),
    ("masked_stack", "outputs[1]", "gru.h"),
    pytest.param("attention", "outputs[3, 0]", "rnn.h", marks=pytest.mark.slow),
    pytest.param("encoder_decoder", "outputs[1, 1]", "source", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("name", "of", "wrt"), SECOND)
def test_a_hessian_product_is_that_of_the_oracles_hessian(
    client: tapehead.Client, name: str, of: str, wrt: str
) -> None:
    """And symmetric: <a, Hb> = <b, Ha>; a weight's is of the sum over the batch."""
    model, x = client.model(name), batch_of(name)
    whole = hessian(network(name), x, of, wrt)
    is_weight = "/" in wrt
    shape = whole.shape[1 : 1 + whole.ndim // 2]
    tangents = drawn(3, *(() if is_weight else (2,)), *shape)
    found = model.hvp(x, of=of, wrt=wrt, tangent=tangents).value
    if is_weight:
        expected = np.stack([np.tensordot(whole.sum(0), v, v.ndim) for v in tangents])
    else:
        expected = np.stack([[np.tensordot(h, r, r.ndim) for h, r in zip(whole, v, strict=True)] for v in tangents])
    assert np.abs(expected).max() > 1e-4
    assert_agree(found, expected, "Hv", SAME)
    products = found.reshape(3, -1) @ tangents.reshape(3, -1).T
    assert_agree(products, products.T, "symmetric", SAME)
    assert_agree(model.hvp(x, of=of, wrt=wrt, tangent=tangents[1]).value, found[1], "one tangent", SAME)


def test_a_hessian_product_is_the_slope_of_the_gradient(client: tapehead.Client) -> None:
    """By central differences of a vjp along the tangent; of step h the error is h²/6 of the fourth derivative."""
    model, x, v = client.model("gru"), batch_of("gru")["series"], drawn(2, 4, 2)
    step, of = 1e-4, "outputs[0]"
    ahead, behind = (model.vjp(x + sign * step * v, of=of, wrt="inputs").value for sign in (1, -1))
    found = model.hvp(x, of=of, wrt="inputs", tangent=v).value
    assert_agree(found, (ahead - behind) / (2 * step), "slope", DIFFERENCES_TOLERANCE)


# --------------------------------------------------------------------------------------------------------------- checks

CHECKS = [
    ("lstm_sequence", "lstm.h[-1]", ["inputs", "lstm.c", "lstm.input_gate", "lstm/kernel", "head/kernel"]),
    ("gru_reset_before", "outputs[2]", ["gru.h", "gru.reset_gate", "gru/recurrent_kernel.candidate"]),
    ("two_state_code", "rnn.c[-1]", ["rnn.h", "rnn.h.initial", "rnn/linear_rec/kernel"]),
    ("stacked_cells", "outputs", ["rnn.cells.0.c", "rnn.cells.1/bias"]),
    ("bidirectional_mul", "outputs[1]", ["bi.backward.c", "bi.forward/kernel"]),
    ("masked_stack", "outputs", ["inputs", "gru.h", "lstm.c.initial"]),
    ("attention", "outputs[0]", ["series", "gru.h", "heads/value/kernel", "norm"]),
    ("shared_in_turn", "outputs[-1]", ["again.call.0.h", "mix.call.0", "again/bias"]),
]


@pytest.mark.parametrize(("name", "of", "wrt"), CHECKS)
def test_a_check_finds_the_jacobian_right(client: tapehead.Client, name: str, of: str, wrt: list[str]) -> None:
    model, x = client.model(name), batch_of(name)
    checked, found = model.check(x, of=of, wrt=wrt), model.jacobian(x, of=of, wrt=wrt)
    assert checked.meta["difference"] < CHECKED
    for pair, value in checked.tensors.items():
        assert_agree(found.tensors[pair], value, pair, CHECKED)
        largest = np.abs(value).max() or 1.0
        apart = np.abs(found.tensors[pair] - value).max() / largest
        np.testing.assert_allclose(checked.meta["differences"][pair], apart, rtol=1e-6, err_msg=pair)


# ----------------------------------------------------------------------------------------------------------- reductions


def matrices(jacobian: np.ndarray, of_units: int, wrt_units: int) -> np.ndarray:
    """The unit axes of `of` (the last so many before wrt's) and wrt flattened to a matrix, the last two axes."""
    lead = jacobian.shape[: jacobian.ndim - of_units - wrt_units]
    rows = int(np.prod(jacobian.shape[len(lead) : len(lead) + of_units]))
    return jacobian.reshape(*lead, rows, -1)


def singular_values(m: np.ndarray) -> np.ndarray:
    return np.linalg.svd(m, compute_uv=False)


REDUCED: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "norm": lambda m: np.sqrt((m**2).sum((-2, -1))),
    "spectral_norm": lambda m: singular_values(m)[..., 0],
    "singular_values": singular_values,
    "sum": lambda m: m.sum(-2),
}
# Each with the Jacobian's axes put so that its unit axes come last, and how many of those are of's and wrt's.
SHAPES: list[tuple[str, str, str, tuple[int, ...], int, int]] = [
    ("lstm_sequence", "lstm.h", "lstm.h", (0, 1, 3, 2, 4), 1, 1),
    ("lstm_sequence", "lstm.h[-1]", "inputs", (0, 2, 1, 3), 1, 1),
    ("lstm_sequence", "outputs", "lstm.c.initial", (0, 1, 2, 3), 1, 1),
    ("lstm_sequence", "lstm.h", "lstm/kernel", (0, 1, 2, 3, 4), 1, 2),
    ("gru", "outputs", "gru.h[1:3]", (0, 2, 1, 3), 1, 1),
    ("masked_stack", "lstm.h", "inputs", (0, 1, 3, 2, 4), 1, 1),
]


@pytest.mark.parametrize("reduce", list(REDUCED))
@pytest.mark.parametrize(("name", "of", "wrt", "order", "of_units", "wrt_units"), SHAPES)
def test_a_reduction_is_numpys_of_the_whole_jacobian(
    client: tapehead.Client,
    name: str,
    of: str,
    wrt: str,
    order: tuple[int, ...],
    of_units: int,
    wrt_units: int,
    reduce: str,
) -> None:
    model, x = client.model(name), batch_of(name)
    whole = model.jacobian(x, of=of, wrt=wrt).value.transpose(order)
    expected = REDUCED[reduce](matrices(whole, of_units, wrt_units))
    found = model.jacobian(x, of=of, wrt=wrt, reduce=reduce)
    if reduce == "sum":
        expected = expected.reshape(*expected.shape[:-1], *whole.shape[whole.ndim - wrt_units :])
    assert_agree(found.value, expected, reduce, SAME)
    assert len(found.axes["value"]) == found.value.ndim


@pytest.mark.parametrize("reduce", list(REDUCED))
@pytest.mark.parametrize("name", ["lstm_sequence", "masked_backwards"])
@pytest.mark.parametrize("lag", [0, 2])
def test_a_reduction_of_a_lag_is_numpys(client: tapehead.Client, name: str, lag: int, reduce: str) -> None:
    model, x = client.model(name), batch_of(name)
    whole = model.jacobian(x, of="lstm.h", wrt="lstm.c", lag=lag).value
    found = model.jacobian(x, of="lstm.h", wrt="lstm.c", lag=lag, reduce=reduce).value
    assert_agree(found, REDUCED[reduce](whole), reduce, SAME)


@pytest.mark.parametrize("lag", [0, 1, 2, 3])
@pytest.mark.parametrize(
    ("name", "of", "wrt"),
    [
        ("masked_backwards", "lstm.h", "lstm.c"),
        ("masked_stack", "lstm.h", "gru.h"),
        ("bidirectional_mul", "bi.backward.c", "bi.backward.h"),
    ],
)
def test_a_lag_is_a_diagonal_over_the_valid_timesteps(
    client: tapehead.Client, name: str, of: str, wrt: str, lag: int
) -> None:
    model, x = client.model(name), batch_of(name)
    whole = model.jacobian(x, of=of, wrt=[wrt, f"{wrt}.initial"])
    found = model.jacobian(x, of=of, wrt=wrt, lag=lag)
    direction = -1 if "backward" in of or "backwards" in name else 1
    valid = np.asarray(found.meta.get("valid", np.ones((2, 4))), bool)
    expected = np.zeros_like(found.value)
    for row in range(2):
        order = np.flatnonzero(valid[row])[::direction]
        for place, t in enumerate(order):
            block = whole.tensors[f"{of} / {wrt}"][row, t]
            initial = whole.tensors[f"{of} / {wrt}.initial"][row, t]
            expected[row, t] = block[:, order[place - lag]] if place >= lag else initial
    assert_agree(found.value, expected, f"lag {lag}", SAME)


# ------------------------------------------------------------------------------------------------------------ precision


def single(*parts: Any) -> Any:
    return architectures.with_random_weights(keras.Sequential([keras.Input((None, 2), name="series"), *parts]))


@pytest.mark.parametrize("kind", some(["SimpleRNN", "GRU", "LSTM"], ["LSTM"]))
def test_single_precision_is_near_double(kind: str) -> None:
    """As near as a few hundred roundings of 6e-8 leave it, by every operation."""
    layers = keras.layers
    model = single(getattr(layers, kind)(4, name="rnn", return_sequences=True), layers.Dense(2, name="head"))
    x = drawn(2, 12, 2).astype("float32")
    asked: dict[str, dict[str, Any]] = {
        "jacobian": {"of": ["rnn.h", "outputs"], "wrt": ["inputs", "rnn.h", "rnn/kernel"]},
        "vjp": {"of": "outputs", "wrt": ["inputs", "rnn/recurrent_kernel"]},
        "jvp": {"of": "outputs", "wrt": "inputs", "tangent": drawn(2, 12, 2)},
        "hvp": {"of": "outputs[-1, 0]", "wrt": "inputs", "tangent": drawn(2, 12, 2)},
    }
    with tapehead.Client(models={"m": model}, timeout=None) as client:
        for operation, parameters in asked.items():
            ask = getattr(client.model("m"), operation)
            near, exact = ask(x, **parameters), ask(x, precision="float64", **parameters)
            assert near.meta["precision"] == "float32"
            for pair, value in exact.tensors.items():
                assert near.tensors[pair].dtype == np.float32
                assert_agree(near.tensors[pair].astype("float64"), value, f"{operation} {pair}", 1e-5)
