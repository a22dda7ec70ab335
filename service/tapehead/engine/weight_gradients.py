"""The gradient of a loss, or of one number a sample, with respect to every weight: measured by timestep and by gate.

At timestep t a recurrent layer's weight gets what the step at t passes back to it, a copy of the weight for each
timestep being differentiated apart (back-propagation through time: Werbos 1990); the copies' gradients add up to the
weight's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tapehead.engine.answer import Stopwatch, answer, in_precision
from tapehead.engine.graph import Call, Recurrence
from tapehead.engine.losses import OutputLoss, aligned, losses
from tapehead.engine.model import Model
from tapehead.engine.prepared import Prepared
from tapehead.engine.products import spike
from tapehead.engine.rules.factors import NORM
from tapehead.engine.states import taken
from tapehead.engine.sweep import weights_of
from tapehead.engine.weight_programs import LOSS, VALUE, WHOLE, Asked, loss_program, point_program
from tapehead.errors import BadParameter
from tapehead.operations import Request, Result
from tapehead.operations.request import Array
from tapehead.operations.selection import select
from tapehead.operations.weights import GATE, TIMESTEP, axes_of, calls_of, gates_of, gram_pays

Found = Mapping[str, Mapping[str, Array]]


def weight_gradients(model: Model, request: Request, *, wholes: bool = False) -> Result:
    """Each weight's gradient: its Frobenius norm under the weight's name, over the batch or for each sample, whole or
    by timestep and by gate; with `statistics` and `values` what those say.

    `meta.disconnected` names the weights that the loss does not depend on, which have no tensors; `loss_value` is the
    loss, one a sample with `per_sample`. With `wholes` each weight has besides, named `:whole`, the norm of the sum of
    its timesteps, whatever `by` says of those.
    """
    stopwatch = Stopwatch()
    prepared, terms = _prepared(in_precision(model, request), request)
    if TIMESTEP in request.parameters["by"]:
        _refuse_mixed_uses(prepared.model)
    asked = replace(_asked(prepared), wholes=wholes)
    stopwatch.lap("prepare")
    found, value = _of_loss(prepared, terms, asked) if terms else _of_point(prepared, asked)
    stopwatch.lap("run")
    answered = _Answered(prepared, request.parameters)
    weights = [name for name in prepared.model.weights if name in found]
    tensors, axes = answered.of(found, weights)
    more = _about(prepared.model, found, terms) | {"gates": _gates(prepared.model), "loss_value": value.tolist()}
    return answer(prepared, tensors, axes, stopwatch, route="reverse", **more)


def _prepared(model: Model, request: Request) -> tuple[Prepared, tuple[OutputLoss, ...]]:
    parameters = request.parameters
    if parameters["of"] is not None:
        return Prepared(model, request, [parameters["of"]]), ()
    terms = losses(model, parameters["loss"], list(parameters["targets"]))
    return Prepared(model, request, [term.point for term in terms]), terms


def _of_loss(prepared: Prepared, terms: tuple[OutputLoss, ...], asked: Asked) -> tuple[Found, Array]:
    """What is found of every weight, and the loss."""
    given = prepared.request.parameters["targets"]
    targets = [aligned(prepared, term, given[term.output]) for term in terms]
    found = loss_program(prepared.model, prepared.calls, terms, prepared.arrays(), targets, asked)
    return found, found[LOSS][VALUE]


def _of_point(prepared: Prepared, asked: Asked) -> tuple[Found, Array]:
    """The same for the sum over the batch of one number a sample, or for each sample's own."""
    of = prepared.targets[prepared.request.parameters["of"]]
    values, times = spike(prepared, of, np.ones((prepared.batch, 1, *of.shape), prepared.dtype))
    found = point_program(prepared.model, prepared.calls, of.place, prepared.arrays(), values, times, asked)
    numbers = taken(of, found[LOSS][VALUE]).reshape(prepared.batch)
    return found, numbers if asked.rows else numbers.sum()


def _refuse_mixed_uses(model: Model) -> None:
    """A weight that is used outside of recurrent layers too has no gradient at a timestep."""
    inside = {id(v) for call in model.graph.recurrences for v in weights_of(call)}
    outside = {id(v) for call in model.graph.calls if isinstance(call, Call) for v in weights_of(call)}
    if mixed := [name for name, variable in model.weights.items() if id(variable) in inside & outside]:
        raise BadParameter(
            f"{mixed[0]!r} is used within a recurrent layer and outside of one, where its gradient has no timesteps: "
            f"leave 'timestep' out of by"
        )


