"""The HTTP layer by itself, over a stand-in for the fleet: whatever the engine does, this is how it is told."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import signal
import socket
import threading
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import httpx2
import msgpack
import numpy as np
import pytest
from starlette.testclient import TestClient

from tapehead import errors
from tapehead.operations import OPERATIONS, Card, PointInfo, Request, Result, TensorSpec, check
from tapehead.scheduling import Fleet, Observer, Silent
from tapehead.server import media
from tapehead.server.app import create_app
from tapehead.server.run import Server, listen, uvicorn_config
from tapehead.server.settings import SETTINGS, Settings, read_bool, read_bytes, read_names, refusal
from tapehead.worker.protocol import Growth, Job, ModelRef, WorkerStatus

CARD = Card(
    name="toy",
    version=2,
    inputs=(TensorSpec("x", (None, None, 3), "float32", ("timestep", "feature")),),
    outputs=(TensorSpec("y", (None, 2), "float32", ("unit",)),),
    points={
        "x": PointInfo((None, 3), ("timestep", "feature"), "float32", True, "input", "x"),
        "lstm.h": PointInfo((None, 4), ("timestep", "unit"), "float32", True, "state", "x"),
    },
    recurrent={"lstm": {"cell": "LSTM", "units": 4, "states": ["h", "c"], "gates": [], "direction": "forward"}},
    weights={"lstm/kernel": (3, 16)},
    bytes=1000,
    aliases={"inputs": "x"},
)
BODY = {"inputs": [[[0.1, 0.2, 0.3]] * 5] * 2, "of": "lstm.h[-1]", "wrt": "inputs"}
JACOBIAN = "/v2/models/toy/jacobian"
NARROW = [one for one in SETTINGS if one.read not in (str, read_names)]


class StandIn:
    """A fleet with one model, which answers ones, or raises `error`, after `delay` seconds."""

    def __init__(self) -> None:
        self.live = self.ready = True
        self.waiting = self.running = 0
        self.observer: Observer = Silent()
        self.error: Exception | None = None
        self.delay = 0.0
        self.cancelled = 0
        self.log: list[str] = []

    async def start(self) -> None:
        self.log.append("start")

    async def close(self) -> None:
        self.log.append("close")

    def versions(self, name: str) -> list[int]:
        if name != CARD.name:
            raise errors.UnknownModel(f"no model {name!r}")
        return [1, 2]

    def model_ready(self, name: str, version: int | None = None) -> bool:
        return self.ready and (version is None or version in self.versions(name))

    async def card(self, name: str, version: int | None = None) -> Card:
        if version not in (None, *self.versions(name)):
            raise errors.UnknownModel(f"no version {version}")
        return CARD

    async def index(self) -> list[dict[str, str]]:
        states = {"1": "UNAVAILABLE", "2": "READY"}
        return [{"name": CARD.name, "version": v, "state": state, "reason": ""} for v, state in states.items()]

    async def load(self, name: str) -> None:
        self.versions(name)
        self.log.append(f"load {name}")

    async def unload(self, name: str) -> None:
        self.versions(name)
        self.log.append(f"unload {name}")

    async def ask(
        self,
        name: str,
        version: int | None,
        operation: str,
        request: Request,
        *,
        id: str,  # noqa: A002
        deadline_s: float,
        growth: Growth | None = None,
    ) -> tuple[Result, ModelRef]:
        self.log.append(f"ask {id} {version} {deadline_s:.1f}")
        assert growth is None or growth.array is None
        _, plans = check(await self.card(name, version), operation, request)
        try:
            await asyncio.sleep(self.delay)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.error is not None:
            raise self.error
        self.observer.finished(name, operation, 0.5, None)
        if request.parameters.get("dry_run"):
            return Result({}, {plan.name: plan.axes for plan in plans}, {"dry_run": True}, plans), ModelRef(name, 2)
        tensors = {plan.name: np.ones([n or 1 for n in plan.shape], plan.dtype) for plan in plans}
        meta = {"route": "none", "timings": {"queue": 0.25, "compute": 0.5}}
        return Result(tensors, {plan.name: plan.axes for plan in plans}, meta), ModelRef(name, 2)


class Held:
    """A worker that answers nothing until it is let go."""

    def __init__(self) -> None:
        self.taken, self.free = threading.Event(), threading.Event()

    async def start(self) -> WorkerStatus:
        return await self.status()

    async def status(self) -> WorkerStatus:
        return WorkerStatus("cpu:0", ("cpu:0",), 0, 0)

    async def load(self, ref: ModelRef) -> Card:
        return replace(CARD, version=ref.version)

    async def unload(self, name: str, version: int) -> None: ...

    async def run(self, jobs: Sequence[Job]) -> list[Result]:
        self.taken.set()
        await asyncio.to_thread(self.free.wait, 60)
        return [Result({"value": np.ones(1)}, {"value": ("batch",)}, {})] * len(jobs)

    async def lost(self) -> str:
        await asyncio.Event().wait()
        return ""

    async def close(self) -> None: ...


@pytest.fixture
def fleet() -> StandIn:
    return StandIn()


def client_of(fleet: StandIn, **settings: Any) -> TestClient:
    return TestClient(create_app(Settings(**settings), fleet), raise_server_exceptions=False)  # type: ignore[arg-type]


@pytest.fixture
def client(fleet: StandIn) -> Iterator[TestClient]:
    with client_of(fleet, body_limit=20_000) as client:
        yield client


def test_the_fleet_lives_as_long_as_the_application(fleet: StandIn) -> None:
    with client_of(fleet):
        assert fleet.log == ["start"]
    assert fleet.log == ["start", "close"]


def test_the_server_tells_its_name_and_extensions(client: TestClient) -> None:
    about = client.get("/v2").json()
    assert about["name"] == "tapehead"
    assert re.match(r"\d", about["version"])
    assert {"operations", "binary_tensor_data", "model_repository"} <= set(about["extensions"])


def test_health_follows_the_fleet(client: TestClient, fleet: StandIn) -> None:
    paths = ("/v2/health/live", "/v2/health/ready", "/v2/models/toy/ready")
    assert [client.get(path, headers={"Accept": "text/plain"}).status_code for path in paths] == [200, 200, 200]
    fleet.ready = False
    assert [client.get(path).status_code for path in paths] == [200, 503, 503]
    said = [client.get(path).json() for path in paths]
    assert said == [{"live": True}, {"live": True, "ready": False}, {"name": "toy", "ready": False}]


def test_a_models_metadata_is_the_protocols_and_ours(client: TestClient) -> None:
    about = client.get("/v2/models/toy/versions/2").json()
    assert about["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, -1, 3]}]
    assert about["outputs"] == [{"name": "y", "datatype": "FP32", "shape": [-1, 2]}]
    assert (about["versions"], about["platform"]) == (["1", "2"], "tapehead_keras")
    state = {"shape": [None, 4], "axes": ["timestep", "unit"], "dtype": "float32", "differentiable": True}
    assert about["points"]["lstm.h"] == state
    assert about["recurrent"]["lstm"]["cell"] == "LSTM"
    assert about["weights"] == {"lstm/kernel": [3, 16]}
    assert about["operations"] == list(OPERATIONS)


@pytest.mark.parametrize("name", ["application/vnd.msgpack", "application/msgpack", "application/x-msgpack"])
def test_a_reply_is_in_the_requests_own_type(client: TestClient, name: str) -> None:
    reply = client.post(JACOBIAN, content=msgpack.packb(BODY), headers={"Content-Type": name})
    assert (reply.status_code, reply.headers["content-type"]) == (200, name)
    assert int(reply.headers["content-length"]) == len(reply.content)
    answer = msgpack.unpackb(reply.content)
    assert (answer["v"], answer["model"]) == (1, {"name": "toy", "version": 2})
    tensor = answer["tensors"]["value"]
    assert np.frombuffer(tensor["data"], tensor["dtype"]).reshape(tensor["shape"]).shape == (2, 4, 5, 3)
    assert answer["axes"]["value"] == ["batch", "of.unit", "wrt.timestep", "wrt.feature"]


def test_json_in_and_msgpack_out_by_accept(client: TestClient) -> None:
    reply = client.post(JACOBIAN, json=BODY, headers={"Accept": "application/json;q=0.5, application/vnd.msgpack"})
    assert reply.headers["content-type"] == "application/vnd.msgpack"
    assert client.post(JACOBIAN, json=BODY).json()["tensors"]["value"]["shape"] == [2, 4, 5, 3]


@pytest.mark.parametrize(
    ("accept", "own", "chosen"),
    [
        (None, media.MSGPACK, media.MSGPACK),
        ("", media.JSON, media.JSON),
        ("*/*", media.MSGPACK, media.MSGPACK),
        ("application/*", "application/x-msgpack", "application/x-msgpack"),
        ("APPLICATION/JSON; charset=utf-8", media.MSGPACK, media.JSON),
        ("application/json;q=0.2, application/msgpack;q=0.9", media.JSON, "application/msgpack"),
        ("application/json;q=0, */*", media.JSON, media.MSGPACK),
        ("text/html, application/xhtml+xml, */*;q=0.8", media.JSON, media.JSON),
        ("application/vnd.msgpack;q=0.5, application/json;q=0.5", media.JSON, media.JSON),
    ],
)
def test_the_reply_follows_accept(accept: str | None, own: str, chosen: str) -> None:
    assert media.reply_type(accept, own) == chosen


@pytest.mark.parametrize("accept", ["text/html", "application/json;q=0", "application/json;q=much", "image/*", ","])
def test_what_cannot_be_made_is_not_acceptable(accept: str) -> None:
    with pytest.raises(errors.NotAcceptable):
        media.reply_type(accept)


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        (None, media.PROBLEM_JSON),
        ("text/html", media.PROBLEM_JSON),
        ("application/vnd.msgpack, application/problem+json", media.PROBLEM_JSON),
        ("application/vnd.msgpack, */*;q=0.1", media.PROBLEM_JSON),
        ("application/x-msgpack", "application/x-msgpack"),
    ],
)
def test_a_problem_is_msgpack_only_where_nothing_else_is_wanted(accept: str | None, chosen: str) -> None:
    assert media.problem_type(accept) == chosen


@pytest.mark.parametrize(
    "error",
    [
        errors.QueueFull("full", retry_after=2.3),
        errors.Draining(),
        errors.WorkerDied(),
        errors.OutOfMemory(),
        errors.Loading(),
        errors.Deadline(),
        errors.NotFinite("x[0] is nan"),
        errors.AnswerTooLarge(),
    ],
    ids=lambda error: error.code,
)
def test_every_error_is_a_problem(client: TestClient, fleet: StandIn, error: errors.TapeheadError) -> None:
    fleet.error = error
    reply = client.post(JACOBIAN, json=BODY)
    problem = reply.json()
    assert reply.headers["content-type"] == "application/problem+json"
    assert reply.status_code == problem["status"] == error.status
    assert (problem["code"], problem["detail"], problem["error"]) == (error.code, error.detail, error.detail)
    assert problem["request_id"] == reply.headers["x-request-id"]
    assert ("retry-after" in reply.headers) == (error.status in (429, 503))
    back = errors.from_problem(msgpack.unpackb(_as_msgpack(client).content), status=reply.status_code)
    assert type(back) is type(error)


def _as_msgpack(client: TestClient) -> Any:
    return client.post(JACOBIAN, json=BODY, headers={"Accept": "application/vnd.msgpack"})


def test_retry_after_is_in_whole_seconds(client: TestClient, fleet: StandIn) -> None:
    fleet.error = errors.QueueFull("full", retry_after=2.3)
    assert client.post(JACOBIAN, json=BODY).headers["retry-after"] == "3"


def test_what_breaks_is_logged_and_not_told(
    client: TestClient, fleet: StandIn, caplog: pytest.LogCaptureFixture
) -> None:
    fleet.error = ZeroDivisionError("a secret of the inside")
    reply = client.post(JACOBIAN, json=BODY, headers={"X-Request-Id": "odd-one"})
    assert (reply.status_code, reply.json()["code"]) == (500, "internal")
    assert not re.search("secret|Traceback", reply.text)
    assert re.search("(?s)odd-one.*ZeroDivisionError: a secret of the inside", caplog.text)


def test_no_such_path_and_no_such_method_are_problems(client: TestClient) -> None:
    for method, path, status, code in (
        ("GET", "/nowhere", 404, "unknown_path"),
        ("GET", "/v2/models/toy/", 404, "unknown_path"),
        ("DELETE", "/v2", 405, "method_not_allowed"),
        ("GET", JACOBIAN, 405, "method_not_allowed"),
    ):
        reply = client.request(method, path)
        assert (reply.status_code, reply.json()["code"]) == (status, code)
    assert client.get(JACOBIAN).headers["allow"] == "POST"


def test_the_request_id_is_taken_or_made_and_logged(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "tapehead.access"):
        assert client.get("/v2", headers={"X-Request-Id": "mine 1"}).headers["x-request-id"] == "mine 1"
        made = client.get("/nowhere").headers["x-request-id"]
    assert re.search(f'(?s)"GET /v2" 200 .* id=mine 1.*"GET /nowhere" 404 .* id={made}', caplog.text)
    assert made != client.get("/nowhere").headers["x-request-id"]


@pytest.mark.parametrize("wrong", ["", "x" * 129, "caf\xe9", "tab\there"])
def test_a_request_id_that_cannot_be_logged_is_refused(client: TestClient, wrong: str) -> None:
    reply = client.get("/v2", headers={"X-Request-Id": wrong.encode("latin-1")})
    assert (reply.status_code, reply.json()["code"]) == (422, "bad_parameter")
    assert reply.headers["x-request-id"] == reply.json()["request_id"] != wrong


def test_the_stages_are_timed(client: TestClient) -> None:
    reply = client.post(JACOBIAN, json=BODY)
    stages = dict(re.findall(r"(\w+);dur=([\d.]+)", reply.headers["server-timing"]))
    assert list(stages) == ["decode", "queue", "compute", "encode"]
    assert (float(stages["queue"]), float(stages["compute"])) == (250, 500)
    assert set(reply.json()["meta"]["timings"]) == {"decode", "queue", "compute"}


@pytest.mark.parametrize("medium", [media.JSON, media.MSGPACK])
def test_a_dry_run_is_answered_without_data_in_either_medium(client: TestClient, medium: str) -> None:
    reply = client.post(JACOBIAN, json={**BODY, "dry_run": True}, headers={"Accept": medium})
    told = reply.json() if medium == media.JSON else msgpack.unpackb(reply.content)
    assert told["tensors"] == {"value": {"dtype": "float32", "shape": [2, 4, 5, 3]}}
    assert told["meta"]["dry_run"] is True


def test_a_large_answer_in_msgpack_is_the_same_sent_in_pieces(fleet: StandIn) -> None:
    bodies = []
    for threshold in (100, 1 << 30):
        with client_of(fleet, stream_threshold=threshold) as client:
            reply = client.post(JACOBIAN, json=BODY, headers={"Accept": media.MSGPACK})
        assert int(reply.headers["content-length"]) == len(reply.content)
        assert {"decode", "encode"} <= set(re.findall(r"(\w+);dur", reply.headers["server-timing"]))
        bodies.append(msgpack.unpackb(reply.content))
    assert bodies[0]["tensors"] == bodies[1]["tensors"]
    assert bodies[0]["axes"] == bodies[1]["axes"]


def test_a_request_has_a_deadline_which_it_may_lower(fleet: StandIn) -> None:
    fleet.delay = 30
    with client_of(fleet, deadline=0.2) as client:
        for header in ({}, {"X-Request-Timeout": "0.05"}, {"X-Request-Timeout": "100"}):
            reply = client.post(JACOBIAN, json=BODY, headers=header)
            assert (reply.status_code, reply.json()["code"]) == (504, "deadline")
    assert fleet.cancelled == 3
    assert [line.split()[-1] for line in fleet.log if line.startswith("ask")] == ["0.2", "0.0", "0.2"]


@pytest.mark.parametrize("wrong", ["soon", "0", "-1", "nan"])
def test_a_deadline_that_is_none_is_refused(client: TestClient, wrong: str) -> None:
    reply = client.post(JACOBIAN, json=BODY, headers={"X-Request-Timeout": wrong})
    assert (reply.status_code, reply.json()["code"]) == (422, "bad_parameter")


def test_a_body_over_the_limit_is_refused_by_its_header_unread(fleet: StandIn) -> None:
    sent, read = asyncio.run(_asgi(fleet, [b"x"], {"content-length": "20001"}, body_limit=20_000))
    assert (sent["status"], json.loads(sent["body"])["code"], read) == (413, "body_too_large", 0)


def test_a_body_over_the_limit_is_refused_while_it_streams_in(fleet: StandIn) -> None:
    sent, read = asyncio.run(_asgi(fleet, [b"x" * 8000] * 100, {}, body_limit=20_000))
    assert (sent["status"], json.loads(sent["body"])["code"], read) == (413, "body_too_large", 3)


def test_a_client_that_goes_away_cancels_its_request(fleet: StandIn) -> None:
    fleet.delay = 30
    sent, _ = asyncio.run(_asgi(fleet, [json.dumps(BODY).encode()], {}))
    assert (sent, fleet.cancelled) == ({}, 1)


async def _asgi(
    fleet: StandIn, chunks: list[bytes], headers: dict[str, str], **settings: Any
) -> tuple[dict[str, Any], int]:
    """The reply to a POST of `chunks` from a client that hangs up after the last, and how many of them were read."""
    app = create_app(Settings(**settings), fleet)  # type: ignore[arg-type]
    left = list(chunks)
    reply: dict[str, Any] = {}

    async def receive() -> dict[str, Any]:
        if not left:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}

    async def send(message: Any) -> None:
        reply.update({name: message[name] for name in ("status", "body") if name in message})

    named = {"content-type": "application/json", **headers}
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "method": "POST",
        "path": JACOBIAN,
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in named.items()],
    }
    await app(scope, receive, send)
    return reply, len(chunks) - len(left)


def test_large_bodies_are_packed_off_the_loop(fleet: StandIn) -> None:
    body = {**BODY, "inputs": np.zeros((2, 30_000, 3)).tolist()}
    with client_of(fleet) as client:
        assert client.post(JACOBIAN, json=body, headers={"Accept": media.MSGPACK}).status_code == 200


def test_keys_are_needed_once_there_are_any(fleet: StandIn) -> None:
    with client_of(fleet, api_keys=("first", "zweit\xe9")) as client:
        assert client.get("/v2/health/live").status_code == client.get("/v2/health/ready").status_code == 200
        for path in ("/v2", "/metrics", "/docs", "/nowhere", "/v2/models/toy/ready"):
            for given in ("", "Bearer", "Bearer f", "Basic first"):
                reply = client.get(path, headers={"Authorization": given})
                assert (reply.status_code, reply.json()["code"]) == (401, "unauthorized")
                assert reply.headers["www-authenticate"].startswith("Bearer")
        for key in ("first", "zweit\xe9"):
            assert client.get("/v2", headers={"Authorization": f"bearer {key}".encode()}).status_code == 200


def test_keys_are_not_shown() -> None:
    assert "hush" not in repr(Settings(api_keys=("hush",)))


def test_without_keys_a_web_page_of_another_site_is_refused(fleet: StandIn) -> None:
    away, here, home = "https://example.org", "http://localhost:3000", "http://box:8000"
    with client_of(fleet) as client:
        for origin in (away, "null", "http://[", "http://localhost.example.org", "http://127.0.0.1.example.org"):
            assert client.get("/v2", headers={"Origin": origin}).json()["code"] == "unauthorized"
        assert client.get("/v2", headers={"Origin": home, "Host": "box:8000"}).status_code == 401
        assert client.get("/v2", headers={"Origin": here}).status_code == 200
    with client_of(fleet, allow_anonymous=True) as client:
        assert client.get("/v2", headers={"Origin": home, "Host": "box:8000"}).status_code == 200
        assert client.get("/v2", headers={"Origin": away}).status_code == 401


@pytest.mark.parametrize(
    ("settings", "refused"),
    [
        ({}, False),
        ({"host": "localhost"}, False),
        ({"host": "::1"}, False),
        ({"host": "127.8.8.8"}, False),
        ({"host": "0.0.0.0"}, True),
        ({"host": "::"}, True),
        ({"host": "box.example.org"}, True),
        ({"host": ""}, True),
        ({"host": "0.0.0.0", "api_keys": ("k",)}, False),
        ({"host": "0.0.0.0", "allow_anonymous": True}, False),
    ],
)
def test_other_machines_are_served_only_with_keys_or_by_name(settings: dict[str, Any], refused: bool) -> None:
    reason = refusal(Settings(**settings))
    assert (reason is not None) == refused
    assert reason is None or ("\n" not in reason and "TAPEHEAD_API_KEYS" in reason and "--allow-anonymous" in reason)


def test_every_setting_is_in_the_table_with_its_default() -> None:
    assert [one.name for one in SETTINGS] == [one.name for one in fields(Settings)]
    assert replace(Settings(), **{one.name: one.default for one in SETTINGS}) == Settings()
    assert all(one.doc for one in SETTINGS)
    keys = next(one for one in SETTINGS if one.name == "api_keys")
    assert (keys.flag, keys.variable, keys.read(" a, b,")) == ("--api-keys", "TAPEHEAD_API_KEYS", ("a", "b"))


def test_sizes_and_switches_are_read_as_people_write_them() -> None:
    assert [read_bytes(text) for text in ("12", "1KiB", "1.5 MB", "2gib")] == [12, 1024, 1_500_000, 2**31]
    assert [read_bool(text) for text in ("1", "Yes", "off")] == [True, True, False]
    for wrong in ("much", "1 parsec", "", "-1", "nan", "1e9"):
        with pytest.raises(ValueError, match="bytes"):
            read_bytes(wrong)


@pytest.mark.parametrize("setting", NARROW, ids=lambda one: one.name)
def test_a_setting_that_cannot_be_read_says_so(setting: Any) -> None:
    with pytest.raises(ValueError, match="no such thing"):
        setting.read("no such thing")


def test_the_repository_is_listed_loaded_and_unloaded(client: TestClient, fleet: StandIn) -> None:
    assert [one["state"] for one in client.post("/v2/repository/index").json()] == ["UNAVAILABLE", "READY"]
    ready = client.post("/v2/repository/index", content=b'{"ready": true}').json()
    assert [(one["name"], one["version"]) for one in ready] == [("toy", "2")]
    assert client.post("/v2/repository/models/toy/load").status_code == 200
    body = {"parameters": {"unload_dependents": False}}
    assert client.post("/v2/repository/models/toy/unload", json=body).status_code == 200
    assert fleet.log[1:] == ["load toy", "unload toy"]
    for wrong in ({"parameters": {"config": "{}"}}, {"override": 1}):
        assert client.post("/v2/repository/models/toy/load", json=wrong).json()["code"] == "bad_parameter"


def test_the_description_is_made_from_the_table_of_operations(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    for operation in OPERATIONS.values():
        post = document["paths"][f"/v2/models/{{model}}/{operation.name}"]["post"]
        assert set(post["requestBody"]["content"]) == {media.MSGPACK, media.JSON}
        assert set(post["responses"]["200"]["content"]) == {media.MSGPACK, media.JSON, *media.PICTURES}
        reference = post["requestBody"]["content"][media.JSON]["schema"]["$ref"]
        schema = document["components"]["schemas"][reference.rpartition("/")[2]]
        names = {parameter.name for parameter in operation.parameters}
        assert set(schema["properties"]) == {"inputs", "lengths", "initial_states"} | names
        assert set(schema["required"]) == {"inputs"} | {p.name for p in operation.parameters if p.required}
    references = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(document)))
    assert references <= set(document["components"]["schemas"])


def test_the_documentation_needs_no_network_and_no_script(client: TestClient) -> None:
    page = client.get("/docs")
    assert page.headers["content-security-policy"].startswith("default-src 'self'")
    assert not re.search(r"""<script|(src|href)=["'](https?:)?//""", page.text)
    assert all(f"/v2/models/{{model}}/{name}" in page.text for name in OPERATIONS)


