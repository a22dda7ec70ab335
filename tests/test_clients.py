"""Both clients over real HTTP, and what they do when a server, or the way to it, misbehaves."""

import asyncio
import re
import socket
import threading
import time

import msgpack
import numpy as np
import pytest

import tapehead
from scripted import (
    Reply,
    X,
    complaining,
    saying,
)
from tapehead.client.calls import Call
from tapehead.client.carriers import options
from tapehead.client.inprocess import lifespan
from tapehead.client.progress import LARGE
from tapehead.errors import (
    BY_CODE,
    BadParameter,
    Deadline,
    QueueFull,
    UnknownOperation,
    Unreachable,
)
from tapehead.operations import Request
from tapehead.wire.messages import JSON, encode_plain


def test_a_question_goes_out_and_its_answer_comes_back(server, connect):
    server.script = [saying()]
    with connect(server.url, api_key="secret") as client:
        answer = client.model("sunspots").vjp(X, of="lstm.h[-1]", wrt="inputs")
    np.testing.assert_array_equal(answer.value, X)
    assert not answer.value.flags.writeable
    _, path, headers, body = server.seen[1]
    assert path == "/v2/models/sunspots/vjp"
    assert headers["authorization"] == "Bearer secret"
    assert re.fullmatch("[0-9a-f]{32}", headers["x-request-id"])
    assert msgpack.unpackb(body)["of"] == "lstm.h[-1]"


def test_models_are_listed(server, connect):
    server.script = [
        Reply(body=bytes(encode_plain([{"name": "a", "version": "1", "state": "READY"}], JSON)), media=JSON)
    ]
    with connect(server.url) as client:
        assert client.models() == [tapehead.ModelEntry("a", 1, "READY", "")]


def test_the_servers_error_is_raised_as_its_class(server, connect):
    server.script = [complaining(UnknownOperation("no operation 'hvp'"))]
    with connect(server.url) as client, pytest.raises(UnknownOperation, match="hvp"):
        client.model("sunspots").hvp(X)


def test_a_busy_server_is_asked_again_after_the_time_it_names(server, connect):
    server.script = [complaining(QueueFull(), **{"Retry-After": "1"}), saying()]
    with connect(server.url) as client:
        started = time.monotonic()
        client.model("sunspots").infer(X)
        assert time.monotonic() - started >= 1
    first, second = (headers for method, _, headers, _ in server.seen if method == "POST")
    assert first["x-request-id"] == second["x-request-id"]


def test_an_answer_that_is_cut_off_is_an_error_never_a_short_array(server, connect):
    server.script = [saying(keep=40)]
    with connect(server.url, retries=0) as client, pytest.raises(Unreachable, match="no answer"):
        client.model("sunspots").infer(X)


def test_an_answer_that_is_cut_off_is_asked_for_again(server, connect):
    server.script = [saying(keep=40), saying()]
    with connect(server.url) as client:
        np.testing.assert_array_equal(client.model("sunspots").infer(X).value, X)


def test_no_server_is_unreachable_and_the_error_names_the_address(connect):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with connect(url, retries=0) as client, pytest.raises(Unreachable, match=re.escape(url)) as caught:
            client.models()
    assert caught.value.request_id


def test_a_server_that_says_nothing_in_time_is_a_deadline(server, connect, monkeypatch):
    monkeypatch.setattr("tapehead.client.carriers.GRACE", 0.1)
    server.script = [saying(delay=30)]
    with connect(server.url, timeout=0.2) as client:
        model = client.model("sunspots")
        with pytest.raises(Deadline, match="no answer in time"):
            model.infer(X)
    assert server.seen[-1][2]["x-request-timeout"] == "0.2"


