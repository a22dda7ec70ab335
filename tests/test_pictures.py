"""Pictures: what is drawn is what was given, on axes that say what they are."""

from __future__ import annotations

import io
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import AxesImage, imread
from matplotlib.patches import StepPatch

from tapehead.pictures import KINDS, Panel, decay, drawn, fitting, panel, picture, png

JACOBIAN_AXES = ("batch", "of.unit", "wrt.timestep", "wrt.feature")
ASKED = {"operation": "jacobian", "of": "lstm.h[-1]", "wrt": "inputs"}


@pytest.fixture
def jacobian() -> np.ndarray:
    """d lstm.h[-1] / d inputs: (2 samples, 4 units, 7 timesteps, 3 features)."""
    return np.random.default_rng(1).standard_normal((2, 4, 7, 3)).astype(np.float32)


def image_of(figure: Figure) -> AxesImage:
    (image,) = figure.axes[0].images
    return image


def test_two_axes_are_drawn_as_they_are_with_the_timesteps_to_the_right() -> None:
    values = np.arange(14.0).reshape(1, 7, 2) - 3
    figure = picture(tensors={"lstm.h": values}, axes={"lstm.h": ("batch", "timestep", "unit")}, meta={}, title="")
    np.testing.assert_array_equal(image_of(figure).get_array(), values[0].T)
    assert (figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()) == ("timestep", "unit")


def test_signed_values_have_limits_symmetric_about_zero() -> None:
    figure = picture(
        tensors={"value": np.array([[[1.0, -5.0], [2.0, 3.0]]])},
        axes={"value": ("batch", "of.unit", "wrt.unit")},
        meta={},
        title="",
    )
    assert image_of(figure).get_clim() == (-5.0, 5.0)
    assert image_of(figure).get_cmap().name == "RdBu_r"


def test_a_third_axis_is_gone_by_the_frobenius_norm_over_units_of_of(jacobian: np.ndarray) -> None:
    figure = picture(tensors={"value": jacobian}, axes={"value": JACOBIAN_AXES}, meta=ASKED, title="t", row=1)
    np.testing.assert_allclose(image_of(figure).get_array(), np.linalg.norm(jacobian[1].astype(float), axis=0).T)
    assert image_of(figure).get_clim()[0] == 0.0
    assert figure.axes[0].get_xlabel() == "timestep of inputs"
    assert figure.axes[0].get_ylabel() == "feature of inputs"
    assert figure.axes[1].get_ylabel().replace("\n", " ") == "norm of d lstm.h[-1] / d inputs, over unit (of)"


def test_four_axes_leave_the_two_that_count_timesteps() -> None:
    values = np.random.default_rng(2).standard_normal((1, 5, 2, 6, 3))
    shown = panel(values, ("batch", "of.timestep", "of.unit", "wrt.timestep", "wrt.unit"), "d")
    assert shown.axes == ("of.timestep", "wrt.timestep")
    np.testing.assert_allclose(shown.values, np.linalg.norm(values[0], axis=(1, 3)))


def test_one_feature_leaves_the_units_and_their_signs(jacobian: np.ndarray) -> None:
    shown = panel(jacobian[..., :1], JACOBIAN_AXES, "d")
    assert shown.axes == ("of.unit", "wrt.timestep")
    np.testing.assert_array_equal(shown.values, jacobian[0, :, :, 0])
    assert shown.signed


def test_a_title_says_the_sample_and_the_precision(jacobian: np.ndarray) -> None:
    meta = {**ASKED, "precision": "float32"}
    figure = picture(tensors={"value": jacobian}, axes={"value": JACOBIAN_AXES}, meta=meta, title="co2: jacobian")
    assert figure.get_suptitle() == "co2: jacobian · sample 0 of 2 · float32"


def test_one_number_beside_other_tensors_goes_into_the_title() -> None:
    tensors = {"value": np.ones((2, 3, 2)), "completeness_gap": np.array([0.5, 0.25])}
    axes = {"value": ("batch", "timestep", "feature"), "completeness_gap": ("batch",)}
    figure = picture(tensors=tensors, axes=axes, meta={}, title="saliency", row=1)
    assert figure.get_suptitle() == "saliency · sample 1 of 2 · completeness_gap 0.25"
    assert sum(len(one.images) for one in figure.axes) == 1


def test_norms_are_drawn_on_a_log_axis_with_the_decay_fitted_to_them() -> None:
    values = 3.0 * 0.5 ** np.arange(9, -1, -1)
    figure = drawn([("norms", Panel(values, ("wrt.timestep",), "norm of d h[-1] / d h[t]"))], title="")
    (axes,) = figure.axes
    given, fitted = axes.lines
    np.testing.assert_array_equal(given.get_ydata(), values)
    np.testing.assert_allclose(fitted.get_ydata(), values)
    assert axes.get_yscale() == "log"
    assert axes.get_legend_handles_labels()[1][1] == "fitted: x 0.5 a timestep back: halved in 1.0"


def test_zeros_and_infinities_have_no_place_on_a_log_axis_and_are_counted() -> None:
    values = np.array([0.0, np.inf, 0.0, 0.25, 0.5])
    figure = drawn([("norms", Panel(values, ("timestep",), "norm"))], title="")
    labels = figure.axes[0].get_legend_handles_labels()[1]
    assert labels[-1] == "not drawn: 2 zero, 1 without a value"
    drawn_at = np.flatnonzero(~np.isnan(np.asarray(figure.axes[0].lines[0].get_ydata(), float)))
    assert drawn_at.tolist() == [3, 4]