def test_the_figures_are_the_applications_own(client: TestClient, fleet: StandIn) -> None:
    client.post(JACOBIAN, json=BODY)
    client.get("/nowhere")
    page = client.get("/metrics")
    assert page.headers["content-type"].startswith("text/plain")
    assert 'tapehead_requests_total{method="POST",path="/v2/models/{model}/{operation}",status="200"} 1.0' in page.text
    assert 'tapehead_requests_total{method="GET",path="unknown",status="404"} 1.0' in page.text
    assert 'tapehead_stage_seconds_sum{operation="jacobian",stage="compute"} 0.5' in page.text
    with client_of(fleet) as another:
        assert "jacobian" not in another.get("/metrics").text


@pytest.mark.parametrize("http", ["h11", "httptools"])
def test_a_server_told_to_stop_refuses_new_work_and_finishes_what_it_took(http: str) -> None:
    pytest.importorskip(http)
    worker, settings = Held(), Settings(log_level="error")
    fleet = Fleet(lambda _: worker, live=["toy"])  # type: ignore[arg-type,return-value]
    with listen("127.0.0.1", 0) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        server = Server(uvicorn_config(create_app(settings, fleet), settings, http), fleet, graceful=50)
        serving = threading.Thread(target=server.run, args=([listener],))
        serving.start()
        while httpx2.get(f"{url}/v2/health/ready").status_code != 200:
            pass
        replies: list[httpx2.Response] = []
        asking = threading.Thread(target=lambda: replies.append(httpx2.post(url + JACOBIAN, json=BODY, timeout=60)))
        asking.start()
        assert worker.taken.wait(60)
        server.handle_exit(signal.SIGTERM, None)
        while httpx2.get(f"{url}/v2/health/ready").status_code == 200:
            pass
        refused = httpx2.post(url + JACOBIAN, json=BODY)
        assert (refused.status_code, refused.json()["code"], refused.headers["retry-after"]) == (503, "draining", "1")
        assert httpx2.get(f"{url}/v2/health/live").status_code == 200
        worker.free.set()
        asking.join(60)
        serving.join(60)
    assert [reply.status_code for reply in replies] == [200]
    assert not serving.is_alive()


def test_small_replies_are_sent_at_once() -> None:
    with listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        connection, _ = listener.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_the_page_on_http_names_every_error_with_its_status() -> None:
    page = (Path(__file__).parents[1] / "docs" / "http.md").read_text("utf-8")
    rows = re.findall(r"^\| (\d{3}) \| (.*?) \|", page, re.M)
    told = {code: int(status) for status, codes in rows for code in codes.split("`")[1::2]}
    abstract = {"bad_request", "unavailable", "unreachable"}
    assert told == {code: kind.status for code, kind in errors.BY_CODE.items() if code not in abstract}
