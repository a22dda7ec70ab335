"""What a diagnosis answers, tensor by tensor, and what it costs: how many cells, vectors and matrices are computed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tapehead.errors import BadParameter
from tapehead.operations.card import Card
from tapehead.operations.plans import Asked
from tapehead.operations.recurrent import RecurrentCell, recurrent_cells
from tapehead.operations.request import Plan, Request
from tapehead.operations.thresholds import checked_thresholds
from tapehead.operations.weights import check_objective

SPECTRA = 1 << 30
"""What the spectra of a layer may take by default, in multiplications of its state's size cubed: a second or two."""
_A_MATRIX = 1 << 13
"""What one spectrum takes besides."""
LARGEST = 1024
"""The size of a state beyond which spectra are left out, unless `steps` asks for them."""
_SPECTRUM_COST = 35
"""Floating-point operations of all eigenvalues and singular values of a matrix, in its size cubed (Golub and Van Loan,
Matrix Computations, 2013, sections 7.5 and 8.6)."""
GRADIENT_COST = 3
"""Runs forward that the gradients of the weights amount to."""


def steps_of(cell: RecurrentCell, batch: int, timesteps: int, asked: int | None) -> int:
    """At how many timesteps a cell's local Jacobian is formed."""
    if asked is not None:
        return min(asked, timesteps)
    if cell.size > LARGEST:
        return 0
    return max(1, min(timesteps, SPECTRA // (batch * (cell.size**3 + _A_MATRIX))))


def several_states(cell: RecurrentCell) -> bool:
    """Whether the state of a cell is more than its hidden state."""
    return len(cell.states) > 1


def diagnosis_plans(asked: Asked) -> tuple[Plan, ...]:
    """The tensors of each cell; the thresholds are checked and filled in besides."""
    parameters = asked.parameters
    parameters["thresholds"] = checked_thresholds(parameters["thresholds"] or {})
    if has_objective(parameters):
        check_objective(asked)
    cells = recurrent_cells(asked.card, parameters["layer"])
    return tuple(plan for cell in cells for plan in _cell_plans(asked, cell))


def _cell_plans(asked: Asked, cell: RecurrentCell) -> list[Plan]:
    timesteps = timesteps_of_cell(asked.card, asked.request, cell)
    batch, exponents = asked.request.batch, min(asked.parameters["exponents"], cell.size)
    steps = None if timesteps is None else steps_of(cell, batch, timesteps, asked.parameters["steps"])
    transient = asked.parameters["transient"]
    if transient is not None and timesteps is not None and 2 * transient >= timesteps:
        raise BadParameter(
            f"transient is {transient}: left out at either end of {timesteps} timesteps it leaves none; give less"
        )
    over_time = ["influence", *(["state_influence"] if several_states(cell) else [])]
    found = [asked.plan(f"{cell.name}:{name}", (timesteps,), ("timestep",)) for name in over_time]
    if steps != 0:
        spectrum = (steps, cell.size), ("timestep", "singular_value")
        found.append(asked.plan(f"{cell.name}:singular_values", *spectrum))
        found.append(asked.plan(f"{cell.name}:spectral_radius", (steps,), ("timestep",)))
    found.append(asked.plan(f"{cell.name}:lyapunov", (exponents,), ("exponent",)))
    if cell.activated:
        shape = (len(cell.activated), timesteps, 2)
        found.append(asked.plan(f"{cell.name}:saturation", shape, ("gate", "timestep", "side"), batch=False))
    weights = weights_of(asked.card, cell)
    if weights and has_objective(asked.parameters):
        over = (len(weights), timesteps), ("weight", "timestep")
        found.append(asked.plan(f"{cell.name}:weight_gradients", *over, batch=False))
    return found


def has_objective(parameters: Mapping[str, Any]) -> bool:
    """Whether something is given whose gradient with respect to the weights can be taken."""
    return any(parameters[name] is not None for name in ("targets", "loss", "of"))


def weights_of(card: Card, cell: RecurrentCell) -> list[str]:
    """The weights of a cell, by name; a layer called several times has its own once."""
    layer = cell.layer.partition(".call.")[0]
    start = f"{layer}.{cell.prefix}".rstrip(".") + "/"
    return [name for name in card.weights if name.startswith(start)]


def timesteps_of_cell(card: Card, request: Request, cell: RecurrentCell) -> int | None:
    """How many timesteps a cell runs; None where only the model can tell."""
    info = card.points[f"{cell.layer}.{next(iter(cell.states))}"]
    return int(request.inputs[info.follows].shape[1]) if info.follows is not None else info.shape[0]


def diagnosis_cost(asked: Asked) -> tuple[str, float]:
    """A run, a sweep back of each cell's units and exponents, and what the local Jacobians take."""
    runs = 1.0
    for cell in recurrent_cells(asked.card, asked.parameters["layer"]):
        timesteps = timesteps_of_cell(asked.card, asked.request, cell) or 1
        steps = steps_of(cell, asked.request.batch, timesteps, asked.parameters["steps"])
        units = max(math.prod(shape) for shape in cell.states.values())
        vectors = units + min(asked.parameters["exponents"], cell.size)
        runs += vectors + steps / timesteps * (cell.size + _SPECTRUM_COST * cell.size)
    return "reverse", runs + (GRADIENT_COST if has_objective(asked.parameters) else 0)
