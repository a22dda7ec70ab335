"""Cells and layers as Keras computes them, a whole batch of perturbed copies at once."""

from __future__ import annotations

import inspect
from typing import Any

from keras import ops as xp

from oracle.signals import Array, Gate, Signal, Weight

__all__ = ["cell", "layer", "xp"]


def cell(cell: Any, x: Array, states: list[Array], weight: Weight, gate: Gate) -> tuple[Array, list[Array]]:
    out, new = cell(x, states)
    return out, list(new) if isinstance(new, list | tuple) else [new]


def layer(layer: Any, arguments: list[Signal], weight: Weight) -> Array:
    values = [signal.value for signal in arguments]
    takes_mask = arguments[0].mask is not None and "mask" in inspect.signature(layer.call).parameters
    given = {"mask": arguments[0].mask} if takes_mask else {}
    return layer(values if len(values) > 1 else values[0], **given)
