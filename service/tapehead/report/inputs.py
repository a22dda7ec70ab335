"""What a report is about: a file of sequences, read and shaped as a request's inputs."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tapehead.errors import BadParameter, TapeheadError
from tapehead.wire.messages import JSON, decode_request, encode_plain
from tapehead.wire.plain import decode

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Sequences:
    """Sequences, (batch, timesteps, features) or by input name, with what else their file held.

    `times` are the words at the timesteps, `features` those at the features, where the file has them.
    """

    inputs: Array | Mapping[str, Array]
    lengths: Any = None
    initial_states: Mapping[str, Array] = field(default_factory=dict)
    targets: Any = None
    times: tuple[str, ...] = ()
    features: tuple[str, ...] = ()


def read_sequences(path: Path) -> Sequences:
    """The sequences in a file, by its suffix.

    Raises:
        BadParameter: there is no such file, it is of another kind, or it cannot be read.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise BadParameter(f"the input {str(path)!r} is no {', '.join(_READERS)} file")
    try:
        found = reader(path.read_bytes())
    except OSError as error:
        raise BadParameter(f"the input {str(path)!r} cannot be opened: {error.strerror}") from error
    except (TapeheadError, ValueError, csv.Error) as error:
        raise BadParameter(f"the input {str(path)!r} cannot be read: {error}") from error
    if isinstance(found.inputs, np.ndarray) and found.inputs.size == 0:
        raise BadParameter(f"the input {str(path)!r} holds no numbers")
    return found


def _npy(body: bytes) -> Sequences:
    return Sequences(_batched(np.load(io.BytesIO(body), allow_pickle=False)))


def _csv(body: bytes) -> Sequences:
    """A row a timestep, a column a feature. A first row of words names them; a first column of words, the timesteps."""
    rows = [row for row in csv.reader(io.StringIO(body.decode("utf-8-sig"))) if any(cell.strip() for cell in row)]
    head = rows[0] if rows and not any(map(_is_number, rows[0][-1:])) else None
    rows = rows[1:] if head else rows
    labelled = bool(rows) and len(rows[0]) > 1 and not all(_is_number(row[0]) for row in rows)
    widths = {len(row) for row in rows}
    if len(widths) > 1:
        raise ValueError(f"its rows have {min(widths)} to {max(widths)} columns; expected one timestep a row")
    values = np.array([[float(cell) for cell in row[labelled:]] for row in rows], dtype=np.float64)
    times = tuple(row[0] for row in rows) if labelled else ()
    return Sequences(_batched(values), times=times, features=tuple(head[labelled:]) if head else ())


def _json(body: bytes) -> Sequences:
    """A request's body, {"inputs": …, "lengths"?, "initial_states"?, "targets"?}, or the inputs alone."""
    value = decode(body, JSON)
    whole = value if isinstance(value, dict) and "inputs" in value else {"inputs": value}
    request = decode_request(encode_plain(whole, JSON), JSON)
    unknown = sorted(set(request.parameters) - {"targets"})
    if unknown:
        raise ValueError(f"it has a field {unknown[0]!r}; known are inputs, lengths, initial_states, targets")
    targets = request.parameters.get("targets")
    named = set(request.inputs) != {""}
    inputs = request.inputs if named else _batched(request.inputs[""])
    lengths = None if request.lengths is None else request.lengths if named else request.lengths[""]
    return Sequences(inputs, lengths, request.initial_states, None if targets is None else _targets(targets))


def _targets(targets: Any) -> Any:
    if isinstance(targets, Mapping):
        return {name: np.asarray(one) for name, one in targets.items()}
    return np.asarray(targets)


def _batched(array: Array) -> Array:
    """Numbers as (batch, timesteps, features): one sequence without its batch, one feature without its axis."""
    if array.dtype.kind not in "fiub":
        raise ValueError(f"it holds {array.dtype.name}; expected numbers")
    if array.ndim == 1:
        array = array[:, None]
    return array[None] if array.ndim == 2 else array


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


_READERS: Mapping[str, Callable[[bytes], Sequences]] = {".npy": _npy, ".csv": _csv, ".json": _json}
