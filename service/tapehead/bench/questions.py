"""What a model is asked: the Jacobian of its last recurrent layer's last state, and the gradient of one output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tapehead.errors import BadParameter

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Question:
    """An operation with its parameters, and the recurrent layer or the output that it is about."""

    name: str
    operation: str
    parameters: Mapping[str, Any]
    about: str


def questions(metadata: Mapping[str, Any]) -> list[Question]:
    """The questions that fit a model, of what the server tells of it.

    Raises:
        BadParameter: nothing in the model can be differentiated by.
    """
    wrt = _differentiated_by(metadata)
    found = []
    for layer, told in list(metadata["recurrent"].items())[-1:]:
        last = 0 if told.get("direction") == "backward" else -1
        of = f"{layer}.{next(iter(told['states']))}[{last}]"
        found.append(Question(f"jacobian of {of} wrt {wrt}", "jacobian", {"of": of, "wrt": wrt}, layer))
    target = _target(metadata["outputs"])
    found.append(Question(f"gradient of {target} wrt {wrt}", "saliency", {"target": target, "wrt": wrt}, "outputs"))
    return found


def inputs(metadata: Mapping[str, Any], batch: int, timesteps: int, draw: np.random.Generator) -> dict[str, Array]:
    """Standard normal inputs, or ones where whole numbers are wanted (a token that every vocabulary has).

    Args:
        timesteps: of inputs that may have any number.
    """
    found = {}
    for told in metadata["inputs"]:
        shape = (batch, *(timesteps if size == -1 else size for size in told["shape"][1:]))
        dtype = np.dtype(metadata["points"][told["name"]]["dtype"])
        found[told["name"]] = (np.ones(shape) if dtype.kind in "iub" else draw.normal(size=shape)).astype(dtype)
    return found


def _differentiated_by(metadata: Mapping[str, Any]) -> str:
    """The first input of numbers, else the first point (an embedding's output)."""
    names: list[str] = [*(told["name"] for told in metadata["inputs"]), *metadata["points"]]
    for name in names:
        if metadata["points"][name]["differentiable"]:
            return name
    raise BadParameter(f"model {metadata['name']!r} has no point that can be differentiated by")


def _target(outputs: Sequence[Mapping[str, Any]]) -> str:
    """One number a sample of the first output: it itself, its largest entry, or the first of the last timestep."""
    name = "outputs" if len(outputs) == 1 else "outputs.0"
    sizes: list[int] = outputs[0]["shape"][1:]
    if len(sizes) < 2:
        return name if sizes in ([], [1]) else f"{name}[argmax]"
    return f"{name}[{', '.join(['-1', *['0'] * (len(sizes) - 1)])}]"
