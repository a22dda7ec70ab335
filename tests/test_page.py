"""The page at `/` as files: what is served, to whom, with which headers; the examples and layers that it shows."""

from __future__ import annotations

import gzip
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

import tapehead
from tapehead import page
from tapehead.demo import models_folder
from tapehead.demo.studies import STUDIES
from tapehead.errors import BodyTooLarge, MalformedBody
from tapehead.scheduling import Fleet
from tapehead.server.app import create_app
from tapehead.server.examples import example
from tapehead.server.settings import Settings

OWN = {name: path for name, path in page.names().items() if name != page.PLOTLY}
TEXTS = {name: path.read_text("utf-8") for name, path in OWN.items()}
SVG_NAMESPACE = "http://www.w3.org/2000/svg"
MODULES = {name: text for name, text in TEXTS.items() if name.endswith(".js")}


@pytest.fixture
def client() -> TestClient:
    """A server with a key, of which no worker is ever started."""
    fleet = Fleet(hire=lambda device: pytest.fail(f"a worker for {device!r} was hired"))
    return TestClient(create_app(Settings(api_keys=("open sesame",)), fleet))


def test_the_page_is_had_without_a_key_and_nothing_else_is(client: TestClient) -> None:
    assert client.get("/").text == TEXTS["index.html"]
    assert client.get("/page/main.js").text == TEXTS["main.js"]
    assert {client.get(path).status_code for path in ("/v2", "/docs", "/openapi.json", "/page")} == {401}


