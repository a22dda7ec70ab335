"""Pictures of real answers: the client's `plot` draws what the engine answered, and HTTP gives the same picture."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import pytest
from matplotlib.image import imread
from starlette.testclient import TestClient

import tapehead
from tapehead.errors import BadParameter
from tapehead.pictures import png
from tapehead.server.inprocess import application

Asked = Callable[[tapehead.Model[tapehead.Answer], np.ndarray], tapehead.Answer]
GATES = ["lstm.input_gate", "lstm.forget_gate", "lstm.cell_candidate", "lstm.output_gate"]


def small_model() -> keras.Model:
    keras.utils.set_random_seed(2)
    layers = [keras.Input((None, 3)), keras.layers.LSTM(4, name="lstm"), keras.layers.Dense(2, name="dense")]
    return keras.Sequential(layers, name="small")


@pytest.fixture(scope="module")
def model() -> Iterator[tapehead.Model[tapehead.Answer]]:
    with tapehead.Client(models={"small": small_model()}) as client:
        yield client.model("small")


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    return np.random.default_rng(6).standard_normal((2, 7, 3)).astype(np.float32)


def over_units(value: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    return np.linalg.norm(value.astype(float), axis=axes)


# What is asked, and what the first panel shows of its answer: an image, or a line.
IMAGES: dict[str, tuple[Asked, Callable[[tapehead.Answer], np.ndarray]]] = {
    "saliency": (lambda m, x: m.saliency(x, target="outputs[0]"), lambda a: a.value[0].T),
    "integrated gradients": (
        lambda m, x: m.saliency(x, target="outputs[argmax]", method="integrated_gradients", n_steps=8),
        lambda a: a.value[0].T,
    ),
    "jacobian": (lambda m, x: m.jacobian(x, of="lstm.h[-1]", wrt="inputs"), lambda a: over_units(a.value[0], (0,)).T),
    "one pair": (lambda m, x: m.jacobian(x, of="lstm.h[-1]", wrt="lstm.h[-2]"), lambda a: a.value[0]),
    "map of norms": (lambda m, x: m.jacobian(x, of="lstm.h", wrt="lstm.h", reduce="norm"), lambda a: a.value[0]),
    "all pairs": (lambda m, x: m.jacobian(x, of="lstm.h", wrt="lstm.h"), lambda a: over_units(a.value[0], (1, 3))),
    "states": (lambda m, x: m.states(x, points="lstm.h"), lambda a: a.value[0].T),
    "gates": (lambda m, x: m.states(x, points=GATES), lambda a: a.tensors["lstm.input_gate"][0].T),
    "vjp": (lambda m, x: m.vjp(x, of="outputs", wrt="inputs"), lambda a: a.value[0].T),
    "vjp of a weight": (lambda m, x: m.vjp(x, of="outputs", wrt="lstm/kernel"), lambda a: a.value),
    "jvp": (lambda m, x: m.ask("jvp", x, of="lstm.h", wrt="inputs", tangent=x), lambda a: a.value[0].T),
    "hvp": (lambda m, x: m.ask("hvp", x, of="outputs[0]", wrt="inputs", tangent=x), lambda a: a.value[0].T),
    "check": (lambda m, x: m.ask("check", x, of="outputs[1]", wrt="inputs"), lambda a: a.value[0].T),
}
LINES: dict[str, tuple[Asked, Callable[[tapehead.Answer], np.ndarray]]] = {
    "norms": (lambda m, x: m.jacobian(x, of="lstm.h[-1]", wrt="lstm.h", reduce="norm"), lambda a: a.value[0]),
    "several": (
        lambda m, x: m.jacobian(x, of=["lstm.h[-1]", "lstm.c[-1]"], wrt="inputs"),
        lambda a: over_units(a.tensors["lstm.h[-1] / inputs"][0], (0, 2)),
    ),
    "local": (lambda m, x: m.jacobian(x, of="lstm.h", wrt="lstm.h", lag=1, reduce="norm"), lambda a: a.value[0]),
    "spectrum": (
        lambda m, x: m.jacobian(x, of="lstm.h", wrt="lstm.h", lag=1, reduce="singular_values"),
        lambda a: np.median(a.value[0], axis=0),
    ),
}


def test_gradients_of_weights_are_lines_a_gate_over_time(
    model: tapehead.Model[tapehead.Answer], x: np.ndarray
) -> None:
    answer = model.weight_gradients(x, targets=x[:, 0, :2], loss="mse", by=["gate", "timestep"])
    figure = answer.plot()
    for axes, name in zip(figure.axes, ("kernel", "recurrent_kernel", "bias"), strict=False):
        norms = answer.tensors[f"lstm/{name}"].astype(float)
        norms[norms == 0] = np.nan
        np.testing.assert_array_equal([line.get_ydata() for line in axes.lines[:4]], norms)
        assert axes.get_legend_handles_labels()[1][:4] == list(answer.meta["gates"]["lstm"])
    assert "loss mse" in figure.get_suptitle()


def test_weights_stand_against_their_gradients(model: tapehead.Model[tapehead.Answer], x: np.ndarray) -> None:
    answer = model.weight_gradients(x, of="outputs[0]", values=True)
    figure = answer.plot()
    titles = [axes.get_title().partition("\n")[0] for axes in figure.axes]
    points = figure.axes[titles.index("lstm/kernel")].collections[0].get_offsets()
    pairs = np.c_[answer.tensors["lstm/kernel:weight"].ravel(), answer.tensors["lstm/kernel:value"].ravel()]
    assert sorted(map(tuple, points.tolist())) == sorted(map(tuple, np.abs(pairs).astype(float).tolist()))


@pytest.mark.parametrize("what", IMAGES)
def test_a_heat_map_holds_the_answers_own_numbers(
    model: tapehead.Model[tapehead.Answer], x: np.ndarray, what: str
) -> None:
    ask, shown = IMAGES[what]
    answer = ask(model, x)
    figure = answer.plot()
    (image,) = figure.axes[0].images
    np.testing.assert_allclose(image.get_array(), shown(answer), rtol=1e-6)
    assert figure.get_suptitle().startswith(answer.title)


@pytest.mark.parametrize("what", LINES)
def test_a_line_runs_through_the_answers_own_numbers(
    model: tapehead.Model[tapehead.Answer], x: np.ndarray, what: str
) -> None:
    ask, shown = LINES[what]
    answer = ask(model, x)
    np.testing.assert_allclose(answer.plot().axes[0].lines[0].get_ydata(), shown(answer), rtol=1e-6)


def test_another_sample_is_drawn_on_demand(model: tapehead.Model[tapehead.Answer], x: np.ndarray) -> None:
    answer = model.saliency(x, target="outputs[0]")
    figure = answer.plot(row=1)
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), answer.value[1].T)
    with pytest.raises(BadParameter, match="samples 0 to 1"):
        answer.plot(row=2)


def test_padding_of_ragged_sequences_is_grey(model: tapehead.Model[tapehead.Answer], x: np.ndarray) -> None:
    answer = model.saliency([x[0, :4], x[1]], target="outputs[0]")
    array = answer.plot().axes[0].images[0].get_array()
    assert np.ma.getmaskarray(array).all(axis=0).tolist() == [False] * 4 + [True] * 3


def test_a_dry_run_has_no_picture(model: tapehead.Model[tapehead.Answer], x: np.ndarray) -> None:
    with pytest.raises(BadParameter, match="leave dry_run out"):
        model.jacobian(x, of="outputs", wrt="inputs", dry_run=True).plot()


def test_a_title_says_model_point_method_and_precision(model: tapehead.Model[tapehead.Answer], x: np.ndarray) -> None:
    answer = model.saliency(x[:1], target="outputs[argmax]", method="gradient_x_input")
    index = answer.meta["target_index"][0]
    said = f"small: saliency of outputs[argmax] wrt inputs by gradient x input · argmax is {index} · float32"
    assert answer.plot().get_suptitle() == said
    lagged = model.jacobian(x[:1], of="lstm.h", wrt="lstm.c", lag=1, reduce="norm")
    assert lagged.title == "small: jacobian of lstm.h wrt lstm.c at lag 1 as its norm"


def test_a_saved_answer_is_drawn_as_the_answer_was(
    model: tapehead.Model[tapehead.Answer], x: np.ndarray, tmp_path: Any
) -> None:
    answer = model.saliency(x, target="outputs[0]")
    answer.save(tmp_path / "answer.npz")
    assert png(tapehead.Answer.load(tmp_path / "answer.npz").plot()) == png(answer.plot())


def test_over_http_comes_the_picture_that_plot_draws(model: tapehead.Model[tapehead.Answer], x: np.ndarray) -> None:
    answer = model.saliency(x, target="outputs[0]")
    with TestClient(application({"small": small_model()})) as client:
        body = {"inputs": x.tolist(), "target": "outputs[0]"}
        reply = client.post("/v2/models/small/saliency?row=1", json=body, headers={"Accept": "image/png"})
    ours, theirs = (imread(io.BytesIO(image)) for image in (png(answer.plot(row=1)), reply.content))
    assert ours.shape == theirs.shape
    assert (np.abs(ours - theirs).max(axis=-1) > 0.05).mean() < 0.001
