"""What a client is tried against: outcomes for its flows, and a server over real HTTP, that say what they are told."""

import asyncio
import inspect
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

import tapehead
from tapehead.client.asking import Subject, ask
from tapehead.client.calls import Manner, Received
from tapehead.client.inputs import make_request
from tapehead.client.many import AsyncAnswers
from tapehead.client.models import Model
from tapehead.errors import problem
from tapehead.operations import Result
from tapehead.wire.messages import JSON, MSGPACK, PROBLEM_JSON, encode_plain, encode_reply

METADATA = {
    "name": "sunspots",
    "versions": ["1"],
    "points": {
        "lstm.h": {"shape": [None, 3], "axes": ["timestep", "unit"], "dtype": "float32", "differentiable": True}
    },
    "recurrent": {
        "lstm": {"cell": "LSTM", "units": 3, "states": ["h", "c"], "gates": ["forget_gate"], "direction": "forward"},
        "back": {"cell": "GRU", "units": 3, "states": ["h"], "gates": [], "direction": "backward"},
    },
    "operations": ["states", "jacobian", "vjp", "saliency", "hvp"],
}
X = np.ones((2, 4, 1), np.float32)
SUNSPOTS = Subject("sunspots", None, METADATA)
MANNER = Manner({}, timeout=60.0, retries=2, make_id=lambda: "id-1", random=lambda: 0.0, clock=lambda: 1_000_000.0)


def received(status=200, body=b"", media=MSGPACK, **headers):
    return Received(status, {"content-type": media, **{k.replace("_", "-"): v for k, v in headers.items()}}, body)


def refused(error, **headers):
    return received(error.status, bytes(encode_plain(problem(error), JSON)), PROBLEM_JSON, **headers)


def answered(tensors=None, axes=None, meta=None):
    tensors = {"value": X} if tensors is None else tensors
    axes = axes or {name: ("batch", *(f"axis{n}" for n in range(array.ndim - 1))) for name, array in tensors.items()}
    return received(body=encode_reply(Result(tensors, axes, meta or {}), "sunspots", 1, MSGPACK))


def drive(flow, outcomes):
    """What a flow gives when its calls have these outcomes (or those a function finds), and the calls."""
    calls = []
    scripted = None if callable(outcomes) else iter(outcomes)
    try:
        calls.append(next(flow))
        while True:
            calls.append(flow.send(outcomes(calls[-1]) if scripted is None else next(scripted)))
    except StopIteration as done:
        return done.value, calls


def asked(operation, inputs=X, lengths=None, manner=MANNER, initial_states=None, **parameters):
    return ask(SUNSPOTS, operation, make_request(inputs, lengths, initial_states, parameters), manner)


@dataclass
class Reply:
    """What the scripted server says: `keep` bytes of the body at most, after `delay` seconds."""

    status: int = 200
    body: bytes = b""
    media: str = MSGPACK
    headers: dict = field(default_factory=dict)
    keep: int | None = None
    delay: float = 0.0


class Scripted(ThreadingHTTPServer):
    """An HTTP server that says what it is told to, in that order, and remembers what it was asked.

    `script` is the replies, or a function that finds one for a request's body. `connections` counts those that were
    made, `most` the requests that were there at one time.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self):
        self.script, self.seen, self.over = [], [], threading.Event()
        self.connections = self.most = self._present = 0
        self._counting = threading.Lock()
        super().__init__(("127.0.0.1", 0), Handler)

    def get_request(self):
        self.connections += 1
        return super().get_request()

    @contextmanager
    def counted(self):
        with self._counting:
            self._present += 1
            self.most = max(self.most, self._present)
        try:
            yield
        finally:
            with self._counting:
                self._present -= 1

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        with self.server.counted():
            self.server.seen.append((self.command, self.path, dict(self.headers), body))
            known = Reply(body=bytes(encode_plain(METADATA, JSON)), media=JSON)
            reply = known if self.command == "GET" else self.scripted(body)
            self.server.over.wait(reply.delay)
        self.say(reply)

    def scripted(self, body):
        script = self.server.script
        return script(body) if callable(script) else script.pop(0)

    def say(self, reply):
        self.send_response(reply.status)
        for name, value in {"Content-Type": reply.media, "Content-Length": len(reply.body), **reply.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(reply.body[: reply.keep])
        self.close_connection = reply.keep is not None

    do_GET = do_POST = answer

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with Scripted() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.over.set()
        server.shutdown()
        thread.join()


class Awaited:
    """Something of an AsyncClient with every awaitable awaited, so that one test serves both clients."""

    def __init__(self, thing, runner):
        self._thing, self._runner = thing, runner

    def __getattr__(self, name):
        found = getattr(self._thing, name)
        if not callable(found):
            return found
        return lambda *args, **kwargs: self._settled(found(*args, **kwargs))

    def _settled(self, result):
        if inspect.isawaitable(result):
            result = self._runner.run(result)
        return Awaited(result, self._runner) if isinstance(result, Model | AsyncAnswers) else result

    def __iter__(self):
        return self

    def __next__(self):
        try:
            return self._runner.run(self._next())
        except StopAsyncIteration:
            raise StopIteration from None

    async def _next(self):
        return await anext(self._thing)

    def close(self):
        self._runner.run(self._thing.aclose())

    def __repr__(self):
        return repr(self._thing)


@pytest.fixture(params=[tapehead.Client, tapehead.AsyncClient])
def connect(request):
    """Opens a client of either kind, used the same way."""

    @contextmanager
    def opened(*args, **kwargs):
        if request.param is tapehead.Client:
            with tapehead.Client(*args, **kwargs) as client:
                yield client
            return
        with asyncio.Runner() as runner:
            client = tapehead.AsyncClient(*args, **kwargs)
            runner.run(client.__aenter__())
            try:
                yield Awaited(client, runner)
            finally:
                runner.run(client.__aexit__(None, None, None))

    return opened


def saying(value=X, **options):
    body = encode_reply(
        Result({"value": value}, {"value": ("batch", "timestep", "feature")}, {}), "sunspots", 1, MSGPACK
    )
    return Reply(body=bytes(body), **options)


def complaining(error, **headers):
    return Reply(error.status, bytes(encode_plain(problem(error), JSON)), PROBLEM_JSON, headers)
