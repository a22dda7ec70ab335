"""Large answers: passed on while they are computed, assembled in place, and never short."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import msgpack
import numpy as np
import pytest

import tapehead
from serving import serving
from tapehead import errors
from tapehead.engine import Model, seeds
from tapehead.engine.jacobian import jacobian
from tapehead.operations import Array, Request, Result, check
from tapehead.server.streaming import PIECE, CutShort, Growing, Streamed, closing_bytes
from tapehead.wire.messages import MSGPACK, decode_reply
from tapehead.wire.streams import reply_pieces
from tapehead.worker.protocol import Growth, ModelRef

MIB = 2**20
REF = ModelRef("m", 3)


# -- the engine fills from the start -----------------------------------------------------------------------------------


class Watched:
    """A sink that keeps what was filled each time it was told so."""

    def __init__(self) -> None:
        self.array = np.zeros(0)
        self.prefixes: list[bytes] = []

    def open(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        assert name == "value"
        self.array = np.full(shape, np.nan, dtype)
        return self.array

    def fill(self, size: int) -> None:
        self.prefixes.append(self.array.tobytes()[:size])


@pytest.fixture(scope="module")
def network() -> keras.Model:
    keras.utils.set_random_seed(3)
    return keras.Sequential([keras.Input((None, 2)), keras.layers.Masking(), keras.layers.LSTM(5, name="lstm")])


@pytest.mark.parametrize(
    ("of", "wrt", "budget", "fills"),
    [
        ("lstm.h", "inputs", 1 << 40, 1),  # all at once
        ("lstm.h", "inputs", 16 * 5600, 3),  # a row at a time
        ("lstm.h", "inputs", 16 * 2 * 5600, 2),  # two rows, then the third
        ("lstm.h", "inputs", 10_000, 10),  # some entries of one row
        ("lstm.h[-3:, 1]", "lstm.c[-2]", 1, 9),  # one entry at a time
        ("lstm.h", "lstm/kernel.forget_gate", 10_000, 10),
    ],
)
def test_a_growing_jacobian_is_final_as_far_as_it_says_and_the_same(
    network: keras.Model, monkeypatch: pytest.MonkeyPatch, of: str, wrt: str, budget: int, fills: int
) -> None:
    model = Model(network, "m")
    x = np.random.default_rng(0).normal(size=(3, 14, 2))
    asked = Request({"": x}, {"": np.array([14, 9, 11])}, {}, {"of": of, "wrt": wrt})
    request, plans = check(model.card, "jacobian", asked)
    whole = jacobian(model, request)
    monkeypatch.setattr(seeds, "CHUNK_BYTES", budget)
    sink = Watched()
    grown = jacobian(model, request, sink)
    assert grown.tensors["value"] is sink.array
    assert grown.axes == whole.axes
    assert sink.array.shape == plans[0].shape
    np.testing.assert_allclose(sink.array, whole.tensors["value"], rtol=1e-5, atol=1e-7)
    assert all(sink.array.tobytes().startswith(prefix) for prefix in sink.prefixes)
    sizes = [len(prefix) for prefix in sink.prefixes]
    assert sizes == sorted(sizes)
    assert sizes[-1] == sink.array.nbytes
    assert len(set(sizes)) >= fills


@pytest.mark.parametrize(
    "more", [{"lag": 1}, {"reduce": "norm"}, {"wrt": ["inputs", "lstm.h"]}, {"wrt": "lstm.h.initial[0]"}]
)
def test_what_does_not_grow_from_its_start_leaves_the_sink_alone(network: keras.Model, more: dict[str, Any]) -> None:
    model = Model(network, "m")
    asked = Request({"": np.ones((1, 4, 2))}, None, {}, {"of": "lstm.h", "wrt": "inputs", **more})
    sink = Watched()
    assert jacobian(model, check(model.card, "jacobian", asked)[0], sink).tensors
    assert sink.prefixes == []


# -- the server sends what is there ------------------------------------------------------------------------------------

VALUE = np.arange(600_000, dtype=np.float32).reshape(2, 300_000)
RESULT = Result({"value": VALUE}, {"value": ("batch", "of.unit")}, {"route": "reverse", "finite": True})


class Connection:
    """What a response says, and when its client goes away."""

    def __init__(self, leaves_after: int = 1 << 60) -> None:
        self.headers: dict[str, str] = {}
        self.body = b""
        self.ended = False
        self._leaves_after = leaves_after
        self._gone = asyncio.Event()

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            return
        assert len(message["body"]) <= PIECE
        self.body += message["body"]
        self.ended = not message["more_body"]
        if len(self.body) > self._leaves_after:
            self._gone.set()
        await asyncio.sleep(0)

    async def receive(self) -> Any:
        await self._gone.wait()
        return {"type": "http.disconnect"}


async def grow(growth: Growth, error: Exception | None = None, pause_s: float = 0.0) -> tuple[Result, ModelRef]:
    """The work of a fleet: the numbers come in three parts, then the end or an error."""
    array = np.zeros_like(VALUE)
    growth.model = REF
    growth.open("value", array)
    for part in range(1, 4):
        await asyncio.sleep(pause_s)
        end = part * VALUE.size // 4
        array.reshape(-1)[:end] = VALUE.reshape(-1)[:end]
        growth.fill(4 * end)
    await asyncio.sleep(pause_s)
    if error is not None:
        raise error
    array[:] = VALUE
    return RESULT, REF


async def streamed(connection: Connection, kept: int = 4096, **how: Any) -> asyncio.Future[Any]:
    growth = Growth()
    working = asyncio.ensure_future(grow(growth, **how))
    await growth.opened()
    response = Growing(working, growth, lambda result: result, kept, MSGPACK, {"Server-Timing": "decode;dur=1"})
    await response({"type": "http"}, connection.receive, connection.send)
    return working


def test_an_answer_is_sent_as_it_grows_with_its_length_said_beforehand() -> None:
    connection = Connection()
    asyncio.run(streamed(connection, pause_s=0.01))
    assert connection.ended
    assert int(connection.headers["content-length"]) == len(connection.body)
    assert connection.headers["content-type"] == MSGPACK
    reply = decode_reply(connection.body, MSGPACK)
    np.testing.assert_array_equal(reply.result.tensors["value"], VALUE)
    assert (reply.model, reply.version, reply.result.meta) == ("m", 3, RESULT.meta)
    assert msgpack.unpackb(connection.body)["meta"]["padding"].isspace()


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"error": errors.WorkerDied("killed")}, "worker_died: killed"),
        ({"error": errors.Deadline("too late"), "pause_s": 0.01}, "deadline: too late"),
        ({"kept": 40}, "over the 40 kept"),
    ],
)
def test_what_cannot_be_ended_is_cut_short(how: dict[str, Any], words: str) -> None:
    connection = Connection()
    with pytest.raises(CutShort, match=words):
        asyncio.run(streamed(connection, **how))
    assert not connection.ended
    assert 0 < len(connection.body) < int(connection.headers["content-length"])


def test_a_client_that_leaves_in_the_middle_ends_the_work() -> None:
    async def left() -> tuple[bool, bool]:
        growth, connection = Growth(), Connection(leaves_after=PIECE)
        working = asyncio.ensure_future(grow(growth, pause_s=0.2))
        await growth.opened()
        response = Growing(working, growth, lambda result: result, 4096, MSGPACK, {})
        with pytest.raises(Exception) as caught:  # noqa: PT011  # starlette's own, which has no words
            await response({"type": "http"}, connection.receive, connection.send)
        return type(caught.value).__name__ == "ClientDisconnect", working.cancelled()

    assert asyncio.run(left()) == (True, True)


def test_a_large_answer_that_is_there_is_sent_from_where_it_lies() -> None:
    connection = Connection()
    response = Streamed(reply_pieces(RESULT, "m", 3), MSGPACK, {})
    asyncio.run(response({"type": "http"}, connection.receive, connection.send))
    assert connection.ended
    assert int(connection.headers["content-length"]) == len(connection.body)
    np.testing.assert_array_equal(decode_reply(connection.body, MSGPACK).result.tensors["value"], VALUE)


def test_room_is_kept_for_a_number_for_every_timestep_of_a_sample() -> None:
    request = Request({"a": np.zeros((50, 1000, 2)), "b": np.zeros((50,))})
    meta = {"valid": [[True] * 1000] * 50, "numbers": [[0.5] * 900] * 50}
    assert len(msgpack.packb(meta)) < closing_bytes(request)


# -- all of it, over a real server and in process ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    """The address of a server of one model of 64 units, and the number of its process."""
    folder = tmp_path_factory.mktemp("models")
    keras.utils.set_random_seed(0)
    layers = [keras.Input((None, 2)), keras.layers.LSTM(64, return_sequences=True, name="lstm"), keras.layers.Dense(1)]
    keras.Sequential(layers).save(folder / "wide.keras")
    with serving(folder, deadline=300.0) as server:
        yield server.url, server.process.pid


@pytest.fixture
def ask(server: tuple[str, int]) -> Iterator[Callable[..., tapehead.Answer]]:
    """Asks for the Jacobian of every state with respect to every other."""

    def asked(x: Array, of: str = "lstm.h", **options: Any) -> tapehead.Answer:
        with tapehead.Client(server[0], timeout=300, **options) as client:
            return client.model("wide").jacobian(x, of=of, wrt="lstm.h")

    asked(np.zeros((1, 3, 2)), retries=20)  # once the model is there
    return asked


X = np.random.default_rng(0).normal(size=(1, 85, 2)).astype(np.float32)
needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")


def peak(pid: int) -> int:
    """The most bytes that a process has had in memory so far."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


