"""`tapehead bench`: what is asked, what it is held against, the arithmetic, the command. No test depends on a time."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import tapehead
from tapehead import cli
from tapehead.bench.alternative import alternative, matrix_peak
from tapehead.bench.measure import in_turns, per_second, percentile, timed, warmed
from tapehead.bench.questions import inputs, questions
from tapehead.bench.report import HEAD, TOLERANCE, Report, Row
from tapehead.errors import BadParameter

DRAW = np.random.default_rng(0)
ROW = Row("jacobian of a wrt b", 4, 0.5, 2.0, 3.0, 1.5, 400.0, 2048, 0.125, 1.0, 5.0, 1e-6)


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MODEL", "URL", "BATCH", "TIMESTEPS", "CLIENTS", "SECONDS", "JSON", "IMPORTS"):
        monkeypatch.delenv(f"TAPEHEAD_{name}", raising=False)


def clock(step: float = 1.0) -> Any:
    """A clock that goes on by a step whenever it is read."""
    reads = itertools.count()
    return lambda: step * next(reads)


# ---- what is asked


def told(outputs: list[list[int]], recurrent: Mapping[str, Any], inputs: Mapping[str, str]) -> dict[str, Any]:
    points = {name: {"dtype": dtype, "differentiable": dtype.startswith("f")} for name, dtype in inputs.items()}
    return {
        "name": "m",
        "inputs": [{"name": name, "shape": [-1, -1, 2]} for name in inputs],
        "outputs": [{"name": "y", "shape": [-1, *shape]} for shape in outputs],
        "recurrent": recurrent,
        "points": {**points, "embedded": {"dtype": "float32", "differentiable": True}},
    }


FORWARD = {"first": {"states": {"h": [3]}, "direction": "forward"}, "last": {"states": {"h": [3], "c": [3]}}}
BACKWARD = {"last": {"states": {"state0": [3]}, "direction": "backward"}}


@pytest.mark.parametrize(
    ("outputs", "recurrent", "fed", "names"),
    [
        ([[1]], FORWARD, {"x": "float32"}, ["jacobian of last.h[-1] wrt x", "gradient of outputs wrt x"]),
        ([[]], BACKWARD, {"x": "float64"}, ["jacobian of last.state0[0] wrt x", "gradient of outputs wrt x"]),
        ([[4]], {}, {"t": "int32", "x": "float32"}, ["gradient of outputs[argmax] wrt x"]),
        ([[-1, 4], [1]], {}, {"t": "int64"}, ["gradient of outputs.0[-1, 0] wrt embedded"]),
    ],
)
def test_a_model_is_asked_what_fits_it(outputs: Any, recurrent: Any, fed: Any, names: list[str]) -> None:
    metadata = told(outputs, recurrent, fed)
    assert [one.name for one in questions(metadata)] == names
    drawn = inputs(metadata, 3, 7, DRAW)
    assert {name: (array.shape, array.dtype.name) for name, array in drawn.items()} == {
        name: ((3, 7, 2), dtype) for name, dtype in fed.items()
    }


def test_a_model_with_nothing_to_differentiate_by_is_refused() -> None:
    metadata = told([[1]], {}, {})
    metadata["points"] = {}
    with pytest.raises(BadParameter, match="differentiated by"):
        questions(metadata)


# ---- what it is held against


def network(kind: str) -> Any:
    keras.utils.set_random_seed(0)
    x = keras.Input((None, 2), name="x")
    match kind:
        case "gru":
            return keras.Model(x, keras.layers.Dense(3)(keras.layers.GRU(4)(x)))
        case "two outputs":
            h = keras.layers.LSTM(4, return_sequences=True)(x)
            return keras.Model(x, [h, keras.layers.Dense(1)(h)])
        case "two inputs":
            y = keras.Input((3,), name="y")
            read = keras.layers.Concatenate()([keras.layers.SimpleRNN(4)(x), y])
            return keras.Model([x, y], keras.layers.Dense(1)(read))
        case "bidirectional":
            return keras.Model(x, keras.layers.Dense(1)(keras.layers.Bidirectional(keras.layers.LSTM(2))(x)))
    raise ValueError(kind)


@pytest.mark.parametrize(("kind", "count"), [("gru", 2), ("two outputs", 2), ("two inputs", 2), ("bidirectional", 1)])
def test_the_tape_gives_our_answer_or_there_is_none(kind: str, count: int) -> None:
    live, compared = network(kind), 0
    with tapehead.Client(models={"m": live}) as client:
        model = client.model("m")
        x = inputs(model.metadata, 2, 3, DRAW)
        for question in questions(model.metadata):
            tape = alternative(live, question, x)
            if tape is not None:
                answer = model.ask(question.operation, x, **question.parameters)
                np.testing.assert_allclose(tape(), answer.value, rtol=1e-4, atol=1e-6)
                compared += 1
    assert compared == count


def test_the_peak_is_of_a_product_that_is_really_made() -> None:
    assert matrix_peak()() == 2.0 * 2048**3


# ---- the arithmetic


def test_a_call_is_timed_and_warmed_by_the_clock_that_is_given() -> None:
    assert timed(lambda: "answer", clock(0.25)) == (0.25, "answer")
    calls: list[int] = []
    warmed(lambda: calls.append(1), 5.0, clock())
    assert len(calls) == 4


def test_calls_take_turns_and_each_is_made_at_least_five_times() -> None:
    order: list[str] = []
    found = in_turns({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 0.0, clock())
    assert "".join(order) == "ab" * 5
    assert found == {"a": [1.0] * 5, "b": [1.0] * 5}


def test_answers_are_counted_until_the_time_is_over() -> None:
    assert per_second(lambda asked: list(asked), "x", 4.0, clock()) == pytest.approx(3 / 5)


def test_a_percentile_is_a_time_that_was_measured() -> None:
    times = [float(n) for n in range(1, 101)]
    assert (percentile(times, 0.5), percentile(times, 0.99), percentile([7.0], 0.99)) == (51.0, 100.0, 7.0)


def report(*rows: Row, peak: float | None = 2e11) -> Report:
    return Report("m", "in this process", 50, 8, peak, rows)


def test_the_table_has_a_line_a_row_under_its_heads() -> None:
    lines = report(ROW).text.splitlines()
    assert lines[0] == "m, in this process"
    assert lines[1].split("  ")[0].strip() == "question"
    assert all(head in lines[1] for head in HEAD)
    assert lines[2].split()[5:] == ["4", "0.50", "2.00", "3.00", "1.50", "400", "2.0", "12.5%", "5.00", "2.5x"]
    assert "200 GFLOP/s" in report(ROW).text
    assert "--url" in report(ROW, peak=None).text


def test_json_has_what_the_table_has() -> None:
    found = json.loads(report(ROW).json)
    assert found["rows"][0]["ratio"] == 2.5
    assert {"version", "system", "python", "model", "where", "peak_flops", "agrees"} <= found.keys()


@pytest.mark.parametrize(("off", "agrees"), [(None, True), (TOLERANCE, True), (2 * TOLERANCE, False), (np.nan, False)])
def test_a_tape_that_answers_otherwise_is_told(off: float | None, agrees: bool) -> None:
    row = Row("j", 1, 0.1, 1.0, 1.0, 1.0, 1.0, 1, tape_off=off)
    assert report(row).agrees is agrees
    assert ("off the tape's answer" in report(row).text) is not agrees


# ---- the command

QUICK = ("--seconds", "0.1", "--timesteps", "5", "--clients", "2")


def test_a_file_is_measured_in_this_process(small_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", str(small_folder / "mine.keras"), "--json", "--batch", "2", *QUICK]) == cli.OK
    found = json.loads(capsys.readouterr().out)
    assert (found["model"], found["agrees"], found["timesteps"]) == ("mine", True, 5)
    assert [row["batch"] for row in found["rows"]] == [2, 2]
    jacobian, gradient = found["rows"]
    assert jacobian["bytes"] == 2 * 3 * 5 * 2 * 4
    assert gradient["bytes"] == 2 * 5 * 2 * 4
    for row in found["rows"]:
        assert min(row[key] for key in ("first_s", "median_ms", "requests_per_s", "tape_ms", "peak_share")) > 0
        assert row["compute_ms"] < row["median_ms"] <= row["p99_ms"]


def test_a_server_is_measured_without_the_model_itself(small_server: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "mine", "--url", small_server, "--batch", "1", *QUICK]) == cli.OK
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"mine, {small_server}"
    assert [line.split()[-3:] for line in lines[2:4]] == [["-", "-", "-"]] * 2


@pytest.mark.parametrize("content", [None, b"no model"])
def test_a_file_that_is_no_model_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None
) -> None:
    file = tmp_path / "m.keras"
    if content is not None:
        file.write_bytes(content)
    assert cli.main(["bench", str(file), *QUICK]) == cli.FAILED
    complaint = capsys.readouterr().err
    assert complaint.startswith(f"tapehead bench: bad_parameter: {file} ")


def test_without_a_model_the_demos_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "--batch", "1", *QUICK]) == cli.OK
    assert capsys.readouterr().out.startswith("sunspots, in this process")
