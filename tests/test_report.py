"""`tapehead report`: one file that needs nothing else, from any model and input; every wrong argument a clear line."""

from __future__ import annotations

import base64
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from matplotlib.image import imread

import tapehead
from tapehead.cli import main
from tapehead.errors import BadParameter
from tapehead.report import page, subject
from tapehead.report.inputs import read_sequences
from tapehead.report.sections import Question, Section, a_number


class Elements(HTMLParser):
    """The elements of a page, each with its attributes, and all its words."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.words += data

    def named(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.found if name == tag]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, and input for it."""
    folder = tmp_path_factory.mktemp("report")
    keras.utils.set_random_seed(1)
    layers = [keras.Input((None, 2)), keras.layers.LSTM(3, name="lstm"), keras.layers.Dense(1, name="out")]
    model = keras.Sequential(layers, name="small")
    model.compile(loss="mse")
    model.save(folder / "small.keras")
    np.save(folder / "x.npy", np.random.default_rng(0).standard_normal((2, 6, 2)).astype(np.float32))
    return folder


@pytest.fixture(scope="module")
def report(folder: Path) -> Elements:
    """The report of that model."""
    out = folder / "small.html"
    assert main(["report", str(folder / "small.keras"), str(folder / "x.npy"), "-o", str(out)]) == 0
    return Elements(out.read_text("utf-8"))


class TestPage:
    def test_it_has_no_script_and_fetches_nothing(self, report: Elements) -> None:
        assert report.named("script") == report.named("link") == report.named("iframe") == []
        policy = next(one["content"] for one in report.named("meta") if "http-equiv" in one)
        assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
        attributes = [pair for _, attributes in report.found for pair in attributes.items()]
        addresses = [value for name, value in attributes if name in ("src", "href")]
        assert addresses
        assert all(value.startswith("data:image/png;base64,") for value in addresses)

    def test_every_picture_is_sharp_and_says_what_it_is(self, report: Elements) -> None:
        images = report.named("img")
        assert len(images) >= 3
        for one in images:
            data = base64.b64decode(one["src"].partition(",")[2])
            assert imread(io.BytesIO(data)).shape[1] == 1600
            assert one["alt"].startswith("small: ")
        assert any(one["alt"] == "small: saliency of outputs[0] wrt inputs by gradient" for one in images)

    def test_it_says_what_it_is_made_of_and_how_to_ask_again(self, report: Elements) -> None:
        assert "Gradients on x.npy, [2, 6, 2] (batch, timesteps, features)" in report.words
        assert "client.model(\"small\").saliency(x, target='outputs[0]')" in report.words

    def test_a_verdict_and_its_findings_are_told_with_their_sources(self) -> None:
        finding = {
            "layer": "lstm",
            "severity": "warning",
            "kind": "vanishing",
            "number": 1e-3,
            "threshold": 0.01,
            "meaning": "It forgets <quickly>.",
            "advice": "Open the gate.",
            "source": "Hochreiter 1998",
        }
        answer = tapehead.Answer("m", 1, {}, {}, {"verdict": {"lstm": "vanishing"}, "findings": [finding]}, {})
        asked = Question("Does it forget?", "why", "diagnose", {"layer": "lstm"})
        words = Elements(page.page("m", "about", [Section(asked, answer, b"image")])).words
        assert "lstm: vanishing" in words
        assert "It forgets <quickly>. (vanishing: 0.001, held against 0.01)" in words
        assert "Hochreiter 1998" in words

    def test_a_question_that_is_refused_is_told_in_its_place(self) -> None:
        asked = Question("Which weights?", "why", "weight_gradients", {})
        words = Elements(page.page("m", "about", [Section(asked, None, refused="bad_parameter: no <loss>")])).words
        assert "bad_parameter: no <loss>" in words


class TestSubject:
    def test_a_folder_with_one_model_or_with_versions_means_that_model(self, folder: Path, tmp_path: Path) -> None:
        assert subject._found(str(folder)) == ("small", folder / "small.keras")
        for version in (2, 10):
            (tmp_path / "many" / str(version)).mkdir(parents=True)
            (tmp_path / "many" / str(version) / "model.keras").touch()
        assert subject._found(str(tmp_path / "many")) == ("many", tmp_path / "many" / "10" / "model.keras")

    def test_the_demos_models_bring_their_own_example(self) -> None:
        found = subject.example("co2")
        assert found is not None
        assert np.shape(found.inputs) == (1, 36, 3)
        assert len(found.times) == 36
        assert subject.example("elsewhere.keras") is None

    @pytest.mark.parametrize(
        ("points", "target"),
        [
            ({"outputs": {"shape": [1], "axes": ["unit"]}}, "outputs[0]"),
            ({"outputs": {"shape": [12], "axes": ["unit"]}}, "outputs[argmax]"),
            ({"outputs": {"shape": [None, 3], "axes": ["timestep", "unit"]}}, "outputs[-1, 0]"),
            ({"outputs.0": {"shape": [1], "axes": ["unit"]}}, "outputs.0[0]"),
        ],
    )
    def test_what_is_explained_is_one_number_a_sample(self, points: dict[str, Any], target: str) -> None:
        assert a_number(points) == target


