"""What a model is asked before anybody else asks it, so that tracing and compiling are over when it is ready."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tapehead.operations import Array, Card, Request, TensorSpec
from tapehead.points import quoted

Shape = tuple[int, int]
"""Batch and timesteps."""

TIMES = 4
"""How often each question is put: what comes again is compiled for its shapes, after as many calls at most."""


def questions(card: Card, shapes: Sequence[Shape]) -> Iterator[tuple[str, Request]]:
    """Each operation with its request: the Jacobian of every layer's last state and a gradient, for each shape."""
    asked = list(_asked(card))
    for batch, timesteps in shapes:
        draw = np.random.default_rng(0)
        inputs = {spec.name: _numbers(spec, batch, timesteps, draw) for spec in card.inputs}
        for operation, parameters in asked:
            yield operation, Request(inputs, None, {}, parameters)


def _asked(card: Card) -> Iterator[tuple[str, Mapping[str, Any]]]:
    wrt = next((name for name in map(quoted, (spec.name for spec in card.inputs)) if _differentiable(card, name)), None)
    if wrt is None:  # integers alone: what follows an embedding is as the model names it
        return
    for layer, info in card.recurrent.items():
        if info["states"]:
            yield "jacobian", {"of": f"{layer}.{next(iter(info['states']))}[-1]", "wrt": wrt}
    name = "outputs" if len(card.outputs) == 1 else "outputs.0"
    entries = ", ".join("-1" if axis == "timestep" else "0" for axis in card.outputs[0].axes)
    yield "saliency", {"target": f"{name}[{entries}]" if entries else name, "wrt": wrt}


def _differentiable(card: Card, name: str) -> bool:
    return name in card.points and card.points[name].differentiable


def _numbers(spec: TensorSpec, batch: int, timesteps: int, draw: np.random.Generator) -> Array:
    shape = [timesteps if n is None else n for n in spec.shape[1:]]
    numbers = draw.normal(size=(batch, *shape)) if "float" in spec.dtype else np.ones((batch, *shape), np.int64)
    return numbers if "float" in spec.dtype or spec.dtype != "bool" else numbers.astype(bool)
