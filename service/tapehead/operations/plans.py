"""What each operation will answer, tensor by tensor, before anything is computed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tapehead.errors import BadParameter, BadShape, NotDifferentiable
from tapehead.operations.arrays import floating
from tapehead.operations.card import Card
from tapehead.operations.request import Array, Plan, Request
from tapehead.operations.selection import EVERYTHING, Selection, positions, select
from tapehead.points import quoted

Shape = tuple[int | None, ...]


def result_dtype(card: Card, precision: str | None) -> np.dtype[Any]:
    """What an answer is computed and sent in."""
    wanted = precision or card.dtype
    return np.dtype("float64" if wanted == "float64" else "float32")


def timesteps_of(selection: Selection, inputs: Mapping[str, Array]) -> int | None:
    """How many timesteps the selection's point has for these inputs; None where only the model can tell."""
    if selection.time is None:
        return None
    if selection.info.follows is not None:
        return int(inputs[selection.info.follows].shape[1])
    return selection.info.shape[0]


def texts(value: str | Sequence[str]) -> tuple[str, ...]:
    """One point or several, as several."""
    return (value,) if isinstance(value, str) else tuple(value)


class Asked:
    """A checked request with what its plan needs at hand."""

    def __init__(self, card: Card, request: Request, dtype: np.dtype[Any]) -> None:
        self.card, self.request, self.dtype = card, request, dtype
        self.parameters: dict[str, Any] = request.parameters  # type: ignore[assignment]

    def select(self, text: str, *, argmax: bool = False) -> tuple[Selection, Shape]:
        """The selection of a point, and the shape it takes from these inputs (without the batch axis)."""
        selection = select(self.card, text, argmax=argmax)
        timesteps = timesteps_of(selection, self.request.inputs)
        times = None if timesteps is None else positions(selection, timesteps, self._valid(selection)).shape[1]
        return selection, selection.shape(timesteps, times)

    def of(self, text: str, *, argmax: bool = False) -> tuple[Selection, Shape]:
        """A point that can be differentiated: not a weight, not integers."""
        selection, shape = self.wrt(text, argmax=argmax)
        if selection.info.kind == "weight":
            raise NotDifferentiable(f"{selection.name!r} is a weight: it can stand as wrt, not as `of`")
        return selection, shape

    def wrt(self, text: str, *, argmax: bool = False) -> tuple[Selection, Shape]:
        """A point that something can be differentiated with respect to: not integers."""
        selection, shape = self.select(text, argmax=argmax)
        if not selection.info.differentiable:
            raise NotDifferentiable(
                f"{selection.name!r} holds {selection.info.dtype}: derivatives of or with respect to it do not exist; "
                f"ask for an Embedding's output instead"
            )
        return selection, shape

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Every `of` with every `wrt`."""
        return [(of, wrt) for of in texts(self.parameters["of"]) for wrt in texts(self.parameters["wrt"])]

    def plan(self, name: str, shape: Shape, axes: tuple[str, ...], *, batch: bool = True, stack: Stack = None) -> Plan:
        """A tensor of the answer, behind the batch and, where vectors are stacked, behind those."""
        lead: list[tuple[int, str]] = ([stack] if stack else []) + ([(self.request.batch, "batch")] if batch else [])
        return Plan(name, (*(n for n, _ in lead), *shape), (*(axis for _, axis in lead), *axes), self.dtype)

    def vectors(self, name: str, side: str) -> dict[str, Array]:
        """The cotangents or tangents of a request by point, each in that point's shape or stacked with one axis more.

        `side` is the parameter that names their points.
        """
        given, points = self.parameters[name], texts(self.parameters[side])
        if given is None:
            return {}
        if not isinstance(given, Mapping):
            if len(points) > 1:
                raise BadParameter(f"with several points in {side!r}, give {name} as a map of each to its tensor")
            given = {points[0]: given}
        if set(given) != set(points):
            raise BadParameter(f"{name} names {sorted(given)}; expected one tensor for each of {list(points)}")
        checked = {point: self._vector(name, point, array) for point, array in given.items()}
        stacks = {point: self.stack(array, point, name) for point, array in checked.items()}
        if len(set(stacks.values())) > 1:
            raise BadShape(f"the stacks of {name} differ: {stacks}; give every point as many")
        self.parameters[name] = checked
        return checked

    def stack(self, array: Array | None, point: str, name: str) -> Stack:
        """How many vectors are stacked, with the axis's name; None for a single one."""
        if array is None:
            return None
        selection, shape = self.wrt(point)
        single = len(shape) + (selection.info.kind != "weight")
        return (array.shape[0], name) if array.ndim > single else None

    def input_name(self, selection: Selection) -> str:
        """The name of the input that a selection of kind `input` is."""
        return next(spec.name for spec in self.card.inputs if quoted(spec.name) == selection.name)

    def _vector(self, name: str, point: str, array: Any) -> Array:
        selection, shape = self.wrt(point)
        expected = shape if selection.info.kind == "weight" else (self.request.batch, *shape)
        if not isinstance(array, np.ndarray):
            raise BadParameter(f"{name} for {point!r} is {type(array).__name__}; expected a tensor of shape {expected}")
        got = array.shape[1:] if array.ndim == len(expected) + 1 else array.shape
        fits = len(got) == len(expected) and all(n in (None, m) for n, m in zip(expected, got, strict=True))
        if not fits or 0 in array.shape:
            raise BadShape(
                f"{name} for {point!r} has shape {array.shape}; expected {expected}, or stacked (k, *{expected})"
            )
        return floating(f"{name} for {point!r}", array, self.dtype)

    def _valid(self, selection: Selection) -> Array | None:
        """The timesteps within the lengths; what the model masks besides is known only when it runs."""
        follows, lengths = selection.info.follows, self.request.lengths
        if lengths is None or follows is None or follows not in lengths:
            return None
        array = self.request.inputs[follows]
        return np.arange(array.shape[1])[None, :] < np.asarray(lengths[follows])[:, None]