@pytest.mark.parametrize("values", [[], [1.0], [0.0, 0.0], [np.nan, 1.0]])
def test_fewer_than_two_usable_norms_have_no_decay(values: list[float]) -> None:
    assert decay(np.array(values)) is None


def test_a_growing_norm_has_a_factor_under_one_forwards_and_no_half_life() -> None:
    fitted = decay(2.0 ** np.arange(5, -1, -1))
    assert fitted is not None
    assert fitted.factor == pytest.approx(2.0)
    assert "halved" not in str(fitted)


def test_bars_hold_the_values_split_by_sign() -> None:
    values = np.array([[[1.5], [-2.0], [0.5]]])
    asked = {"operation": "saliency", "target": "outputs[0]", "method": "gradient", "wrt": "inputs"}
    axes = {"value": ("batch", "timestep", "feature")}
    figure = picture(tensors={"value": values}, axes=axes, meta=asked, title="")
    above, below = (patch for patch in figure.axes[0].patches if isinstance(patch, StepPatch))
    np.testing.assert_array_equal(above.get_data().values, [1.5, 0, 0.5])
    np.testing.assert_array_equal(below.get_data().values, [0, -2.0, 0])
    assert figure.axes[0].get_ylabel() == "gradient of outputs[0]"


@pytest.mark.parametrize("shape", [(1, 3, 2), (1, 3)])
def test_what_has_no_value_is_grey_and_said(shape: tuple[int, ...]) -> None:
    values = np.full(shape, -1.0)
    values[0, 1] = np.nan
    names = ("batch", "timestep", "unit")[: len(shape)]
    figure = picture(tensors={"x": values}, axes={"x": names}, meta={}, title="")
    assert figure.axes[-1].get_ylabel() == "x (grey: no value)"
    grey = np.abs(imread(io.BytesIO(png(figure)))[..., :3] - 0.6).max(axis=-1) < 0.01
    assert grey.sum() > 10_000


def test_padding_has_no_value(jacobian: np.ndarray) -> None:
    valid = [[True] * 7, [True] * 4 + [False] * 3]
    axes = {"value": JACOBIAN_AXES}
    drawn_row = [
        image_of(picture(tensors={"value": jacobian}, axes=axes, meta={**ASKED, "valid": valid}, title="", row=row))
        for row in (0, 1)
    ]
    assert not np.ma.getmaskarray(drawn_row[0].get_array()).any()
    assert np.ma.getmaskarray(drawn_row[1].get_array()).all(axis=0).tolist() == [False] * 4 + [True] * 3


def test_every_tensor_has_its_panel_and_no_more_than_six_are_drawn() -> None:
    tensors = {f"lstm_{n}.h": np.full((1, 3, 2), float(n)) for n in range(10)}
    axes = dict.fromkeys(tensors, ("batch", "timestep", "unit"))
    figure = picture(tensors=tensors, axes=axes, meta={}, title="states")
    images = [image for one in figure.axes for image in one.images]
    assert [float(image.get_array().max()) for image in images] == list(range(6))
    assert "6 of 10 tensors" in figure.get_suptitle()


def test_the_kind_is_chosen_by_the_axes() -> None:
    line, square = np.ones(4), np.ones((4, 4))
    assert fitting(Panel(square, ("of.unit", "wrt.unit"), "derivative")) == "heatmap"
    assert fitting(Panel(line, ("wrt.timestep",), "norm of d h / d x")) == "norms"
    assert fitting(Panel(line, ("timestep",), "gradient of outputs[0]")) == "bars"
    assert fitting(Panel(line, ("unit",), "norm")) == "bars"
    assert fitting(Panel(np.array(2.0), (), "value")) == "bars"


@pytest.mark.parametrize("timesteps", [1, 3, 3000])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_draws_any_number_of_timesteps_800_pixels_wide(kind: str, timesteps: int) -> None:
    values = np.random.default_rng(3).random((timesteps, 2) if kind == "heatmap" else timesteps) + 0.1
    shown = Panel(values, ("timestep", "unit")[: values.ndim], "norm", {"timestep": list(map(str, range(timesteps)))})
    pixels = imread(io.BytesIO(png(drawn([(kind, shown)], title="a title"))))
    assert pixels.shape[:2] == (400, 800)
    assert pixels[..., :3].std() > 0.05


def test_labels_stand_at_the_entries_they_belong_to() -> None:
    years = [str(year) for year in range(1990, 2000)]
    shown = Panel(np.ones((10, 2)), ("timestep", "feature"), "x", {"timestep": years, "feature": ["level", "season"]})
    figure = drawn([("heatmap", shown)], title="")
    figure.canvas.draw()
    axes = figure.axes[0]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["level", "season"]
    ticks = zip(axes.get_xticks(), axes.get_xticklabels(), strict=True)
    said = {int(at): label.get_text() for at, label in ticks if label.get_text()}
    assert said
    assert all(years[at] == text for at, text in said.items())


def test_pictures_use_no_pyplot_and_no_window() -> None:
    program = "import tapehead.pictures, sys; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], timeout=60, check=False).returncode == 0
    figure = drawn([], title="")
    assert isinstance(figure.canvas, FigureCanvasAgg)
