"""Where pictures are drawn: a process of their own, one at a time, a bounded number waiting.

Matplotlib holds the interpreter's lock for most of its work: in a thread it made every other request wait. The process
(`studio.py`) starts with the first picture, ends with the server, and is replaced when it died or took too long.
"""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence
from typing import Any

from anyio import to_thread

from tapehead.errors import QueueFull, WorkerDied, from_problem
from tapehead.operations import Result
from tapehead.server.pictures import Wish
from tapehead.server.studio import LENGTH_BYTES, framed
from tapehead.wire.messages import MSGPACK, encode_reply
from tapehead.wire.plain import Bytes
from tapehead.worker.protocol import ModelRef

WAITING = 16
"""Pictures that may wait to be drawn; one more is told to come again."""

COMMAND = (sys.executable, "-P", "-m", "tapehead.server.studio")


class Easel:
    """Draws answers. Opened by the first picture, closed with the application."""

    def __init__(self, waiting: int = WAITING, command: Sequence[str] = COMMAND) -> None:
        self._waiting, self._command = waiting, command
        self._taken = 0
        self._turn = asyncio.Lock()
        self._process: Process | None = None

    def __repr__(self) -> str:
        state = "not started" if self._process is None else f"process {self._process.pid}"
        return f"<Easel {state}, {self._taken} pictures asked for>"

    @property
    def pid(self) -> int | None:
        """The number of the process that draws, where there is one."""
        return None if self._process is None else self._process.pid

    async def draw(self, asked: dict[str, Any], result: Result, ref: ModelRef, wish: Wish) -> bytes:
        """The answer as the bytes of an image file. One that is given up ends the drawing of it.

        Raises:
            QueueFull: as many wait as may.
            BadParameter, NotAcceptable: as the studio says.
            WorkerDied: the process ended over it.
        """
        if self._taken > self._waiting:
            raise QueueFull(f"{self._waiting} pictures wait to be drawn; try again, or take the numbers")
        self._taken += 1
        try:
            async with self._turn:
                return await self._drawn(asked, result, ref, wish)
        finally:
            self._taken -= 1

    async def close(self) -> None:
        """Ends the process."""
        process, self._process = self._process, None
        if process is not None:
            if process.returncode is None:
                process.kill()
            await process.wait()

    async def _drawn(self, asked: dict[str, Any], result: Result, ref: ModelRef, wish: Wish) -> bytes:
        body = await to_thread.run_sync(lambda: encode_reply(result, ref.name, ref.version, MSGPACK))
        head = json.dumps({"asked": asked, "wish": wish.__dict__}).encode()
        try:
            problem, image = await self._exchange(head, body)
        except (OSError, EOFError) as error:
            await self.close()
            raise WorkerDied("the process that draws pictures ended over this one; take the numbers instead") from error
        except asyncio.CancelledError:
            await asyncio.shield(self.close())  # what is half drawn for nobody would be the next one's answer
            raise
        if problem:
            members = json.loads(problem)
            raise from_problem(members, status=members["status"])
        return image

    async def _exchange(self, *parts: Bytes) -> tuple[bytes, bytes]:
        process = await self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        for part in parts:
            process.stdin.writelines(framed(part))
        await process.stdin.drain()
        return await _read(process.stdout), await _read(process.stdout)

    async def _started(self) -> Process:
        if self._process is None or self._process.returncode is not None:
            self._process = await asyncio.create_subprocess_exec(*self._command, stdin=PIPE, stdout=PIPE)
        return self._process


async def _read(stream: asyncio.StreamReader) -> bytes:
    length = await stream.readexactly(LENGTH_BYTES)
    return await stream.readexactly(int.from_bytes(length, "big"))
