"""Weight gradients, before anything is computed: what may be asked, and what of each weight will be answered."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tapehead.errors import BadDtype, BadParameter, BadShape
from tapehead.operations.arrays import floating
from tapehead.operations.card import Card
from tapehead.operations.plans import Asked, Shape, one_number
from tapehead.operations.request import Array, Plan
from tapehead.operations.selection import select

GATE, TIMESTEP = "gate", "timestep"
STATISTICS = ("mean", "minimum", "maximum", "zeros")

GRAM_COST = 2
"""Gram matrices are multiplied in float64, at half the speed of float32."""


def weight_plans(asked: Asked) -> tuple[Plan, ...]:
    """Every weight's tensors; those of weights that turn out to be disconnected are not answered."""
    check_objective(asked)
    return tuple(plan for name in asked.card.weights for plan in _plans(asked, name))


def check_objective(asked: Asked) -> None:
    """Checks what the gradient is of, `of` or a loss and its targets, and fills in the names of outputs."""
    parameters = asked.parameters
    _refuse_contradictions(parameters)
    if parameters["of"] is not None:
        one_number(asked, "of")
    else:
        parameters["targets"] = _targets(asked)
        parameters["loss"] = _losses(asked.card, parameters["loss"], parameters["targets"])


def _refuse_contradictions(parameters: Mapping[str, Any]) -> None:
    given = [name for name in ("targets", "loss") if parameters[name] is not None]
    if parameters["of"] is not None and given:
        raise BadParameter(f"both `of` and {given[0]!r} are given; a gradient is of a point, or of a loss with targets")
    if parameters["of"] is None and parameters["targets"] is None:
        raise BadParameter("the gradient of the weights needs targets for a loss, or `of`, one number a sample")


def _targets(asked: Asked) -> dict[str, Array]:
    """The targets by output, in the dtype of the answer.

    Raises:
        BadParameter, BadShape, BadDtype, NotFinite: an output is unknown or ambiguous; as they say.
    """
    given = asked.parameters["targets"]
    names = [spec.name for spec in asked.card.outputs]
    if not isinstance(given, Mapping):
        if len(names) > 1:
            raise BadParameter(f"the model has several outputs, {names}: give targets as a map of outputs to tensors")
        given = {names[0]: given}
    if not given:
        raise BadParameter(f"targets is empty; outputs here: {names}")
    found = {_output(asked.card, name, "targets"): array for name, array in given.items()}
    return {name: _target(asked, name, array) for name, array in found.items()}


def _target(asked: Asked, output: str, array: Any) -> Array:
    label = f"targets of {output!r}"
    if not isinstance(array, np.ndarray):
        raise BadParameter(f"{label} is {type(array).__name__}; expected a tensor")
    if array.ndim < 1 or array.shape[0] != asked.request.batch or 0 in array.shape:
        raise BadShape(f"{label} has shape {array.shape}; expected {asked.request.batch} samples first, as in inputs")
    if array.dtype.kind not in "iufb" and array.dtype.name != "bfloat16":
        raise BadDtype(f"{label} is {array.dtype.name}; expected numbers")
    return floating(label, array.astype(np.int8) if array.dtype.kind == "b" else array, asked.dtype)


def _losses(card: Card, given: Any, targets: Mapping[str, Array]) -> str | dict[str, str] | None:
    if not isinstance(given, Mapping):
        return given if given is None else str(given)
    found = {_output(card, name, "loss"): loss for name, loss in given.items()}
    if set(found) != set(targets):
        raise BadParameter(f"loss names {sorted(found)}, and targets {sorted(targets)}: give both for the same outputs")
    return found


def _output(card: Card, name: str, what: str) -> str:
    """The output that a name means: its own, its point, or its key in the model's map of outputs."""
    names = [spec.name for spec in card.outputs]
    points = {"outputs": names[0]} if len(names) == 1 else {f"outputs.{n}": own for n, own in enumerate(names)}
    found = name if name in names else {**points, **card.output_keys}.get(name)
    if found is None:
        raise BadParameter(f"{what} names the output {name!r}; outputs here: {list(card.output_keys) or names}")
    return found


