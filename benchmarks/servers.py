"""The servers that are held against each other: started, found ready, asked once, ended.

Each is a process of its own, on a port of 127.0.0.1 that it chose. `Server` says how it is asked and how its answer is
read, so that all of them can be found to agree.
"""

from __future__ import annotations

import base64
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import httpx2
import msgpack
import numpy as np

from benchmarks.problems import Array

READY_S = 90
MSGPACK = {"Content-Type": "application/vnd.msgpack"}
BASE64 = {"Content-Type": "application/json", "Accept": "application/json+base64"}


@dataclass(frozen=True)
class Server:
    """A server that is up: where the question goes, its body in a file, its headers, and how a reply is read."""

    url: str
    body: Path
    headers: Mapping[str, str] = field(default_factory=lambda: MSGPACK)
    read: Callable[[bytes], Array] = lambda body: _from_msgpack(body)

    def answer(self) -> Array:
        """What it answers."""
        reply = httpx2.post(self.url, content=self.body.read_bytes(), headers=dict(self.headers), timeout=READY_S)
        return self.read(reply.raise_for_status().content)


@contextmanager
def tapehead(models: Path, *options: str) -> Iterator[str]:
    """Ours over a folder of models, all of them loaded; its address."""
    command = [sys.executable, "-m", "tapehead", "serve", str(models), "--port", "0", *options]
    with process(command, stderr=subprocess.PIPE) as started:
        base = re.search(r"http://\S+", until(started.stderr, "listening on"))
        assert base is not None
        drain(started.stderr)
        wait(f"{base[0]}/v2/health/ready")
        yield base[0]


@contextmanager
def plain(kind: str, folder: Path) -> Iterator[str]:
    """A server of `benchmarks.plain`; its address."""
    command = [sys.executable, "-m", "benchmarks.plain", kind, str(folder)]
    with process(command, stdout=subprocess.PIPE) as started:
        yield until(started.stdout, "http://").strip()


@contextmanager
def tesseract(python: Path, folder: Path, sequence: Array) -> Iterator[Server]:
    """Tesseract Core round `benchmarks.tesseract_api`, in the environment that `python` belongs to."""
    api = Path(__file__).with_name("tesseract_api.py")
    environment = {"TESSERACT_API_PATH": str(api), "PYTHONPATH": str(api.parents[1]), "JAX_PLATFORMS": "cpu"}
    environment |= {"TESSERACT_OUTPUT_PATH": str(folder), "PATH": "/usr/bin:/bin"}
    body = folder / "tesseract.json"
    body.write_text(_tesseract_body(sequence), "utf-8")
    port = free_port()
    command = [str(python), "-m", "tesseract_core.runtime.cli", "serve", "--port", str(port)]
    with process(command, env=environment, cwd=folder, stdout=subprocess.DEVNULL):
        wait(f"http://127.0.0.1:{port}/health")
        yield Server(f"http://127.0.0.1:{port}/jacobian", body, BASE64, _from_base64)


@contextmanager
def process(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A process that is told to end, and waited for, in the end."""
    with subprocess.Popen(command, text=True, **{"stderr": subprocess.DEVNULL, **options}) as started:
        try:
            yield started
        finally:
            started.terminate()
            started.wait(60)


def until(stream: IO[str] | None, text: str) -> str:
    """The first line that holds the text."""
    assert stream is not None
    for line in stream:
        if text in line:
            return line
    raise RuntimeError(f"the server ended before it said {text!r}")


def drain(stream: IO[str] | None) -> None:
    """Reads on beside the work, so that a server that logs never waits for a reader."""
    assert stream is not None
    threading.Thread(target=lambda: [None for _ in stream], daemon=True).start()


def wait(url: str) -> None:
    """Waits until the address answers well."""
    end = time.monotonic() + READY_S
    while not _well(url):
        if time.monotonic() > end:
            raise RuntimeError(f"{url} is not ready after {READY_S} s")
        time.sleep(0.1)


def _well(url: str) -> bool:
    try:
        return httpx2.get(url).status_code == 200
    except httpx2.TransportError:
        return False


def free_port() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


def _from_msgpack(body: bytes) -> Array:
    tensor = msgpack.unpackb(body)["tensors"]["value"]
    return np.frombuffer(tensor["data"], tensor["dtype"]).reshape(tensor["shape"])


def _tesseract_body(sequence: Array) -> str:
    import json

    data = {"buffer": base64.b64encode(sequence.tobytes()).decode(), "encoding": "base64"}
    x = {"object_type": "array", "shape": sequence.shape, "dtype": sequence.dtype.name, "data": data}
    return json.dumps({"inputs": {"x": x}, "jac_inputs": ["x"], "jac_outputs": ["h"]})


def _from_base64(body: bytes) -> Array:
    import json

    tensor = json.loads(body)["h"]["x"]
    values = np.frombuffer(base64.b64decode(tensor["data"]["buffer"]), tensor["dtype"])
    return values.reshape(1, *tensor["shape"])