def _asked(prepared: Prepared) -> Asked:
    parameters, card = prepared.request.parameters, prepared.model.card
    by, rows = parameters["by"], parameters["per_sample"]
    gates = [(name, len(gates_of(card, name))) for name in card.weights if GATE in axes_of(card, name, by)]
    formed = parameters["statistics"] or parameters["values"]
    grams = frozenset() if formed else frozenset(name for name in card.weights if _by_gram(prepared, name))
    return Asked(rows, TIMESTEP in by, tuple(gates), grams, parameters["statistics"], parameters["values"])


def _by_gram(prepared: Prepared, weight: str) -> bool:
    """Whether a weight's norm comes from Gram matrices."""
    model, parameters = prepared.model, prepared.request.parameters
    variable = model.weights[weight]
    calls = [call for call in model.graph.recurrences if any(variable is one for one in weights_of(call))]
    summed = 0
    for call in calls:
        samples = 1 if parameters["per_sample"] else prepared.batch
        summed += samples * (1 if TIMESTEP in parameters["by"] else _timesteps(prepared, call))
    return _multiplied(weight) and gram_pays(summed, tuple(variable.shape), prepared.dtype)


def _timesteps(prepared: Prepared, call: Recurrence) -> int:
    follows = prepared.model.seen.follows.get(call.sequence)
    known = prepared.model.seen.shapes[call.sequence][0]
    return int(prepared.inputs[follows].shape[1]) if follows is not None else known or 1


def _multiplied(weight: str) -> bool:
    """Whether something is multiplied by the weight; a bias is added, its gradient is formed as soon as it is read."""
    return weight.rpartition("/")[2] != "bias"


@dataclass(frozen=True)
class _Answered:
    """The answer's tensors, from what the program found."""

    prepared: Prepared
    parameters: Mapping[str, Any]

    def of(self, found: Found, weights: list[str]) -> tuple[dict[str, Array], dict[str, tuple[str, ...]]]:
        """The tensors and their axes."""
        tensors: dict[str, Array] = {}
        axes: dict[str, tuple[str, ...]] = {}
        for weight in weights:
            for name, array in found[weight].items():
                label = weight if name == NORM else f"{weight}:{name}"
                tensors[label], axes[label] = self._one(weight, name, np.asarray(array))
            if self.parameters["values"]:
                label = f"{weight}:{_WEIGHT}"
                tensors[label] = np.asarray(self.prepared.model.weights[weight], self.prepared.dtype)
                axes[label] = self._own_axes(weight)
        return tensors, axes

    def _one(self, weight: str, name: str, array: Array) -> tuple[Array, tuple[str, ...]]:
        batch = ("batch",) if self.parameters["per_sample"] else ()
        by = axes_of(self.prepared.model.card, weight, self.parameters["by"])
        if name == VALUE:
            return array, (*batch, *(one for one in by if one == TIMESTEP), *self._own_axes(weight))
        if name == WHOLE:
            return array, (*batch, *(one for one in by if one == GATE))
        turned = by == (GATE, TIMESTEP)
        return np.ascontiguousarray(np.swapaxes(array, -1, -2)) if turned else array, (*batch, *by)

    def _own_axes(self, weight: str) -> tuple[str, ...]:
        return select(self.prepared.model.card, weight).axes


_WEIGHT = "weight"


def _about(model: Model, found: Found, terms: tuple[OutputLoss, ...]) -> dict[str, Any]:
    """What the answer says of the loss and of the weights."""
    names = {term.output: term.name for term in terms}
    loss = next(iter(names.values()), None) if len(model.card.outputs) == 1 else names or None
    trainable = {name: getattr(variable, "trainable", True) for name, variable in model.weights.items()}
    return {
        "loss": loss,
        "disconnected": [name for name in model.weights if name not in found],
        "not_trainable": [name for name, own in trainable.items() if not own],
        "regularized": [name for name, variable in model.weights.items() if getattr(variable, "regularizer", None)],
    }


def _gates(model: Model) -> dict[str, list[str]]:
    """The gates of each recurrent layer or cell, in the order of the axis `gate`."""
    names = {name: gates_of(model.card, name) for name in model.weights if calls_of(model.card, name)}
    return {name.rpartition("/")[0]: list(gates) for name, gates in names.items() if gates}
