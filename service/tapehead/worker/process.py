"""A worker's process: started, its output relayed, its end told in words."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

from tapehead.worker.protocol import WorkerSettings

# What TensorFlow says at every start, before it heeds TF_CPP_MIN_LOG_LEVEL.
_NOISE = re.compile(
    r"WARNING: All log messages before absl::InitializeLog|I\d{4} \d\d:\d\d:\d|"
    r"[WE]\d{4} \d\d:\d\d:\S+ +\d+ (cuda_\w+|computation_placer)\.cc:\d+\] .*(factory|already registered)"
)


class Process:
    """A child process that runs `child_main` with one end of a socket; the other end is `connection`.

    A process of its own program, never a fork: a fork of a process with threads would inherit locked locks. It is not
    tied to the starting thread (PR_SET_PDEATHSIG is), but ends by itself when the socket's other end is gone.
    """

    def __init__(self, settings: WorkerSettings, environ: Mapping[str, str], output: TextIO) -> None:
        self.connection, theirs = socket.socketpair()
        with theirs:
            self._popen = subprocess.Popen(
                [sys.executable, "-P", "-m", "tapehead.worker.child_main", str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                env=environment(settings, environ),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
            )
        name = f"worker {settings.device}".strip()
        self._relay = threading.Thread(target=self._relay_output, args=(f"[{name}] ", output), daemon=True)
        self._relay.start()

    def __repr__(self) -> str:
        return f"<Process {self.pid}>"

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._popen.pid

    def kill(self) -> None:
        """Ends it at once."""
        self._popen.kill()

    def ended(self, grace_s: float) -> str:
        """Waits for it to end, kills it after `grace_s` seconds, and says how it ended."""
        try:
            code = self._popen.wait(grace_s)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            code = self._popen.wait()
        self._relay.join(1.0)
        return _how(code)

    def _relay_output(self, prefix: str, output: TextIO) -> None:
        assert self._popen.stdout is not None
        with self._popen.stdout as lines:
            for line in lines:
                if _NOISE.match(line):
                    continue
                with contextlib.suppress(OSError, ValueError):  # our own stderr is closed: keep the pipe flowing
                    output.write(prefix + line)
                    output.flush()


def environment(settings: WorkerSettings, environ: Mapping[str, str]) -> dict[str, str]:
    """The child's environment: this package importable, TensorFlow quiet, compiled kernels cached."""
    added = {"TF_CPP_MIN_LOG_LEVEL": "2", "PYTHONUNBUFFERED": "1"}
    forced = {"KERAS_BACKEND": "tensorflow"}
    if settings.cache_dir is not None:
        folder = Path(settings.cache_dir)
        added["CUDA_CACHE_PATH"] = str(folder / "cuda")
        # For GPUs alone: what was compiled for one processor may not run on another that shares the folder.
        added["TF_XLA_FLAGS"] = (
            f"--tf_xla_persistent_cache_directory={folder / 'xla'} --tf_xla_persistent_cache_device_types=GPU"
        )
    root = Path(__file__).parents[2]
    paths = [environ["PYTHONPATH"]] if environ.get("PYTHONPATH") else []
    if root.name not in ("site-packages", "dist-packages"):
        paths.append(str(root))
    return {**added, **environ, **forced, "PYTHONPATH": os.pathsep.join(paths)}


def _how(code: int) -> str:
    if code >= 0:
        return f"ended with exit status {code}"
    name = signal.Signals(-code).name
    hint = ", perhaps because the machine was out of memory" if -code == signal.SIGKILL else ""
    return f"was killed by {name}{hint}"
