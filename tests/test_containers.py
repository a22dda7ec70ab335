"""A built image, driven from outside: `TAPEHEAD_TEST_IMAGE=tapehead:cpu make test ARGS=tests/test_containers.py`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest

import tapehead

pytestmark = pytest.mark.container

ENGINE = shutil.which("podman") or shutil.which("docker") or "podman"
HARDENED = ("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
LARGE = np.linspace(0, 150, 11 * 400, dtype=np.float32).reshape(11, 400, 1)


def engine(*arguments: str) -> str:
    return subprocess.run([ENGINE, *arguments], check=True, capture_output=True, text=True, timeout=180).stdout.strip()


@dataclass(frozen=True)
class Container:
    name: str
    url: str

    def python(self, program: str) -> subprocess.CompletedProcess[str]:
        command = [ENGINE, "exec", self.name, "python", "-c", program]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    def get(self, path: str) -> str:
        with urllib.request.urlopen(self.url + path, timeout=10) as reply:
            return str(reply.read().decode())

    def wait(self, seconds: float = 120.0) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                self.get("/v2/health/ready")
                return
            except (urllib.error.URLError, OSError):
                time.sleep(0.2)
        raise AssertionError(f"not ready in {seconds} s:\n{engine('logs', self.name)}")


@pytest.fixture
def container() -> Iterator[Container]:
    """The image with nothing mounted, its root read-only, on a free loopback port."""
    name = f"tapehead-test-{uuid.uuid4().hex[:8]}"
    anonymous = ("--env", "TAPEHEAD_ALLOW_ANONYMOUS=true")
    image = os.environ["TAPEHEAD_TEST_IMAGE"]
    engine("run", "--detach", "--name", name, "--publish", "127.0.0.1::8000", *HARDENED, *anonymous, image)
    try:
        started = Container(name, f"http://{engine('port', name, '8000/tcp').splitlines()[0]}")
        started.wait()
        yield started
    finally:
        engine("rm", "--force", "--volumes", name)


def test_the_image_serves_the_demos_models_as_a_user_without_rights(container: Container) -> None:
    with tapehead.Client(container.url) as client:
        assert "sunspots" in {model.name for model in client.models()}
        value = client.model("sunspots").jacobian(LARGE[:2, :20], of="lstm.h[-1]", wrt="inputs").value
    assert value.shape == (2, 16, 20, 1)
    body = json.dumps({"inputs": LARGE[:2, :20].tolist(), "of": "lstm.h[-1]", "wrt": "inputs"}).encode()
    request = urllib.request.Request(f"{container.url}/v2/models/sunspots/jacobian", body)
    request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request, timeout=60) as reply:
        asked_in_json = np.array(json.load(reply)["tensors"]["value"]["data"])
    np.testing.assert_allclose(asked_in_json, value, rtol=1e-6)
    assert container.python("import os; print(os.getuid())").stdout.strip() not in ("", "0")
    for folder in ("/", "/opt/tapehead", "/models"):
        assert "Read-only" in container.python(f"open('{folder}/x', 'w')").stderr


def test_an_answer_larger_than_the_shared_memory_folder_crosses_to_the_server(container: Container) -> None:
    shared = container.python("import os; s = os.statvfs('/dev/shm'); print(s.f_blocks * s.f_frsize)").stdout
    with tapehead.Client(container.url, timeout=300, progress=False) as client:
        model = client.model("sunspots")
        large = model.jacobian(LARGE, of="lstm.h", wrt="inputs").value
        alone = model.jacobian(LARGE[3:4], of="lstm.h", wrt="inputs").value
    assert large.nbytes > max(100e6, int(shared))
    np.testing.assert_allclose(large[3], alone[0], atol=1e-6)


def test_the_health_check_tells_a_server_that_is_ready_from_one_that_is_gone(container: Container) -> None:
    test = json.loads(engine("inspect", "--format", "{{json .Config.Healthcheck.Test}}", container.name))
    assert test[:3] == ["CMD", "python", "-c"]
    assert container.python(test[3]).returncode == 0
    elsewhere = f"import os\nos.environ['TAPEHEAD_PORT'] = '9'\n{test[3]}"
    assert container.python(elsewhere).returncode != 0


def test_a_stop_lets_the_request_in_hand_finish_and_ends_well(container: Container) -> None:
    answers = []

    def ask() -> None:
        with tapehead.Client(container.url, timeout=300, retries=0, progress=False) as client:
            answers.append(client.model("sunspots").jacobian(LARGE, of="lstm.h", wrt="inputs").value.shape)

    asking = threading.Thread(target=ask)
    asking.start()
    while "tapehead_running 1.0" not in container.get("/metrics"):
        assert asking.is_alive(), "the request was over before the stop"
    engine("stop", "--time", "30", container.name)
    asking.join(60)
    assert answers == [(11, 400, 16, 400, 1)]
    assert engine("inspect", "--format", "{{.State.ExitCode}}", container.name) == "0"
