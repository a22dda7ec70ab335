"""Values: of any points (`states`), and of the model's outputs (`infer`)."""

from __future__ import annotations

from typing import Any

import numpy as np

from tapehead.engine.answer import Stopwatch, answer, in_precision
from tapehead.engine.model import Model
from tapehead.engine.prepared import Prepared, Target
from tapehead.engine.programs import values_program
from tapehead.operations import Request, Result
from tapehead.operations.plans import texts
from tapehead.operations.request import Array


def states(model: Model, request: Request) -> Result:
    """The values at `points`, and with `final_states` every `X.final`."""
    finals = [name for name, info in model.card.points.items() if info.kind == "final"]
    wanted = [*texts(request.parameters["points"]), *(finals if request.parameters["final_states"] else [])]
    stopwatch = Stopwatch()
    prepared = Prepared(in_precision(model, request), request, list(dict.fromkeys(wanted)))
    stopwatch.lap("prepare")
    tensors = values(prepared, list(prepared.targets.values()))
    stopwatch.lap("run")
    axes = {text: ("batch", *target.selection.axes) for text, target in prepared.targets.items()}
    return answer(prepared, tensors, axes, stopwatch, route="forward")


def infer(model: Model, request: Request) -> Result:
    """The model's outputs by name, as `predict` gives them."""
    stopwatch = Stopwatch()
    points = {f"outputs.{n}": spec.name for n, spec in enumerate(model.card.outputs)}
    if len(points) == 1:
        points = {"outputs": model.card.outputs[0].name}
    prepared = Prepared(in_precision(model, request), request, list(points))
    stopwatch.lap("prepare")
    found = values(prepared, list(prepared.targets.values()))
    stopwatch.lap("run")
    tensors = {name: found[point] for point, name in points.items()}
    axes = {name: ("batch", *prepared.targets[point].selection.axes) for point, name in points.items()}
    return answer(prepared, tensors, axes, stopwatch, route="forward")


def values(prepared: Prepared, targets: list[Target]) -> dict[str, Array]:
    """What each target takes of its point's values, (batch, *shape)."""
    found = values_program(prepared.model, prepared.calls, [target.place for target in targets], prepared.arrays())
    return {target.text: taken(target, value) for target, value in zip(targets, found, strict=True)}


def taken(target: Target, value: Array, *, lead: int = 1) -> Array:
    """What the target's index takes of `value`, whose first `lead` axes (batch first) are kept."""
    if target.selection.columns is not None:
        value = value[..., slice(*target.selection.columns)]
    if target.times is not None and not target.whole:
        times = np.broadcast_to(target.times, (value.shape[0], target.times.shape[1]))
        rows = np.arange(value.shape[0])[:, None]
        index: tuple[Any, ...] = (rows, *[slice(None)] * (lead - 1), times)
        # NumPy puts indexed axes with a slice between them first; the timesteps belong after the lead axes.
        value = np.moveaxis(value[index], 1, lead) if lead > 1 else value[index]
    if not target.whole:
        timed = target.times is not None
        value = value[(slice(None),) * (lead + timed) + target.selection.rest]
    return value.reshape((*value.shape[:lead], *target.shape))
