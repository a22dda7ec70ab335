"""The most memory that one answer takes above the model, in a process of its own: `python -m benchmarks.memory NAME`.

A short sequence is answered first, so that the libraries, the model and its programs are in memory when it begins.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from benchmarks.workloads import WORKLOADS, Workload

_SHORT = 10


def peak_mebibytes(name: str, seconds: float = 300) -> float:
    """What the workload takes at most, in MiB.

    Raises:
        subprocess.SubprocessError: it came to no end, or to a bad one.
    """
    command = [sys.executable, "-m", "benchmarks.memory", name]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=seconds)
    return float(done.stdout.split()[-1])


def _main(name: str) -> None:
    from benchmarks.ours import asked, model_of
    from benchmarks.problems import problem

    workload = next(one for one in WORKLOADS if one.name == name)
    model = model_of(problem(workload))
    asked(model, problem(_shorter(workload)))()
    before = _held_from_now_kibibytes()
    asked(model, problem(workload))()
    print((_most_kibibytes() - before) / 2**10)


def _shorter(workload: Workload) -> Workload:
    return replace(workload, size=workload.size._replace(timesteps=_SHORT))


def _held_from_now_kibibytes() -> float:
    """What the process holds; Linux forgets the most that it held before, which compiling may have made larger."""
    if sys.platform == "linux":
        Path("/proc/self/clear_refs").write_text("5", "ascii")
    return _most_kibibytes()


def _most_kibibytes() -> float:
    """The most this process has held; macOS counts it in bytes."""
    if sys.platform == "linux":
        status = Path("/proc/self/status").read_text("ascii")
        return float(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "darwin" else 1)


if __name__ == "__main__":
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    _main(sys.argv[1])
