"""A request held against a model's card: what is filled in, what is planned, what is refused and in which words."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgpack
import numpy as np
import pytest

from tapehead import errors
from tapehead.operations import OPERATIONS, Card, Plan, PointInfo, Request, TensorSpec, check, cost
from tapehead.operations.check import EVERY_PLAN
from tapehead.operations.cost import COSTS, lag_route
from tapehead.operations.diagnosing import steps_of
from tapehead.operations.recurrent import RecurrentCell, recurrent_cells
from tapehead.operations.selection import positions, select
from tapehead.operations.thresholds import THRESHOLDS, checked_thresholds

STATE = PointInfo((None, 4), ("timestep", "unit"), "float32", True, "state", "x")
POINTS = {
    "x": PointInfo((None, 3), ("timestep", "feature"), "float32", True, "input", "x"),
    "ids": PointInfo((None,), ("timestep",), "int32", False, "input", "ids"),
    "outputs": PointInfo((2,), ("unit",), "float32", True, "output"),
    "lstm": PointInfo((4,), ("unit",), "float32", True, "layer"),
    "lstm.h": STATE,
    "lstm.c": STATE,
    "lstm.h.initial": PointInfo((4,), ("unit",), "float32", True, "initial"),
    "lstm.h.final": PointInfo((4,), ("unit",), "float32", True, "final"),
}


def card(*inputs: str) -> Card:
    specs = {
        "x": TensorSpec("x", (None, None, 3), "float32", ("timestep", "feature")),
        "ids": TensorSpec("ids", (None, None), "int32", ("timestep",)),
    }
    return Card(
        name="m",
        version=1,
        inputs=tuple(specs[name] for name in inputs or ("x",)),
        outputs=(TensorSpec("outputs", (None, 2), "float32", ("unit",)),),
        points={name: info for name, info in POINTS.items() if name not in specs or name in (inputs or ("x",))},
        recurrent={"lstm": {"cell": "LSTMCell"}},
        weights={"lstm/kernel": (3, 16)},
        columns={"lstm/kernel": {"forget_gate": (4, 8)}},
        bytes=100,
        aliases={"inputs": ",".join(inputs or ("x",)), "both": "lstm.h,lstm.c"},
    )


X = np.arange(2 * 5 * 3, dtype=np.float32).reshape(2, 5, 3)


def ask(operation: str, x: Any = X, limit: int = 1 << 30, **given: Any) -> tuple[Request, tuple[Plan, ...]]:
    lengths = given.pop("lengths", None)
    states = given.pop("initial_states", {})
    inputs = x if isinstance(x, dict) else {"": x}
    request = Request(inputs, None if lengths is None else {"": np.array(lengths)}, states, given)
    return check(card(), operation, request, answer_limit=limit)


def plans(operation: str, **given: Any) -> dict[str, tuple[tuple[int | None, ...], tuple[str, ...]]]:
    return {plan.name: (plan.shape, plan.axes) for plan in ask(operation, **given)[1]}


def test_a_card_crosses_the_seam_as_plain_values() -> None:
    packed = msgpack.packb(card().to_plain())
    assert Card.from_plain(msgpack.unpackb(packed)) == card()


def test_a_bare_tensor_and_the_name_inputs_both_mean_the_only_input() -> None:
    for name in ("", "inputs", "x"):
        request, _ = ask("jacobian", {name: X}, of="lstm.h[-1]", wrt="inputs")
        assert list(request.inputs) == ["x"]


def test_defaults_are_filled_in_and_checking_twice_changes_nothing() -> None:
    request, planned = ask("saliency", target="outputs[1]", method="integrated_gradients")
    assert request.parameters == {
        "target": "outputs[1]",
        "method": "integrated_gradients",
        "wrt": "inputs",
        "baseline": 0.0,
        "n_steps": 50,
        "precision": None,
        "dry_run": False,
    }
    again, planned_again = check(card(), "saliency", request)
    assert again.parameters == request.parameters
    assert planned_again == planned


def test_an_answers_shape_and_axes_are_known_before_it_is_computed() -> None:
    of_h = "of.unit"
    assert plans("jacobian", of="lstm.h[-1]", wrt="inputs") == {
        "value": ((2, 4, 5, 3), ("batch", of_h, "wrt.timestep", "wrt.feature"))
    }
    assert plans("jacobian", of="lstm.h[1:4, ::2]", wrt="lstm.c[0]") == {
        "value": ((2, 3, 2, 4), ("batch", "of.timestep", of_h, "wrt.unit"))
    }
    assert plans("jacobian", of="lstm.h", wrt="lstm.h", lag=1) == {
        "value": ((2, 5, 4, 4), ("batch", "timestep", of_h, "wrt.unit"))
    }
    assert plans("jacobian", of=["lstm.h[-1]", "outputs"], wrt="lstm.h.initial") == {
        "lstm.h[-1] / lstm.h.initial": ((2, 4, 4), ("batch", of_h, "wrt.unit")),
        "outputs / lstm.h.initial": ((2, 2, 4), ("batch", of_h, "wrt.unit")),
    }
    assert plans("states", points=["lstm.h[-2:]"], final_states=True) == {
        "lstm.h[-2:]": ((2, 2, 4), ("batch", "timestep", "unit")),
        "lstm.h.final": ((2, 4), ("batch", "unit")),
    }
    assert plans("jacobian", of="lstm.h[-1]", wrt="lstm/kernel.forget_gate[:, 0]") == {
        "value": ((2, 4, 3), ("batch", of_h, "wrt.row"))
    }
    assert plans("vjp", of=["lstm.h[-1]"], wrt="lstm/kernel") == {
        "lstm.h[-1] / lstm/kernel": ((3, 16), ("row", "column"))
    }
    assert plans("jvp", of="lstm.h", wrt="lstm/kernel", tangent=np.ones((5, 3, 16))) == {
        "value": ((5, 2, 5, 4), ("tangent", "batch", "timestep", "unit"))
    }
    assert plans("hvp", of="outputs[0]", wrt="x", tangent=X) == {"value": ((2, 5, 3), ("batch", "timestep", "feature"))}
    stacked = np.ones((7, 2, 4), np.float32)
    assert plans("vjp", of="lstm.h[-1]", wrt="x", cotangent=stacked) == {
        "value": ((7, 2, 5, 3), ("cotangent", "batch", "timestep", "feature"))
    }
    assert plans("saliency", target="outputs[argmax]", method="integrated_gradients") == {
        "value": ((2, 5, 3), ("batch", "timestep", "feature")),
        "completeness_gap": ((2,), ("batch",)),
    }


@pytest.mark.parametrize(
    ("reduce", "whole", "lagged"),
    [
        ("norm", ((2, 5, 5), ("batch", "of.timestep", "wrt.timestep")), ((2, 5), ("batch", "timestep"))),
        ("spectral_norm", ((2, 5, 5), ("batch", "of.timestep", "wrt.timestep")), ((2, 5), ("batch", "timestep"))),
        (
            "singular_values",
            ((2, 5, 5, 3), ("batch", "of.timestep", "wrt.timestep", "singular_value")),
            ((2, 5, 3), ("batch", "timestep", "singular_value")),
        ),
        (
            "sum",
            ((2, 5, 5, 3), ("batch", "of.timestep", "wrt.timestep", "wrt.feature")),
            ((2, 5, 3), ("batch", "timestep", "wrt.feature")),
        ),
    ],
)
def test_a_reduction_leaves_timesteps_and_takes_units_away(reduce: str, whole: Any, lagged: Any) -> None:
    assert plans("jacobian", of="lstm.h", wrt="x", reduce=reduce) == {"value": whole}
    assert plans("check", of="lstm.h", wrt="x", reduce=reduce, lag=2) == {"value": lagged}


def test_precision_decides_the_bytes_of_an_answer() -> None:
    (single,), (double,) = (ask("jacobian", of="outputs", wrt="x", precision=p)[1] for p in ("float32", "float64"))
    assert double.bytes == 2 * single.bytes == 2 * 4 * 2 * 2 * 5 * 3


def test_negative_timesteps_count_from_each_rows_last_valid_one() -> None:
    valid = np.array([[True, True, True, False, False], [False, True, True, True, True]])
    at = {text: positions(select(card(), f"lstm.h[{text}]"), 5, valid).tolist() for text in ("-1", "-2:", "1", "-3:-1")}
    assert at == {"-1": [[2], [4]], "-2:": [[1, 2], [3, 4]], "1": [[1]], "-3:-1": [[0, 1], [2, 3]]}


def test_rows_that_would_give_different_numbers_of_timesteps_are_refused() -> None:
    with pytest.raises(errors.BadParameter, match=r"takes \[2, 4\] timesteps in different rows"):
        ask("states", points=["lstm.h[:-1]"], lengths=[3, 5])


REFUSED: list[tuple[type[errors.TapeheadError], str, dict[str, Any]]] = [
    (errors.UnknownPoint, "no layer 'lstm1'; recurrent layers here: lstm", {"of": "lstm1.h"}),
    (errors.UnknownPoint, "no 'z' in 'lstm'; it has c, h, h.final, h.initial", {"of": "lstm.z"}),
    (errors.UnknownPoint, "did you mean outputs", {"of": "output"}),
    (errors.UnknownPoint, "could be any of lstm.h, lstm.c", {"of": "both"}),
    (errors.UnknownPoint, "no weight 'lstm/bias'; weights here: lstm/kernel", {"wrt": "lstm/bias"}),
    (errors.NotDifferentiable, "is a weight: it can stand as wrt", {"of": "lstm/kernel"}),
    (errors.BadParameter, "timestep 5 of 'lstm.h' is out of range: the request has 5", {"of": "lstm.h[5]"}),
    (errors.BadParameter, "-6 of 'lstm.h' is out of range", {"of": "lstm.h[-6]"}),
    (errors.BadParameter, "index 4 is out of range for axis 'unit'", {"of": "lstm.h[0, 4]"}),
    (errors.BadParameter, "has 3 index entries", {"of": "lstm.h[0, 0, 0]"}),
    (errors.BadParameter, r"\[argmax\] is for a saliency target", {"of": "outputs[argmax]"}),
    (
        errors.BadParameter,
        "-4 reaches before the start of the sequence in row 0",
        {"of": "lstm.h[-4]", "lengths": [3, 5]},
    ),
    (errors.BadParameter, "lag is -1; it must be at least 0", {"lag": -1}),
    (errors.BadParameter, "lag is True; expected a whole number", {"lag": True}),
    (errors.BadParameter, "slice of timesteps goes on `of`", {"of": "lstm.h", "wrt": "lstm.h[1:]", "lag": 1}),
    (errors.BadParameter, "of and wrt are trajectories", {"of": "lstm.h[-1]", "lag": 1}),
    (errors.BadParameter, "no parameter 'on'", {"on": 1}),
    (errors.BadParameter, "precision is 'float16'; expected one of", {"precision": "float16"}),
    (errors.BadParameter, "expected the text of a point", {"of": []}),
    (errors.BadShape, r"has shape \(2, 5\); the model takes \(any, any, 3\), that is", {"x": X[..., 0]}),
    (errors.BadShape, "at least one entry", {"x": X[:0]}),
    (errors.BadDtype, "is bool; expected floating-point", {"x": X > 3}),
    (errors.BadDtype, "is complex64", {"x": X.astype(np.complex64)}),
    (errors.NotFinite, r"\[1, 2, 0\] is nan", {"x": np.where(X[1, 2, 0] == X, np.nan, X)}),
    (errors.NotFinite, "as float32", {"x": X.astype(np.float64) * 1e300}),
    (errors.BadLengths, "expected 2 whole numbers", {"lengths": [3]}),
    (errors.BadLengths, "expected 2 whole numbers", {"lengths": [3.0, 4.0]}),
    (errors.BadLengths, r"lengths\[1\] of 'x' is 6; it must be between 1 and 5", {"lengths": [3, 6]}),
    (errors.BadLengths, r"lengths\[0\] of 'x' is 0", {"lengths": [0, 5]}),
    (errors.BadParameter, "no initial state 'lstm.h'", {"initial_states": {"lstm.h": X}}),
    (errors.BadShape, r"expected \(2, 4\)", {"initial_states": {"lstm.h.initial": X}}),
    (errors.AnswerTooLarge, "over the limit of 0.0 MiB. Ask for less: a slice.*a reduction.*a vjp", {"limit": 100}),
]


@pytest.mark.parametrize(("error", "words", "given"), REFUSED, ids=lambda value: str(value)[:40])
def test_a_wrong_request_is_refused_in_words_that_say_what_to_do(
    error: type[errors.TapeheadError], words: str, given: dict[str, Any]
) -> None:
    with pytest.raises(error, match=words):
        ask("jacobian", **{"of": "lstm.h[-1]", "wrt": "inputs", **given})


def test_a_derivative_of_or_with_respect_to_integers_does_not_exist() -> None:
    request = Request({"ids": np.zeros((2, 5), np.int64)}, None, {}, {"of": "outputs", "wrt": "ids"})
    with pytest.raises(errors.NotDifferentiable, match="ask for an Embedding's output"):
        check(card("ids"), "jacobian", request)


def test_integers_that_do_not_fit_the_models_dtype_are_refused() -> None:
    request = Request({"ids": np.full((2, 5), 2**40)}, None, {}, {"points": ["lstm.h"]})
    with pytest.raises(errors.BadDtype, match="do not fit int32"):
        check(card("ids"), "states", request)


def test_an_unknown_operation_is_refused_with_those_that_are_built() -> None:
    with pytest.raises(errors.UnknownOperation, match=", ".join(OPERATIONS)):
        ask("hessian")


def test_a_saliency_target_must_be_one_number_a_sample() -> None:
    with pytest.raises(errors.BadParameter, match=r"as in outputs\[0\] or \[argmax\]"):
        ask("saliency", target="outputs")


def test_a_cotangent_must_have_the_shape_of_what_it_multiplies() -> None:
    with pytest.raises(errors.BadShape, match=r"expected \(2, 4\), or stacked"):
        ask("vjp", of="lstm.h[-1]", wrt="x", cotangent=np.ones((2, 5), np.float32))
    with pytest.raises(errors.BadParameter, match="as a map of each to its tensor"):
        ask("vjp", of=["lstm.h[-1]", "outputs"], wrt="x", cotangent=np.ones((2, 4), np.float32))


# -- cost --------------------------------------------------------------------------------------------------------------


def priced(operation: str, **given: Any) -> tuple[str, float]:
    """The route of an answer, and its work in runs of the model: 2 samples x 5 timesteps x 2 x (3 x 16) each."""
    request, _ = ask(operation, **given)
    found = cost(whole, operation, request)
    return found.route, found.flops / (2 * 2 * 5 * 3 * 16)


whole = replace(
    card(), recurrent={"lstm": {"states": {"h": [4], "c": [4]}, "direction": "forward", "reads": ["x"], "fed": False}}
)


def test_every_operation_has_a_plan_and_a_cost() -> None:
    assert set(EVERY_PLAN) == set(COSTS) == {*OPERATIONS, "infer"}


@pytest.mark.parametrize(
    ("given", "route", "runs"),
    [
        (("states", {}), "forward", 1),
        (("infer", {}), "forward", 1),
        (("vjp", {"of": "outputs", "wrt": "inputs"}), "reverse", 2),
        (("vjp", {"of": "outputs", "wrt": "lstm/kernel"}), "reverse", 3),
        (("jvp", {"of": "outputs", "wrt": "inputs", "tangent": np.ones((7, *X.shape))}), "forward", 1 + 3 * 7),
        (("hvp", {"of": "outputs[0]", "wrt": "inputs", "tangent": X}), "reverse over reverse", 6),
        (("saliency", {"target": "outputs[0]"}), "reverse", 2),
        (("saliency", {"target": "outputs[0]", "method": "integrated_gradients", "n_steps": 9}), "reverse", 20),
        (("jacobian", {"of": "outputs", "wrt": "inputs"}), "reverse", 1 + 2),
        (("jacobian", {"of": "lstm.h", "wrt": "lstm.h.initial"}), "forward", 1 + 3 * 4),
        (("jacobian", {"of": "lstm.h", "wrt": ["inputs", "lstm/kernel[0, 0]"]}), "reverse", 1 + 2 * 20),
        (("jacobian", {"of": "lstm.h", "wrt": "lstm.h", "lag": 3}), "window", 1 + 4 * 3),
        (("jacobian", {"of": ["lstm.h", "outputs"], "wrt": "lstm.h.initial[0]"}), "forward and reverse", 1 + 3 + 2),
        (("check", {"of": "outputs", "wrt": "inputs"}), "central differences", 1 + 2 + 2 * 15),
    ],
    ids=lambda value: str(value)[:60],
)
def test_the_route_and_the_work_of_an_answer_are_foretold(given: Any, route: str, runs: float) -> None:
    operation, parameters = given
    assert priced(operation, **parameters) == (route, pytest.approx(runs, rel=1e-6))


def test_one_run_counts_every_matrix_at_every_timestep_and_call() -> None:
    shared = {"dense.call.0": POINTS["lstm.h"], "dense.call.1": POINTS["outputs"]}
    counted = replace(
        whole,
        points={**whole.points, **shared},
        weights={"lstm/kernel": (3, 16), "lstm/bias": (16,), "dense/kernel": (4, 2), "ids/embeddings": (1000, 4)},
    )
    request, _ = ask("states")
    per_sample = 5 * 3 * 16 + 5 * 4 * 2 + 4 * 2
    assert cost(counted, "states", request).flops == 2 * 2 * per_sample


@pytest.mark.parametrize(
    ("of", "wrt", "lag", "changed", "route"),
    [
        ("lstm.h", "lstm.c", 2, {}, "window"),
        ("lstm.h", "x", 2, {}, "window"),
        ("lstm.h", "x", 2, {"direction": "backward"}, "diagonal"),
        ("lstm.h", "x", 0, {"direction": "backward"}, "window"),
        ("lstm.h", "x", 2, {"fed": True}, "diagonal"),
        ("lstm.h", "x", 2, {"reads": ["embedding"]}, "diagonal"),
        ("outputs", "x", 2, {}, "diagonal"),
    ],
)
def test_a_lag_within_one_layer_is_a_window(of: str, wrt: str, lag: int, changed: Any, route: str) -> None:
    told = replace(whole, recurrent={"lstm": {**whole.recurrent["lstm"], **changed}})
    assert lag_route(told, of, wrt, lag, given=()) == route


def test_initial_states_that_the_request_gives_are_not_fed() -> None:
    told = replace(whole, recurrent={"lstm": {**whole.recurrent["lstm"], "fed": True}})
    assert lag_route(told, "lstm.h", "x", 2, given=("lstm.h.initial", "lstm.c.initial")) == "window"
    assert lag_route(told, "lstm.h", "x", 2, given=("lstm.h.initial",)) == "diagonal"


# ---------------------------------------------------------------------------------------------------------- a diagnosis


def stacked() -> Card:
    """Two cells on top of each other in one layer, and one layer that runs backward, of a GRU and an own cell."""
    state = replace(STATE, shape=(None, 3))
    states = {"rnn.cells.0.h": state, "rnn.cells.1.slow": state, "rnn.cells.1.fast": state, "bi.backward.h": STATE}
    told = {
        "rnn": {
            "states": {"cells.0.h": [3], "cells.1.slow": [3], "cells.1.fast": [3]},
            "activations": {"cells.0.update_gate": "sigmoid", "cells.0.candidate": "tanh"},
        },
        "bi.backward": {"states": {"h": [4]}, "activations": {"h": "relu"}},
    }
    return replace(card(), points={**POINTS, **states}, recurrent=told)


def test_each_cell_is_diagnosed_under_the_prefix_of_its_points() -> None:
    first, second, backward = recurrent_cells(stacked())
    assert [cell.name for cell in (first, second, backward)] == ["rnn.cells.0", "rnn.cells.1", "bi.backward"]
    assert (first.states, first.activated) == ({"cells.0.h": (3,)}, {"update_gate": "sigmoid", "candidate": "tanh"})
    assert (second.size, second.activated, second.prefix) == (6, {}, "cells.1.")
    assert recurrent_cells(stacked(), "rnn") == (first, second)
    assert recurrent_cells(stacked(), "bi") == (backward,)
    with pytest.raises(errors.UnknownPoint, match="no recurrent layer 'rn'; those of this model: rnn"):
        recurrent_cells(stacked(), "rn")


def test_the_tensors_of_a_diagnosis_are_known_before_it_is_made() -> None:
    request = Request({"": X}, None, {}, {"exponents": 5, "steps": 2})
    checked, planned = check(stacked(), "diagnose", request)
    assert {plan.name: (plan.shape, plan.axes[-1]) for plan in planned} == {
        "rnn.cells.0:influence": ((2, 5), "timestep"),
        "rnn.cells.0:singular_values": ((2, 2, 3), "singular_value"),
        "rnn.cells.0:spectral_radius": ((2, 2), "timestep"),
        "rnn.cells.0:lyapunov": ((2, 3), "exponent"),
        "rnn.cells.0:saturation": ((2, 5, 2), "side"),
        "rnn.cells.1:influence": ((2, 5), "timestep"),
        "rnn.cells.1:state_influence": ((2, 5), "timestep"),
        "rnn.cells.1:singular_values": ((2, 2, 6), "singular_value"),
        "rnn.cells.1:spectral_radius": ((2, 2), "timestep"),
        "rnn.cells.1:lyapunov": ((2, 5), "exponent"),
        "bi.backward:influence": ((2, 5), "timestep"),
        "bi.backward:singular_values": ((2, 2, 4), "singular_value"),
        "bi.backward:spectral_radius": ((2, 2), "timestep"),
        "bi.backward:lyapunov": ((2, 4), "exponent"),
        "bi.backward:saturation": ((1, 5, 2), "side"),
    }
    again, _ = check(stacked(), "diagnose", checked)
    assert again.parameters == checked.parameters
    assert checked.parameters["thresholds"]["faint"] == 0.01


@pytest.mark.parametrize("name", THRESHOLDS)
def test_every_threshold_has_a_range_that_is_kept(name: str) -> None:
    row = THRESHOLDS[name]
    assert row.least < row.default < row.most
    assert checked_thresholds({name: row.most})[name] == row.most
    for beyond in (row.least - 1e-38 - abs(row.least), row.most * 2):
        with pytest.raises(errors.BadParameter, match=f"'{name}'"):
            checked_thresholds({name: beyond})


@pytest.mark.parametrize(
    ("units", "batch", "timesteps", "asked", "steps"),
    [
        (8, 1, 1000, None, 1000),
        (256, 1, 1000, None, 63),
        (256, 100, 1000, None, 1),
        (2000, 1, 9, None, 0),
        (2000, 1, 9, 2, 2),
        (8, 1, 9, 20, 9),
    ],
)
def test_so_many_local_jacobians_are_formed_as_are_soon_done(
    units: int, batch: int, timesteps: int, asked: int | None, steps: int
) -> None:
    cell = RecurrentCell("gru", "gru", "", {"h": (units,)}, {})
    assert steps_of(cell, batch, timesteps, asked) == steps
