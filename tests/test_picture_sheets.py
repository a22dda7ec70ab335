"""Pictures of answers whose tensors belong together: states and gates, gradients of weights, a diagnosis."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from tapehead.pictures import Panel, drawn, picture, png
from tapehead.pictures.colours import ABOVE, BELOW, LINES
from tapehead.pictures.saturation import share_beyond

GATES = ["input_gate", "forget_gate", "cell_candidate", "output_gate"]
RNG = np.random.default_rng(0)
Sheet = dict[str, Any]


def lines_of(figure: Figure, at: int) -> np.ndarray:
    """What the lines of one panel run through, those that only explain left out."""
    return np.array([line.get_ydata() for line in figure.axes[at].lines if len(line.get_xdata()) > 2])


class TestStates:
    @pytest.fixture
    def gates(self) -> Sheet:
        tensors = {
            "lstm.forget_gate": RNG.random((2, 9, 20)),
            "lstm.cell_candidate": RNG.uniform(-1, 1, (2, 9, 20)),
            "lstm.h": RNG.uniform(-1, 1, (2, 9, 20)),
        }
        axes = dict.fromkeys(tensors, ("batch", "timestep", "unit"))
        return {"tensors": tensors, "axes": axes, "meta": {"operation": "states"}, "title": ""}

    def test_each_point_is_a_heat_map_and_gates_lie_on_what_a_gate_can_be(self, gates: Sheet) -> None:
        images = [image for axes in picture(**gates, row=1).axes for image in axes.images]
        for image, tensor in zip(images, gates["tensors"].values(), strict=True):
            np.testing.assert_array_equal(image.get_array(), tensor[1].T)
        assert [image.get_clim() for image in images[:2]] == [(0, 1), (-1, 1)]

    def test_the_share_of_units_that_are_shut_and_open_is_drawn_over_time(self, gates: Sheet) -> None:
        figure = picture(**gates)
        (at,) = (n for n, axes in enumerate(figure.axes) if axes.get_ylabel() == "share of the gate's units")
        gate, candidate = gates["tensors"]["lstm.forget_gate"][0], gates["tensors"]["lstm.cell_candidate"][0]
        expected = [(gate < 0.05).mean(1), (gate > 0.95).mean(1), (candidate < -0.9).mean(1), (candidate > 0.9).mean(1)]
        np.testing.assert_allclose(lines_of(figure, at), expected)
        assert figure.axes[at].get_legend_handles_labels()[1][:2] == ["lstm.forget_gate", "lstm.cell_candidate"]

    def test_a_gate_without_a_value_is_neither_shut_nor_open(self) -> None:
        gate = np.array([[0.0, 1.0], [np.nan, 1.0]])
        np.testing.assert_array_equal(share_beyond(gate), [[0.5, 0.5], [np.nan, np.nan]])

    def test_gates_at_one_timestep_are_bars(self) -> None:
        tensors = {"lstm.forget_gate[-1]": RNG.random((1, 20))}
        figure = picture(tensors=tensors, axes=dict.fromkeys(tensors, ("batch", "unit")), meta={}, title="")
        assert len(figure.axes) == 1

    def test_more_points_than_there_is_room_for_are_counted(self) -> None:
        tensors = {f"rnn_{n}.update_gate": RNG.random((1, 4, 3)) for n in range(9)}
        axes = dict.fromkeys(tensors, ("batch", "timestep", "unit"))
        figure = picture(tensors=tensors, axes=axes, meta={"operation": "states"}, title="")
        assert "5 of 9 points" in figure.get_suptitle()


def weights(by: tuple[str, ...], timesteps: int = 6) -> Sheet:
    """Norms of an LSTM's three weights and of a Dense layer's two, which have neither gates nor timesteps."""
    size = {"gate": 4, "timestep": timesteps}
    tensors: dict[str, np.ndarray] = {}
    for name in ("kernel", "recurrent_kernel", "bias"):
        tensors[f"lstm/{name}"] = RNG.random([size[axis] for axis in by]) + 0.01
    axes = dict.fromkeys(tensors, by)
    for name in ("kernel", "bias"):
        tensors[f"dense/{name}"], axes[f"dense/{name}"] = np.asarray(RNG.random()), ()
    meta = {"operation": "weight_gradients", "gates": {"lstm": GATES}, "loss": "mse", "loss_value": 0.25}
    return {"tensors": tensors, "axes": axes, "meta": {**meta, "disconnected": ["aux/kernel"]}, "title": "m"}


class TestWeightGradients:
    @pytest.mark.parametrize("by", [("gate", "timestep"), ("timestep", "gate")])
    def test_by_gate_and_timestep_each_weight_has_a_panel_with_a_line_a_gate(self, by: tuple[str, ...]) -> None:
        given = weights(by)
        figure = picture(**given)
        for at, name in enumerate(("kernel", "recurrent_kernel", "bias")):
            norms = given["tensors"][f"lstm/{name}"]
            np.testing.assert_array_equal(lines_of(figure, at), norms if by[0] == "gate" else norms.T)
            assert figure.axes[at].get_legend_handles_labels()[1] == GATES
            assert figure.axes[at].get_yscale() == "log"

    def test_by_timestep_the_weights_share_a_panel(self) -> None:
        given = weights(("timestep",))
        figure = picture(**given)
        norms = [given["tensors"][f"lstm/{name}"] for name in ("kernel", "recurrent_kernel", "bias")]
        np.testing.assert_array_equal(lines_of(figure, 0), norms)

    def test_without_timesteps_each_weight_is_a_row_of_marks(self) -> None:
        given = weights(("gate",))
        (axes,) = picture(**given).axes
        drawn_marks = np.array([line.get_xdata() for line in axes.lines]).T
        for row, tensor in zip(drawn_marks, given["tensors"].values(), strict=True):
            np.testing.assert_array_equal(row[~np.isnan(row)], np.atleast_1d(tensor))
        assert [tick.get_text() for tick in axes.get_yticklabels()] == list(given["tensors"])
        assert axes.get_legend_handles_labels()[1] == GATES

    def test_weights_that_the_loss_does_not_reach_are_named(self) -> None:
        assert picture(**weights(())).get_suptitle() == "m · loss mse 0.25 · disconnected: aux/kernel"

    def test_of_samples_the_chosen_one_is_drawn(self) -> None:
        tensors, axes = {"lstm/kernel": RNG.random((3, 4, 6))}, {"lstm/kernel": ("batch", "gate", "timestep")}
        meta = {"operation": "weight_gradients", "gates": {"lstm": GATES}}
        figure = picture(tensors=tensors, axes=axes, meta=meta, title="", row=2)
        np.testing.assert_array_equal(lines_of(figure, 0), tensors["lstm/kernel"][2])

    def test_entries_are_points_coloured_by_gate_with_each_gates_median(self) -> None:
        gradient, weight = RNG.standard_normal((3, 32)), RNG.standard_normal((3, 32))
        gradient[1, 5] = 0
        tensors = {"lstm/kernel:value": gradient, "lstm/kernel:weight": weight}
        meta = {"operation": "weight_gradients", "gates": {"lstm": GATES}}
        figure = picture(tensors=tensors, axes=dict.fromkeys(tensors, ("row", "column")), meta=meta, title="")
        (axes,) = figure.axes
        (cloud,) = (one for one in axes.collections if isinstance(one, PathCollection))
        points = sorted(map(tuple, np.c_[cloud.get_offsets(), cloud.get_facecolors()[:, :3]].tolist()))
        gate = np.broadcast_to(np.arange(32) // 8, (3, 32))
        colours = np.array([to_rgba(colour)[:3] for colour in LINES])[gate]
        expected = np.c_[np.abs(weight).ravel(), np.abs(gradient).ravel(), colours.reshape(-1, 3)]
        assert points == sorted(map(tuple, expected[expected[:, 1] > 0].tolist()))
        columns = np.abs(gradient[:, 8:16]).ravel()
        assert axes.lines[1].get_ydata()[0] == pytest.approx(np.median(columns))
        assert axes.get_title() == "lstm/kernel\nnot drawn: 1 with gradient 0"

    def test_a_dense_cloud_is_thinned_and_faint(self) -> None:
        gradient = RNG.standard_normal((300, 400))
        shown = Panel(gradient, ("row", "column"), "gradient", against=gradient, title="w")
        (axes,) = drawn([("scatter", shown)], title="").axes
        (cloud,) = axes.collections
        assert len(cloud.get_offsets()) == 100_000
        assert cloud.get_alpha() < 0.1

    def test_the_norms_of_more_lines_than_can_be_told_apart_are_the_highest_ones(self) -> None:
        values = np.outer(np.arange(1.0, 13), np.ones(4))
        shown = Panel(values, ("weight", "timestep"), "norm", {"weight": list("abcdefghijkl")}, magnitude=True)
        (axes,) = drawn([("lines", shown)], title="").axes
        assert axes.get_legend_handles_labels()[1] == [*"efghijkl", "4 lower ones not drawn"]


def diagnosis(layers: dict[str, str], timesteps: int = 6, batch: int = 3, units: int = 4) -> Sheet:
    axes = {
        "influence": ("batch", "timestep"),
        "singular_values": ("batch", "timestep", "singular_value"),
        "spectral_radius": ("batch", "timestep"),
        "lyapunov": ("batch", "exponent"),
        "saturation": ("gate", "timestep", "side"),
        "weight_gradients": ("weight", "timestep"),
    }
    size = {"batch": batch, "timestep": timesteps, "singular_value": units, "exponent": units, "gate": 4, "side": 2}
    size["weight"] = 3
    tensors = {f"{layer}:{part}": RNG.random([size[a] for a in axes[part]]) for layer in layers for part in axes}
    for name in tensors:
        if name.endswith("lyapunov"):
            tensors[name] -= 0.5
    meta_of_all = {"thresholds": {"faint": 0.01}, "jacobian_timesteps": dict.fromkeys(layers, range(timesteps))}
    finding = {"severity": "warning", "kind": "vanishing", "meaning": "It forgets.", "advice": "Open the forget gate."}
    meta = {
        **meta_of_all,
        "operation": "diagnose",
        "verdict": layers,
        "findings": [{**finding, "layer": layer} for layer, verdict in layers.items() if verdict != "healthy"],
        "gates": dict.fromkeys(layers, GATES),
        "weights": dict.fromkeys(layers, ("kernel", "recurrent_kernel", "bias")),
    }
    named = {f"{layer}:{part}": axes[part] for layer in layers for part in axes}
    return {"tensors": tensors, "axes": named, "meta": meta, "title": "m: diagnose"}


class TestDiagnosis:
    def test_the_verdict_and_the_findings_stand_above_the_pictures(self) -> None:
        figure = picture(**diagnosis({"lstm": "healthy", "lstm_1": "vanishing"}))
        first, second = (text.get_text() for text in figure.axes[0].texts)
        assert first == "lstm: healthy, lstm_1: vanishing"
        assert second == "• lstm_1, warning: It forgets. Open the forget gate."
        assert "pictures of lstm_1, one of 2 layers" in figure.get_suptitle()

    def test_the_pictures_are_those_of_the_layer_with_most_to_tell(self) -> None:
        given = diagnosis({"lstm": "healthy", "lstm_1": "vanishing"})
        tensors = {name: one for name, one in given["tensors"].items() if name.startswith("lstm_1:")}
        figure = picture(**given, row=1)
        np.testing.assert_array_equal(figure.axes[1].lines[0].get_ydata(), tensors["lstm_1:influence"][1])
        np.testing.assert_array_equal(lines_of(figure, 2)[0], tensors["lstm_1:singular_values"][1, :, 0])
        np.testing.assert_array_equal(lines_of(figure, 2)[2], tensors["lstm_1:spectral_radius"][1])
        np.testing.assert_array_equal(
            lines_of(figure, 3), tensors["lstm_1:saturation"].transpose(0, 2, 1).reshape(8, -1)
        )
        np.testing.assert_array_equal(lines_of(figure, 5), tensors["lstm_1:weight_gradients"])

    def test_what_hardly_counts_is_marked_and_the_states_together_are_what_is_judged(self) -> None:
        given = diagnosis({"lstm": "healthy"})
        given["tensors"]["lstm:state_influence"] = RNG.random((3, 6)) + 1
        given["axes"]["lstm:state_influence"] = ("batch", "timestep")
        influence = given["tensors"]["lstm:state_influence"]
        axes = picture(**given).axes[1]
        np.testing.assert_array_equal(axes.lines[0].get_ydata(), influence[0])
        (mark,) = (line for line in axes.lines if line.get_label() == "0.01 of the last")
        assert mark.get_ydata()[0] == pytest.approx(0.01 * influence[0, -1])

    def test_local_jacobians_stand_at_the_timesteps_that_were_looked_at(self) -> None:
        given = diagnosis({"lstm": "healthy"})
        for part in ("singular_values", "spectral_radius"):
            given["tensors"][f"lstm:{part}"] = given["tensors"][f"lstm:{part}"][:, :3]
        given["meta"]["jacobian_timesteps"] = {"lstm": [0, 50, 99]}
        assert picture(**given).axes[2].lines[0].get_xdata().tolist() == [0, 50, 99]

    def test_findings_by_the_way_are_counted_and_not_told(self) -> None:
        given = diagnosis({"lstm": "vanishing"})
        given["meta"]["findings"].append({"severity": "info", "layer": "lstm", "meaning": "x", "advice": "y"})
        _, second = (text.get_text() for text in picture(**given).axes[0].texts)
        assert second.splitlines()[-1] == "Further findings in the answer: 1."

    def test_exponents_are_stems_from_zero_red_where_directions_grow(self) -> None:
        given = diagnosis({"lstm": "exploding"})
        figure = picture(**given)
        (stems,) = (one for one in figure.axes[4].collections if isinstance(one, LineCollection))
        exponents = given["tensors"]["lstm:lyapunov"][0]
        np.testing.assert_array_equal([path[:, 1] for path in stems.get_segments()], np.c_[exponents * 0, exponents])
        expected = [to_rgba(ABOVE if one > 0 else BELOW) for one in exponents]
        np.testing.assert_allclose(stems.get_colors(), expected)

    @pytest.mark.parametrize(("timesteps", "batch", "units"), [(1, 1, 1), (3, 1, 2), (3000, 2, 8)])
    def test_any_size_can_be_drawn(self, timesteps: int, batch: int, units: int) -> None:
        png(picture(**diagnosis({"lstm": "healthy"}, timesteps, batch, units)))

    @pytest.mark.parametrize("number", [0.0, np.nan, np.inf, -np.inf])
    def test_zeros_nan_and_infinities_can_be_drawn(self, number: float) -> None:
        given = diagnosis({"lstm": "not_finite"})
        given["tensors"] = {name: np.full_like(tensor, number) for name, tensor in given["tensors"].items()}
        picture(**given).canvas.draw()

    def test_without_a_loss_there_are_no_weight_gradients_to_draw(self) -> None:
        given = diagnosis({"lstm": "healthy"})
        del given["tensors"]["lstm:weight_gradients"]
        assert len(picture(**given).axes) == 5
