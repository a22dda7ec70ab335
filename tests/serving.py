"""A real server in a process of its own, and a small model for it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

PATIENCE_S = 300.0


class Serving:
    """A server in a process of its own, models not warmed up unless `settings` say so.

    `url` is where it listens, `log` what it has said so far.
    """

    def __init__(self, folder: Path, **settings: Any) -> None:
        settings = {"warm_up": (), **settings}
        program = (
            "import sys; from tapehead.server.run import serve; from tapehead.server.settings import Settings; "
            f"sys.exit(serve(Settings(models_dir={str(folder)!r}, port=0, **{settings!r})))"
        )
        self.process = subprocess.Popen(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            stderr=subprocess.PIPE,
            text=True,
        )
        self.log = ""
        self._said = threading.Condition()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        self.url = self.wait_for(r"listening on (http://\S+)")[1]

    def _listen(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as lines:
            for line in lines:
                with self._said:
                    self.log += line
                    self._said.notify_all()

    def wait_for(self, pattern: str) -> re.Match[str]:
        """What of the log fits `pattern`, once something does."""
        with self._said:
            assert self._said.wait_for(lambda: re.search(pattern, self.log), PATIENCE_S), self.log
        found = re.search(pattern, self.log)
        assert found is not None
        return found

    def wait_until_ready(self) -> None:
        """Waits until the server takes work."""
        ends = time.monotonic() + PATIENCE_S
        while httpx2.get(f"{self.url}/v2/health/ready").status_code != 200:
            assert time.monotonic() < ends, self.log
            time.sleep(0.1)

    def stop(self) -> int:
        """Tells it to stop; its exit status."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(PATIENCE_S)
        finally:
            self.process.kill()
            self._listener.join(PATIENCE_S)


@contextmanager
def serving(folder: Path, **settings: Any) -> Iterator[Serving]:
    server = Serving(folder, **settings)
    try:
        server.wait_until_ready()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def small_model() -> Any:
    """An LSTM of 3 units named lstm over 2 features, and one output."""
    import keras

    keras.utils.set_random_seed(1)
    return keras.Sequential([keras.Input((None, 2)), keras.layers.LSTM(3, name="lstm"), keras.layers.Dense(1)])


@pytest.fixture(scope="session")
def small_folder(small_model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with that model in it, named mine."""
    folder = tmp_path_factory.mktemp("small")
    small_model.save(folder / "mine.keras")
    return folder


@pytest.fixture(scope="session")
def small_server(small_folder: Path) -> Iterator[str]:
    """The address of a server of that folder, with room for two requests that wait."""
    with serving(small_folder, queue_limit=2) as server:
        yield server.url