def test_a_large_answer_tells_how_far_it_has_come_and_a_small_one_does_not(server, connect):
    value = np.zeros((2, LARGE // 4, 1), np.float32)
    server.script = [saying(), saying(value)]
    told = []
    with connect(server.url, progress=lambda done, total: told.append((done, total))) as client:
        model = client.model("sunspots")
        model.infer(X)
        assert told == []
        assert model.infer(X).value.shape == value.shape
    dones, totals = zip(*told, strict=True)
    assert len(dones) > 1
    assert list(dones) == sorted(dones)
    assert {dones[-1]} == set(totals)


def test_the_environment_says_where_the_server_is_and_who_asks(server, connect, monkeypatch):
    monkeypatch.setenv("TAPEHEAD_URL", server.url)
    monkeypatch.setenv("TAPEHEAD_API_KEY", "from the environment")
    with connect() as client:
        client.model("sunspots")
        assert repr(client) == f"<{repr(client)[1:].split()[0]} {server.url}: open>"
    assert server.seen[0][2]["authorization"] == "Bearer from the environment"


def test_a_proxy_of_the_environment_does_not_stand_before_this_machine():
    assert options("http://127.0.0.1:8000", 1.0)["trust_env"] is False
    assert options("http://[::1]:8000", 1.0)["trust_env"] is False
    assert options("http://localhost", 1.0)["trust_env"] is False
    assert options("https://gpu.example.org", 1.0)["trust_env"] is True


def test_a_closed_client_says_so_and_closing_again_is_harmless(server):
    client = tapehead.Client(server.url)
    assert repr(client) == f"<Client {server.url}: open>"
    client.close()
    client.close()
    assert repr(client) == f"<Client {server.url}: closed>"
    with pytest.raises(RuntimeError, match="closed"):
        client.models()


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "localhost", "ftp://host", "http://", "http://host:port"])
@pytest.mark.parametrize("kind", [tapehead.Client, tapehead.AsyncClient])
def test_what_is_no_servers_url_is_refused_at_once(kind, url):
    with pytest.raises(BadParameter, match="URL"):
        kind(url)


def test_a_client_is_of_a_server_or_of_models_in_process_not_both():
    with pytest.raises(BadParameter, match="not both"):
        tapehead.Client("http://127.0.0.1:8000", models="models")


def test_one_client_serves_many_threads(server):
    server.script = [saying(np.full((1, 1, 1), n, np.float32)) for n in range(16)]
    with tapehead.Client(server.url) as client:
        model = client.model("sunspots")
        values = []
        threads = [threading.Thread(target=lambda: values.append(model.infer(X).value.item())) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(values) == list(range(16))


# ---- an application's lifespan


async def shortlived(scope, receive, send):
    """An application that raises at its startup, as Starlette's do: it says so, then raises."""
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no such folder"})
    raise FileNotFoundError("no such folder")


async def remembering(scope, receive, send):
    """An application that shares what its lifespan made with its requests."""
    if scope["type"] == "http":
        return await send(scope["state"])
    await receive()
    scope["state"]["made"] = 1
    await send({"type": "lifespan.startup.complete"})
    await receive()
    scope["state"]["ended"] = True
    return await send({"type": "lifespan.shutdown.complete"})


def test_an_application_lives_from_startup_to_shutdown_and_shares_its_state():
    async def live():
        heard = []

        async def hear(state):
            heard.append(state)

        async with lifespan(remembering) as application:
            await application({"type": "http"}, None, hear)
        return heard

    assert asyncio.run(live()) == [{"made": 1}]


def test_an_application_that_cannot_start_raises_its_own_error():
    async def live():
        async with lifespan(shortlived):
            pytest.fail("it did not start")

    with pytest.raises(FileNotFoundError, match="no such folder"):
        asyncio.run(live())


def test_what_the_package_gives_is_listed_in_order():
    public = [name for name in tapehead.__all__ if name != "__version__"]
    assert public == sorted(public)
    assert all(hasattr(tapehead, name) for name in tapehead.__all__)
    leaves = {kind.__name__ for kind in BY_CODE.values()} | {"Unreachable"}
    assert leaves <= set(public)


def test_a_call_without_a_body_is_small():
    assert Call("GET", "/v2").body == b""
    assert Request({}).parameters == {}
