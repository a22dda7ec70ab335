"""The process of a worker: answers the calls that come over the socket whose descriptor is its one argument.

It ends when the socket's other end says that no more calls come, and at once, in the middle of whatever it does, when
the other end is gone.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import math
import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from tapehead.errors import Internal, TapeheadError
from tapehead.operations import Array, Result
from tapehead.worker import crossing
from tapehead.worker.memory import Shelf
from tapehead.worker.protocol import Answer
from tapehead.worker.transport import INLINE_BYTES, Inbox, receive, send, send_shared

if TYPE_CHECKING:
    from tapehead.worker.station import Station

_PULSE_S = 1.0
_PIECE_BYTES = 4 << 20
"""How much of a large answer is copied before the server hears of it."""

log = logging.getLogger("tapehead.worker")


def main(descriptor: int) -> None:
    """Serves until there is nobody to serve."""
    for sent_to_all in (signal.SIGINT, signal.SIGTERM):
        signal.signal(sent_to_all, signal.SIG_IGN)  # the server decides when its workers end, after it has drained
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    sys.path.append("")  # the working directory: a module named by --import may lie there, after all that is installed
    connection = socket.socket(fileno=descriptor)
    sending = threading.Lock()
    threading.Thread(target=_pulse, args=(connection, sending), daemon=True).start()
    _Service(connection, sending).run()
    sys.stderr.flush()
    os._exit(0)  # TensorFlow's own way out takes long and can hang


class _Service:
    """The calls of one connection, answered in their order."""

    def __init__(self, connection: socket.socket, sending: threading.Lock) -> None:
        self._connection, self._sending = connection, sending
        self._station: Station | None = None
        self._call = 0
        self.shelf = Shelf()
        self._verbs: Mapping[str, Callable[[Any], Any]] = {
            "start": self._start,
            "load": self._load,
            "unload": self._unload,
            "run": self._run,
            "status": self._status,
        }

    def run(self) -> None:
        inbox = Inbox()
        while (messages := receive(self._connection, inbox)) is not None:
            while messages:
                # Popped, so that a request's arrays are unmapped once it is answered.
                self._reply(self._answer(messages.pop(0)))

    def _reply(self, message: Mapping[str, Any]) -> None:
        with self._sending:
            send(self._connection, message)

    def tell(self, tree: Mapping[str, Any], memory: int | None = None) -> None:
        """Says how far the call in hand has come; `memory` holds the tree's one large array, if it has one."""
        message = {"call": self._call, "told": tree}
        with self._sending:
            if memory is None:
                send(self._connection, message)
            else:
                send_shared(self._connection, message, memory)

    def _answer(self, message: Mapping[str, Any]) -> Mapping[str, Any]:
        number = self._call = message["call"]
        try:
            return {"call": number, "value": self._verbs[message["do"]](message["with"])}
        except TapeheadError as error:
            return {"call": number, "error": crossing.error_tree(error)}
        except Exception as error:  # the outermost boundary: a call that fails must not end the process
            log.exception("%s failed", message["do"])
            told = Internal(f"{message['do']} failed: {type(error).__name__}; the server's log has it")
            return {"call": number, "error": crossing.error_tree(told)}

    def _start(self, tree: Any) -> Any:
        # A door: TensorFlow comes in here, when signs of life are given already.
        from tapehead.worker.station import Station

        self._station = Station(crossing.settings(tree), own_process=True)
        gc.freeze()  # what was imported stays: collecting, as each eviction does, need not look through it
        return crossing.status_tree(self._station.status())

    def _load(self, tree: Any) -> Any:
        return self._started.load(crossing.ref(tree)).to_plain()

    def _unload(self, tree: Any) -> None:
        self._started.unload(*tree)

    def _run(self, tree: Any) -> Any:
        jobs, growing = crossing.jobs(tree)
        sinks = [_Sink(self, number) if grows else None for number, grows in enumerate(growing)]
        answers = self._started.run(jobs, sinks)
        return [_told(answer, sink) for answer, sink in zip(answers, sinks, strict=True)]

    def _status(self, _: Any) -> Any:
        return crossing.status_tree(self._started.status())

    @property
    def _started(self) -> Station:
        if self._station is None:
            raise Internal("the worker was asked to work before it was started")
        return self._station


class _Sink:
    """Memory that the server sees too, for the tensor of one job."""

    def __init__(self, service: _Service, number: int) -> None:
        self._service, self._number = service, number
        self.name = ""

    def open(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        if math.prod(shape) * dtype.itemsize <= INLINE_BYTES:  # it goes in the answer's header
            return np.empty(shape, dtype)
        shared = self._service.shelf.take(math.prod(shape) * dtype.itemsize)
        array: Array = np.frombuffer(shared.mapping, dtype, math.prod(shape)).reshape(shape)
        self._service.tell(crossing.opening_tree(self._number, name, array), shared.descriptor)
        self.name = name
        return array

    def fill(self, size: int) -> None:
        if self.name:
            self._service.tell(crossing.filling_tree(self._number, size))


    def pour(self, name: str, array: Array) -> None:
        """Takes a tensor that was computed elsewhere; what is there is sent on while the rest is copied."""
        into, pieces = self.open(name, array.shape, array.dtype).reshape(-1), np.ascontiguousarray(array).reshape(-1)
        step = max(1, _PIECE_BYTES // array.itemsize)
        for start in range(0, len(pieces), step):
            into[start : start + step] = pieces[start : start + step]
            self.fill(min(start + step, len(pieces)) * array.itemsize)


def _told(answer: Answer, sink: _Sink | None) -> Any:
    """The tree of an answer, without the tensor that the server has already."""
    if sink is not None and not sink.name and isinstance(answer, Result) and len(answer.tensors) == 1:
        sink.pour(*next(iter(answer.tensors.items())))
    return crossing.answer_tree(answer, sink.name if sink else "")


def _pulse(connection: socket.socket, sending: threading.Lock) -> None:
    """Gives a sign of life every second, and ends the process when there is nobody to give it to."""
    hang_up = select.poll()
    hang_up.register(connection, 0)
    with contextlib.suppress(OSError):
        while not hang_up.poll(_PULSE_S * 1000):
            with sending:
                send(connection, {})
    os._exit(1)


if __name__ == "__main__":
    main(int(sys.argv[1]))
