"""An answer of 100 MB from socket to socket, beside the engine alone and the same bytes lying ready in such a server.

python -m benchmarks.large [--quick]

Every lag-1 Jacobian of an LSTM at 16×100×16×128. One client fetches from both servers in turns, all of it warm. What is
asked: at most the engine alone and 1.3 times the fetching of what lies ready.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import httpx2
import numpy as np

from benchmarks.contest import agree
from benchmarks.servers import plain, tapehead
from benchmarks.workloads import CELLS, PARAMETERS, Size, Workload

WORKLOAD = Workload("large", "lag", CELLS["lstm"], Size(16, 100, 16, 128))
ALONE, SERVED, READY = "the engine alone", "served", "lying ready"
Figures = dict[str, float]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, and prints one line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.large", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer turns")
    report(measured(7 if parser.parse_args(arguments).quick else 25))
    return 0


def report(found: Figures) -> None:
    """Prints the line."""
    most = found[ALONE] + 1.3 * found[READY]
    told = ", ".join(f"{name} {ms:.0f} ms" for name, ms in found.items())
    print(f"a 100 MB answer: {told}; asked: at most {most:.0f} ms")


def measured(turns: int) -> Figures:
    """The median of each in milliseconds, and of what was computed within the served ones."""
    os.environ.update({"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"})
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        alone = _alone(folder, turns)
        served = stack.enter_context(tapehead(folder / "models", "--warm-up", "off"))
        (folder / "metadata.json").write_bytes(httpx2.get(f"{served}/v2/models/large").raise_for_status().content)
        ready = stack.enter_context(plain("large", folder))
        return {ALONE: alone, **_fetched(served, ready, np.load(folder / "x.npy"), turns)}


def _fetched(served: str, ready: str, x: Any, turns: int) -> Figures:
    from tapehead import Client

    with Client(served) as ours, Client(ready) as other:
        models = {SERVED: ours.model("large"), READY: other.model("large")}
        calls = {name: partial(model.jacobian, x, **PARAMETERS["lag"][1]) for name, model in models.items()}
        agree(calls[SERVED]().value, calls[READY]().value, SERVED)
        for _ in range(5):
            calls[SERVED]()
        times: dict[str, list[float]] = {name: [] for name in (*calls, "of it computing")}
        for _ in range(turns):
            for name, call in calls.items():
                began = time.perf_counter()
                answer = call()
                times[name].append(time.perf_counter() - began)
                if name == SERVED:
                    times["of it computing"].append(answer.meta["timings"]["compute"])
                del answer
    return {name: 1e3 * median(each) for name, each in times.items()}


def _alone(folder: Path, turns: int) -> float:
    """The engine's own time in a process of its own, which writes the model, the input and the answer too."""
    program = "import sys; from benchmarks.large import alone; alone(sys.argv[1], int(sys.argv[2]))"
    command = [sys.executable, "-c", program, str(folder), str(turns)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return float(done.stdout)


def alone(name: str, turns: int) -> None:
    """Writes models/large.keras, x.npy and answer.npy; prints the engine's milliseconds."""
    from benchmarks.ours import asked, model_of
    from benchmarks.problems import keras_model, problem

    given, folder, times = problem(WORKLOAD), Path(name), []
    (folder / "models").mkdir()
    keras_model(given).save(folder / "models" / "large.keras")
    np.save(folder / "x.npy", given.x)
    call = asked(model_of(given), given)
    np.save(folder / "answer.npy", call())
    for _ in range(turns + 5):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    print(1e3 * median(times[5:]))


if __name__ == "__main__":
    raise SystemExit(main())
