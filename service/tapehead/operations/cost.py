"""What an answer will cost: by which route it is computed, and about how many floating-point operations that takes.

The engine chooses its routes by the rules here, so that what is foretold is what is done.

One run of the model forward is counted by its matrix products alone, two operations an entry of every matrix for each
sample and timestep. For the cells of Keras that is, with n units and d features,

    LSTM  2 * 4n (n + d)        GRU  2 * 3n (n + d)        SimpleRNN  2 * n (n + d)

and for any other cell or layer the same, read off its weights. A sweep back passes each cotangent through the
transposes of the same matrices, as many operations again for each stack entry; with respect to a weight there is an
outer product more. (Griewank and Walther, Evaluating Derivatives, 2008, chapter 4: a gradient costs a small multiple of
its function.)
Every layer of the model is counted, also those that lie beyond the points; attention's products of activations are not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass

from tapehead.operations.card import Card, PointInfo
from tapehead.operations.diagnosing import diagnosis_cost
from tapehead.operations.plans import Asked, Shape, result_dtype, texts
from tapehead.operations.request import Request
from tapehead.operations.weights import weight_cost

# A push forward is a sweep back and its transpose: worth it where it has this many times fewer entries to carry.
FORWARD_COST = 3
_SECOND_ORDER_COST = 6
"""A gradient is a run and a sweep back; its own sweep back is twice that."""


@dataclass(frozen=True)
class Cost:
    """The route, and about how many floating-point operations it takes."""

    route: str
    flops: int


def cost(card: Card, operation: str, request: Request) -> Cost:
    """What the answer to a checked request will cost. Lengths that only the model can tell count as 1."""
    asked = Asked(card, request, result_dtype(card, request.parameters["precision"]))
    route, runs = COSTS[operation](asked)
    return Cost(route, round(runs * run_flops(card, request)))


def run_flops(card: Card, request: Request) -> int:
    """The operations of one run forward: two for every entry of every matrix, sample and timestep."""
    several = _called_several_times(card)
    matrices = {name: math.prod(shape) for name, shape in card.weights.items() if len(shape) > 1}
    total = 0
    for name, size in matrices.items():
        if name.endswith("/embeddings"):  # looked up, not multiplied
            continue
        layer = name.partition("/")[0].partition(".cells.")[0]
        total += size * sum(_timesteps(card, request, call) for call in several.get(layer, [layer]))
    return 2 * request.batch * total


def full_route(of: int, wrts: Sequence[int], *, weights: bool) -> str:
    """How a whole Jacobian is computed, by the entries of `of` and of each wrt; `weights`: some wrt is one."""
    return "forward" if sum(wrts) * FORWARD_COST < of and not weights else "reverse"


def lag_route(card: Card, of: str, wrt: str, lag: int, given: Container[str]) -> str:
    """How the Jacobian at a lag is computed, by the names of its points; `given`: the initial states of the request.

    Within one layer every timestep steps back by itself. From the layer's input that holds only while no way leads
    around the layer's own steps, as initial states that the model computes from the same input would.
    """
    layer = owner(card, of)
    if layer is None or card.points[of].kind not in ("state", "gate"):
        return "diagonal"
    if owner(card, wrt) == layer and card.points[wrt].kind in ("state", "gate"):
        return "window"
    info = card.recurrent[layer]
    runs_along = lag == 0 or info.get("direction") != "backward"
    fed = info.get("fed", False) and not all(f"{layer}.{state}.initial" in given for state in info["states"])
    return "window" if wrt in info.get("reads", ()) and runs_along and not fed else "diagonal"


def owner(card: Card, name: str) -> str | None:
    """The recurrent layer that a point lies in."""
    while name and name not in card.recurrent:
        name = name.rpartition(".")[0]
    return name or None


def _called_several_times(card: Card) -> dict[str, list[str]]:
    """The calls of each layer that is called several times, by their points' names; its weights stand once for all."""
    found: dict[str, dict[str, None]] = {}
    for name in card.points:
        layer, called, rest = name.partition(".call.")
        if called:
            found.setdefault(layer, {})[f"{layer}.call.{rest.partition('.')[0]}"] = None
    return {layer: list(calls) for layer, calls in found.items()}


