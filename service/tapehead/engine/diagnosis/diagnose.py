"""The operation: each recurrent layer examined, measured, and judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from tapehead.engine.answer import Stopwatch, answer, in_precision
from tapehead.engine.diagnosis.examined import Examined, Extent, examine, extents
from tapehead.engine.diagnosis.finding import Finding
from tapehead.engine.diagnosis.findings import findings, verdict
from tapehead.engine.diagnosis.finite import First, first
from tapehead.engine.diagnosis.fits import Fit
from tapehead.engine.diagnosis.learning import gradients, learning
from tapehead.engine.diagnosis.lyapunov import exponents
from tapehead.engine.diagnosis.measures import Influence, Measures, measured, spectrum
from tapehead.engine.diagnosis.spectra import Spectra
from tapehead.engine.diagnosis.subject import Subject, subjects
from tapehead.engine.model import Model
from tapehead.engine.prepared import Prepared
from tapehead.operations import Request, Result
from tapehead.operations.diagnosing import several_states
from tapehead.operations.recurrent import recurrent_cells
from tapehead.operations.request import Array

Axes = tuple[str, ...]


def diagnose(model: Model, request: Request) -> Result:
    """A verdict on each recurrent layer, with its numbers, findings and tensors."""
    stopwatch, parameters = Stopwatch(), request.parameters
    thresholds: Mapping[str, float] = parameters["thresholds"]
    model = in_precision(model, request)
    examinees = subjects(model, recurrent_cells(model.card, parameters["layer"]))
    prepared = Prepared(model, request, [_hidden(subject) for subject in examinees])
    stopwatch.lap("prepare")
    extent = extents(prepared, examinees, parameters["exponents"], parameters["steps"])
    seen = examine(prepared, examinees, extent, thresholds["margin"])
    stopwatch.lap("run")
    found = gradients(model, request)
    stopwatch.lap("gradients")
    where = first(prepared, seen.finite)
    judged = [
        _Judged(prepared, subject, seen.cells[subject.name], own, where, found, parameters)
        for subject, own in zip(examinees, extent, strict=True)
    ]
    stopwatch.lap("judge")
    tensors = {name: array for one in judged for name, (array, _) in one.tensors.items()}
    axes = {name: axes for one in judged for name, (_, axes) in one.tensors.items()}
    more = _meta(judged, where, thresholds) | _objective(found)
    return answer(prepared, tensors, axes, stopwatch, route="reverse", **more)


class _Judged:
    """One layer with its tensors, numbers and findings."""

    def __init__(
        self,
        prepared: Prepared,
        subject: Subject,
        seen: Examined,
        extent: Extent,
        where: First | None,
        gradients: Result | None,
        parameters: Mapping[str, Any],
    ) -> None:
        self.subject, self.times = subject, extent.times
        valid = _valid(prepared, subject, seen)
        grown = exponents(seen.stretches, valid, parameters["transient"])
        found, thresholds = spectrum(seen, valid, extent.times), parameters["thresholds"]
        learnt = learning(prepared.model, subject, gradients, thresholds["confidence"])
        self.measures = measured(subject, seen, valid, extent.times, grown, found, learnt, thresholds)
        # What is not finite further on is no matter of this layer.
        reached = where if where is not None and _reaches(prepared, subject, where) else None
        self.findings = findings(self.measures, reached, thresholds)
        self.tensors = {
            f"{subject.name}:{name}": pair for name, pair in _tensors(subject, seen, valid, grown, found).items()
        }
        if learnt is not None:
            self.tensors[f"{subject.name}:weight_gradients"] = learnt.norms, ("weight", "timestep")


def _valid(prepared: Prepared, subject: Subject, seen: Examined) -> npt.NDArray[np.bool_]:
    valid = prepared.valid(subject.hidden_place)
    return np.ones(seen.influence.shape[:2], np.bool_) if valid is None else valid


def _reaches(prepared: Prepared, subject: Subject, where: First) -> bool:
    """Whether the layer that is not finite is this one, or comes before it."""
    return any(call.name == where.layer for call in prepared.model.calls_before([subject.hidden_place]))


def _tensors(
    subject: Subject, seen: Examined, valid: npt.NDArray[np.bool_], grown: Array, found: Spectra | None
) -> dict[str, tuple[Array, Axes]]:
    """The layer's tensors with their axes."""
    tensors: dict[str, tuple[Array, Axes]] = {"influence": (seen.influence[..., 0], ("batch", "timestep"))}
    if several_states(subject.cell):
        tensors["state_influence"] = (seen.influence[..., 1], ("batch", "timestep"))
    if found is not None:
        tensors["singular_values"] = (found.singular_values, ("batch", "timestep", "singular_value"))
        tensors["spectral_radius"] = (found.spectral_radius, ("batch", "timestep"))
    tensors["lyapunov"] = (grown, ("batch", "exponent"))
    if seen.gates != ():
        counts = np.maximum(valid.sum(axis=0), 1)
        shares = np.einsum("btgs,bt->gts", seen.gates.shares, valid) / counts[:, None]
        tensors["saturation"] = (shares.astype(seen.influence.dtype), ("gate", "timestep", "side"))
    return {name: (np.ascontiguousarray(array), axes) for name, (array, axes) in tensors.items()}


