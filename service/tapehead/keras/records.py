"""What a `GradientMonitor` records of one step of training, and how it is read off an answer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from tapehead.client.answers import Answer

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class GradientRecord:
    """The gradients of the probe at one step of training.

    Attributes:
        step: how many batches had been trained on.
        epoch: the epoch, from 0.
        loss: the probe's loss, or the sum of what `of` names.
        weights: the norm of each weight's gradient.
        layers: the norm of each layer's, all of its weights together.
        decay: the factor by which the norm changes from one timestep to the one before it, by recurrent layer; None
            where fewer than two timesteps have a gradient.
        verdict: what `diagnose` says, by recurrent layer; empty where it was not asked.
        answer: the norms by gate and by timestep, as `weight_gradients` answers them; it can be plotted.
    """

    step: int
    epoch: int
    loss: float
    weights: Mapping[str, float]
    layers: Mapping[str, float]
    decay: Mapping[str, float | None]
    verdict: Mapping[str, str]
    answer: Answer


def layer_of(weight: str) -> str:
    """The layer that a weight belongs to: what stands before the slash of `lstm/kernel`."""
    return weight.partition("/")[0]


def together(norms: Mapping[str, Array]) -> dict[str, Array]:
    """The norm of several weights' gradients from their own, by layer: the root of the sum of the squares."""
    layers: dict[str, list[Array]] = {}
    for weight, norm in norms.items():
        layers.setdefault(layer_of(weight), []).append(norm)
    return {layer: hypotenuse(parts) for layer, parts in layers.items()}


def hypotenuse(parts: Sequence[Array]) -> Array:
    """The root of the sum of squares, scaled so that it neither overflows nor vanishes before its parts do."""
    found: Array = np.hypot.reduce(np.stack(parts).astype(np.float64), axis=0)
    return found


def decay(norms: Array, *, backward: bool) -> float | None:
    """The factor by which a layer's norms (timesteps,) change per timestep towards the one it runs first.

    It is the slope of a straight line through their logarithms, zeros left out: 1 keeps, below 1 vanishes.
    """
    turned = norms if backward else norms[::-1]
    steps = np.flatnonzero(np.isfinite(turned) & (turned > 0))
    if len(steps) < 2:
        return None
    slope = np.polyfit(steps, np.log(turned[steps]), 1)[0]
    return math.exp(min(float(slope), 700.0))
