"""The process that draws: `python -m tapehead.server.studio`, spoken to through its standard input and output.

    in   what was asked and how the picture shall be (JSON), then the answer as a reply (msgpack)
    out  a problem (JSON), empty where there is none, then the image, empty where there is a problem

Each is eight bytes of length, big-endian, and the bytes themselves. It ends when its input does, so no server that died
leaves one behind.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import BinaryIO

from tapehead.errors import Internal, TapeheadError, problem
from tapehead.server.pictures import Wish, picture
from tapehead.wire.messages import MSGPACK, decode_reply
from tapehead.wire.plain import Bytes

LENGTH_BYTES = 8


def framed(part: Bytes) -> tuple[Bytes, Bytes]:
    """A part as it travels: its length, and itself."""
    return len(part).to_bytes(LENGTH_BYTES, "big"), part


def answer(head: bytes, body: bytes) -> tuple[bytes, bytes]:
    """The problem and the image of one question; one of them is empty."""
    try:
        question = json.loads(head)
        reply = decode_reply(body, MSGPACK)
        return b"", picture(question["asked"], reply, Wish(**question["wish"]))
    except TapeheadError as error:
        return json.dumps(problem(error)).encode(), b""
    except Exception as error:  # noqa: BLE001  # the boundary of this process: whoever asked is told
        unexpected = Internal(f"the picture could not be drawn: {type(error).__name__}: {error}")
        return json.dumps(problem(unexpected)).encode(), b""


def serve(source: BinaryIO, sink: BinaryIO) -> None:
    """Answers questions until there are no more."""
    while True:
        head, body = _part(source), _part(source)
        if head is None or body is None:
            return
        for part in answer(head, body):
            sink.writelines(framed(part))
        sink.flush()


def _part(source: BinaryIO) -> bytes | None:
    length = source.read(LENGTH_BYTES)
    return source.read(int.from_bytes(length, "big")) if len(length) == LENGTH_BYTES else None


def main() -> None:
    """Serves this process's own standard streams; what is printed by accident goes to standard error."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which closes our input
    sink = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    serve(sys.stdin.buffer, sink)


if __name__ == "__main__":
    main()
