"""Answers as pictures over HTTP: which media type, which size, and what happens meanwhile."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from concurrent.futures import Future

import numpy as np
import pytest
from matplotlib.image import imread
from starlette.testclient import TestClient

from tapehead import errors
from tapehead.operations import OPERATIONS, Result
from tapehead.server import media, pictures
from tapehead.server.easel import COMMAND, WAITING, Easel
from tapehead.server.pictures import Wish, picture
from tapehead.server.studio import answer, framed, serve
from tapehead.wire.messages import MSGPACK, Reply, encode_reply
from tapehead.worker.protocol import ModelRef
from test_server import BODY, JACOBIAN, StandIn, client_of

PNG, SVG = {"Accept": "image/png"}, {"Accept": "image/svg+xml"}


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with client_of(StandIn()) as client:
        yield client


def test_an_answer_can_be_had_as_png_or_svg(client: TestClient) -> None:
    reply = client.post(JACOBIAN, json=BODY, headers=PNG)
    assert (reply.status_code, reply.headers["content-type"]) == (200, "image/png")
    assert imread(io.BytesIO(reply.content)).shape[:2] == (520, 800)
    reply = client.post(JACOBIAN, json=BODY, headers=SVG)
    assert (reply.status_code, reply.headers["content-type"]) == (200, "image/svg+xml")
    assert ElementTree.fromstring(reply.text).tag == "{http://www.w3.org/2000/svg}svg"
    assert "draw;dur=" in reply.headers["server-timing"]


@pytest.mark.parametrize(
    ("accept", "own", "chosen"),
    [
        ("image/png", media.JSON, "image/png"),
        ("image/*", media.MSGPACK, "image/png"),
        ("IMAGE/SVG+XML;charset=utf-8", media.JSON, "image/svg+xml"),
        ("image/png;q=0.5, image/svg+xml;q=0.6", media.JSON, "image/svg+xml"),
        ("image/png;q=0, image/*", media.JSON, "image/svg+xml"),
        ("image/*;q=0.5, application/json", media.MSGPACK, media.JSON),
        ("image/png, */*;q=0.1", media.JSON, "image/png"),
        ("*/*", media.MSGPACK, media.MSGPACK),
        ("image/png, application/json", media.JSON, media.JSON),
        ("image/png;q=nan, application/json;q=0.1", media.JSON, media.JSON),
        ("image/png;q=2, application/json;q=0.1", media.JSON, media.JSON),
        ("image/png;q=-1, application/json;q=0.1", media.JSON, media.JSON),
    ],
)
def test_a_picture_comes_only_where_accept_wants_one_most(accept: str, own: str, chosen: str) -> None:
    assert media.reply_type(accept, own, media.ANSWERS) == chosen


@pytest.mark.parametrize("accept", ["image/webp", "image/png;q=0", "image/*;q=0.0", "text/html"])
def test_a_picture_that_cannot_be_made_is_406_and_says_what_can(client: TestClient, accept: str) -> None:
    reply = client.post(JACOBIAN, json=BODY, headers={"Accept": accept})
    assert (reply.status_code, reply.json()["code"]) == (406, "not_acceptable")
    assert "image/png, image/svg+xml" in reply.json()["detail"]
    assert reply.headers["content-type"] == media.PROBLEM_JSON


def test_an_error_is_a_problem_also_where_only_a_picture_is_wanted(client: TestClient) -> None:
    reply = client.post(JACOBIAN, json={**BODY, "of": "gru.h"}, headers=PNG)
    assert (reply.status_code, reply.headers["content-type"]) == (422, media.PROBLEM_JSON)
    assert reply.json()["code"] == "unknown_point"


@pytest.mark.parametrize("width", [400, 1200])
def test_the_query_gives_the_width_in_pixels(client: TestClient, width: int) -> None:
    reply = client.post(f"{JACOBIAN}?width={width}&row=1", json=BODY, headers=PNG)
    assert imread(io.BytesIO(reply.content)).shape[1] == width


@pytest.mark.parametrize("query", ["width=399", "width=3201", "width=wide", "width=²", "row=-1", "row=2", "dpi=100"])
def test_a_query_that_cannot_be_read_is_refused(client: TestClient, query: str) -> None:
    reply = client.post(f"{JACOBIAN}?{query}", json=BODY, headers=PNG)
    assert (reply.status_code, reply.json()["code"]) == (422, "bad_parameter")
    assert query.partition("=")[0] in reply.json()["detail"]


def test_a_dry_run_has_no_picture(client: TestClient) -> None:
    reply = client.post(JACOBIAN, json={**BODY, "dry_run": True}, headers=PNG)
    assert (reply.status_code, reply.json()["code"]) == (422, "bad_parameter")
    assert "leave dry_run out" in reply.json()["detail"]


def test_what_is_too_large_to_draw_is_refused_before_any_work_with_advice() -> None:
    fleet = StandIn()
    with client_of(fleet) as client:
        body = {**BODY, "inputs": np.zeros((1, 1500, 3)).tolist(), "of": "lstm.h", "wrt": "lstm.h"}
        reply = client.post(JACOBIAN, json=body, headers=PNG)
    assert (reply.status_code, reply.json()["code"]) == (413, "answer_too_large")
    assert "reduce='norm'" in reply.json()["detail"]
    assert not any(line.startswith("ask") for line in fleet.log)


@pytest.mark.parametrize("operation", [name for name in OPERATIONS if name in ("states", "vjp", "jvp", "check")])
def test_operations_are_drawn_alike(client: TestClient, operation: str) -> None:
    body = {"inputs": BODY["inputs"], **({} if operation == "states" else {"of": "lstm.h", "wrt": "lstm.h"})}
    tangent = {"tangent": np.ones((2, 5, 4)).tolist()} if operation == "jvp" else {}
    reply = client.post(f"/v2/models/toy/{operation}", json={**body, **tangent}, headers=PNG)
    assert reply.status_code == 200, reply.text
    assert imread(io.BytesIO(reply.content)).shape[1] == 800


def test_outputs_are_drawn_too_from_the_protocols_own_request(client: TestClient) -> None:
    tensor = {"name": "x", "shape": [2, 5, 3], "datatype": "FP32", "data": np.zeros(30).tolist()}
    reply = client.post("/v2/models/toy/infer", json={"inputs": [tensor]}, headers=PNG)
    assert reply.headers["content-type"] == "image/png"
    assert reply.content.startswith(b"\x89PNG")


def reply(value: np.ndarray) -> Reply:
    return Reply("toy", 2, Result({"value": value}, {"value": ("batch", "timestep", "unit")}, {}))


def test_nothing_to_draw_is_no_fault_of_the_server() -> None:
    with pytest.raises(errors.NotAcceptable, match="nothing to draw; take the numbers"):
        picture({}, reply(np.zeros((1, 0, 2))), Wish("png"))


def test_an_answer_that_turns_out_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "LIMIT", 10)
    with pytest.raises(errors.AnswerTooLarge):
        picture({}, reply(np.zeros((1, 2, 2))), Wish("png"))


def test_a_server_without_matplotlib_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tapehead.pictures", None)
    monkeypatch.delattr("tapehead.pictures", raising=False)
    with pytest.raises(errors.NotAcceptable, match=r"pip install 'tapehead\[plot\]'"):
        picture({}, reply(np.zeros((1, 2, 2))), Wish("png"))


def test_the_studio_tells_a_fault_of_its_own_and_goes_on() -> None:
    body = bytes(encode_reply(reply(np.ones((1, 2, 2))).result, "toy", 2, MSGPACK))
    problem, image = answer(b'{"asked": {}, "wish": {"format": "bmp"}}', body)
    assert (json.loads(problem)["code"], image) == ("internal", b"")
    heads = (b"", b'{"asked": {}, "wish": {"format": "png", "width": 400, "row": 0}}')
    sink = io.BytesIO()
    serve(io.BytesIO(b"".join(part for head in heads for one in (head, body) for part in framed(one))), sink)
    assert sink.getvalue().count(b"\x89PNG") == 1


class TestEasel:
    """One process draws, beside the event loop."""

    @pytest.fixture
    def client(self) -> Iterator[TestClient]:
        """A client of a server that has drawn a picture."""
        with client_of(StandIn()) as client:
            assert client.post(JACOBIAN, json=BODY, headers=PNG).status_code == 200
            yield client

    def easel(self, client: TestClient) -> Easel:
        easel: Easel = client.app.state.service.easel  # type: ignore[attr-defined]
        assert easel.pid is not None
        return easel

    def begin(self, client: TestClient, count: int) -> list[Future[bytes]]:
        drawing = ({"operation": "states"}, reply(np.ones((1, 2, 2))).result, ModelRef("toy", 2), Wish("png", 400))
        return [client.portal.start_task_soon(self.easel(client).draw, *drawing) for _ in range(count)]

    def test_the_server_answers_meanwhile_and_a_bounded_number_waits(self, client: TestClient) -> None:
        pid = self.easel(client).pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        drawing = self.begin(client, WAITING + 1)
        assert client.get("/v2/health/live").status_code == 200
        assert client.post(JACOBIAN, json=BODY).status_code == 200
        refused = client.post(JACOBIAN, json=BODY, headers=PNG)
        assert (refused.status_code, refused.json()["code"]) == (429, "queue_full")
        assert int(refused.headers["retry-after"]) > 0
        assert not any(one.done() for one in drawing)
        os.kill(pid, signal.SIGCONT)
        assert all(one.result(120).startswith(b"\x89PNG") for one in drawing)
        assert self.easel(client).pid == pid

    def test_one_that_is_given_up_is_not_the_next_ones_answer(self, client: TestClient) -> None:
        pid = self.easel(client).pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        late = client.post(JACOBIAN, json=BODY, headers={**PNG, "X-Request-Timeout": "0.2"})
        assert (late.status_code, late.json()["code"]) == (504, "deadline")
        reply = client.post(f"{JACOBIAN}?width=400", json=BODY, headers=PNG)
        assert imread(io.BytesIO(reply.content)).shape[1] == 400
        assert self.easel(client).pid != pid

    def test_a_process_that_dies_is_told_and_replaced(self, client: TestClient) -> None:
        pid = self.easel(client).pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        (drawing,) = self.begin(client, 1)
        client.get("/v2/health/live")
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(errors.WorkerDied):
            drawing.result(60)
        assert client.post(JACOBIAN, json=BODY, headers=PNG).status_code == 200

    def test_it_ends_with_the_server_and_when_its_input_does(self) -> None:
        with client_of(StandIn()) as client:
            client.post(JACOBIAN, json=BODY, headers=PNG)
            pid = self.easel(client).pid
            assert pid is not None
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
        assert subprocess.run(COMMAND, stdin=subprocess.DEVNULL, timeout=120, check=False).returncode == 0

    def test_the_process_at_the_network_imports_no_matplotlib(self) -> None:
        program = "import sys, tapehead.server.app; sys.exit('matplotlib' in sys.modules)"
        assert subprocess.run([sys.executable, "-c", program], timeout=120, check=False).returncode == 0


def test_the_description_tells_of_pictures(client: TestClient) -> None:
    post = client.get("/openapi.json").json()["paths"]["/v2/models/{model}/saliency"]["post"]
    assert {"image/png", "image/svg+xml"} <= post["responses"]["200"]["content"].keys()
    assert {"width", "row"} <= {one["name"] for one in post["parameters"] if one["in"] == "query"}
