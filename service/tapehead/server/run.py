"""Serving: one process that speaks HTTP, and a child process for each device.

It stops in two steps. On SIGTERM or SIGINT it goes on answering, so that what it took is finished and its readiness and
refusals (503 `draining`) can be seen; when nothing is left, or the time is over, connections are closed and it ends.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import logging.config
import os
import socket
from types import FrameType

import uvicorn
from fastapi import FastAPI

from tapehead.scheduling import Fleet
from tapehead.server.app import create_app
from tapehead.server.hiring import child_fleet
from tapehead.server.settings import Settings, refusal

CANNOT_START = 2
LAST_BYTES_S = 2
CLOSING_S = 7.0
"""What is kept of the graceful time, at most: for the last bytes of replies, and for workers that have to be killed."""

_log = logging.getLogger("tapehead.server")


def serve(settings: Settings) -> int:
    """Serves until told to stop; the exit status of the process."""
    logging.config.dictConfig(_logging(settings.log_level))
    reason = refusal(settings)
    if reason is not None:
        return _cannot_start(reason)
    try:
        fleet = child_fleet(settings, os.environ)
        listener = listen(settings.host, settings.port)
    except OSError as error:
        return _cannot_start(str(error))
    with listener:
        server = Server(uvicorn_config(create_app(settings, fleet), settings), fleet, settings.graceful)
        host, port = listener.getsockname()[:2]
        _log.info("listening on http://%s:%d", f"[{host}]" if ":" in host else host, port)
        gc.freeze()  # what was imported stays: looking through it takes as long as dozens of requests
        server.run([listener])
    return 0


def _cannot_start(reason: str) -> int:
    _log.error("cannot start: %s", reason)
    return CANNOT_START


class Server(uvicorn.Server):
    """uvicorn's server, which finishes what it took before it closes its doors."""

    def __init__(self, config: uvicorn.Config, fleet: Fleet, graceful: float) -> None:
        super().__init__(config)
        self.fleet = fleet
        self.graceful = graceful
        self.told = 0
        self.draining: asyncio.Task[None] | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002  # uvicorn's signature
        """Notes that the process is told to stop; told twice, it stops at once."""
        self.told += 1

    async def on_tick(self, counter: int) -> bool:
        """Moves the stop on, ten times a second."""
        if self.told and self.draining is None:
            _log.info("stopping: finishing what was taken, for at most %g s; told again, at once", self.graceful)
            self.draining = asyncio.create_task(self.fleet.drain(max(self.graceful - CLOSING_S, self.graceful / 2)))
        if self.told > 1:
            self.config.timeout_graceful_shutdown = 0
        if self.told > 1 or (self.draining is not None and self.draining.done()):
            self.should_exit = True
        return await super().on_tick(counter)


def listen(host: str, port: int) -> socket.socket:
    """A socket that takes connections at an address.

    Raises:
        OSError: it cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=2048)
    # Connections inherit it. asyncio sets it only where a socket names its protocol, and without it every small reply
    # waits 40 ms, Nagle's algorithm for the other side's delayed acknowledgement.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def uvicorn_config(app: FastAPI, settings: Settings, http: str = "auto") -> uvicorn.Config:
    """How uvicorn is to run; `http` names the parser, the faster one there is where it does not."""
    return uvicorn.Config(
        app,
        http=http,
        timeout_keep_alive=round(settings.keep_alive),
        timeout_graceful_shutdown=LAST_BYTES_S,
        lifespan="on",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
    )


def _logging(level: str) -> dict[str, object]:
    """Everything on standard error, in one form."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
        "root": {"level": "WARNING", "handlers": ["stderr"]},
        "loggers": {"tapehead": {"level": level.upper()}},
    }
