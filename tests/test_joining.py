"""Jobs that share a device call: which may, and that each gets its own answer."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from tapehead.errors import TapeheadError
from tapehead.operations import Request, Result, check
from tapehead.worker.joining import groups
from tapehead.worker.protocol import Job, ModelRef, WorkerSettings
from tapehead.worker.station import Station

REF = ModelRef("m", 1, None)
RANDOM = np.random.default_rng(7)


@pytest.fixture(scope="module")
def station() -> Station:
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [
            keras.Input((None, 2), name="x"),
            keras.layers.Bidirectional(keras.layers.LSTM(3, return_sequences=True), name="bi"),
            keras.layers.GRU(3, name="gru"),
            keras.layers.Dense(4, name="dense"),
        ]
    )
    return Station(WorkerSettings(), live={"m": model})


def job(station: Station, operation: str, *shape: int, lengths: list[int] | None = None, **parameters: Any) -> Job:
    x = RANDOM.normal(size=shape).astype(np.float32)
    request = Request({"": x}, None if lengths is None else {"": np.array(lengths)}, {}, parameters)
    checked, _ = check(station.load(REF), operation, request)
    return Job("one", REF, operation, checked, None)


def result(answer: Result | TapeheadError) -> Result:
    assert isinstance(answer, Result), answer
    return answer


ASKED: list[tuple[str, dict[str, Any]]] = [
    ("jacobian", {"of": "gru.h[-1]", "wrt": "inputs"}),
    ("jacobian", {"of": ["gru.h", "bi.backward.c"], "wrt": "bi.forward.h", "lag": 1}),
    ("vjp", {"of": "outputs", "wrt": ["inputs", "gru.h.initial"]}),
    ("saliency", {"target": "outputs[argmax]"}),
    ("saliency", {"target": "outputs[1]", "method": "integrated_gradients", "n_steps": 8}),
    ("states", {"points": ["gru.h"], "final_states": True}),
]
LENGTHS = [[4], [2, 5], [5]]


@pytest.mark.parametrize(
    ("operation", "parameters", "lengths"),
    [
        *((operation, parameters, None) for operation, parameters in ASKED),
        (*ASKED[0], LENGTHS),
        *(pytest.param(*asked, LENGTHS, marks=pytest.mark.slow) for asked in ASKED[1:]),
    ],
)
def test_each_gets_the_answer_it_would_have_got_alone(
    station: Station, operation: str, parameters: dict[str, Any], lengths: list[list[int]] | None
) -> None:
    jobs = [
        job(station, operation, batch, 5, 2, lengths=None if lengths is None else lengths[n], **parameters)
        for n, batch in enumerate((1, 2, 1))
    ]
    together = [result(answer) for answer in station.run(jobs)]
    for one, own in zip(jobs, together, strict=True):
        (alone,) = map(result, station.run([one]))
        assert own.meta["joined"] == 3
        assert own.axes == alone.axes
        for key in ("valid", "target_index"):
            assert own.meta.get(key) == alone.meta.get(key)
        scale = max(float(np.abs(tensor).max()) for tensor in alone.tensors.values())
        for name, tensor in alone.tensors.items():
            np.testing.assert_allclose(own.tensors[name], tensor, rtol=0, atol=1e-6 * scale)


def test_jobs_that_differ_in_more_than_their_samples_run_apart(station: Station) -> None:
    asked = {"of": "gru.h[-1]", "wrt": "inputs"}
    jobs = [
        job(station, "jacobian", 1, 5, 2, **asked),
        job(station, "jacobian", 1, 6, 2, **asked),
        job(station, "jacobian", 1, 5, 2, lengths=[4], **asked),
        job(station, "jacobian", 1, 5, 2, of="gru.h[0]", wrt="inputs"),
        job(station, "vjp", 1, 5, 2, of="outputs", wrt="gru/kernel"),
        job(station, "vjp", 1, 5, 2, of="outputs", wrt="gru/kernel"),
        job(station, "jacobian", 3, 5, 2, **asked),
        job(station, "weight_gradients", 1, 5, 2, of="outputs[0]"),
        job(station, "weight_gradients", 1, 5, 2, of="outputs[0]"),
    ]
    assert groups(jobs) == [[0, 6], [1], [2], [3], [4], [5], [7], [8]]


def test_what_is_told_of_all_samples_together_is_not_joined(station: Station) -> None:
    jobs = [job(station, "diagnose", 2, 5, 2) for _ in range(2)]
    assert groups(jobs) == [[0], [1]]
    for own, one in zip(station.run(jobs), jobs, strict=True):
        (alone,) = map(result, station.run([one]))
        assert result(own).meta["numbers"] == alone.meta["numbers"]


def test_one_that_cannot_be_answered_does_not_spoil_its_neighbours(station: Station) -> None:
    asked = {"of": "gru.h[-4]", "wrt": "inputs"}
    good, other = (job(station, "jacobian", 1, 5, 2, lengths=[5], **asked) for _ in range(2))
    short = job(station, "jacobian", 1, 5, 2, lengths=[5], **asked)
    bad = Job(
        "two",
        REF,
        "jacobian",
        Request(
            short.request.inputs,
            {"x": np.array([2])},
            {},
            asked | {"lag": None, "reduce": "none", "precision": None, "dry_run": False},
        ),
        None,
    )
    answers = station.run([good, bad, other])
    assert isinstance(answers[1], TapeheadError)
    assert "reaches before the start of the sequence in row 0" in answers[1].detail
    assert [result(answers[n]).tensors["value"].shape for n in (0, 2)] == [(1, 3, 5, 2)] * 2
