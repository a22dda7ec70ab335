"""Calls over a socket from an event loop: who waits for which reply, and when the other end was last heard."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import os
import socket
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

from tapehead.errors import OutOfMemory, WorkerDied
from tapehead.worker import crossing
from tapehead.worker.transport import Inbox, Parcel, pack, receive, send_start

_LONG_COPY_BYTES = 1 << 20
"""Copies above this size leave the event loop free for others."""


@dataclass(frozen=True)
class _Call:
    reply: asyncio.Future[Any]
    limit_s: float
    since: float
    told: Callable[[Mapping[str, Any]], None]


class Channel:
    """One end of a connection to a worker process, which answers calls in their order.

    Out go `{"call": number, "do": verb, "with": tree}`, in come `{"call": number, "value": tree}` or
    `{"call": number, "error": tree}`, before either any number of `{"call": number, "told": tree}` that say how far it
    has come, and `{}` as a sign of life.
    """

    def __init__(self, connection: socket.socket, clock: Callable[[], float]) -> None:
        connection.setblocking(False)
        self._connection, self._clock = connection, clock
        self._loop = asyncio.get_running_loop()
        self._inbox = Inbox()
        self._calls: dict[int, _Call] = {}
        self._number = 0
        self._turn = asyncio.Lock()
        self._sending: set[asyncio.Task[None]] = set()
        self._answered = self.heard = clock()
        self.answered_once = False
        self.ended = asyncio.Event()
        self._loop.add_reader(connection.fileno(), self._readable)

    async def call(
        self, verb: str, tree: Any, limit_s: float, told: Callable[[Mapping[str, Any]], None] = lambda _: None
    ) -> Any:
        """The reply to one call; `limit_s` is how long it may keep the other end busy, `told` hears how far it is.

        Raises:
            TapeheadError: what came instead of a value.
            OutOfMemory: this host has no memory for the arrays.
            WorkerDied: the other end is gone.
        """
        if self.ended.is_set():
            raise WorkerDied("the worker is not running")
        self._number += 1
        parcel = pack({"call": self._number, "do": verb, "with": tree})
        call = self._calls[self._number] = _Call(self._loop.create_future(), limit_s, self._clock(), told)
        try:
            if parcel.size or self._sending:
                await self._sent(parcel, self._number)
            else:
                self._send_now(parcel.head)
            return await call.reply
        except BaseException:
            call.reply.cancel()
            raise

    def overdue_s(self) -> float | None:
        """How long the call in hand has taken, if that is over its limit; calls behind it have not begun."""
        first = next(iter(self._calls.values()), None)
        if first is None:
            return None
        taken = self._clock() - max(first.since, self._answered)
        return taken if taken > first.limit_s else None

    def hang_up(self) -> None:
        """Tells the other end that no more calls come; it answers those it has and ends."""
        with contextlib.suppress(OSError):  # it is gone already
            self._connection.shutdown(socket.SHUT_WR)

    async def close(self, error: WorkerDied) -> None:
        """Ends every call with `error`, and the connection."""
        self._end()
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        for call in self._calls.values():
            if not call.reply.done():
                call.reply.set_exception(copy.copy(error))
        await asyncio.gather(*self._sending, return_exceptions=True)
        self._connection.close()
        self._inbox.close()

    def _send_now(self, head: bytes) -> None:
        """Sends a message without shared memory when no other is under way; what does not go at once follows."""
        try:
            sent = self._connection.send(head)
        except BlockingIOError:
            sent = 0
        except ConnectionError:
            return  # as in `_send`
        if sent < len(head):
            self._begin(self._send_rest(memoryview(head)[sent:]))

    async def _sent(self, parcel: Parcel, number: int) -> None:
        # Shielded: half a message would make nonsense of all that follow.
        await asyncio.shield(self._begin(self._send(parcel, number)))

    def _begin(self, sending: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(sending)
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)
        return task

    async def _send_rest(self, rest: memoryview) -> None:
        async with self._turn:
            with contextlib.suppress(ConnectionError):
                await self._loop.sock_sendall(self._connection, rest)

    async def _send(self, parcel: Parcel, number: int) -> None:
        async with self._turn:
            try:
                memory = await self._memory(parcel)
            except (OSError, MemoryError) as error:
                del self._calls[number]
                raise OutOfMemory(f"no memory for the {parcel.size:,} bytes of the request's arrays: {error}") from None
            try:
                await self._send_all(parcel.head, memory)
            except ConnectionError:
                pass  # reading finds the end too, and whoever closes the channel knows how it came
            finally:
                if memory is not None:
                    os.close(memory)

    async def _memory(self, parcel: Parcel) -> int | None:
        return await asyncio.to_thread(parcel.memory) if parcel.size > _LONG_COPY_BYTES else parcel.memory()

    async def _send_all(self, head: bytes, memory: int | None) -> None:
        while not self.ended.is_set():
            try:
                sent = send_start(self._connection, head, memory)
            except BlockingIOError:
                await self._writable()
            else:
                await self._loop.sock_sendall(self._connection, memoryview(head)[sent:])
                return

    async def _writable(self) -> None:
        ready = asyncio.Event()
        self._loop.add_writer(self._connection.fileno(), ready.set)
        try:
            await ready.wait()
        finally:
            self._loop.remove_writer(self._connection.fileno())

    def _readable(self) -> None:
        try:
            messages = receive(self._connection, self._inbox)
        except BlockingIOError:
            return
        except ConnectionError:
            messages = None
        if messages is None:
            self._end()
            return
        self.heard = self._clock()
        for message in messages:
            if "told" in message:
                self._calls[message["call"]].told(message["told"])
            elif message:
                self._settle(message)

    def _settle(self, message: Mapping[str, Any]) -> None:
        self._answered, self.answered_once = self.heard, True
        reply = self._calls.pop(message["call"]).reply
        if reply.done():
            return
        if "error" in message:
            reply.set_exception(crossing.error(message["error"]))
        else:
            reply.set_result(message["value"])

    def _end(self) -> None:
        if not self.ended.is_set():
            self._loop.remove_reader(self._connection.fileno())
            self.ended.set()