Stack = tuple[int, str] | None


def pair_name(parameters: Mapping[str, Any], of: str, wrt: str) -> str:
    """What the tensor of a pair is named: `value`, unless `of` or `wrt` was given as a list."""
    single = isinstance(parameters["of"], str) and isinstance(parameters["wrt"], str)
    return "value" if single else f"{of} / {wrt}"


def _states(asked: Asked) -> tuple[Plan, ...]:
    points = texts(asked.parameters["points"])
    if not points and not asked.parameters["final_states"]:
        points = tuple(name for name, info in asked.card.points.items() if info.kind == "state")
        asked.parameters["points"] = points
    finals = [name for name, info in asked.card.points.items() if info.kind == "final"]
    wanted = dict.fromkeys([*points, *(finals if asked.parameters["final_states"] else ())])
    if not wanted:
        raise BadParameter("name at least one point: this model has no recurrent states")
    selected = {text: asked.select(text) for text in wanted}
    weights = [text for text, (selection, _) in selected.items() if selection.info.kind == "weight"]
    if weights:
        raise BadParameter(f"{weights[0]!r} is a weight: states are of points that follow the input")
    return tuple(asked.plan(text, shape, selection.axes) for text, (selection, shape) in selected.items())


def _jacobian(asked: Asked) -> tuple[Plan, ...]:
    shape_of = _lagged if asked.parameters["lag"] is not None else _full
    plans = []
    for of, wrt in asked.pairs:
        lead, of_part, wrt_part = shape_of(asked, of, wrt)
        parts = _REDUCED[asked.parameters["reduce"]](lead, of_part, wrt_part)
        name = pair_name(asked.parameters, of, wrt)
        plans.append(asked.plan(name, tuple(n for n, _ in parts), tuple(axis for _, axis in parts)))
    return tuple(plans)


def _check(asked: Asked) -> tuple[Plan, ...]:
    """A Jacobian's, in the precision of differences."""
    return tuple(replace(plan, dtype=np.dtype(np.float64)) for plan in _jacobian(asked))


Part = list[tuple[int | None, str]]


def _full(asked: Asked, of: str, wrt: str) -> tuple[Part, Part, Part]:
    (of_selection, of_shape), (wrt_selection, wrt_shape) = asked.of(of), asked.wrt(wrt)
    return [], _part("of", of_shape, of_selection.axes), _part("wrt", wrt_shape, wrt_selection.axes)


def _lagged(asked: Asked, of: str, wrt: str) -> tuple[Part, Part, Part]:
    (of_selection, of_shape), (wrt_selection, wrt_shape) = asked.of(of), asked.wrt(wrt)
    for text, selection in ((of, of_selection), (wrt, wrt_selection)):
        if not isinstance(selection.time, slice):
            raise BadParameter(f"with lag, of and wrt are trajectories over timesteps; {text!r} is not one")
    if wrt_selection.time != EVERYTHING:
        raise BadParameter(f"with lag, a slice of timesteps goes on `of`, not on wrt {wrt!r}")
    if of_selection.info.follows != wrt_selection.info.follows:
        raise BadParameter(f"with lag, of and wrt need the same timesteps; {of!r} and {wrt!r} follow different inputs")
    lead: Part = [(of_shape[0], "timestep")]
    return (
        lead,
        _part("of", of_shape[1:], of_selection.axes[1:]),
        _part("wrt", wrt_shape[1:], wrt_selection.axes[1:]),
    )


def _part(side: str, shape: Shape, axes: tuple[str, ...]) -> Part:
    return [(n, f"{side}.{axis}") for n, axis in zip(shape, axes, strict=True)]


