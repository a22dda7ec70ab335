"""The demo: its figures, its models, and the whole run as a stranger sees it."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tapehead.demo import IMPORTS, models_folder, monthly, report, series, service
from tapehead.demo.progress import Bar
from tapehead.demo.studies import STUDIES, Study, rmse


@pytest.fixture(scope="module")
def studies() -> dict[str, Study]:
    """What every model is asked."""
    return {name: make() for name, make in STUDIES.items()}


@pytest.fixture(scope="module")
def models() -> dict[str, object]:
    """The models that ship, loaded by Keras."""
    import keras

    import tapehead.demo.cells  # noqa: F401  registers the cell

    return {name: keras.models.load_model(models_folder() / f"{name}.keras") for name in STUDIES}


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """What `tapehead demo` prints, and the folder of its pictures."""
    out = tmp_path_factory.mktemp("demo") / "pictures"
    command = [sys.executable, "-m", "tapehead", "demo", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return done.stdout, out


class TestSeries:
    def test_sunspots_are_yearly_from_1700_to_2008(self) -> None:
        record = series.sunspots()
        assert record.times == tuple(map(str, range(1700, 2009)))
        assert record.values[record.times.index("1957")] == pytest.approx(190.2)
        assert record.values.min() >= 0

    def test_co2_is_monthly_from_march_1958_to_december_2001_without_a_gap(self) -> None:
        record = series.co2()
        expected = [f"{year}-{month:02}" for year in range(1958, 2002) for month in range(1, 13)][2:]
        assert record.times == tuple(expected)
        assert 310 < record.values.min() < record.values.max() < 375

    def test_five_months_are_filled_in_and_say_so(self) -> None:
        lines = (Path(series.__file__).parent / "data" / "co2_monthly.csv").read_text("utf-8").splitlines()
        filled = [line.split(",")[0] for line in lines[1:] if line.endswith(",0")]
        assert filled == ["1958-06", "1958-10", "1964-02", "1964-03", "1964-04"]

    def test_a_monthly_mean_is_of_its_weeks_and_a_gap_lies_on_the_line_between_neighbours(self) -> None:
        weeks = [("20000101", "1.0"), ("20000108", "3.0"), ("20000205", ""), ("20000304", "5.0"), ("20000311", "")]
        rows = [{"date": date, "co2": value} for date, value in weeks]
        assert list(monthly.monthly_means(monthly.by_month(rows))) == [
            ("2000-01", 2.0, 2),
            ("2000-02", 3.5, 0),
            ("2000-03", 5.0, 1),
        ]


class TestStudies:
    def test_sunspots_are_followed_by_the_next_year(self, studies: dict[str, Study]) -> None:
        record, study = series.sunspots(), studies["sunspots"]
        assert study.inputs.shape[1:] == (40, 1)
        assert study.times[-1].tolist() == list(record.times[-41:-1])
        np.testing.assert_array_equal(study.inputs[-1, :, 0], record.values[-41:-1])
        assert study.targets[-1, 0] == record.values[-1]

    def test_a_timestep_of_delays_holds_its_year_and_the_eleven_before(self, studies: dict[str, Study]) -> None:
        record, study = series.sunspots(), studies["sunspots_delays"]
        at = record.times.index(study.times[5, 3])
        np.testing.assert_array_equal(study.inputs[5, 3], record.values[at - 11 : at + 1][::-1])
        assert study.targets[5, 0] == record.values[record.times.index(study.times[5, -1]) + 1]

    def test_the_hidden_year_is_not_in_the_inputs_and_is_all_that_is_asked(self, studies: dict[str, Study]) -> None:
        study = studies["sunspots_bidirectional"]
        assert study.weights is not None
        hidden = study.weights.astype(bool)
        assert (hidden.sum(axis=1) == 1).all()
        assert not study.inputs[hidden].any()
        np.testing.assert_array_equal(study.inputs[~hidden, 0], study.targets[~hidden, 0])

    def test_co2_is_counted_from_the_mean_of_the_year_before(self, studies: dict[str, Study]) -> None:
        record, study = series.co2(), studies["co2"]
        last = record.times.index(study.times[7, -1])
        year = record.values[last - 11 : last + 1].mean()
        assert study.inputs[7, -1, 0] == pytest.approx(record.values[last] - year, abs=1e-3)
        np.testing.assert_allclose(study.targets[7], record.values[last + 1 : last + 13] - year, atol=1e-3)
        np.testing.assert_allclose(np.hypot(study.inputs[..., 1], study.inputs[..., 2]), 1, rtol=1e-5)

    @pytest.mark.parametrize("name", STUDIES)
    def test_nothing_that_is_held_out_is_learnt_from(self, studies: dict[str, Study], name: str) -> None:
        study = studies[name]
        assert not (study.learnt & study.held_out).any()
        assert max(study.times[study.learnt].ravel().tolist()) < ("1990" if name == "co2" else "1960")


class TestModels:
    @pytest.mark.parametrize("name", STUDIES)
    def test_they_are_small_compiled_float32_and_take_any_number_of_timesteps(
        self, models: dict[str, object], studies: dict[str, Study], name: str
    ) -> None:
        model = models[name]
        assert (models_folder() / f"{name}.keras").stat().st_size < 300 * 1024
        assert model.loss == "mse"
        assert {variable.dtype for variable in model.weights} == {"float32"}
        assert model.input_shape == (None, None, len(studies[name].features))

    @pytest.mark.parametrize("name", STUDIES)
    def test_they_beat_every_simple_forecast_on_years_they_have_not_seen(
        self, models: dict[str, object], studies: dict[str, Study], name: str
    ) -> None:
        study = studies[name]
        error = rmse(study, models[name].predict_on_batch(study.inputs), study.held_out)
        assert error < 0.9 * min(rmse(study, rival, study.held_out) for rival in study.rivals.values())

    def test_the_folder_holds_these_models_alone(self) -> None:
        assert {path.name for path in models_folder().glob("*.keras")} == {f"{name}.keras" for name in STUDIES}

    def test_the_two_state_cell_computes_its_formula(self, models: dict[str, object]) -> None:
        import keras

        cell = models["sunspots_delays"].get_layer("rnn").cell
        rng = np.random.default_rng(4)
        x, h, c = (rng.standard_normal((3, n)).astype(np.float32) for n in (12, 16, 16))
        output, (h_next, c_next) = cell(keras.ops.convert_to_tensor(x), [h, c])
        w, b = map(np.asarray, cell.linear_rec.weights)
        w_in, b_in = map(np.asarray, cell.linear_in.weights)
        np.testing.assert_allclose(h_next, np.maximum(h, 0) @ w + b, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(c_next, c - h + h_next, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(output, 1 / (1 + np.exp(-(x @ w_in + b_in))) + c_next, rtol=1e-5, atol=1e-5)

    def test_the_modules_to_import_are_enough_to_load_every_model(self) -> None:
        program = (
            f"import importlib, keras, pathlib\n[importlib.import_module(name) for name in {IMPORTS!r}]\n"
            f"for path in pathlib.Path({str(models_folder())!r}).glob('*.keras'): keras.models.load_model(path)"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr

    @pytest.mark.slow
    @pytest.mark.parametrize("name", STUDIES)
    def test_the_script_makes_them_again(self, studies: dict[str, Study], tmp_path: Path, name: str) -> None:
        import keras

        import tapehead.demo.cells  # noqa: F401  registers the cell

        command = [sys.executable, "-m", "tapehead.demo.train", "--out", str(tmp_path), name]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        assert "held out" in done.stdout
        assert "100 %" in done.stderr
        inputs, spread = studies[name].inputs, studies[name].targets.std()
        new, old = (
            keras.models.load_model(folder / f"{name}.keras").predict_on_batch(inputs)
            for folder in (tmp_path, models_folder())
        )
        assert np.sqrt(np.mean((new - old) ** 2)) < 0.02 * spread


class TestRun:
    def test_it_tells_the_shape_of_the_jacobian_and_the_times(self, shown: tuple[str, Path]) -> None:
        text, _ = shown
        assert "shape (1, 16, 40, 1): batch, of.unit, wrt.timestep, wrt.feature" in text
        assert re.search(r"Server-Timing: .*compute;dur=\d", text)
        assert all(name in text for name in STUDIES)

    def test_no_line_is_wider_than_100_columns(self, shown: tuple[str, Path]) -> None:
        text, out = shown
        assert max(len(line) for line in text.splitlines() if str(out) not in line) <= report.WIDE

    def test_the_bars_of_the_years_that_drive_the_forecast_are_the_models_own_gradient(
        self, shown: tuple[str, Path], models: dict[str, object], studies: dict[str, Study]
    ) -> None:
        import tensorflow as tf

        inputs = tf.constant(studies["sunspots"].inputs[-1:])
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            forecast = models["sunspots"](inputs)
        gradient = tape.gradient(forecast, inputs).numpy()[0, -22:, 0]
        text = shown[0].partition("saliency of outputs[0]")[2].partition("co2")[0]
        printed = [float(number) for number in re.findall(r"[+-]\d+\.\d{4}$", text, flags=re.M)]
        np.testing.assert_allclose(printed, gradient, atol=1e-4)

    def test_it_writes_two_pictures_and_names_them(self, shown: tuple[str, Path]) -> None:
        text, out = shown
        assert {path.name for path in out.iterdir()} == {"jacobian.png", "decay.png"}
        assert all(str(path) in text for path in out.iterdir())
        assert all(path.read_bytes().startswith(b"\x89PNG") for path in out.iterdir())

    def test_a_folder_that_cannot_be_made_is_one_line_before_anything_starts(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        command = [sys.executable, "-m", "tapehead", "demo", "--out", str(tmp_path / "file" / "pictures")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 1
        assert done.stderr.strip().startswith("tapehead demo: [Errno")
        assert len(done.stderr.strip().splitlines()) == 1

    @pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
    def test_told_to_end_it_ends_its_server_too(self, tmp_path: Path) -> None:
        command = [sys.executable, "-m", "tapehead", "demo", "--out", str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as demo:
            children = Path(f"/proc/{demo.pid}/task/{demo.pid}/children")
            for _ in range(600):
                if server := children.read_text("ascii").split():
                    break
                time.sleep(0.1)
            demo.terminate()
            assert demo.wait(60) == 128 + 15
        assert not Path(f"/proc/{server[0]}").exists()

    def test_a_server_that_cannot_start_is_one_line_with_its_last_words(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        broken = tmp_path / "python"
        broken.write_text("#!/bin/sh\necho first; echo no room left; exit 3\n")
        broken.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(broken))
        with pytest.raises(service.ServerFailed, match="exit code 3: no room left"), service.running():
            pass


class TestReport:
    def test_signed_bars_grow_from_the_middle_to_either_side(self) -> None:
        up, down, none = report.signed_bars(["a", "b", "c"], np.array([1.0, -0.5, 0.0]))
        middle = {line.index("│") for line in (up, down, none)}
        assert len(middle) == 1
        assert up.partition("│")[2].count("█") == 2 * down.partition("│")[0].count("█")
        assert "█" not in none

    def test_logarithmic_bars_lose_the_same_length_for_the_same_factor(self) -> None:
        lines = list(report.log_bars(["a", "b", "c", "d"], np.array([1.0, 1e-3, 1e-6, 0.0])))
        assert [line.count("█") for line in lines] == [56, 32, 8, 0]

    @pytest.mark.parametrize("values", [[0.0, 0.0], [1.0], []])
    def test_bars_of_nothing_or_of_one_value_are_drawn_all_the_same(self, values: list[float]) -> None:
        labels = ["a"] * len(values)
        assert len(list(report.log_bars(labels, np.array(values)))) == len(values)
        assert len(list(report.signed_bars(labels, np.array(values)))) == len(values)

    def test_a_table_lines_its_columns_up(self) -> None:
        lines = list(report.table(("name", "ms"), [("a", "1.0"), ("longer", "100.0")]))
        assert lines == ["  name        ms", "  a          1.0", "  longer   100.0"]

    def test_progress_away_from_a_terminal_is_a_few_milestones(self) -> None:
        stream = io.StringIO()
        with Bar("training", 60, stream) as bar:
            for _ in range(60):
                bar.step("loss 0.1")
        assert [line.split()[1] for line in stream.getvalue().splitlines()] == ["25", "50", "75", "100"]
