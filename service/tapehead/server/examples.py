"""A model's example input: what its owner put beside its file, read and checked as a request is.

    sunspots.keras   sunspots.example.json   {"inputs": …, "lengths"?, "initial_states"?, "targets"?}, or inputs alone
                     sunspots.example.npy    the inputs alone

So `forecaster/2/model.keras` has `forecaster/2/model.example.json`. Where both are there, JSON goes first.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from tapehead.errors import BodyTooLarge, MalformedBody, TapeheadError
from tapehead.operations import Request
from tapehead.wire.messages import JSON, decode_request, encode_plain
from tapehead.wire.plain import decode


def example(model_file: str, limit: int) -> Request | None:
    """The example that lies beside a model's file; None where there is none.

    Raises:
        BodyTooLarge: its file has more than `limit` bytes.
        MalformedBody: it cannot be read.
    """
    model = Path(model_file)
    for suffix, read in _READERS.items():
        file = _beside(model, suffix)
        if file is not None:
            return _checked(file, read, limit)
    return None


def _beside(model: Path, suffix: str) -> Path | None:
    """The file beside the model's; a link that leads out of the folder is not followed."""
    try:
        real = model.with_name(f"{model.stem}.example{suffix}").resolve(strict=True)
    except (OSError, RuntimeError):
        return None
    return real if real.is_file() and real.parent == model.parent else None


def _checked(file: Path, read: Callable[[bytes], Request], limit: int) -> Request:
    if file.stat().st_size > limit:
        raise BodyTooLarge(f"the example {file.name} has {file.stat().st_size} bytes; this server takes {limit}")
    try:
        return read(file.read_bytes())
    except (TapeheadError, ValueError) as error:
        raise MalformedBody(f"the example {file.name} beside the model cannot be read: {error}") from error


def _from_json(body: bytes) -> Request:
    value = decode(body, JSON)
    whole = value if isinstance(value, dict) and "inputs" in value else {"inputs": value}
    return decode_request(encode_plain(whole, JSON), JSON)


def _from_npy(body: bytes) -> Request:
    return Request({"": np.load(io.BytesIO(body), allow_pickle=False)})


_READERS: Mapping[str, Callable[[bytes], Request]] = {".json": _from_json, ".npy": _from_npy}
