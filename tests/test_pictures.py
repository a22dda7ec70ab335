"""Pictures: what is drawn is what was given, on axes that say what they are."""

from __future__ import annotations

import io
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import LogNorm, to_rgba
from matplotlib.figure import Figure
from matplotlib.image import AxesImage, imread
from matplotlib.patches import StepPatch

from tapehead.pictures import TABLE, NoPicture, NoSample, Panel, Shown, decay, drawn, panel, picture, png, svg
from tapehead.pictures.choice import pictures_of
from tapehead.pictures.colours import ZERO

JACOBIAN_AXES = ("batch", "of.unit", "wrt.timestep", "wrt.feature")
ASKED = {"operation": "jacobian", "of": "lstm.h[-1]", "wrt": "inputs"}


@pytest.fixture
def jacobian() -> np.ndarray:
    """d lstm.h[-1] / d inputs: (2 samples, 4 units, 7 timesteps, 3 features)."""
    return np.random.default_rng(1).standard_normal((2, 4, 7, 3)).astype(np.float32)


def image_of(figure: Figure) -> AxesImage:
    (image,) = figure.axes[0].images
    return image


def of_one(value: np.ndarray, axes: tuple[str, ...], **meta: Any) -> Figure:
    return picture(tensors={"value": value}, axes={"value": axes}, meta=meta, title="")


def size_of(image: bytes) -> tuple[int, ...]:
    return imread(io.BytesIO(image)).shape[:2]


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
    assert isinstance(image_of(figure).norm, LogNorm)
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
    assert figure.get_suptitle() == "saliency · sample 1 of 2 · completeness gap 0.25"
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
    assert labels[-1] == "not drawn: 2 zero, 1 infinite"
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
    assert figure.axes[0].get_ylabel() == "gradient of outputs[0], per unit\nof inputs"


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


# operation and what was asked with it, axes of the answer, kinds of picture
CHOSEN: list[tuple[dict[str, Any], str, tuple[str, ...]]] = [
    ({"operation": "infer"}, "batch unit", ("bars",)),
    ({"operation": "states"}, "batch timestep unit", ("heatmap",)),
    (ASKED, "batch of.unit wrt.unit", ("heatmap",)),
    (ASKED, "batch of.unit wrt.timestep wrt.feature", ("heatmap", "norms")),
    (ASKED, "batch of.timestep of.unit wrt.timestep wrt.unit", ("norm_map",)),
    (ASKED, "batch of.unit wrt.row wrt.column", ("heatmap",)),
    ({**ASKED, "lag": 1}, "batch timestep of.unit wrt.unit", ("heatmap", "norms")),
    ({**ASKED, "reduce": "norm"}, "batch of.timestep wrt.timestep", ("norm_map",)),
    ({**ASKED, "reduce": "spectral_norm", "lag": 1}, "batch timestep", ("norms",)),
    ({**ASKED, "reduce": "norm"}, "batch", ("bars",)),
    ({**ASKED, "reduce": "singular_values", "lag": 1}, "batch timestep singular_value", ("spectrum", "lines")),
    ({**ASKED, "reduce": "singular_values"}, "batch singular_value", ("spectrum",)),
    ({**ASKED, "reduce": "singular_values"}, "batch of.timestep wrt.timestep singular_value", ("norm_map",)),
    ({**ASKED, "reduce": "sum"}, "batch wrt.timestep wrt.feature", ("heatmap", "norms")),
    ({"operation": "check", "of": "y", "wrt": "x"}, "batch of.unit wrt.timestep wrt.feature", ("heatmap", "norms")),
    ({"operation": "vjp", "of": "y", "wrt": "x"}, "batch timestep feature", ("heatmap", "norms")),
    ({"operation": "vjp", "of": "y", "wrt": "x"}, "cotangent batch timestep feature", ("heatmap", "norms")),
    ({"operation": "vjp", "of": "y", "wrt": "lstm/kernel"}, "row column", ("heatmap",)),
    ({"operation": "jvp", "of": "y", "wrt": "x"}, "batch unit", ("bars",)),
    ({"operation": "hvp", "of": "y", "wrt": "x"}, "batch timestep feature", ("heatmap", "norms")),
    ({"operation": "saliency", "target": "outputs[0]", "wrt": "x"}, "batch timestep", ("bars", "norms")),
    ({"operation": "saliency", "target": "outputs[0]", "wrt": "x"}, "batch timestep feature", ("heatmap", "norms")),
]


