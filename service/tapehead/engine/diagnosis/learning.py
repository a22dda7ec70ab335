"""The gradients of each layer's weights over time, of the loss or the point that a request gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tapehead.engine.diagnosis.fits import Fit, fitted
from tapehead.engine.diagnosis.subject import Subject
from tapehead.engine.model import Model
from tapehead.engine.weight_gradients import weight_gradients
from tapehead.operations import Request, Result
from tapehead.operations.diagnosing import has_objective, weights_of
from tapehead.operations.request import Array

_FORWARDED = ("targets", "loss", "of", "precision")
_BY_TIMESTEP: Mapping[str, Any] = {
    "by": ("timestep",),
    "per_sample": False,
    "values": False,
    "statistics": False,
    "dry_run": False,
}


@dataclass(frozen=True)
class Learning:
    """The norms of a layer's weights' gradients, (weights, timesteps) in the input's own time, and how their logarithm
    changes with every step back: of all weights together, and of each."""

    weights: tuple[str, ...]
    norms: Array
    rate: Fit | None
    rates: Mapping[str, Fit | None]


def gradients(model: Model, request: Request) -> Result | None:
    """`weight_gradients` by timestep; None where the request gives nothing to differentiate."""
    given = request.parameters
    if not has_objective(given):
        return None
    parameters = {**{name: given[name] for name in _FORWARDED}, **_BY_TIMESTEP}
    return weight_gradients(model, Request(request.inputs, request.lengths, request.initial_states, parameters))


def learning(model: Model, subject: Subject, found: Result | None, confidence: float) -> Learning | None:
    """Of one layer; None where nothing was differentiated, or none of its weights has part in it."""
    own = [] if found is None else [name for name in weights_of(model.card, subject.cell) if name in found.tensors]
    if found is None or not own:
        return None
    norms = np.stack([found.tensors[name] for name in own])
    together = np.hypot.reduce(norms.astype(np.float64), axis=0)
    return Learning(
        tuple(own),
        norms,
        _rate(together, subject, confidence),
        {name: _rate(one.astype(np.float64), subject, confidence) for name, one in zip(own, norms, strict=True)},
    )


def _rate(norms: npt.NDArray[np.float64], subject: Subject, confidence: float) -> Fit | None:
    """A line through the logarithms over steps back from the timestep that the layer runs last, zeros left out."""
    back = norms if subject.call.backwards else norms[::-1]
    usable = np.isfinite(back) & (back > 0)
    return fitted([(np.flatnonzero(usable).astype(np.float64), np.log(back[usable]))], confidence)