@needs_proc
def test_an_answer_over_100_MB_streams_and_the_http_process_holds_no_copy(
    server: tuple[str, int], ask: Callable[..., tapehead.Answer]
) -> None:
    told: list[tuple[int, int | None]] = []
    before = peak(server[1])
    answer = ask(X, progress=lambda done, total: told.append((done, total)))
    assert answer.value.nbytes == (85 * 64) ** 2 * 4 > 100e6
    assert peak(server[1]) < answer.value.nbytes + 64e6
    assert peak(server[1]) - before < 64e6
    assert answer.value.flags.aligned
    assert "padding" not in answer.meta
    dones, totals = zip(*told, strict=True)
    assert list(dones) == sorted(set(dones))
    assert {dones[-1]} == set(totals)
    part = ask(X, of="lstm.h[40:44]")
    np.testing.assert_allclose(answer.value[:, 40:44], part.value, rtol=1e-4, atol=1e-6)
    assert not answer.value[:, 40, :, 41:].any()


@needs_proc
def test_a_worker_killed_in_the_middle_of_a_stream_is_one_error_and_the_next_request_is_answered(
    server: tuple[str, int], ask: Callable[..., tapehead.Answer]
) -> None:
    killed: list[int] = []

    def kill(done: int, total: int | None) -> None:
        if not killed:
            (worker,) = Path(f"/proc/{server[1]}/task/{server[1]}/children").read_text().split()
            os.kill(int(worker), signal.SIGKILL)
            killed.append(done)

    with pytest.raises(errors.Unreachable, match="no answer") as caught:
        ask(X, progress=kill, retries=0)
    assert killed[0] < 100e6
    assert caught.value.request_id
    assert ask(X[:, :10], retries=20).value.shape == (1, 10, 64, 10, 64)


def test_a_large_answer_in_process_is_the_same(ask: Callable[..., tapehead.Answer]) -> None:
    keras.utils.set_random_seed(0)
    layers = [keras.Input((None, 2)), keras.layers.LSTM(64, return_sequences=True, name="lstm"), keras.layers.Dense(1)]
    x = np.concatenate([X[:, :46], X[:, 20:66]])
    with tapehead.Client(models={"wide": keras.Sequential(layers)}) as client:
        answer = client.model("wide").jacobian(x, of="lstm.h", wrt="lstm.h")
    assert answer.value.nbytes > 64 * MIB
    np.testing.assert_allclose(answer.value, ask(x).value, rtol=1e-4, atol=1e-6)
