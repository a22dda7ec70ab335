"""What `tapehead doctor` finds out: the machine, the libraries, the devices, and one real Jacobian held against
central differences."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

CLIENT = ("numpy", "msgpack", "httpx2", "anyio")
SERVER = ("fastapi", "uvicorn", "prometheus-client", "h5py", "keras", "matplotlib")
TENSORFLOW = ("tensorflow-cpu", "tensorflow")
TOLERANCE = 1e-6
_STEP = 1e-2


@dataclass(frozen=True)
class Finding:
    """One line of the report. `verdict` is OK, FAIL, or "-" for what is absent and need not be there."""

    verdict: str
    name: str
    detail: str


def findings() -> Iterator[Finding]:
    """The findings, each as soon as it is known; the last ones load TensorFlow and take seconds."""
    yield _python()
    yield Finding("OK", "system", f"{platform.system()} {platform.release()} on {platform.machine()}")
    yield Finding("OK", "processor cores", f"{_cores()} to use, {os.cpu_count()} in the machine")
    yield Finding("OK", "memory", _memory())
    yield _crossing()
    yield from (_library(name, needed=True) for name in CLIENT)
    libraries = [_library(name, needed=False) for name in SERVER]
    libraries.append(_tensorflow())
    yield from libraries
    if all(one.verdict == "OK" for one in libraries):
        yield _tried("devices", _devices)
        yield _tried("Jacobian", _jacobian)
    else:
        yield Finding("-", "server", "not installed whole; pip install 'tapehead[server]' to serve models here")


def _python() -> Finding:
    if (3, 11) <= sys.version_info[:2] <= (3, 13):
        return Finding("OK", "Python", platform.python_version())
    return Finding("FAIL", "Python", f"{platform.python_version()}; Tapehead needs 3.11 to 3.13")


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory() -> str:
    return f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.1f} GiB"


def _crossing() -> Finding:
    """How large arrays cross between processes here."""
    try:
        os.close(os.memfd_create("tapehead-doctor"))
    except (AttributeError, OSError):
        return Finding("OK", "large arrays", "cross in an unlinked temporary file; this system has no memfd")
    return Finding("OK", "large arrays", "cross by memfd")


def _library(name: str, *, needed: bool) -> Finding:
    try:
        return Finding("OK", name, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return Finding("FAIL" if needed else "-", name, "not installed")


def _tensorflow() -> Finding:
    """Whichever build of TensorFlow is installed."""
    builds = [_library(name, needed=False) for name in TENSORFLOW]
    return next((build for build in builds if build.verdict == "OK"), Finding("-", "tensorflow", "not installed"))


def _tried(name: str, look: Callable[[], Finding]) -> Finding:
    # A boundary: whatever a library throws on this machine is what the doctor is there to report.
    try:
        return look()
    except Exception as error:  # noqa: BLE001
        return Finding("FAIL", name, f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")


def _devices() -> Finding:
    import tensorflow as tf

    devices = [device.name.removeprefix("/physical_device:") for device in tf.config.list_physical_devices()]
    return Finding("OK", "devices", ", ".join(devices))


def _jacobian() -> Finding:
    """d lstm.h[-1] / d inputs of a demo model through the in-process client, timed, held against differences."""
    import keras

    import tapehead
    from tapehead.demo import models_folder
    from tapehead.demo.studies import sunspots

    inputs = sunspots().inputs[-1:].astype(np.float64)
    live = keras.models.load_model(models_folder() / "sunspots.keras")
    with tapehead.Client(models={"sunspots": live}) as client:
        model = client.model("sunspots")
        seconds, answer = _timed(lambda: model.jacobian(inputs, of="lstm.h[-1]", wrt="inputs", precision="float64"))
        again, _ = _timed(lambda: model.jacobian(inputs, of="lstm.h[-1]", wrt="inputs", precision="float64"))
        nudged = model.states(_nudged(inputs), points=["lstm.h[-1]"], precision="float64").value
    above, below = nudged.reshape(2, inputs.size, -1)
    differences = ((above - below) / (2 * _STEP)).T.reshape(answer.value.shape)
    error = np.abs(answer.value - differences).max() / np.abs(differences).max()
    detail = (
        f"d lstm.h[-1] / d inputs {answer.value.shape} in {seconds:.2f} s, then {1e3 * again:.1f} ms; "
        f"central differences agree to {error:.0e}"
    )
    return Finding("OK" if error < TOLERANCE else "FAIL", "Jacobian", detail)


def _nudged(inputs: Array) -> Array:
    """(2 · entries, timesteps, features): every entry of the one sequence moved a step up, then each a step down."""
    nudges = _STEP * np.eye(inputs.size).reshape(-1, *inputs.shape[1:])
    return np.concatenate([inputs + nudges, inputs - nudges])


def _timed(ask: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    answer = ask()
    return time.perf_counter() - start, answer
