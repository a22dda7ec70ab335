"""Every derivative equals an independent autodiff of hand-unrolled cells, and central differences of Keras's own.

Models and inputs are in float64. The oracle (tests/oracle) shares no code with the engine; it is itself held against
Keras in tests/oracle/test_oracle.py.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

import architectures
import tapehead
from oracle import Oracle
from oracle.agreement import DIFFERENCES_TOLERANCE, assert_agree, assert_agrees_with_oracle
from oracle.cases import Case, case, case_with_lengths, differences, grid, network, some

EVERY = list(architectures.ARCHITECTURES)
ANY_LENGTH = [name for name in EVERY if name not in architectures.SEVERAL_INPUTS and not name.endswith("flattened")]
WITH_LENGTHS = [
    "simple_rnn",
    "gru",
    "two_state_backwards",
    "stacked_cells",
    "bidirectional_mul",
    "stack_after_backwards",
    "masked_backwards",
    "embedding_bidirectional",
]


@pytest.fixture(scope="module")
def client() -> Iterator[tapehead.Client]:
    with tapehead.Client(models={name: network(name) for name in EVERY}, timeout=None) as client:
        yield client


# -------------------------------------------------------------------------------------------- every architecture, whole


@pytest.mark.parametrize("name", some(EVERY))
def test_every_state_is_that_of_the_oracle(client: tapehead.Client, name: str) -> None:
    here = case(name)
    points = [*here.states, *here.gates, *here.initial, *here.outputs]
    found = client.model(name).states(here.inputs, points=points, final_states=True)
    for point in [*points, *(f"{state}.final" for state in here.states)]:
        expected = here.answer.where_valid(point, here.answer.value(point))
        assert_agree(here.answer.where_valid(point, found.tensors[point]), expected, point)


@pytest.mark.parametrize("name", some(EVERY))
def test_jacobians_are_those_of_the_oracle_and_of_central_differences(client: tapehead.Client, name: str) -> None:
    here, stepped = case(name), differences(name)
    for (of, wrt), found in grid(client.model(name), here, whole=False).items():
        assert_agrees_with_oracle(here.answer, of, wrt, found)
        if found.any():
            near = here.answer.where_valid(of, stepped.jacobian(of, wrt))
            found = here.answer.where_valid(of, found)
            assert_agree(found, near, f"{of} / {wrt} by differences", DIFFERENCES_TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY)
def test_every_jacobian_is_that_of_the_oracle(client: tapehead.Client, name: str) -> None:
    here = case(name)
    for (of, wrt), found in grid(client.model(name), here).items():
        assert_agrees_with_oracle(here.answer, of, wrt, found)


@pytest.mark.parametrize("name", some(WITH_LENGTHS, ("simple_rnn", "two_state_backwards", "masked_backwards")))
def test_with_lengths_jacobians_are_those_of_each_sequence_alone(client: tapehead.Client, name: str) -> None:
    here = case_with_lengths(name)
    for (of, wrt), found in grid(client.model(name), here, whole=False, lengths=[5, 3, 1]).items():
        assert_agrees_with_oracle(here.answer, of, wrt, found)


@pytest.mark.slow
@pytest.mark.parametrize("name", ANY_LENGTH)
def test_with_lengths_every_jacobian_is_that_of_each_sequence_alone(client: tapehead.Client, name: str) -> None:
    here = case_with_lengths(name)
    for (of, wrt), found in grid(client.model(name), here, lengths=[5, 3, 1]).items():
        assert_agrees_with_oracle(here.answer, of, wrt, found)


def test_lengths_reach_no_further_than_a_layer_that_mixes_timesteps(client: tapehead.Client) -> None:
    here, model = case_with_lengths("masked_lstm"), client.model("masked_then_flattened")
    with pytest.raises(tapehead.LengthsUnsupported, match="flat"):
        model.jacobian(here.inputs, of="outputs", wrt="inputs", lengths=[5, 3, 1])
    before = model.jacobian(here.inputs, of="lstm.h", wrt="inputs", lengths=[5, 3, 1]).value
    assert not before[1, :, :, 3:].any()


# ---------------------------------------------------------------------------------------------- chosen timesteps, units

CHOICES = [
    ("lstm_sequence", "lstm.h[-1]", "inputs"),
    ("lstm_sequence", "lstm.h[2]", "inputs[1]"),
    ("lstm_sequence", "lstm.c[-1]", "lstm.h[0]"),
    ("lstm_sequence", "lstm.h[:]", "inputs[:, 1]"),
    ("lstm_sequence", "lstm.h[:, 1]", "lstm.c[1]"),
    ("lstm_sequence", "lstm.h[-1, 2]", "lstm.c[0, 1]"),
    ("lstm_sequence", "lstm.c[1:5:2]", "inputs[::2]"),
    ("lstm_sequence", "lstm.h[-3:-1, 0:2]", "lstm.h[-4:]"),
    ("lstm_sequence", "lstm.h[..., 1]", "lstm.c.initial[0]"),
    ("lstm_sequence", "lstm.h[::-1]", "inputs[3:0:-1]"),
    ("lstm_sequence", "lstm.h[2]", "lstm.h[2]"),
    ("lstm_sequence", "lstm.h[2]", "lstm.c[2]"),
    ("lstm_sequence", "lstm.c[2]", "lstm.h[2]"),
    ("lstm_sequence", "lstm.h.final", "inputs[-1]"),
    ("lstm_sequence", "outputs[2, 1]", "lstm.h[2]"),
    ("lstm_sequence", "lstm.h[-1]", "lstm[2]"),
    ("lstm_sequence", "outputs[2]", "lstm[2]"),
    ("lstm", "outputs[0]", "lstm.h[-1]"),
    ("lstm", "lstm.h[-1]", "lstm.forget_gate[1:3]"),
    ("gru", "outputs", "gru.reset_gate"),
    ("gru_reset_before", "gru.candidate[-1]", "gru.reset_gate[:, 0]"),
    ("gru", "gru.h[3]", "gru.h.initial"),
    ("lstm_backwards", "lstm.h[0]", "inputs[-2:]"),
    ("lstm_backwards", "lstm.c[1]", "lstm.h[3]"),
    ("two_state_text", "rnn.h[-1]", "rnn.h[0]"),
    ("two_state_text", "outputs[1:3]", "rnn.c[1]"),
    ("two_state_text", "rnn[2]", "rnn.h[2]"),
    ("stacked_cells", "rnn.cells.2.h[-1]", "rnn.cells.0.c[1]"),
    ("stacked_cells", "rnn.cells.1.h[2]", "rnn.cells.0.h[2]"),
    ("bidirectional_mul", "outputs[1]", "bi.backward.h[3]"),
    ("bidirectional_mul", "bi.backward.c[0]", "inputs[4]"),
    ("bidirectional_none", "bi.output.1", "bi.backward.h[0]"),
    ("stack", "rnn.h[-1]", "lstm.c[2]"),
    ("stack", "gru.h[1:4]", "lstm.h[:, 0]"),
    ("nested", "lstm.h[-1]", "encoder.gru.h[2]"),
    ("encoder_decoder", "outputs[0]", "encoder.h[1]"),
    ("encoder_decoder", "decoder.h[2]", "source[3]"),
    ("encoder_decoder", "decoder.c[-1]", "decoder.h.initial"),
]


@pytest.mark.parametrize(("name", "of", "wrt"), CHOICES)
def test_an_index_takes_that_part_of_the_jacobian(client: tapehead.Client, name: str, of: str, wrt: str) -> None:
    here = case(name)
    found = client.model(name).jacobian(here.inputs, of=of, wrt=wrt).value
    assert_agree(found, here.answer.jacobian(of, wrt), f"{of} / {wrt}")


@pytest.mark.parametrize(
    ("of", "wrt"),
    [
        ("lstm.h[-1]", "inputs"),
        ("lstm.h[-1]", "inputs[-1]"),
        ("lstm.c[-1]", "lstm.h[0]"),
        ("lstm.h[-1:]", "lstm.c.initial"),
        ("lstm.h[4]", "lstm.h[-1]"),
        ("lstm.h.final", "inputs"),
    ],
)
def test_a_negative_index_counts_from_each_sequences_own_end(client: tapehead.Client, of: str, wrt: str) -> None:
    here = case_with_lengths("lstm_sequence")
    found = client.model("lstm_sequence").jacobian(here.inputs, of=of, wrt=wrt, lengths=[5, 3, 1])
    assert_agree(found.value, here.answer.jacobian(of, wrt), f"{of} / {wrt}")
    np.testing.assert_array_equal(found.meta["valid"], here.answer.valid["lstm.h"])


@pytest.mark.parametrize("lengths", [{"source": [5, 2, 3], "target": [1, 4, 5]}, {"source": [4, 5, 1]}])
def test_each_input_may_have_its_own_lengths(client: tapehead.Client, lengths: dict[str, list[int]]) -> None:
    here = case("encoder_decoder")
    answer = Oracle(here.model)(here.inputs, lengths=lengths)
    of, wrt = ["decoder.h[-1]", "encoder.c.final"], ["source", "target", "encoder.h", "decoder.c", "encoder.c.initial"]
    found = client.model("encoder_decoder").jacobian(here.inputs, of=of, wrt=wrt, lengths=lengths).tensors
    for pair in found:
        assert_agrees_with_oracle(answer, *pair.split(" / "), found[pair])


@pytest.mark.parametrize("name", ["masked_gru", "masked_lstm", "masked_bidirectional"])
def test_a_sequence_may_be_masked_from_end_to_end(client: tapehead.Client, name: str) -> None:
    """Its states stay what they were at first."""
    inputs = architectures.data(network(name))
    inputs["series"][1] = -1.0
    here = Case(network(name), inputs, Oracle(network(name))(inputs))
    for (of, wrt), found in grid(client.model(name), here).items():
        assert_agrees_with_oracle(here.answer, of, wrt, found)


@pytest.mark.parametrize("name", ["masked_lstm", "masked_stack", "embedding_gru"])
def test_a_negative_index_counts_from_the_last_timestep_that_the_model_does_not_mask(
    client: tapehead.Client, name: str
) -> None:
    here = case(name)
    layer, wrt = here.states[-1], here.sequences[0]
    found = client.model(name).jacobian(here.inputs, of=f"{layer}[-1]", wrt=wrt)
    assert_agree(found.value, here.answer.jacobian(f"{layer}[-1]", wrt), layer)
    np.testing.assert_array_equal(found.meta["valid"], here.answer.valid[layer])


# ----------------------------------------------------------------------------------------------------------------- lags

LAGS = [
    ("lstm_sequence", "lstm.h", "lstm.h"),
    ("lstm_sequence", "lstm.c", "lstm.h"),
    ("lstm_sequence", "lstm.h", "inputs"),
    ("lstm_backwards", "lstm.h", "lstm.c"),
    ("gru_reset_before", "gru.h", "gru.h"),
    ("two_state_text", "rnn.c", "rnn.h"),
    ("stacked_cells", "rnn.cells.1.h", "rnn.cells.0.h"),
    ("bidirectional_mul", "bi.backward.h", "bi.backward.h"),
    ("stack", "gru.h", "lstm.h"),
    ("side_by_side", "top.h", "right.h"),
    ("masked_lstm", "lstm.h", "lstm.c"),
    ("masked_lstm", "lstm.h", "inputs"),
    ("masked_bidirectional", "bi.backward.h", "bi.backward.c"),
    ("masked_backwards", "lstm.h", "lstm.h"),
]


@pytest.mark.parametrize("lag", [0, 1, 2, 4])
@pytest.mark.parametrize(("name", "of", "wrt"), LAGS)
def test_a_lag_pairs_each_timestep_with_the_valid_one_so_many_before(
    client: tapehead.Client, name: str, of: str, wrt: str, lag: int
) -> None:
    here = case(name)
    found = client.model(name).jacobian(here.inputs, of=of, wrt=wrt, lag=lag).value
    assert_agree(found, here.answer.lag(of, wrt, lag), f"{of} / {wrt}, lag {lag}")


@pytest.mark.parametrize("lag", [0, 1, 3, 7])
@pytest.mark.parametrize("name", ["lstm_sequence", "lstm_backwards"])
def test_a_lag_stays_within_each_sequences_length(client: tapehead.Client, name: str, lag: int) -> None:
    here = case_with_lengths(name)
    found = client.model(name).jacobian(here.inputs, of="lstm.h[:]", wrt="lstm.c[:]", lag=lag, lengths=[5, 3, 1])
    assert_agree(found.value, here.answer.lag("lstm.h[:]", "lstm.c", lag), f"lag {lag}")


def test_a_time_slice_of_a_lag_goes_on_of(client: tapehead.Client) -> None:
    here = case("lstm_sequence")
    found = client.model("lstm_sequence").jacobian(here.inputs, of="lstm.h[1:4, 1]", wrt="lstm.h", lag=1)
    assert_agree(found.value, here.answer.lag("lstm.h[1:4, 1]", "lstm.h", 1))


# ---------------------------------------------------------------------------------------------------- products, batches

PRODUCTS = [
    ("simple_rnn", "rnn.h[-1]", "inputs"),
    ("lstm_sequence", "lstm.h", "inputs"),
    ("lstm_sequence", "lstm.c[1:4, 0]", "lstm.h.initial"),
    ("gru", "outputs", "gru.h"),
    ("two_state_code", "rnn.c[-1]", "rnn.h"),
    ("bidirectional_ave", "outputs", "bi.backward.h"),
    ("stack", "rnn.h[-1]", "inputs"),
    ("masked_stack", "outputs", "inputs"),
]


@pytest.mark.parametrize(("name", "of", "wrt"), PRODUCTS)
def test_a_vjp_is_its_cotangent_times_the_oracles_jacobian(
    client: tapehead.Client, name: str, of: str, wrt: str
) -> None:
    here, model = case(name), client.model(name)
    jacobian = here.answer.jacobian(of, wrt)
    shape = here.answer.value(of).shape
    stacked = np.random.default_rng(2).normal(size=(4, *shape))
    rank = len(shape) - 1
    expected = np.stack([contracted(u, jacobian, rank) for u in stacked])
    assert_agree(model.vjp(here.inputs, of=of, wrt=wrt).value, contracted(np.ones(shape), jacobian, rank), "ones")
    assert_agree(model.vjp(here.inputs, of=of, wrt=wrt, cotangent=stacked[0]).value, expected[0], "one")
    assert_agree(model.vjp(here.inputs, of=of, wrt=wrt, cotangent=stacked).value, expected, "stacked")


def contracted(cotangent: np.ndarray, jacobian: np.ndarray, rank: int) -> np.ndarray:
    """A cotangent (batch, *of axes) times a Jacobian (batch, *of axes, *wrt axes)."""
    return np.stack([np.tensordot(u, j, rank) for u, j in zip(cotangent, jacobian, strict=True)])


@pytest.mark.parametrize("name", ["lstm_sequence", "gru", "two_state_code", "masked_stack", "stacked_cells"])
def test_initial_states_are_where_the_derivatives_are_taken(client: tapehead.Client, name: str) -> None:
    here = case(name)
    rng = np.random.default_rng(3)
    states = {point: rng.normal(size=here.answer.value(point).shape) for point in here.initial}
    answer = Oracle(here.model)(here.inputs, initial_states=states)
    for (of, wrt), found in grid(client.model(name), here, initial_states=states, whole=False).items():
        assert_agrees_with_oracle(answer, of, wrt, found)


def test_initial_states_override_what_the_model_feeds(client: tapehead.Client) -> None:
    here = case("encoder_decoder")
    states = {"decoder.h.initial": np.random.default_rng(3).normal(size=(3, 3))}
    answer = Oracle(here.model)(here.inputs, initial_states=states)
    model = client.model("encoder_decoder")
    for wrt in ("source", "target", "encoder.h", "decoder.h.initial", "decoder.c.initial"):
        found = model.jacobian(here.inputs, of="outputs", wrt=wrt, initial_states=states).value
        assert_agree(found, answer.jacobian("outputs", wrt), wrt)


# ------------------------------------------------------------------------------------------------------------ precision


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "SimpleRNN"])
def test_a_float32_model_answers_in_float64_when_asked(kind: str) -> None:
    from keras import Input, Sequential, layers

    model = Sequential([Input((None, 2), name="series"), getattr(layers, kind)(3, name="rnn"), layers.Dense(2)])
    architectures.with_random_weights(model)
    x = np.random.default_rng(1).normal(size=(3, 5, 2))
    expected = Oracle(model)({"series": x}).jacobian("outputs", "inputs")
    with tapehead.Client(models={"m": model}, timeout=None) as client:
        precise = client.model("m").jacobian(x, of="outputs", wrt="inputs", precision="float64")
        plain = client.model("m").jacobian(x.astype("float32"), of="outputs", wrt="inputs")
    assert precise.meta["precision"] == "float64"
    assert_agree(precise.value, expected)
    assert plain.value.dtype == np.float32
    assert_agree(plain.value.astype("float64"), expected, "float32", 1e-5)