@pytest.mark.parametrize("name", ["", *(f"page/{name}" for name in OWN)])
def test_every_file_is_kept_to_its_own_origin_and_asked_for_again_by_its_tag(client: TestClient, name: str) -> None:
    reply = client.get(f"/{name}")
    policy = dict(part.split(" ", 1) for part in reply.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'self'"
    assert {name for name, sources in policy.items() if "unsafe" in sources} == {"style-src"}
    assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["cache-control"] == "no-cache"
    again = client.get(f"/{name}", headers={"If-None-Match": reply.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_types_are_a_browsers(client: TestClient) -> None:
    kinds = {name: client.get(f"/page/{name}").headers["content-type"] for name in ("main.js", "style.css", "icon.svg")}
    assert kinds == {
        "main.js": "text/javascript; charset=utf-8",
        "style.css": "text/css; charset=utf-8",
        "icon.svg": "image/svg+xml",
    }
    assert client.get("/").headers["content-type"] == "text/html; charset=utf-8"


def test_plotly_is_the_installed_packages_own_and_is_zipped_where_that_is_taken(client: TestClient) -> None:
    whole = client.get("/page/plotly.js", headers={"Accept-Encoding": "identity"})
    assert whole.content.startswith(b"/**\n* plotly.js v")
    assert "content-encoding" not in whole.headers
    with client.stream("GET", "/page/plotly.js", headers={"Accept-Encoding": "gzip"}) as reply:
        zipped = b"".join(reply.iter_raw())
    assert reply.headers["content-encoding"] == "gzip"
    assert gzip.decompress(zipped) == whole.content
    assert len(zipped) < len(whole.content) / 2


@pytest.mark.parametrize(
    "path",
    ["__init__.py", "../errors.py", "..%2ferrors.py", "%2e%2e/errors.py", "/etc/passwd", "nothing.js", "", "..%5cx.js"],
)
def test_no_file_outside_the_pages_own_can_be_had(client: TestClient, path: str) -> None:
    reply = client.get(f"/page/{path}")
    assert reply.status_code in (401, 404)
    assert "passwd" not in reply.text.replace(path, "")


def test_the_frame_has_no_script_or_style_inline() -> None:
    frame = TEXTS["index.html"]
    assert re.findall(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son[a-z]+=", frame) == []
    assert not re.search(r"""(src|href)=["'](https?:)?//""", frame)


def test_nothing_is_fetched_from_elsewhere_and_no_text_becomes_markup_or_code() -> None:
    for name, text in MODULES.items():
        code = re.sub(r"^\s*//.*$|/\*\*.*?\*/", "", text, flags=re.M | re.S).replace(SVG_NAMESPACE, "")
        assert not re.search(r"https?:|import\(|www\.", code), name
        assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|new Function", text), name
        assert not re.search(r"localStorage|document\.cookie", text), name


def test_every_module_is_small_says_what_it_is_for_and_is_used() -> None:
    assert all(len(text.splitlines()) < 400 for text in MODULES.values())
    assert all(text.startswith("// ") for text in MODULES.values())
    imported = {name for text in MODULES.values() for name in re.findall(r'from "\./([\w.]+)"', text)}
    assert imported == MODULES.keys() - {"main.js"}
    assert sum(len(text) for text in TEXTS.values()) < 200_000


@pytest.mark.parametrize("name", STUDIES)
def test_each_demo_model_has_the_last_sample_of_its_study_beside_it(name: str) -> None:
    study = STUDIES[name]()
    found = example(str(models_folder() / f"{name}.keras"), 10**6)
    assert found is not None
    np.testing.assert_allclose(found.inputs[""], study.inputs[-1:], atol=1e-6)
    np.testing.assert_allclose(np.asarray(found.parameters["targets"], np.float32), study.targets[-1:], atol=1e-6)


class TestExamples:
    @pytest.fixture
    def model(self, tmp_path: Path) -> Path:
        return tmp_path / "m.keras"

    def test_a_model_without_one_has_none(self, model: Path) -> None:
        assert example(str(model), 100) is None

    def test_numpys_format_holds_the_inputs(self, model: Path) -> None:
        np.save(model.with_name("m.example.npy"), np.arange(6, dtype=np.float32).reshape(1, 3, 2))
        found = example(str(model), 1000)
        assert found is not None
        assert found.inputs[""].tolist() == [[[0, 1], [2, 3], [4, 5]]]

    @pytest.mark.parametrize(
        ("text", "inputs", "rest"),
        [
            ("[[[1], [2]]]", {"": [[[1], [2]]]}, {}),
            ('{"inputs": {"a": [[1]], "b": [[2]]}, "lengths": [1]}', {"a": [[1]], "b": [[2]]}, {}),
            ('{"a": [[1.5]]}', {"a": [[1.5]]}, {}),
            ('{"inputs": [[[1]]], "of": "lstm.h"}', {"": [[[1]]]}, {"of": "lstm.h"}),
        ],
    )
    def test_json_holds_the_inputs_alone_or_a_requests_fields(
        self, model: Path, text: str, inputs: Any, rest: Any
    ) -> None:
        model.with_name("m.example.json").write_text(text)
        found = example(str(model), 1000)
        assert found is not None
        assert {name: array.tolist() for name, array in found.inputs.items()} == inputs
        assert found.parameters == rest

    @pytest.mark.parametrize("text", ["[[1], [2, 3]]", "{", "null", '{"inputs": "x"}', ""])
    def test_one_that_cannot_be_read_says_so_by_name(self, model: Path, text: str) -> None:
        model.with_name("m.example.json").write_text(text)
        with pytest.raises(MalformedBody, match=r"m\.example\.json beside the model cannot be read"):
            example(str(model), 1000)

    def test_pickles_are_refused(self, model: Path) -> None:
        np.save(model.with_name("m.example.npy"), np.array([{}], dtype=object), allow_pickle=True)
        with pytest.raises(MalformedBody, match="pickle"):
            example(str(model), 1000)

    def test_one_over_the_limit_is_refused_unread(self, model: Path) -> None:
        model.with_name("m.example.json").write_text("[" * 101)
        with pytest.raises(BodyTooLarge, match="101 bytes"):
            example(str(model), 100)

    def test_a_link_out_of_the_folder_is_not_followed(self, tmp_path: Path) -> None:
        model = tmp_path / "models" / "m.keras"
        model.parent.mkdir()
        secret = tmp_path / "secret.json"
        secret.write_text("[1]")
        model.with_name("m.example.json").symlink_to(secret)
        assert example(str(model), 100) is None


def test_metadata_tells_the_layers_and_what_each_reads() -> None:
    import keras

    x = keras.Input((None, 2), name="x")
    both = keras.layers.Bidirectional(keras.layers.LSTM(3), name="bi")(x)
    last = keras.layers.GRU(2, name="gru")(x)
    joined = keras.layers.Concatenate(name="both")([both, last])
    model = keras.Model(x, keras.layers.Dense(1, name="head")(joined))
    with tapehead.Client(models={"m": model}) as client:
        layers = client.model("m").metadata["layers"]
    assert [(one["name"], one["class"], one["inbound"]) for one in layers] == [
        ("x", "Input", []),
        ("bi.forward", "LSTM", ["x"]),
        ("bi.backward", "LSTM", ["x"]),
        ("bi", "Bidirectional", ["bi.forward", "bi.backward"]),
        ("gru", "GRU", ["x"]),
        ("both", "Concatenate", ["bi", "gru"]),
        ("head", "Dense", ["both"]),
        ("outputs", "Output", ["head"]),
    ]


def test_a_live_model_has_no_example_and_the_server_says_so_with_nothing() -> None:
    import keras

    from tapehead.server.inprocess import application

    model = keras.Sequential([keras.Input((None, 2)), keras.layers.LSTM(2)])
    with TestClient(application({"m": model})) as client:
        reply = client.get("/v2/models/m/example")
        assert (reply.status_code, reply.content) == (204, b"")
        assert client.get("/v2/models/none/example").json()["code"] == "unknown_model"
    with TestClient(application(models_folder(), Settings(preload=False))) as client:
        told = client.get("/v2/models/sunspots/versions/1/example").json()
    assert told["inputs"]["shape"] == [1, 40, 1]
    assert told["targets"]["data"] == [[2.9]]