class TestInputs:
    def read(self, tmp_path: Path, name: str, text: str) -> Any:
        (tmp_path / name).write_text(text, "utf-8")
        return read_sequences(tmp_path / name)

    @pytest.mark.parametrize(("shape", "batched"), [((5,), (1, 5, 1)), ((5, 2), (1, 5, 2)), ((3, 5, 2), (3, 5, 2))])
    def test_an_array_of_one_sequence_is_a_batch_of_one(
        self, tmp_path: Path, shape: tuple[int, ...], batched: tuple[int, ...]
    ) -> None:
        np.save(tmp_path / "x.npy", np.ones(shape))
        assert np.shape(read_sequences(tmp_path / "x.npy").inputs) == batched

    def test_a_table_is_a_sequence_with_its_words(self, tmp_path: Path) -> None:
        found = self.read(tmp_path, "x.csv", "month,level,season\n1990-01,1.5,2\n1990-02,-3,4e1\n\n")
        np.testing.assert_array_equal(found.inputs, [[[1.5, 2], [-3, 40]]])
        assert (found.times, found.features) == (("1990-01", "1990-02"), ("level", "season"))

    def test_a_table_of_numbers_alone_has_no_words(self, tmp_path: Path) -> None:
        found = self.read(tmp_path, "x.csv", "1,2\n3,4\n")
        np.testing.assert_array_equal(found.inputs, [[[1, 2], [3, 4]]])
        assert found.times == found.features == ()

    def test_a_column_of_numbers_under_a_word_is_one_feature(self, tmp_path: Path) -> None:
        found = self.read(tmp_path, "x.csv", "level\n1\n2\n")
        np.testing.assert_array_equal(found.inputs, [[[1], [2]]])

    def test_json_is_a_request_or_the_inputs_alone(self, tmp_path: Path) -> None:
        np.testing.assert_array_equal(self.read(tmp_path, "x.json", "[[1, 2], [3, 4]]").inputs, [[[1, 2], [3, 4]]])
        whole = {"inputs": [[[1.0], [2.0]]], "lengths": [1], "targets": [[0.5]]}
        found = self.read(tmp_path, "y.json", json.dumps(whole))
        assert (np.shape(found.inputs), found.lengths.tolist(), found.targets.tolist()) == ((1, 2, 1), [1], [[0.5]])
        named = self.read(tmp_path, "z.json", json.dumps({"inputs": {"a": [[[1.0]]], "b": [[[2.0]]]}}))
        assert set(named.inputs) == {"a", "b"}

    @pytest.mark.parametrize(
        ("name", "text", "why"),
        [
            ("x.txt", "1", "is no .npy, .csv, .json file"),
            ("x.csv", "1,2\n3\n", "1 to 2 columns"),
            ("x.csv", "a\nb\nc\n", "could not convert"),
            ("x.csv", "", "holds no numbers"),
            ("x.json", "{", "cannot be read"),
            ("x.json", '{"inputs": [[1]], "of": "h"}', "has a field 'of'"),
            ("x.npy", "no array", "cannot be read"),
        ],
    )
    def test_a_file_that_cannot_be_read_says_why(self, tmp_path: Path, name: str, text: str, why: str) -> None:
        with pytest.raises(BadParameter, match=re.escape(why)):
            self.read(tmp_path, name, text)

    def test_objects_are_not_unpickled(self, tmp_path: Path) -> None:
        np.save(tmp_path / "x.npy", np.array([{}], dtype=object), allow_pickle=True)
        with pytest.raises(BadParameter, match="allow_pickle"):
            read_sequences(tmp_path / "x.npy")


@pytest.fixture
def wrong(folder: Path, tmp_path: Path) -> dict[str, list[str]]:
    """Arguments that mean nothing, by what is wrong with them."""
    model, x, out = str(folder / "small.keras"), str(folder / "x.npy"), str(tmp_path / "r.html")
    (tmp_path / "empty").mkdir()
    (tmp_path / "model.h5").touch()
    return {
        "name a model": [],
        "there is no file or folder 'nowhere'": ["nowhere", x],
        "is no .keras file": [str(tmp_path / "model.h5"), x],
        "holds 0 .keras files (none)": [str(tmp_path / "empty"), x],
        "write it as http://127.0.0.1:8000/v2/models/NAME": ["http://127.0.0.1:8000", x],
        "name a file of input": [model],
        "cannot be opened: No such file": [model, str(tmp_path / "none.npy")],
        "no such folder": [model, x, "-o", str(tmp_path / "none" / "r.html")],
        "--import: No module named 'no_such_cells'": [model, x, "--import", "no_such_cells", "-o", out],
    }


@pytest.mark.parametrize(
    "why",
    [
        "name a model",
        "there is no file or folder 'nowhere'",
        "is no .keras file",
        "holds 0 .keras files (none)",
        "write it as http://127.0.0.1:8000/v2/models/NAME",
        "name a file of input",
        "cannot be opened: No such file",
        "no such folder",
        "--import: No module named 'no_such_cells'",
    ],
)
def test_a_wrong_argument_is_one_line_and_status_2(
    wrong: dict[str, list[str]], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", *wrong[why]]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("tapehead report: ")
    assert why in line


def test_input_that_does_not_fit_the_model_is_told_and_nothing_is_written(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "x.npy", np.ones((1, 4, 7), np.float32))
    out = tmp_path / "r.html"
    assert main(["report", str(folder / "small.keras"), str(tmp_path / "x.npy"), "-o", str(out)]) == 2
    assert "bad_shape" in capsys.readouterr().err
    assert not out.exists()


def test_a_server_that_is_not_there_is_told(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    url = "http://127.0.0.1:9/v2/models/small"
    assert main(["report", url, str(folder / "x.npy"), "-o", str(folder / "never.html")]) == 1
    assert "unreachable" in capsys.readouterr().err
