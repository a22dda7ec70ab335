"""What a model is asked before it is ready: every layer's last state, one output, at the shapes configured."""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from tapehead.engine import OPERATIONS, Model
from tapehead.engine.tuning import OFTEN
from tapehead.operations import Request, check
from tapehead.residency.repository import Repository
from tapehead.scheduling import Fleet, FleetSettings, Silent
from tapehead.scheduling.warming import TIMES, questions
from tapehead.server.settings import read_shapes
from tapehead.worker.child import hiring
from tapehead.worker.protocol import WorkerSettings


def two_layers() -> Any:
    inputs = keras.Input((None, 2), name="x")
    h = keras.layers.Bidirectional(keras.layers.GRU(3, return_sequences=True), name="bi")(inputs)
    return keras.Model(
        inputs, keras.layers.Dense(2, name="each")(keras.layers.LSTM(2, return_sequences=True, name="up")(h))
    )


def two_inputs() -> Any:
    words, x = keras.Input((5,), dtype="int32", name="words"), keras.Input((None, 2), name="a b")
    read = keras.layers.SimpleRNN(3, name="read")(keras.layers.Embedding(4, 3)(words))
    return keras.Model([words, x], [keras.layers.Dense(1)(read), keras.layers.LSTM(2, name="lstm")(x)])


def words_alone() -> Any:
    words = keras.Input((None,), dtype="int32")
    return keras.Model(words, keras.layers.GRU(2)(keras.layers.Embedding(4, 3)(words)))


@pytest.mark.parametrize(
    ("build", "asked"),
    [
        (two_layers, ["bi.forward.h[-1]", "bi.backward.h[-1]", "up.h[-1]", "outputs[-1, 0]"]),
        (two_inputs, ["read.h[-1]", "lstm.h[-1]", "outputs.0[0]"]),
        (words_alone, []),
    ],
)
def test_every_layers_last_state_and_one_output_are_asked_and_answered(
    build: Callable[[], Any], asked: list[str]
) -> None:
    model = Model(build(), "m")
    found = list(questions(model.card, [(2, 7)]))
    assert [request.parameters.get("of", request.parameters.get("target")) for _, request in found] == asked
    for operation, request in found:
        checked, _ = check(model.card, operation, request)
        assert checked.batch == 2
        result = OPERATIONS[operation](model, checked)
        assert result.tensors["value"].shape[-2:] == (7, 2)
        assert result.meta["finite"]


def test_questions_come_often_enough_to_be_compiled() -> None:
    assert TIMES >= OFTEN


def test_the_first_answer_tells_what_compiling_took_and_the_second_that_it_was_not_needed() -> None:
    model = Model(keras.Sequential([keras.Input((None, 2)), keras.layers.GRU(3, name="gru")]), "m")
    assert model.compile_s == 0
    request, _ = check(
        model.card, "jacobian", Request({"": np.ones((1, 4, 2))}, None, {}, {"of": "gru.h[-1]", "wrt": "inputs"})
    )
    OPERATIONS["jacobian"](model, request)
    first = model.compile_s
    assert first > 0
    OPERATIONS["jacobian"](model, request)
    assert model.compile_s == first


class Counting(Silent):
    def __init__(self) -> None:
        self.warm: list[tuple[str, int]] = []
        self.counted = 0

    def warmed_up(self, model: str, version: int, seconds: float) -> None:
        assert math.isfinite(seconds)
        self.warm.append((model, version))

    def finished(self, *_: Any) -> None:
        self.counted += 1


@pytest.mark.skipif(os.name != "posix", reason="the server runs on Linux and macOS")
def test_a_model_is_ready_when_it_is_warm_and_answers_before(tmp_path: Path) -> None:
    keras.Sequential([keras.Input((None, 2)), keras.layers.GRU(3, name="gru")]).save(tmp_path / "warm.keras")
    observer = Counting()

    async def ask(fleet: Fleet, **parameters: Any) -> dict[str, float]:
        request = Request({"": np.ones((1, 4, 2), np.float32)}, None, {}, parameters)
        result, _ = await fleet.ask("warm", None, "jacobian", request, id="one")
        timings: dict[str, float] = result.meta["timings"]
        return timings

    async def test() -> None:
        settings = FleetSettings(warm_up=((1, 4),))
        workers = hiring(WorkerSettings(), {**os.environ, "CUDA_VISIBLE_DEVICES": "-1"})
        async with Fleet(workers, repository=Repository(str(tmp_path)), settings=settings, observer=observer) as fleet:
            card = await fleet.card("warm")
            assert card.name == "warm"
            assert not fleet.model_ready("warm")
            assert (await fleet.index())[0]["state"] == "LOADING"
            await ask(fleet, of="gru.h[0]", wrt="inputs")
            await fleet.settled()
            assert fleet.model_ready("warm")
            assert observer.warm == [("warm", 1)]
            assert observer.counted == 1
            assert "compile" not in await ask(fleet, of="gru.h[-1]", wrt="inputs")
            assert (await ask(fleet, of="gru.update_gate[0]", wrt="inputs"))["compile"] > 0

    asyncio.run(asyncio.wait_for(test(), 120))


def test_shapes_are_read_as_they_are_written() -> None:
    assert read_shapes("1x32") == ((1, 32),)
    assert read_shapes(" 1x20, 16x100 ") == ((1, 20), (16, 100))
    assert read_shapes("off") == ()
    for wrong in ("32", "0x5", "1x", "axb", "1x2x3", "1x20,x"):
        with pytest.raises(ValueError, match="BATCHxTIMESTEPS"):
            read_shapes(wrong)