@pytest.mark.parametrize(("asked", "axes", "kinds"), CHOSEN, ids=lambda one: str(one)[:60])
def test_the_kinds_are_chosen_by_what_was_asked_and_the_axes(
    asked: dict[str, Any], axes: str, kinds: tuple[str, ...]
) -> None:
    names = tuple(axes.split())
    value = np.random.default_rng(0).standard_normal([3] * len(names))
    shown = Shown({"value": value}, {"value": names}, asked)
    assert tuple(kind for kind, _ in pictures_of(shown, "value")) == kinds


def test_of_several_tensors_each_has_one_panel_the_one_that_tells_most(jacobian: np.ndarray) -> None:
    tensors = {"lstm.h[-1] / inputs": jacobian, "lstm.c[-1] / inputs": 2 * jacobian}
    meta = {**ASKED, "of": ["lstm.h[-1]", "lstm.c[-1]"]}
    figure = picture(tensors=tensors, axes=dict.fromkeys(tensors, JACOBIAN_AXES), meta=meta, title="")
    assert [axes.get_yscale() for axes in figure.axes] == ["log", "log"]
    for axes, (name, tensor) in zip(figure.axes, tensors.items(), strict=True):
        drawn_norms = axes.lines[0].get_ydata()
        np.testing.assert_allclose(drawn_norms, np.linalg.norm(tensor[0].astype(float), axis=(0, 2)))
        assert axes.get_ylabel().replace("\n", " ") == f"norm of d {name.replace(' / ', ' / d ')}"


# The pictures of every row of the table, and how its values lie: (what was asked, the axes).
ROWS = {
    ("values", ""): ({}, ""),
    ("values", "u"): ({}, "unit"),
    ("values", "uu"): ({}, "row column"),
    ("values", "t"): ({}, "timestep"),
    ("values", "tu"): ({}, "timestep unit"),
    ("values", "tt"): ({}, "of.timestep wrt.timestep"),
    ("derivatives", ""): (ASKED, ""),
    ("derivatives", "u"): (ASKED, "of.unit"),
    ("derivatives", "uu"): (ASKED, "of.unit wrt.unit"),
    ("derivatives", "t"): (ASKED, "wrt.timestep"),
    ("derivatives", "tu"): (ASKED, "of.unit wrt.timestep"),
    ("derivatives", "tt"): (ASKED, "of.timestep wrt.timestep"),
    ("norms", ""): ({**ASKED, "reduce": "norm"}, ""),
    ("norms", "t"): ({**ASKED, "reduce": "norm"}, "wrt.timestep"),
    ("norms", "tt"): ({**ASKED, "reduce": "norm"}, "of.timestep wrt.timestep"),
    ("spectra", "s"): ({**ASKED, "reduce": "singular_values"}, "singular_value"),
    ("spectra", "ts"): ({**ASKED, "reduce": "singular_values"}, "timestep singular_value"),
    ("spectra", "tts"): ({**ASKED, "reduce": "singular_values"}, "of.timestep wrt.timestep singular_value"),
}


def sample(axes: str, timesteps: int, units: int = 4) -> tuple[np.ndarray, tuple[str, ...]]:
    names = ("batch", *axes.split())
    shape = [2, *(timesteps if name.endswith("timestep") else units for name in names[1:])]
    return np.random.default_rng(3).standard_normal(shape), names


def test_every_row_of_the_table_is_tried() -> None:
    assert ROWS.keys() == TABLE.keys()


@pytest.mark.parametrize("row", TABLE, ids=" ".join)
def test_a_picture_is_800_pixels_wide_and_not_empty(row: tuple[str, str]) -> None:
    asked, axes = ROWS[row]
    value, names = sample(axes, 3)
    image = png(of_one(np.abs(value) if row[0] in ("norms", "spectra") else value, names, **asked))
    assert size_of(image)[1] == 800
    assert imread(io.BytesIO(image))[..., :3].std() > 0.03