def _times(part: Part) -> Part:
    return [(n, axis) for n, axis in part if axis.endswith(".timestep")]


def _units(part: Part) -> int | None:
    sizes = [n for n, axis in part if not axis.endswith(".timestep")]
    return None if None in sizes else int(np.prod([n for n in sizes if n is not None]))


def _spectrum(lead: Part, of: Part, wrt: Part) -> Part:
    of_units, wrt_units = _units(of), _units(wrt)
    count = None if of_units is None or wrt_units is None else min(of_units, wrt_units)
    return [*lead, *_times(of), *_times(wrt), (count, "singular_value")]


# Which axes each `reduce` leaves; what it takes away is the matrix of units x wrt units.
_REDUCED: Mapping[str, Callable[[Part, Part, Part], Part]] = {
    "none": lambda lead, of, wrt: [*lead, *of, *wrt],
    "norm": lambda lead, of, wrt: [*lead, *_times(of), *_times(wrt)],
    "spectral_norm": lambda lead, of, wrt: [*lead, *_times(of), *_times(wrt)],
    "singular_values": _spectrum,
    "sum": lambda lead, of, wrt: [*lead, *_times(of), *wrt],
}


def _vjp(asked: Asked) -> tuple[Plan, ...]:
    cotangents = asked.vectors("cotangent", "of")
    plans = []
    for of, wrt in asked.pairs:
        asked.of(of)
        selection, shape = asked.wrt(wrt)
        stack = asked.stack(cotangents.get(of), of, "cotangent")
        name, batch = pair_name(asked.parameters, of, wrt), selection.info.kind != "weight"
        plans.append(asked.plan(name, shape, selection.axes, batch=batch, stack=stack))
    return tuple(plans)


def _jvp(asked: Asked) -> tuple[Plan, ...]:
    tangents = asked.vectors("tangent", "wrt")
    plans = []
    for of, wrt in asked.pairs:
        selection, shape = asked.of(of)
        stack = asked.stack(tangents[wrt], wrt, "tangent")
        plans.append(asked.plan(pair_name(asked.parameters, of, wrt), shape, selection.axes, stack=stack))
    return tuple(plans)


def _hvp(asked: Asked) -> tuple[Plan, ...]:
    one_number(asked, "of")
    wrt = asked.parameters["wrt"]
    tangents = asked.vectors("tangent", "wrt")
    selection, shape = asked.wrt(wrt)
    stack = asked.stack(tangents[wrt], wrt, "tangent")
    return (asked.plan("value", shape, selection.axes, batch=selection.info.kind != "weight", stack=stack),)


def _saliency(asked: Asked) -> tuple[Plan, ...]:
    one_number(asked, "target", argmax=True)
    selection, shape = asked.of(asked.parameters["wrt"])
    value = asked.plan("value", shape, selection.axes)
    if asked.parameters["method"] != "integrated_gradients":
        return (value,)
    _path(asked, selection)
    return (value, asked.plan("completeness_gap", (), ()))


def one_number(asked: Asked, parameter: str, *, argmax: bool = False) -> None:
    text = asked.parameters[parameter]
    _, shape = asked.of(text, argmax=argmax)
    if any(n is not None and n > 1 for n in shape):
        example = f"{text.split('[')[0]}[0]" + (" or [argmax]" if argmax else "")
        raise BadParameter(f"{parameter} {text!r} is {shape} numbers a sample; expected one: index it, as in {example}")


def _path(asked: Asked, wrt: Selection) -> None:
    """Checks what integrated gradients start from."""
    if wrt.info.kind != "input":
        names = [spec.name for spec in asked.card.inputs]
        raise BadParameter(
            f"integrated_gradients follows a path of inputs: wrt is {wrt.name!r}, expected one of {names}"
        )
    baseline, array = asked.parameters["baseline"], asked.request.inputs[asked.input_name(wrt)]
    if isinstance(baseline, np.ndarray):
        if baseline.shape not in (array.shape, array.shape[1:]):
            shapes = f"{array.shape[1:]} or {array.shape}"
            raise BadShape(f"baseline has shape {baseline.shape}; expected a number, or a tensor of shape {shapes}")
        asked.parameters["baseline"] = floating("baseline", baseline, asked.dtype)


def _infer(asked: Asked) -> tuple[Plan, ...]:
    return tuple(asked.plan(spec.name, spec.shape[1:], spec.axes) for spec in asked.card.outputs)


PLANS: Mapping[str, Callable[[Asked], tuple[Plan, ...]]] = {
    "states": _states,
    "jacobian": _jacobian,
    "vjp": _vjp,
    "jvp": _jvp,
    "hvp": _hvp,
    "check": _check,
    "saliency": _saliency,
    "infer": _infer,
}
