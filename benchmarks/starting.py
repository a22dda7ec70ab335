"""How long a server takes from its start to its first word, to being ready, and to its first answers.

python -m benchmarks.starting [--quick]

Asked: `/v2/health/live` answers within a second; the first request of what a model was warmed up with takes at most
three times its tenth; any other first request is answered within five seconds, and says what compiling took.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import httpx2
import msgpack

from benchmarks.servers import MSGPACK, free_port, process, wait
from benchmarks.workloads import SERVED

LIVE, READY = "live_s", "ready_s"
Figures = dict[str, float]
_QUESTIONS = {
    "jacobian": {"of": "rnn.h[-1]", "wrt": "inputs"},
    "saliency": {"target": "outputs[0]"},
}
_OTHER = {"of": "rnn.forget_gate[:, 0]", "wrt": "inputs"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, and prints the lines."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.starting", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--quick", action="store_true", help="fewer starts")
    report(measured(2 if parser.parse_args(arguments).quick else 5))
    return 0


def report(found: Figures) -> None:
    """Prints the lines."""
    print(
        f"start: /v2/health/live answers after {found[LIVE]:.2f} s (asked: 1), ready and warm after {found[READY]:.1f}"
    )
    for name in _QUESTIONS:
        first, tenth = found[f"{name}_first_ms"], found[f"{name}_tenth_ms"]
        print(
            f"after it: first {name} {first:.2f} ms, tenth {tenth:.2f} ms: {first / tenth:.1f} times (asked: at most 3)"
        )
    print(
        f"what was not warmed up: {found['other_ms']:.0f} ms, of it compiling {found['compile_ms']:.0f} (asked: 5000)"
    )


def measured(starts: int) -> Figures:
    """The median over some starts."""
    os.environ.update({"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"})
    with tempfile.TemporaryDirectory() as folder:
        program = "import sys; from benchmarks.serve import write; write(sys.argv[1])"
        silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        subprocess.run([sys.executable, "-c", program, folder], check=True, **silent)
        found = [_started(Path(folder)) for _ in range(starts)]
    return {key: median(one[key] for one in found) for key in found[0]}


def _started(folder: Path) -> Figures:
    port, x = free_port(), msgpack.unpackb((folder / "body").read_bytes())["inputs"]
    shape = f"{SERVED.size.batch}x{SERVED.size.timesteps}"
    command = [sys.executable, "-m", "tapehead", "serve", str(folder / "models"), "--port", str(port)]
    began = time.perf_counter()
    with process([*command, "--warm-up", shape]), httpx2.Client(base_url=f"http://127.0.0.1:{port}") as client:
        _listening(port)
        client.get("/v2/health/live").raise_for_status()
        found = {LIVE: time.perf_counter() - began}
        wait(f"http://127.0.0.1:{port}/v2/health/ready")
        found[READY] = time.perf_counter() - began
        for _ in range(20):  # the client's own first calls are not the server's
            client.post("/v2/models/served/none", content=b"", headers=MSGPACK)
        for name, parameters in _QUESTIONS.items():
            times = [_asked(client, name, {"inputs": x, **parameters})[0] for _ in range(10)]
            found |= {f"{name}_first_ms": times[0], f"{name}_tenth_ms": times[-1]}
        found["other_ms"], meta = _asked(client, "jacobian", {"inputs": x, **_OTHER})
    return {**found, "compile_ms": 1e3 * meta["timings"]["compile"]}


def _asked(client: httpx2.Client, operation: str, fields: Any) -> tuple[float, Any]:
    """The milliseconds of one request, and its meta."""
    body = msgpack.packb(fields)
    began = time.perf_counter()
    reply = client.post(f"/v2/models/served/{operation}", content=body, headers=MSGPACK)
    taken = time.perf_counter() - began
    return 1e3 * taken, msgpack.unpackb(reply.raise_for_status().content)["meta"]


def _listening(port: int) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.005)
        else:
            return
    raise RuntimeError("the server does not listen after a minute")


if __name__ == "__main__":
    raise SystemExit(main())