def _timesteps(card: Card, request: Request, call: str) -> int:
    """How often a layer's matrices are used in one call: at each timestep of what it gives, else once."""
    states = card.recurrent.get(call, {}).get("states", ())
    info = next((card.points[name] for name in (*(f"{call}.{s}" for s in states), call) if name in card.points), None)
    if info is None or info.axes[:1] != ("timestep",):
        return 1
    return _length(info, request)


def _length(info: PointInfo, request: Request) -> int:
    if info.follows is not None:
        return int(request.inputs[info.follows].shape[1])
    return info.shape[0] or max(array.shape[1] for array in request.inputs.values() if array.ndim > 1)


def _entries(shape: Shape) -> int:
    return math.prod(1 if n is None else n for n in shape)


def _is_weight(asked: Asked, wrt: str) -> bool:
    return asked.select(wrt)[0].info.kind == "weight"


def _values(_: Asked) -> tuple[str, float]:
    return "forward", 1


def _jacobian(asked: Asked) -> tuple[str, float]:
    found = [_lagged(asked, of) if asked.parameters["lag"] is not None else _full(asked, of) for of in _ofs(asked)]
    return " and ".join(sorted({route for routes, _ in found for route in routes})), 1 + sum(runs for _, runs in found)


def _ofs(asked: Asked) -> tuple[str, ...]:
    return texts(asked.parameters["of"])


def _full(asked: Asked, of: str) -> tuple[set[str], float]:
    wrts = texts(asked.parameters["wrt"])
    (_, of_shape), entries = asked.of(of), [_entries(asked.wrt(wrt)[1]) for wrt in wrts]
    weights = [wrt for wrt in wrts if _is_weight(asked, wrt)]
    route = full_route(_entries(of_shape), entries, weights=bool(weights))
    if route == "forward":
        return {route}, FORWARD_COST * sum(entries)
    return {route}, _entries(of_shape) * (2 if weights else 1)


def _lagged(asked: Asked, of: str) -> tuple[set[str], float]:
    """A window steps the units of one timestep `lag` times back; a diagonal carries all of every timestep's."""
    selection, shape = asked.of(of)
    routes, runs, lag = set(), 0.0, asked.parameters["lag"]
    for wrt in texts(asked.parameters["wrt"]):
        name = asked.wrt(wrt)[0].name
        route = lag_route(asked.card, selection.name, name, lag, asked.request.initial_states)
        routes.add(route)
        runs += _entries(shape[1:]) * max(1, lag) if route == "window" else _entries(shape)
    return routes, runs


def _check(asked: Asked) -> tuple[str, float]:
    """The Jacobian, and two runs for every entry of each wrt."""
    runs = _jacobian(asked)[1]
    return "central differences", runs + 2 * sum(_entries(asked.wrt(wrt)[1]) for _, wrt in asked.pairs)


def _vjp(asked: Asked) -> tuple[str, float]:
    weights = any(_is_weight(asked, wrt) for wrt in texts(asked.parameters["wrt"]))
    return "reverse", 1 + _stacked(asked, "cotangent", "of") * (2 if weights else 1)


def _jvp(asked: Asked) -> tuple[str, float]:
    return "forward", 1 + FORWARD_COST * _stacked(asked, "tangent", "wrt") * len(_ofs(asked))


def _hvp(asked: Asked) -> tuple[str, float]:
    return "reverse over reverse", _SECOND_ORDER_COST * _stacked(asked, "tangent", "wrt")


def _stacked(asked: Asked, name: str, side: str) -> int:
    """How many vectors a product takes, over all the points of its side."""
    given = asked.parameters[name] or {}
    stacks = [asked.stack(given.get(point), point, name) for point in texts(asked.parameters[side])]
    return sum(1 if stack is None else stack[0] for stack in stacks)


def _saliency(asked: Asked) -> tuple[str, float]:
    """A gradient, and one at every step of a path, whose ends are run too."""
    if asked.parameters["method"] != "integrated_gradients":
        return "reverse", 2
    return "reverse", 2 * asked.parameters["n_steps"] + 2


COSTS: Mapping[str, Callable[[Asked], tuple[str, float]]] = {
    "states": _values,
    "jacobian": _jacobian,
    "vjp": _vjp,
    "jvp": _jvp,
    "hvp": _hvp,
    "check": _check,
    "saliency": _saliency,
    "weight_gradients": weight_cost,
    "diagnose": diagnosis_cost,
    "infer": _values,
}
"""The route of each operation, and how many runs forward its work amounts to."""
