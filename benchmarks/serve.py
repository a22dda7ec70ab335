"""One small Jacobian over HTTP under load, ours and plain servers in turns: requests a second, median, 99th percentile.

python -m benchmarks.serve [--quick] [--out FOLDER]

The load comes from wrk, on the same machine as the servers. Every server gets the same body, and the answers are found
to agree before the load. Each figure is the median of several turns.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import IO, Any

import httpx2
import msgpack
import numpy as np

from benchmarks.contest import agree
from benchmarks.workloads import CELLS, PARAMETERS, Size, Workload

_HERE = Path(__file__).parent
WORKLOAD = Workload("served", "jacobian", CELLS["lstm"], Size(1, 20, 5, 32))
CLIENTS = (1, 32)
_START_S = 60
_MSGPACK = {"Content-Type": "application/vnd.msgpack"}
_PLAIN = {"compiled batch_jacobian": "tensorflow", "the same, on threads": "threads", "a ready answer": "ceiling"}
OURS, CEILING = "tapehead", "a ready answer"


@dataclass(frozen=True)
class Turns:
    """How often and how long each server is loaded, in seconds, and how long it is warmed before."""

    count: int
    seconds: int
    warm: int


def main(arguments: Sequence[str] | None = None) -> int:
    """Starts the servers, loads them in turns, and prints a line for each."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serve", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer and shorter turns")
    parser.add_argument("--out", type=Path, default=_HERE, help="folder for served.json")
    given = parser.parse_args(arguments)
    if shutil.which("wrk") is None:
        print("the served workloads need wrk (Debian: apt-get install wrk); left out", file=sys.stderr)
        return 0
    os.environ.update({"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"})
    with tempfile.TemporaryDirectory() as folder:
        found = _contest(Path(folder), Turns(2, 2, 5) if given.quick else Turns(3, 4, 20))
    _print(found)
    given.out.mkdir(parents=True, exist_ok=True)
    written = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "size": str(WORKLOAD.size), "servers": found}
    (given.out / "served.json").write_text(json.dumps(written, indent=1) + "\n", "utf-8")
    return 0


def _contest(folder: Path, turns: Turns) -> dict[str, dict[int, dict[str, float]]]:
    """For each server and number of clients: requests_per_s, median_ms, p99_ms, failed."""
    body = _prepare(folder)
    with ExitStack() as stack:
        urls = {OURS: stack.enter_context(_tapehead(folder / "models"))}
        urls |= {name: stack.enter_context(_plain(kind, folder)) for name, kind in _PLAIN.items()}
        _check(urls, body.read_bytes())
        for url in urls.values():
            for clients in CLIENTS:
                _loaded(url, body, clients, turns.warm if url == urls[OURS] else 2)
        found: dict[str, dict[int, list[dict[str, float]]]] = {name: {n: [] for n in CLIENTS} for name in urls}
        for _ in range(turns.count):
            for clients in CLIENTS:
                for name, url in urls.items():
                    found[name][clients].append(_loaded(url, body, clients, turns.seconds))
    return {name: {n: _middle(results) for n, results in each.items()} for name, each in found.items()}


def _prepare(folder: Path) -> Path:
    """Writes the model, the answer and the body of the request; the body's path."""
    program = "import sys; from benchmarks.serve import write; write(sys.argv[1])"
    # In a process of its own: TensorFlow's threads have no place beside the load.
    subprocess.run([sys.executable, "-c", program, str(folder)], check=True, stderr=subprocess.DEVNULL)
    return folder / "body"


def write(folder: str) -> None:
    """Writes model.keras, models/served.keras, answer.npy and body into the folder."""
    from benchmarks.ours import ours
    from benchmarks.problems import keras_model, problem

    given, path = problem(WORKLOAD), Path(folder)
    (path / "models").mkdir()
    keras_model(given).save(path / "model.keras")
    shutil.copy(path / "model.keras", path / "models" / "served.keras")
    np.save(path / "answer.npy", ours(given)())
    inputs = {"dtype": "float32", "shape": given.x.shape, "data": given.x.tobytes()}
    (path / "body").write_bytes(msgpack.packb({"inputs": inputs, **PARAMETERS["jacobian"][1]}))


@contextmanager
def _tapehead(models: Path) -> Iterator[str]:
    command = [sys.executable, "-m", "tapehead", "serve", str(models), "--port", "0"]
    with _process(command, stderr=subprocess.PIPE) as process:
        found = re.search(r"listening on (\S+)", _until(process.stderr, "listening on"))
        assert found is not None
        _drain(process.stderr)
        _wait(f"{found[1]}/v2/models/served/ready")
        yield f"{found[1]}/v2/models/served/jacobian"


@contextmanager
def _plain(kind: str, folder: Path) -> Iterator[str]:
    with _process([sys.executable, "-m", "benchmarks.plain", kind, str(folder)], stdout=subprocess.PIPE) as process:
        yield _until(process.stdout, "http://").strip()


@contextmanager
def _process(command: Sequence[str], **pipes: Any) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(command, text=True, **{"stderr": subprocess.DEVNULL, **pipes}) as process:
        try:
            yield process
        finally:
            process.terminate()
            process.wait(60)


def _until(stream: IO[str] | None, text: str) -> str:
    """The first line that holds the text."""
    assert stream is not None
    for line in stream:
        if text in line:
            return line
    raise RuntimeError(f"the server ended before it said {text!r}")


def _drain(stream: IO[str] | None) -> None:
    """Reads on beside the work, so that a server that logs never waits for a reader."""
    import threading

    assert stream is not None
    threading.Thread(target=lambda: [None for _ in stream], daemon=True).start()


def _wait(url: str) -> None:
    end = time.monotonic() + _START_S
    while httpx2.get(url).status_code != 200:
        if time.monotonic() > end:
            raise RuntimeError(f"{url} is not ready after {_START_S} s")
        time.sleep(0.2)


def _check(urls: Mapping[str, str], body: bytes) -> None:
    """Nothing, where all servers give one answer."""
    answers = {name: _answer(url, body) for name, url in urls.items()}
    for name, answer in answers.items():
        agree(answer, answers[OURS], name)


def _answer(url: str, body: bytes) -> Any:
    reply = httpx2.post(url, content=body, headers=_MSGPACK, timeout=_START_S).raise_for_status()
    tensor = msgpack.unpackb(reply.content)["tensors"]["value"]
    return np.frombuffer(tensor["data"], tensor["dtype"]).reshape(tensor["shape"])


def _loaded(url: str, body: Path, clients: int, seconds: int) -> dict[str, float]:
    command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds}s", "--timeout", "10s", "-s", str(_HERE / "load.lua"), url]
    environment = {**os.environ, "BENCHMARK_BODY": str(body)}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True, timeout=seconds + 30)
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def _middle(results: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {key: median(one[key] for one in results) for key in results[0]}


def _print(found: Mapping[str, Mapping[int, Mapping[str, float]]]) -> None:
    print(f"served, {WORKLOAD.size} full Jacobian, msgpack, load from wrk")
    print(f"{'server':<26}{'clients':>8}{'requests/s':>12}{'median ms':>11}{'p99 ms':>9}{'failed':>8}")
    for clients in CLIENTS:
        for name, each in found.items():
            one = each[clients]
            figures = (
                f"{one['requests_per_s']:>12.0f}{one['median_ms']:>11.2f}{one['p99_ms']:>9.2f}{one['failed']:>8.0f}"
            )
            print(f"{name:<26}{clients:>8}{figures}")


if __name__ == "__main__":
    raise SystemExit(main())
