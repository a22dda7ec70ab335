"""What a caller hands over, made into a request: arrays, maps of arrays, and lists of sequences of any lengths.

A list is a batch: each of its items becomes an array of one sample. Samples of one shape are stacked. Samples that
differ in their first axis alone are sequences of different lengths: they are padded with zeros at the end, and their
lengths are sent. So a list of 2-D arrays is a list of sequences, and nested lists are the array they look like.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tapehead.errors import BadLengths, BadShape
from tapehead.operations import Request
from tapehead.operations.request import Array
from tapehead.points import Point
from tapehead.wire.messages import TENSOR_PARAMETERS

Inputs = Any
"""An array (or what NumPy makes one of), a list of samples, or a map of either by input name."""


_TARGETS = "targets"
"""The parameter that is a batch as the inputs are: a list of it is of samples, sequences of any lengths."""


def make_request(
    inputs: Inputs, lengths: Any, initial_states: Mapping[str, Any] | None, parameters: Mapping[str, Any]
) -> Request:
    """The request for these inputs; parameters that are None are left to the server's defaults.

    Raises:
        BadShape: samples of one list do not fit together.
        BadLengths: lengths are given beside a list that has its own.
    """
    batches = {name: _batch(value, name) for name, value in _named(inputs).items()}
    ragged = {name: own for name, (_, own) in batches.items() if own is not None}
    if ragged and lengths is not None:
        raise BadLengths("lengths are given beside a list of sequences, which has its own: leave one of them out")
    given = None if lengths is None else {name: np.asarray(n) for name, n in _named(lengths).items()}
    return Request(
        inputs={name: array for name, (array, _) in batches.items()},
        lengths=ragged or given,
        initial_states={str(name): np.asarray(state) for name, state in (initial_states or {}).items()},
        parameters={name: _parameter(name, value) for name, value in parameters.items() if value is not None},
    )


def _named(value: Any) -> Mapping[str, Any]:
    """By input name; what has none stands under the empty one."""
    return value if isinstance(value, Mapping) else {"": value}


def _batch(value: Any, name: str) -> tuple[Array, Array | None]:
    """An input as one array, and the lengths of its sequences where they differ."""
    what = name if name == _TARGETS else f"input {name!r}" if name else "the input"
    if not isinstance(value, list | tuple):
        return np.asarray(value), None
    samples = [_sample(item, f"sample {row} of {what}") for row, item in enumerate(value)]
    if len({sample.shape for sample in samples}) == 1:
        return np.stack(samples), None
    if not samples or len({sample.shape[1:] if sample.ndim else None for sample in samples}) > 1:
        shapes = ", ".join(sorted({str(sample.shape) for sample in samples})[:5]) or "(none)"
        raise BadShape(f"{what} is a list of samples of shapes {shapes}; only their first axis may differ")
    return padded(samples)


def padded(sequences: Sequence[Array]) -> tuple[Array, Array]:
    """Sequences (timesteps, …) as one array (batch, timesteps, …), zeros after their ends; and their lengths."""
    lengths = np.array([len(sequence) for sequence in sequences])
    whole = np.zeros((len(sequences), lengths.max(), *sequences[0].shape[1:]), np.result_type(*sequences))
    for row, sequence in enumerate(sequences):
        whole[row, : len(sequence)] = sequence
    return whole, lengths


def _sample(item: Any, what: str) -> Array:
    try:
        return np.asarray(item)
    except ValueError as error:
        raise BadShape(f"{what} is no array: {error}") from error


def _parameter(name: str, value: Any) -> Any:
    """A parameter as it travels: arrays where it is a tensor, points as their text."""
    if isinstance(value, Point):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _parameter(name, item) for key, item in value.items()}
    if name == _TARGETS and isinstance(value, list | tuple):
        return _batch(value, name)[0]
    if name in TENSOR_PARAMETERS:
        return np.asarray(value) if np.ndim(value) else value
    return [_parameter(name, item) for item in value] if isinstance(value, list | tuple) else value
