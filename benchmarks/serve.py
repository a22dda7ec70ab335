"""What is served: a small Jacobian under load, ours and others in turns; then a large answer, and the start.

python -m benchmarks.serve [--quick] [--tesseract PYTHON] [--out FOLDER]

The load comes from wrk, on the same machine as the servers. Every server gets the same numbers, and the answers are
found to agree before the load. Each figure is the median of several turns.

Tesseract Core takes part where the interpreter of an environment that has it is named:

    python -m venv .venv-tesseract && .venv-tesseract/bin/pip install 'tesseract-core[runtime]' jax
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
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import httpx2
import msgpack
import numpy as np

from benchmarks import large, starting
from benchmarks.contest import agree
from benchmarks.servers import Server, plain, tapehead, tesseract
from benchmarks.workloads import PARAMETERS, SERVED

_HERE = Path(__file__).parent
CLIENTS = (1, 32)
OURS, TESSERACT, ALONE = "tapehead", "Tesseract Core", "the engine alone"
_PLAIN = {"compiled batch_jacobian": "tensorflow", "the same, on threads": "threads", "a ready answer": "ceiling"}

Figures = dict[str, float]
Loaded = dict[str, dict[int, Figures]]


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
    parser.add_argument("--tesseract", type=Path, metavar="PYTHON", help="interpreter that has Tesseract Core")
    parser.add_argument("--out", type=Path, default=_HERE, help="folder for served.json")
    given = parser.parse_args(arguments)
    os.environ.update({"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"})
    if given.tesseract is None:
        print("Tesseract Core is left out: --tesseract names an interpreter that has it", file=sys.stderr)
    found: dict[str, Any] = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "size": str(SERVED.size)}
    if shutil.which("wrk") is None:
        print("the small question under load needs wrk (Debian: apt-get install wrk); left out", file=sys.stderr)
    else:
        with tempfile.TemporaryDirectory() as folder:
            turns = Turns(2, 2, 6) if given.quick else Turns(3, 4, 15)
            alone = found["alone_ms"] = _prepare(Path(folder))
            servers, batching = found["servers"], found["batching"] = _contest(Path(folder), turns, given.tesseract)
        _print(servers, alone, batching)
    large.report(found.setdefault("large_ms", large.measured(7 if given.quick else 25)))
    starting.report(found.setdefault("start", starting.measured(2 if given.quick else 5)))
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "served.json").write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    return 0


def _contest(folder: Path, turns: Turns, python: Path | None) -> tuple[Loaded, Figures]:
    """For each server and number of clients: requests_per_s, median_ms, p99_ms, failed. And how ours batched."""
    with ExitStack() as stack:
        base = stack.enter_context(tapehead(folder / "models", "--warm-up", "1x20"))
        servers = {OURS: Server(f"{base}/v2/models/served/jacobian", folder / "body")}
        for name, kind in _PLAIN.items():
            servers[name] = Server(f"{stack.enter_context(plain(kind, folder))}/jacobian", folder / "body")
        if python is not None:
            servers[TESSERACT] = stack.enter_context(tesseract(python, folder, np.load(folder / "x.npy")[0]))
        ours = servers[OURS].answer()
        for name, server in servers.items():
            agree(server.answer(), ours, name)
            for clients in CLIENTS:
                loaded(server, clients, turns.warm if name == OURS else 2)
        before, found = _figures(base), {name: {n: list[Figures]() for n in CLIENTS} for name in servers}
        for _ in range(turns.count):
            for clients in CLIENTS:
                for name, server in servers.items():
                    found[name][clients].append(loaded(server, clients, turns.seconds))
        batching = _batching(before, _figures(base))
    return {name: {n: _middle(results) for n, results in each.items()} for name, each in found.items()}, batching


def _figures(base: str) -> Figures:
    """The server's own figures, by name and labels."""
    lines = httpx2.get(f"{base}/metrics").raise_for_status().text.splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}


def _batching(before: Figures, after: Figures) -> Figures:
    """Requests a batch, and the mean milliseconds of each stage."""
    risen = {name: value - before.get(name, 0.0) for name, value in after.items()}
    batches = next(name for name in risen if name.startswith("tapehead_batch_size_count"))
    found = {"requests a batch": risen[batches.replace("_count", "_sum")] / risen[batches]}
    for name, count in risen.items():
        stage = re.search(r'^tapehead_stage_seconds_count.*stage="(\w+)"', name)
        if stage is not None and count:
            found[f"{stage[1]} ms"] = 1e3 * risen[name.replace("_count", "_sum")] / count
    return found


def _prepare(folder: Path) -> float:
    """Writes the model, the answer and the body of the request; the engine's own milliseconds."""
    program = "import sys; from benchmarks.serve import write; write(sys.argv[1])"
    # In a process of its own: TensorFlow's threads have no place beside the load.
    command = [sys.executable, "-c", program, str(folder)]
    return float(
        subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
    )


def write(folder: str) -> None:
    """Writes model.keras, models/served.keras, x.npy, answer.npy and body into the folder.

    Prints the median of the engine's milliseconds for an answer.
    """
    from benchmarks.ours import ours
    from benchmarks.problems import keras_model, problem

    given, path = problem(SERVED), Path(folder)
    (path / "models").mkdir()
    keras_model(given).save(path / "model.keras")
    shutil.copy(path / "model.keras", path / "models" / "served.keras")
    np.save(path / "x.npy", given.x)
    call, times = ours(given), []
    np.save(path / "answer.npy", call())
    for _ in range(500):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    print(1e3 * median(times[100:]))
    inputs = {"dtype": "float32", "shape": given.x.shape, "data": given.x.tobytes()}
    (path / "body").write_bytes(msgpack.packb({"inputs": inputs, **PARAMETERS["jacobian"][1]}))


def loaded(server: Server, clients: int, seconds: int) -> Figures:
    """What wrk finds of a server under load."""
    headers = [part for name, value in server.headers.items() for part in ("-H", f"{name}: {value}")]
    command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds}s", "--timeout", "10s", *headers]
    command += ["-s", str(_HERE / "load.lua"), server.url]
    environment = {**os.environ, "BENCHMARK_BODY": str(server.body)}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True, timeout=seconds + 30)
    found: Figures = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def _middle(results: Sequence[Mapping[str, float]]) -> Figures:
    return {key: median(one[key] for one in results) for key in results[0]}


def _print(found: Loaded, alone: float, batching: Figures) -> None:
    print(f"served, {SERVED.size} full Jacobian, load from wrk")
    print(f"{'server':<26}{'clients':>8}{'requests/s':>12}{'median ms':>11}{'p99 ms':>9}{'failed':>8}")
    for clients in CLIENTS:
        for name, each in found.items():
            one = each[clients]
            figures = (
                f"{one['requests_per_s']:>12.0f}{one['median_ms']:>11.2f}{one['p99_ms']:>9.2f}{one['failed']:>8.0f}"
            )
            print(f"{name:<26}{clients:>8}{figures}")
    print(f"{ALONE:<26}{'':>8}{'':>12}{alone:>11.2f}; one client may add 0.8")
    print("ours under that load: " + ", ".join(f"{value:.3g} {name}" for name, value in batching.items()))


if __name__ == "__main__":
    raise SystemExit(main())