def _plans(asked: Asked, weight: str) -> list[Plan]:
    parameters = asked.parameters
    own = select(asked.card, weight)
    lead = _lead(asked, weight)
    gates = (len(gates_of(asked.card, weight)), GATE)
    by = [gates if name == GATE else lead[-1] for name in axes_of(asked.card, weight, parameters["by"])]
    batch = [axis for axis in lead if axis[1] == "batch"]
    names = [weight, *(f"{weight}:{name}" for name in STATISTICS if parameters["statistics"])]
    plans = [_plan(asked, name, [*batch, *by]) for name in names]
    if parameters["values"]:
        whole = list(zip(asked.card.weights[weight], own.axes, strict=True))
        plans += [_plan(asked, f"{weight}:value", [*lead, *whole]), _plan(asked, f"{weight}:weight", whole)]
    return plans


def _plan(asked: Asked, name: str, parts: Sequence[tuple[int | None, str]]) -> Plan:
    return asked.plan(name, tuple(n for n, _ in parts), tuple(axis for _, axis in parts), batch=False)


def _lead(asked: Asked, weight: str) -> list[tuple[int | None, str]]:
    """The axes that the gradient itself keeps: samples, then timesteps."""
    batch = [(asked.request.batch, "batch")] if asked.parameters["per_sample"] else []
    timed = TIMESTEP in axes_of(asked.card, weight, asked.parameters["by"])
    return [*batch, *([(_timesteps(asked, weight), TIMESTEP)] if timed else [])]


def axes_of(card: Card, weight: str, by: tuple[str, ...]) -> tuple[str, ...]:
    """Those of `by` that apply to a weight: gates where it has their columns, timesteps in a recurrent layer."""
    applies = {GATE: bool(gates_of(card, weight)), TIMESTEP: bool(calls_of(card, weight))}
    return tuple(name for name in by if applies[name])


def gates_of(card: Card, weight: str) -> tuple[str, ...]:
    """The gates whose columns stand on the last axis of a weight, in their order."""
    return tuple(card.columns.get(weight, ()))


def calls_of(card: Card, weight: str) -> list[str]:
    """The calls of the recurrent layer that a weight belongs to; none where it belongs to another kind of layer."""
    return [call for call in card.recurrent if weight.startswith(tuple(call.partition(".call.")[0] + c for c in "/."))]


def _timesteps(asked: Asked, weight: str) -> int | None:
    """The timesteps of its layer, of the longest of its calls; None where only the model can tell."""
    found = []
    for call in calls_of(asked.card, weight):
        info = asked.card.points[f"{call}.{next(iter(asked.card.recurrent[call]['states']))}"]
        follows = info.follows
        found.append(info.shape[0] if follows is None else int(asked.request.inputs[follows].shape[1]))
    return None if None in found else max(n for n in found if n is not None)


def gram_pays(summed: int, shape: Shape, dtype: np.dtype[Any]) -> bool:
    """Whether the norm of a sum of `summed` products is had from Gram matrices, without forming the (a, b) gradient.

    For one product it always is. In float64 the sum is formed: the caller wants its digits, and those of a norm that is
    much smaller than the products would be lost.
    """
    if summed == 1 or len(shape) != 2:
        return len(shape) == 2
    rows, columns = (n or 1 for n in shape)
    return dtype.itemsize < 8 and GRAM_COST * summed * (rows + columns) < rows * columns


def weight_cost(asked: Asked) -> tuple[str, float]:
    """A run, a sweep back and the products; another pass over each where they are formed to be measured."""
    entries = math.prod([2 if asked.parameters[name] else 1 for name in ("values", "statistics")])
    return "reverse", 2 + entries
