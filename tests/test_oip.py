"""The Open Inference Protocol: as its stock client speaks it to a real server, and byte by byte."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import keras
import numpy as np
import pytest
import tritonclient.http as triton

from serving import Serving, serving
from tapehead.operations import Request, Result
from tapehead.server import oip

X = np.linspace(-1, 1, 30, dtype="float32").reshape(2, 5, 3)


@pytest.fixture(scope="module")
def model() -> Any:
    keras.utils.set_random_seed(1)
    x = keras.Input((None, 3), name="x")
    h = keras.layers.LSTM(4, name="lstm")(x)
    return keras.Model(x, [keras.layers.Dense(2, name="y")(h), keras.layers.Dense(1, name="z")(h)])


@pytest.fixture(scope="module")
def server(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("models")
    for version in (1, 3):
        path = folder / "toy" / str(version)
        path.mkdir(parents=True)
        model.save(path / "model.keras")
    model.save(folder / "other.keras")
    with serving(folder) as server:
        yield server


@pytest.fixture
def client(server: Serving) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server.url.removeprefix("http://")) as client:
        yield client


def given(binary: bool = True) -> triton.InferInput:
    one = triton.InferInput("x", X.shape, "FP32")
    one.set_data_from_numpy(X, binary_data=binary)
    return one


def test_the_stock_client_reads_health(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("toy")
    assert client.is_model_ready("toy", "3")
    assert not client.is_model_ready("none")
    assert not client.is_model_ready("toy", "2")


def test_the_stock_client_reads_metadata(client: triton.InferenceServerClient) -> None:
    assert client.get_server_metadata()["name"] == "tapehead"
    about = client.get_model_metadata("toy")
    assert (about["name"], about["versions"], about["platform"]) == ("toy", ["1", "3"], "tapehead_keras")
    assert about["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, -1, 3]}]
    assert [(one["name"], one["datatype"], one["shape"]) for one in about["outputs"]] == [
        ("y", "FP32", [-1, 2]),
        ("z", "FP32", [-1, 1]),
    ]
    with pytest.raises(triton.InferenceServerException, match="no model 'none'"):
        client.get_model_metadata("none")


def test_the_stock_client_lists_unloads_and_loads_models(client: triton.InferenceServerClient) -> None:
    def states() -> dict[str, str]:
        return {f"{one['name']}/{one['version']}": one["state"] for one in client.get_model_repository_index()}

    assert states()["other/1"] == states()["toy/3"] == "READY"
    client.unload_model("other")
    assert states()["other/1"] == "UNAVAILABLE"
    assert not client.is_model_ready("other")
    with pytest.raises(triton.InferenceServerException, match="load"):
        client.infer("other", [given()])
    client.load_model("other")
    assert states()["other/1"] == "READY"
    assert client.infer("other", [given()]).as_numpy("y").shape == (2, 2)
    for name in ("none", "../toy", "toy/1"):
        with pytest.raises(triton.InferenceServerException):
            client.load_model(name)


@pytest.mark.parametrize("binary", [True, False])
def test_the_stock_client_infers(client: triton.InferenceServerClient, model: Any, binary: bool) -> None:
    outputs = None if binary else [triton.InferRequestedOutput(name, binary_data=False) for name in ("y", "z")]
    result = client.infer("toy", [given(binary)], request_id="seven", outputs=outputs)
    reply = result.get_response()
    assert (reply["model_name"], reply["model_version"], reply["id"]) == ("toy", "3", "seven")
    for name, expected in zip(("y", "z"), model.predict(X, verbose=0), strict=True):
        np.testing.assert_allclose(result.as_numpy(name), expected, atol=1e-6)
        assert ("data" in result.get_output(name)) != binary


def test_the_stock_client_picks_outputs_in_its_own_order(client: triton.InferenceServerClient) -> None:
    asked = [triton.InferRequestedOutput("z", binary_data=False), triton.InferRequestedOutput("y")]
    result = client.infer("toy", [given()], model_version="1", outputs=asked)
    assert [one["name"] for one in result.get_response()["outputs"]] == ["z", "y"]
    assert (result.as_numpy("z").shape, result.as_numpy("y").shape) == ((2, 1), (2, 2))
    assert "id" not in result.get_response()
    only = client.infer("toy", [given()], outputs=[triton.InferRequestedOutput("z")])
    assert only.as_numpy("y") is None


def test_the_stock_client_is_told_what_is_wrong(client: triton.InferenceServerClient) -> None:
    one = triton.InferInput("x", [2, 5], "FP32")
    one.set_data_from_numpy(X[..., 0])
    with pytest.raises(triton.InferenceServerException, match="shape") as caught:
        client.infer("toy", [one])
    assert caught.value.status() == "422"
    with pytest.raises(triton.InferenceServerException, match="'q'"):
        client.infer("toy", [given()], outputs=[triton.InferRequestedOutput("q")])
    one = triton.InferInput("x", [1], "BYTES")
    one.set_data_from_numpy(np.array([b"text"], dtype=object))
    with pytest.raises(triton.InferenceServerException, match="BYTES"):
        client.infer("toy", [one])


def test_the_process_that_speaks_http_has_no_tensorflow_in_it(server: Serving) -> None:
    maps = Path(f"/proc/{server.process.pid}/maps")
    if not maps.exists():
        pytest.skip("the system does not tell what a process has loaded")
    assert "tensorflow" not in maps.read_text()


def test_a_server_that_is_told_to_stop_finishes_what_it_took(server: Serving, model: Any, tmp_path: Path) -> None:
    model.save(tmp_path / "toy.keras")
    many = np.zeros((32, 400, 3), "float32")
    body = {"inputs": [{"name": "x", "shape": many.shape, "datatype": "FP32", "data": many.ravel().tolist()}]}
    replies: list[httpx2.Response] = []
    with serving(tmp_path, graceful=20.0) as other:
        asking = threading.Thread(
            target=lambda: replies.append(httpx2.post(f"{other.url}/v2/models/toy/infer", json=body, timeout=99))
        )
        asking.start()
        while "tapehead_running 1.0" not in httpx2.get(f"{other.url}/metrics").text and not replies:
            time.sleep(0.005)
        started = time.monotonic()
        assert other.stop() == 0
        asking.join()
        assert time.monotonic() - started < 20
    assert [reply.status_code for reply in replies] == [200]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"host": "0.0.0.0"}, "refusing to listen on 0.0.0.0 without API keys"),
        ({"models_dir": "/nowhere"}, "/nowhere"),
        ({"host": "192.0.2.1", "allow_anonymous": True}, "192.0.2.1|Cannot assign"),
    ],
)
def test_a_server_that_cannot_start_says_why_in_one_line(tmp_path: Path, settings: dict[str, Any], says: str) -> None:
    program = (
        "import sys; from tapehead.server.run import serve; from tapehead.server.settings import Settings; "
        f"sys.exit(serve(Settings(**{ {'models_dir': str(tmp_path), 'port': 0} | settings!r})))"
    )
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", program], env=environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert re.search(says, done.stderr)
    assert done.stderr.count("\n") == 1


def test_every_datatype_goes_there_and_back_in_both_forms() -> None:
    for name, dtype in oip.DATATYPES.items():
        if name == "BF16":
            continue
        array = np.array([[0, 1, 1], [1, 0, 1]]).astype(dtype)
        for binary in (False, True):
            wanted = oip.Inference(Request({}), None, {}, binary)
            body, length = oip.write(wanted, Result({"y": array}, {}, {}), "m", 1)
            reply = json.loads(body[:length])
            assert (reply["outputs"][0]["datatype"], length is not None) == (name, binary)
            request = {"inputs": [{**reply["outputs"][0], "name": "x"}]}
            head = json.dumps(request).encode()
            back = oip.read(head + body[length or len(body) :], str(len(head)) if binary else None)
            np.testing.assert_array_equal(back.request.inputs["x"], array)
            assert back.request.inputs["x"].dtype == array.dtype


def test_bfloat16_is_read_exactly() -> None:
    one = {"name": "x", "shape": [2], "datatype": "BF16", "parameters": {"binary_data_size": 4}}
    head = json.dumps({"inputs": [one]}).encode()
    read = oip.read(head + b"\x80\x3f\xc0\xbf", str(len(head)))
    assert read.request.inputs["x"].tolist() == [1.0, -1.5]


def test_numbers_may_be_flat_or_nested() -> None:
    for data in (X.tolist(), X.ravel().tolist()):
        body = json.dumps({"inputs": [{"name": "x", "shape": X.shape, "datatype": "FP32", "data": data}]}).encode()
        np.testing.assert_array_equal(oip.read(body, None).request.inputs["x"], X)


def test_what_is_not_finite_is_spelled_out_in_json() -> None:
    wanted = oip.Inference(Request({}), None, {}, binary=False)
    body, _ = oip.write(wanted, Result({"y": np.array([np.nan, -np.inf, 1.0])}, {}, {}), "m", 1)
    assert json.loads(body)["outputs"][0]["data"] == ["NaN", "-Infinity", 1.0]