@pytest.mark.parametrize("timesteps", [1, 3, 3000])
@pytest.mark.parametrize("row", [row for row in TABLE if row[1].count("t") == 1], ids=" ".join)
def test_any_number_of_timesteps_can_be_drawn(row: tuple[str, str], timesteps: int) -> None:
    asked, axes = ROWS[row]
    value, names = sample(axes, timesteps)
    figure = of_one(np.abs(value) if row[0] in ("norms", "spectra") else value, names, **asked)
    assert size_of(png(figure)) == tuple(round(side) for side in figure.get_size_inches()[::-1] * 100)


@pytest.mark.parametrize("number", [0.0, np.nan, np.inf, 1e300])
@pytest.mark.parametrize("row", TABLE, ids=" ".join)
def test_zeros_nan_and_infinities_can_be_drawn(row: tuple[str, str], number: float) -> None:
    asked, axes = ROWS[row]
    value, names = sample(axes, 5)
    of_one(np.full_like(value, number), names, **asked).canvas.draw()
    of_one(np.where(value > 0, np.abs(value), number), names, **asked).canvas.draw()


@pytest.mark.parametrize("row", TABLE, ids=" ".join)
def test_one_unit_can_be_drawn(row: tuple[str, str]) -> None:
    asked, axes = ROWS[row]
    value, names = sample(axes, 5, units=1)
    png(of_one(np.abs(value), names, **asked))


@pytest.mark.parametrize(
    ("tensors", "why"),
    [
        ({}, "no tensors"),
        ({"value": np.zeros((0, 3))}, r"shape \[0, 3\] has nothing to draw"),
        ({"value": np.zeros((1, 0, 3))}, "nothing to draw"),
        ({"value": np.array(["a"])}, "nothing to draw"),
    ],
)
def test_what_cannot_be_drawn_says_why(tensors: dict[str, np.ndarray], why: str) -> None:
    axes = {name: ("batch", "timestep", "unit")[: tensor.ndim] for name, tensor in tensors.items()}
    with pytest.raises(NoPicture, match=why):
        picture(tensors=tensors, axes=axes, meta={}, title="")


@pytest.mark.parametrize("row", [-1, 2])
def test_a_sample_that_is_not_there_is_refused(jacobian: np.ndarray, row: int) -> None:
    with pytest.raises(NoSample, match="samples 0 to 1"):
        picture(tensors={"value": jacobian}, axes={"value": JACOBIAN_AXES}, meta=ASKED, title="", row=row)


def test_other_samples_are_faint_lines_behind_the_one_that_is_shown() -> None:
    values = np.random.default_rng(4).random((3, 6)) + 0.1
    tensors, axes = {"value": values}, {"value": ("batch", "wrt.timestep")}
    figure = picture(tensors=tensors, axes=axes, meta=ASKED | {"reduce": "norm"}, title="", row=1)
    faint = [line for line in figure.axes[0].lines if line.get_alpha() == 0.25]
    np.testing.assert_array_equal(figure.axes[0].lines[0].get_ydata(), values[1])
    np.testing.assert_array_equal([line.get_ydata() for line in faint], values[[0, 2]])
    assert "2 other samples" in figure.axes[0].get_legend_handles_labels()[1]


def test_a_map_of_norms_is_logarithmic_and_exact_zeros_have_a_colour_of_their_own() -> None:
    norms = np.tril(10.0 ** -np.abs(np.subtract.outer(np.arange(6), np.arange(6))))[None]
    figure = of_one(norms, ("batch", "of.timestep", "wrt.timestep"), **ASKED, reduce="norm")
    image = image_of(figure)
    np.testing.assert_array_equal(image.get_array(), norms[0])
    assert isinstance(image.norm, LogNorm)
    assert image.get_clim() == pytest.approx((1e-5, 1.0))
    colours = image.to_rgba(norms[0])
    assert (colours[np.triu_indices(6, 1)] == to_rgba(ZERO)).all()
    assert not (colours[np.tril_indices(6)] == to_rgba(ZERO)).all(axis=-1).any()
    assert "exactly 0" in figure.axes[1].get_ylabel()
    assert (figure.axes[0].get_ylabel(), figure.axes[0].get_xlabel()) == (
        "timestep of lstm.h[-1]",
        "timestep of inputs",
    )