def _meta(judged: Sequence[_Judged], where: First | None, thresholds: Mapping[str, float]) -> dict[str, Any]:
    return {
        "verdict": {one.subject.name: verdict(one.findings) for one in judged},
        "findings": [_plain(finding) for one in judged for finding in one.findings],
        "numbers": {one.subject.name: numbers(one.measures) for one in judged},
        "norm": "Frobenius",
        "states": {one.subject.name: list(one.subject.cell.states) for one in judged},
        "hidden": {one.subject.name: _hidden(one.subject) for one in judged},
        "gates": {one.subject.name: list(one.subject.cell.activated) for one in judged},
        "weights": {one.subject.name: list(_weights(one.measures)) for one in judged},
        "jacobian_timesteps": {one.subject.name: one.times.tolist() for one in judged},
        "not_finite": None if where is None else where._asdict(),
        "thresholds": dict(thresholds),
    }


def _objective(found: Result | None) -> dict[str, Any]:
    """What the gradients of the weights are of."""
    about = ("loss", "loss_value", "disconnected")
    return {} if found is None else {name: found.meta[name] for name in about}


def _hidden(subject: Subject) -> str:
    return f"{subject.cell.layer}.{subject.hidden_place.name}"


def _plain(finding: Finding) -> dict[str, Any]:
    return asdict(finding)


def numbers(measures: Measures) -> dict[str, Any]:
    """A layer's measures as maps, lists and numbers; what is not known is None."""
    found: dict[str, Any] = {"influence": _influence(measures.hidden)}
    if several_states(measures.subject.cell):
        found["state_influence"] = _influence(measures.state)
    if measures.singular_values is not None:
        found["singular_values"] = dict(zip(("least", "largest", "maximum"), measures.singular_values, strict=True))
    if measures.spectral_radius is not None:
        found["spectral_radius"] = dict(zip(("mean", "maximum"), measures.spectral_radius, strict=True))
    found["lyapunov"] = [asdict(one) for one in measures.exponents]
    found["gates"] = {gate: asdict(use) for gate, use in measures.gates.items()}
    found["dead_units"] = None if measures.dead is None else measures.dead[0]
    found["initialisation"] = None if measures.initialisation is None else asdict(measures.initialisation)
    if measures.learning is not None:
        rates = {name: _rate(rate) for name, rate in measures.learning.rates.items()}
        found["weight_gradients"] = {"rate": _rate(measures.learning.rate), "rates": rates}
    plain: dict[str, Any] = _without_nan(found)
    return plain


def _weights(measures: Measures) -> tuple[str, ...]:
    return () if measures.learning is None else measures.learning.weights


def _influence(influence: Influence) -> dict[str, Any]:
    return {
        "rate": _rate(influence.rate),
        "horizon": dict(influence.horizon),
        "least": influence.least,
        "largest": influence.largest,
        "reach": influence.reach,
    }


def _rate(rate: Fit | None) -> dict[str, Any] | None:
    return None if rate is None else {**asdict(rate.slope), "intercept": rate.intercept, "explained": rate.explained}


def _without_nan(value: Any) -> Any:
    """The same with None for what is no number; an infinite one says something and stays."""
    if isinstance(value, dict):
        return {name: _without_nan(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and np.isnan(value) else value
