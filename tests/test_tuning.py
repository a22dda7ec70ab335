"""A function compiled for the shapes that come again and again: the same answers, whatever becomes of the compiling."""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tapehead.engine import OPERATIONS, Model, tuning
from tapehead.engine import model as model_module
from tapehead.engine.tuning import KEPT, OFTEN, Program
from tapehead.operations import Request, check


def test_shapes_that_come_again_are_compiled_once_and_others_are_not() -> None:
    works: list[Callable[[], None]] = []
    program = Program(lambda x: tf.tanh(x) * 2, [tf.TensorSpec([None])], works.append)
    for _ in range(OFTEN + 2):
        program(tf.ones(3))
    program(tf.ones(4))
    assert len(works) == 1
    works[0]()
    np.testing.assert_allclose(program(tf.ones(3)), np.tanh(np.ones(3)) * 2, rtol=1e-6)


@pytest.mark.parametrize("faster", [True, False])
def test_what_is_compiled_answers_only_where_it_is_faster(faster: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    traced: list[tuple[int | None, ...]] = []

    def function(x: Any) -> Any:
        traced.append(tuple(x.shape))
        return x + 1

    program = Program(function, [tf.TensorSpec([None])], lambda work: work())
    times = iter([1.0, 1.0, 1.0, 2.0, 2.0, 2.0] if faster else [2.0, 2.0, 2.0, 1.0, 1.0, 1.0])
    monkeypatch.setattr(tuning, "_seconds", lambda *_: next(times))
    for _ in range(OFTEN):
        program(tf.zeros(3))
    assert traced == [(None,), (3,)]
    assert (program._fixed[((3,),)] is not None) is faster
    np.testing.assert_array_equal(program(tf.zeros(3)), np.ones(3))


def test_what_xla_cannot_compile_stays_as_it_is() -> None:
    def words(x: Any) -> Any:
        return tf.strings.length(tf.strings.as_string(x))

    program = Program(words, [tf.TensorSpec([None])], lambda work: work())
    for _ in range(OFTEN + 1):
        found = program(tf.constant([1.0, 10.0]))
    np.testing.assert_array_equal(found, [8, 9])


def test_few_shapes_are_kept() -> None:
    program = Program(lambda x: x, [tf.TensorSpec([None])], [].append)
    for size in range(1, KEPT + 5):
        for _ in range(OFTEN):
            program(tf.zeros(size))
    assert len(program._fixed) == KEPT


@pytest.mark.parametrize(
    "asked", [("jacobian", {"of": "lstm.h[-1]", "wrt": "x"}), ("saliency", {"target": "outputs[1]"})]
)
def test_a_derivative_is_the_same_from_either(
    asked: tuple[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        tuning, "_seconds", lambda function, _: 1.0 if function is not None and _is_fixed(function) else 2.0
    )
    keras.utils.set_random_seed(5)
    layers = [keras.Input((None, 2), name="x"), keras.layers.LSTM(3, name="lstm"), keras.layers.Dense(2)]
    model = Model(keras.Sequential(layers), "m", later=lambda work: work())
    operation, parameters = asked
    x = np.random.default_rng(1).normal(size=(2, 4, 2))
    request, _ = check(model.card, operation, Request({"x": x}, None, {}, {**parameters, "precision": "float64"}))
    answers = [OPERATIONS[operation](model, request).tensors["value"] for _ in range(OFTEN + 2)]
    programs = list(model.at("float64").programs)
    assert any(fixed is not None for program in programs for fixed in program._fixed.values())
    for answer in answers[1:]:
        np.testing.assert_allclose(answer, answers[0], rtol=0, atol=1e-15)


def _is_fixed(function: Any) -> bool:
    return not isinstance(function, MethodType)  # the function for any shapes is a method of the program


def test_a_model_keeps_few_questions_and_the_last_asked_among_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_module, "PROGRAMS", 2)
    model = Model(keras.Sequential([keras.Input((None, 2), name="x"), keras.layers.LSTM(2, name="lstm")]), "m")
    built: list[str] = []

    def ask(key: str) -> None:
        def build() -> Program:
            built.append(key)
            return Program(lambda x: x, [tf.TensorSpec([])], None)

        model.programs.get(key, build)

    for key in ("a", "b", "a", "c", "a", "b"):
        ask(key)
    assert built == ["a", "b", "c", "b"]