def test_singular_values_are_lines_over_their_rank_and_their_extremes_lines_over_time() -> None:
    values = np.sort(np.random.default_rng(5).random((1, 6, 5)), axis=-1)[..., ::-1]
    figure = of_one(values, ("batch", "timestep", "singular_value"), **ASKED, reduce="singular_values", lag=1)
    ranks, times = figure.axes[0], figure.axes[-1] if figure.axes[-1].lines else figure.axes[1]
    (spectra,) = (one for one in ranks.collections if isinstance(one, LineCollection))
    np.testing.assert_array_equal([path[:, 1] for path in spectra.get_segments()], values[0])
    np.testing.assert_allclose(ranks.lines[0].get_ydata(), np.median(values[0], axis=0))
    np.testing.assert_array_equal([line.get_ydata() for line in times.lines], values[0][:, [0, 2, 4]].T)
    assert times.get_legend_handles_labels()[1] == ["largest", "middle", "smallest"]


def test_where_a_long_gradient_has_vanished_the_heat_map_shows_the_rest_and_says_so() -> None:
    fading = 0.5 ** np.arange(2999, -1, -1.0)[None, :, None] * np.array([1.0, -1.0])
    figure = of_one(fading, ("batch", "timestep", "feature"), operation="saliency", target="outputs[0]", wrt="inputs")
    axes = figure.axes[0]
    np.testing.assert_array_equal(image_of(figure).get_array(), fading[0].T)
    assert axes.get_xlim() == (2974.5, 2999.5)
    assert "of 3000: all others are under 0.1 %" in axes.get_xlabel()


def test_a_derivative_of_one_sign_keeps_zero_in_the_middle(jacobian: np.ndarray) -> None:
    figure = of_one(np.abs(jacobian[:, 0]), ("batch", "timestep", "feature"), operation="vjp", of="y", wrt="x")
    low, high = image_of(figure).get_clim()
    assert low == -high


@pytest.mark.parametrize(("way", "axis"), [("back", "wrt.timestep"), ("on", "of.timestep")])
def test_a_decay_runs_the_way_the_influence_does(way: str, axis: str) -> None:
    values = 0.5 ** np.arange(10.0)
    values = values[::-1] if way == "back" else values
    figure = of_one(values[None], ("batch", axis), **ASKED, reduce="norm")
    assert f"x 0.5 a timestep {way}" in figure.axes[0].get_legend_handles_labels()[1][1]
    np.testing.assert_allclose(figure.axes[0].lines[1].get_ydata(), values)


@pytest.mark.parametrize("width", [400, 800, 1600])
def test_a_png_is_as_wide_as_it_was_asked_to_be(jacobian: np.ndarray, width: int) -> None:
    figure = of_one(jacobian, JACOBIAN_AXES, **ASKED)
    assert size_of(png(figure, width)) == (width * 520 // 800, width)


def test_an_svg_holds_its_words_axes_and_no_script(jacobian: np.ndarray) -> None:
    text = svg(of_one(jacobian, JACOBIAN_AXES, **ASKED)).decode()
    root = ElementTree.fromstring(text)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert (root.get("width"), root.get("height")) == ("576pt", "374.4pt")
    assert "<script" not in text
    assert "<!-- timestep of inputs -->" in text


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
    program = (
        "import sys, numpy; from tapehead.pictures import picture, png, svg\n"
        "tensors, axes = {'x': numpy.ones((1, 5, 4))}, {'x': ('batch', 'timestep', 'unit')}\n"
        "one = picture(tensors=tensors, axes=axes, meta={}, title='')\n"
        "png(one), svg(one), sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=60, check=False).returncode == 0
    figure = drawn([], title="")
    assert isinstance(figure.canvas, FigureCanvasAgg)
