"""The real server as a process of its own: started on a free loopback port, watched until ready, ended."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_POLL, _PATIENCE, _GRACE = 0.1, 180.0, 40.0


class ServerFailed(Exception):
    """The server did not get ready; the message says what it said last."""


@contextmanager
def running(waiting: Callable[[], None] = lambda: None) -> Iterator[str]:
    """A server of the demo's models while the block lasts; gives its address.

    `waiting` is called once a second until the server is ready.

    Raises:
        ServerFailed: it ended, or was not ready in three minutes.
    """
    url = f"http://127.0.0.1:{_free_port()}"
    with tempfile.TemporaryDirectory(prefix="tapehead-") as folder:
        log = Path(folder, "server.log")
        process = _started(url, log)
        try:
            _until_ready(process, url, log, waiting)
            yield url
        finally:
            _end(process)


def _started(url: str, log: Path) -> subprocess.Popen[bytes]:
    port = url.rpartition(":")[2]
    command = [sys.executable, "-m", "tapehead", "serve", "--host", "127.0.0.1", "--port", port]
    command += ["--warm-up", "off"]  # the demo asks each thing once, and says what the first time costs
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TAPEHEAD_")}
    with log.open("wb") as lines:
        return subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=lines, stderr=subprocess.STDOUT
        )


def _until_ready(process: subprocess.Popen[bytes], url: str, log: Path, waiting: Callable[[], None]) -> None:
    start, told = time.monotonic(), 0
    while not _ready(url):
        waited = time.monotonic() - start
        if process.poll() is not None:
            raise ServerFailed(f"the server ended with exit code {process.returncode}: {_last_words(log)}")
        if waited > _PATIENCE:
            raise ServerFailed(f"the server was not ready in {_PATIENCE:.0f} s: {_last_words(log)}")
        if waited > told + 1:
            told += 1
            waiting()
        time.sleep(_POLL)


def _ready(url: str) -> bool:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(f"{url}/v2/health/ready", timeout=2.0) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _end(process: subprocess.Popen[bytes]) -> None:
    """Asks the server to stop; ends it where it does not."""
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        process.wait(_GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _last_words(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"


def _free_port() -> int:
    """A port that is free now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
