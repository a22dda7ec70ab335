"""Where a layer cannot be told which timesteps are padding: one request a length, and the answers put together again.

Padding is as the engine's: a state repeats the last timestep before it, and so do derivatives of it; all else is zero,
the states of a layer that runs backward too (it meets the padding first, and starts from zeros).
`meta.valid` tells which timesteps count, `meta.requests` how many requests were made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tapehead.client.answers import Answer
from tapehead.operations import Request
from tapehead.operations.request import Array
from tapehead.points import parse

_BY_ROW = ("target_index",)
"""The members of `meta` that have an entry a row."""


@dataclass(frozen=True)
class Part:
    """The rows of a request whose sequences have one length, as a request without padding."""

    rows: Array
    length: int
    request: Request


def apart(request: Request) -> list[Part]:
    """The request by length; empty where it cannot be taken apart.

    It cannot where a parameter is a tensor, whose rows and timesteps only the operation knows, or where one sample has
    different lengths in different inputs.
    """
    given = list((request.lengths or {}).items())
    if not given or any(map(_holds_tensors, request.parameters.values())):
        return []
    timed = list(request.inputs) if [name for name, _ in given] == [""] else [name for name, _ in given]
    lengths = given[0][1]
    if any(not np.array_equal(lengths, other) for _, other in given) or len(lengths) != request.batch:
        return []
    return [_part(request, timed, np.flatnonzero(lengths == length), int(length)) for length in np.unique(lengths)]


def _part(request: Request, timed: Sequence[str], rows: Array, length: int) -> Part:
    inputs = {name: array[rows, :length] if name in timed else array[rows] for name, array in request.inputs.items()}
    states = {name: array[rows] for name, array in request.initial_states.items()}
    return Part(rows, length, replace(request, inputs=inputs, lengths=None, initial_states=states))


def _holds_tensors(value: Any) -> bool:
    return any(map(_holds_tensors, value.values())) if isinstance(value, Mapping) else isinstance(value, np.ndarray)


def together(
    parts: Sequence[Part], answers: Sequence[Answer], timesteps: int, last: Mapping[str, int]
) -> Answer | None:
    """The parts' answers as one; None where their axes do not allow it.

    Args:
        timesteps: those of the padded input.
        last: by the states' points, the timestep that padding repeats.
    """
    first = answers[0]
    joined: dict[str, Array] = {}
    for name, axes in first.axes.items():
        pieces = [answer.tensors[name] for answer in answers]
        sizes = _sizes(parts, pieces, axes, timesteps)
        if sizes is None:
            return None
        repeated = [last.get(_point(axis, name, first.asked)) for axis in axes[1:]]
        joined[name] = _by_row(parts, [_grown(piece, sizes, repeated) for piece in pieces])
        joined[name].flags.writeable = False
    return replace(first, tensors=joined, meta=_meta(parts, [answer.meta for answer in answers], timesteps))


def _sizes(parts: Sequence[Part], pieces: Sequence[Array], axes: Sequence[str], timesteps: int) -> list[int] | None:
    """The shape that holds every piece, without the batch axis; an axis that follows the lengths gets all timesteps."""
    if axes[:1] != ("batch",):
        return None
    sizes = []
    for at, axis in enumerate(axes[1:], start=1):
        found = [piece.shape[at] for piece in pieces]
        timed = axis.endswith("timestep")
        if len(set(found)) > 1 and not timed:
            return None
        follows = timed and found == [part.length for part in parts]
        sizes.append(timesteps if follows else max(found))
    return sizes


def _grown(piece: Array, sizes: Sequence[int], repeated: Sequence[int | None]) -> Array:
    """A piece padded at the ends of its axes (the batch apart) to `sizes`: with an entry of its own, or with zeros."""
    for at, (size, entry) in enumerate(zip(sizes, repeated, strict=True), start=1):
        present = piece.shape[at]
        if entry is not None and present:
            piece = piece.take([*range(present), *[entry % present] * (size - present)], axis=at)
        else:
            piece = np.pad(piece, [(0, size - present if axis == at else 0) for axis in range(piece.ndim)])
    return piece


def _point(axis: str, tensor: str, asked: Mapping[str, Any]) -> str:
    """The name of the point whose timesteps an axis counts, where padding may repeat it; else nothing."""
    texts = {"of.timestep": asked.get("of"), "timestep": tensor if asked.get("operation") == "states" else None}
    text = texts.get(axis)
    if isinstance(text, list):
        text = tensor.partition(" / ")[0]
    return parse(text).name if text else ""


def _meta(parts: Sequence[Part], metas: Sequence[Mapping[str, Any]], timesteps: int) -> dict[str, Any]:
    """The first part's, but for what is of all parts: whether all is finite, the times added, and what each row has."""
    lengths = _by_row(parts, [np.full(len(part.rows), part.length) for part in parts])
    stages = {stage for meta in metas for stage in meta.get("timings", {})}
    return {
        **metas[0],
        **{name: _by_row(parts, [meta[name] for meta in metas]).tolist() for name in _BY_ROW if name in metas[0]},
        "finite": all(meta.get("finite", True) for meta in metas),
        "timings": {stage: sum(meta.get("timings", {}).get(stage, 0.0) for meta in metas) for stage in sorted(stages)},
        "valid": (np.arange(timesteps) < lengths[:, None]).tolist(),
        "requests": len(parts),
    }


def _by_row(parts: Sequence[Part], values: Sequence[Any]) -> Array:
    ordered = np.argsort(np.concatenate([part.rows for part in parts]))
    return np.concatenate([np.asarray(value) for value in values])[ordered]
