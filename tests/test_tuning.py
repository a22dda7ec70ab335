"""A function compiled for the shapes that come again and again: the same answers, whatever becomes of the compiling."""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import architectures
from tapehead.engine import OPERATIONS, Model, abreast, tuning
from tapehead.engine import model as model_module
from tapehead.engine.abreast import Abreast
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
    monkeypatch.setattr(tuning, "_seconds", lambda way, _: 1.0 if _is_fixed(way) is faster else 2.0)
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


QUESTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "jacobian": ("jacobian", {"of": "lstm.h[-1]", "wrt": ["x", "lstm.h", "lstm.c.initial"]}),
    "of every timestep": ("jacobian", {"of": "lstm.h", "wrt": "lstm.h"}),
    "by weights": ("jacobian", {"of": "lstm.h[-1]", "wrt": "lstm/recurrent_kernel"}),
    "saliency": ("saliency", {"target": "outputs[1]"}),
    "integrated gradients": ("saliency", {"target": "outputs[1]", "method": "integrated_gradients", "n_steps": 3}),
    "vjp": ("vjp", {"of": "outputs", "wrt": ["x", "lstm.h"]}),
    "jvp": ("jvp", {"of": "outputs", "wrt": "x"}),
    "hvp": ("hvp", {"of": "outputs[0]", "wrt": "x"}),
}


# Those with a stack, and the points of a path.
SPLIT_FOR_ONE_SAMPLE = ("jacobian", "of every timestep", "by weights", "integrated gradients")


ALL = [pytest.param(name, batch, marks=pytest.mark.slow) for name in list(QUESTIONS)[1:] for batch in (1, 3)]


@pytest.mark.parametrize(("question", "batch"), [("jacobian", 1), ("jacobian", 3), *ALL])
def test_parts_abreast_answer_what_the_whole_does(question: str, batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(abreast, "processors", lambda: 2)
    monkeypatch.setattr(tuning, "_WORTH_PARTING_S", 0.0)
    monkeypatch.setattr(tuning, "_seconds", lambda way, _: 1.0 if isinstance(way, Abreast) else 2.0)
    keras.utils.set_random_seed(7)
    layers = [keras.Input((None, 2), name="x"), keras.layers.LSTM(3, name="lstm"), keras.layers.Dense(2)]
    operation, parameters = QUESTIONS[question]
    draw = np.random.default_rng(8)
    vectors = {"vjp": ("cotangent", (batch, 2)), "jvp": ("tangent", (batch, 5, 2)), "hvp": ("tangent", (batch, 5, 2))}
    if operation in vectors:
        name, shape = vectors[operation]
        parameters = {**parameters, name: draw.normal(size=shape)}
    x, lengths = draw.normal(size=(batch, 5, 2)), {"x": np.array([5, 3, 4])[:batch]}
    model = Model(keras.Sequential(layers), "m", later=lambda work: work())
    request, _ = check(model.card, operation, Request({"x": x}, lengths, {}, {**parameters, "precision": "float64"}))
    answers = [OPERATIONS[operation](model, request).tensors for _ in range(OFTEN + 2)]
    kept = [way for program in model.at("float64").programs for way in program._fixed.values()]
    assert any(isinstance(way, Abreast) for way in kept) is (batch > 1 or question in SPLIT_FOR_ONE_SAMPLE)
    for name, whole in answers[0].items():
        np.testing.assert_allclose(answers[-1][name], whole, rtol=0, atol=1e-13 * max(1, np.abs(whole).max()))


@pytest.mark.slow
@pytest.mark.parametrize("parted", [False, True], ids=["whole", "in parts"])
@pytest.mark.parametrize("name", architectures.ARCHITECTURES)
def test_every_architecture_answers_the_same_in_every_way(
    name: str, parted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(abreast, "processors", lambda: 2)
    monkeypatch.setattr(tuning, "_WORTH_PARTING_S", 0.0)
    monkeypatch.setattr(
        tuning, "_seconds", lambda way, _: 1.0 if isinstance(way, Abreast) is parted and _is_fixed(way) else 2.0
    )
    keras_model = architectures.build(name)
    model = Model(keras_model, "m", later=lambda work: work())
    x = architectures.data(keras_model)
    output = "outputs" if len(model.card.outputs) == 1 else "outputs.0"
    points = [point for point, info in model.card.points.items() if info.differentiable]
    ways = set()
    for operation, parameters in (
        ("vjp", {"of": output, "wrt": points}),
        (
            "jacobian",
            {"of": output, "wrt": [spec.name for spec in model.card.inputs if "float" in spec.dtype] or points[:1]},
        ),
    ):
        request, _ = check(model.card, operation, Request(x, None, {}, {**parameters, "precision": "float64"}))
        answers = [OPERATIONS[operation](model, request).tensors for _ in range(OFTEN + 1)]
        for point, plain in answers[0].items():
            np.testing.assert_allclose(answers[-1][point], plain, rtol=0, atol=1e-12 * max(1, np.abs(plain).max()))
        ways |= {type(way) for program in model.at("float64").programs for way in program._fixed.values()}
    assert (Abreast in ways) is parted


@keras.saving.register_keras_serializable("tapehead_tests")
class Centred(keras.layers.Layer):
    """Each number less its mean over the batch."""

    def call(self, x: Any) -> Any:
        return x - keras.ops.mean(x, axis=0, keepdims=True)


def test_a_batch_whose_rows_a_layer_mixes_is_not_parted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(abreast, "processors", lambda: 2)
    monkeypatch.setattr(tuning, "_WORTH_PARTING_S", 0.0)
    monkeypatch.setattr(tuning, "_seconds", lambda way, _: 1.0 if isinstance(way, Abreast) else 2.0)
    keras.utils.set_random_seed(9)
    layers = [keras.Input((None, 2), name="x"), Centred(), keras.layers.GRU(3, name="gru")]
    model = Model(keras.Sequential(layers), "m", later=lambda work: work())
    x = np.random.default_rng(9).normal(size=(4, 5, 2))
    request, _ = check(model.card, "states", Request({"x": x}, None, {}, {"points": ["gru.h"]}))
    answers = [OPERATIONS["states"](model, request).tensors["gru.h"] for _ in range(OFTEN + 2)]
    assert not any(isinstance(way, Abreast) for program in model.programs for way in program._fixed.values())
    assert "computed in parts an answer differs" in caplog.text
    np.testing.assert_allclose(answers[-1], answers[0], rtol=1e-5)
