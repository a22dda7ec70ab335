"""A whole request, held against the card of its model: normalised, with the plan of its answer, or refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tapehead.errors import AnswerTooLarge, BadParameter, BadShape, NotDifferentiable, UnknownOperation
from tapehead.operations.arrays import checked_initial_states, checked_inputs, checked_lengths, floating
from tapehead.operations.card import Card
from tapehead.operations.request import Array, Plan, Request
from tapehead.operations.selection import EVERYTHING, Selection, positions, select
from tapehead.operations.table import INFER, OPERATIONS, Operation, Parameter

DEFAULT_ANSWER_LIMIT = 4 << 30


def check(
    card: Card, operation: str, request: Request, *, answer_limit: int = DEFAULT_ANSWER_LIMIT
) -> tuple[Request, tuple[Plan, ...]]:
    """The request normalised (names filled in, arrays cast, defaults set), and the plan of its answer.

    Checking a request that was checked before changes nothing.

    Raises:
        UnknownOperation, UnknownPoint, BadParameter, BadShape, BadDtype, BadLengths, NotFinite, NotDifferentiable: the
            request cannot be answered as asked.
        AnswerTooLarge: its answer would be over `answer_limit` bytes.
    """
    row = OPERATIONS.get(operation) or (INFER if operation == INFER.name else None)
    if row is None:
        raise UnknownOperation(f"no operation {operation!r}; built here: {', '.join(OPERATIONS)}")
    parameters = _checked_parameters(row, request.parameters)
    dtype = result_dtype(card, parameters["precision"])
    inputs = checked_inputs(card, request.inputs, dtype)
    batch = next(iter(inputs.values())).shape[0]
    checked = Request(
        inputs,
        checked_lengths(card, request.lengths, inputs),
        checked_initial_states(card, request.initial_states, batch, dtype),
        parameters,
    )
    plans = _PLANS[operation](_Asked(card, checked, dtype))
    total = sum(plan.bytes for plan in plans)
    if total > answer_limit:
        raise AnswerTooLarge(_too_large(plans, total, answer_limit))
    return checked, plans


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


class _Asked:
    """A checked request with what its plan needs at hand."""

    def __init__(self, card: Card, request: Request, dtype: np.dtype[Any]) -> None:
        self.card, self.request, self.dtype = card, request, dtype
        self.parameters: dict[str, Any] = dict(request.parameters)

    def select(self, text: str, *, argmax: bool = False) -> tuple[Selection, tuple[int | None, ...]]:
        """The selection of a point, and the shape it takes from these inputs (without the batch axis)."""
        selection = select(self.card, text, argmax=argmax)
        timesteps = timesteps_of(selection, self.request.inputs)
        times = None if timesteps is None else positions(selection, timesteps, self._valid(selection)).shape[1]
        return selection, selection.shape(timesteps, times)

    def differentiable(self, text: str, *, argmax: bool = False) -> tuple[Selection, tuple[int | None, ...]]:
        selection, shape = self.select(text, argmax=argmax)
        if not selection.info.differentiable:
            raise NotDifferentiable(
                f"{selection.name!r} holds {selection.info.dtype}: derivatives of or with respect to it do not exist; "
                f"ask for an Embedding's output instead"
            )
        return selection, shape

    def pairs(self) -> list[tuple[str, str]]:
        return [(of, wrt) for of in texts(self.parameters["of"]) for wrt in texts(self.parameters["wrt"])]

    def plan(self, name: str, shape: tuple[int | None, ...], axes: tuple[str, ...]) -> Plan:
        return Plan(name, (self.request.batch, *shape), ("batch", *axes), self.dtype)

    def _valid(self, selection: Selection) -> Array | None:
        """The timesteps within the lengths; what the model masks besides is known only when it runs."""
        follows, lengths = selection.info.follows, self.request.lengths
        if lengths is None or follows is None or follows not in lengths:
            return None
        array = self.request.inputs[follows]
        return np.arange(array.shape[1])[None, :] < np.asarray(lengths[follows])[:, None]


def _plan_states(asked: _Asked) -> tuple[Plan, ...]:
    points = texts(asked.parameters["points"])
    if not points and not asked.parameters["final_states"]:
        points = tuple(name for name, info in asked.card.points.items() if info.kind == "state")
        asked.parameters["points"] = points
    finals = [name for name, info in asked.card.points.items() if info.kind == "final"]
    wanted = dict.fromkeys([*points, *(finals if asked.parameters["final_states"] else ())])
    if not wanted:
        raise BadParameter("name at least one point: this model has no recurrent states")
    selected = {text: asked.select(text) for text in wanted}
    return tuple(asked.plan(text, shape, selection.axes) for text, (selection, shape) in selected.items())


def _plan_jacobian(asked: _Asked) -> tuple[Plan, ...]:
    pairs = asked.pairs()
    return tuple(
        (_lagged if asked.parameters["lag"] is not None else _full)(asked, of, wrt, _pair_name(of, wrt, pairs))
        for of, wrt in pairs
    )


def _full(asked: _Asked, of: str, wrt: str, name: str) -> Plan:
    (of_selection, of_shape), (wrt_selection, wrt_shape) = asked.differentiable(of), asked.differentiable(wrt)
    axes = tuple(f"of.{axis}" for axis in of_selection.axes) + tuple(f"wrt.{axis}" for axis in wrt_selection.axes)
    return asked.plan(name, (*of_shape, *wrt_shape), axes)


def _lagged(asked: _Asked, of: str, wrt: str, name: str) -> Plan:
    (of_selection, of_shape), (wrt_selection, wrt_shape) = asked.differentiable(of), asked.differentiable(wrt)
    for text, selection in ((of, of_selection), (wrt, wrt_selection)):
        if not isinstance(selection.time, slice):
            raise BadParameter(f"with lag, of and wrt are trajectories over timesteps; {text!r} is not one")
    if wrt_selection.time != EVERYTHING:
        raise BadParameter(f"with lag, a slice of timesteps goes on `of`, not on wrt {wrt!r}")
    if of_selection.info.follows != wrt_selection.info.follows:
        raise BadParameter(f"with lag, of and wrt need the same timesteps; {of!r} and {wrt!r} follow different inputs")
    axes = ("timestep", *(f"of.{a}" for a in of_selection.axes[1:]), *(f"wrt.{a}" for a in wrt_selection.axes[1:]))
    return asked.plan(name, (*of_shape, *wrt_shape[1:]), axes)


def _plan_vjp(asked: _Asked) -> tuple[Plan, ...]:
    pairs = asked.pairs()
    cotangents = asked.parameters["cotangent"]
    if cotangents is not None and not isinstance(cotangents, Mapping):
        if len(texts(asked.parameters["of"])) > 1:
            raise BadParameter("with several `of`, give cotangent as a map of each `of` to its tensor")
        cotangents = {texts(asked.parameters["of"])[0]: cotangents}
    checked = {of: _cotangent(asked, of, array) for of, array in (cotangents or {}).items()}
    if cotangents is not None and set(checked) != set(texts(asked.parameters["of"])):
        raise BadParameter(f"cotangent names {sorted(checked)}; expected one for each of {asked.parameters['of']}")
    asked.request.parameters["cotangent"] = checked or None  # type: ignore[index]
    plans = []
    for of, wrt in pairs:
        (_, of_shape), (wrt_selection, shape) = asked.differentiable(of), asked.differentiable(wrt)
        plan = asked.plan(_pair_name(of, wrt, pairs), shape, wrt_selection.axes)
        if of in checked and checked[of].ndim == 2 + len(of_shape):
            plan = Plan(plan.name, (checked[of].shape[0], *plan.shape), ("cotangent", *plan.axes), plan.dtype)
        plans.append(plan)
    return tuple(plans)


def _cotangent(asked: _Asked, of: str, array: Any) -> Array:
    """A cotangent in the shape of `of`, or a stack of them with one leading axis more."""
    _, shape = asked.differentiable(of)
    expected = (asked.request.batch, *shape)
    if not isinstance(array, np.ndarray):
        raise BadParameter(f"cotangent for {of!r} is {type(array).__name__}; expected a tensor of shape {expected}")
    got = array.shape[1:] if array.ndim == len(expected) + 1 else array.shape
    fits = len(got) == len(expected) and all(n in (None, m) for n, m in zip(expected, got, strict=True))
    if not fits or 0 in array.shape:
        raise BadShape(
            f"cotangent for {of!r} has shape {array.shape}; expected {expected}, or stacked (k, *{expected})"
        )
    return floating(f"cotangent for {of!r}", array, asked.dtype)


def _plan_saliency(asked: _Asked) -> tuple[Plan, ...]:
    target, method = asked.parameters["target"], asked.parameters["method"]
    _, shape = asked.differentiable(target, argmax=True)
    if any(n is not None and n > 1 for n in shape):
        raise BadParameter(
            f"target {target!r} is {shape} numbers a sample; saliency needs one: index it, as in "
            f"{target.split('[')[0]}[0] or [argmax]"
        )
    wrt_selection, wrt_shape = asked.differentiable(asked.parameters["wrt"])
    value = asked.plan("value", wrt_shape, wrt_selection.axes)
    if method != "integrated_gradients":
        return (value,)
    _integrated(asked, wrt_selection)
    return (value, asked.plan("completeness_gap", (), ()))


def _integrated(asked: _Asked, wrt: Selection) -> None:
    if wrt.info.kind != "input":
        names = [spec.name for spec in asked.card.inputs]
        raise BadParameter(
            f"integrated_gradients follows a path of inputs: wrt is {wrt.name!r}, expected one of {names}"
        )
    baseline, array = asked.parameters["baseline"], asked.request.inputs[wrt.name]
    if isinstance(baseline, np.ndarray):
        fits = baseline.shape in (array.shape, array.shape[1:])
        if not fits:
            shapes = f"{array.shape[1:]} or {array.shape}"
            raise BadShape(f"baseline has shape {baseline.shape}; expected a number, or a tensor of shape {shapes}")
        asked.request.parameters["baseline"] = floating("baseline", baseline, asked.dtype)  # type: ignore[index]


def _plan_infer(asked: _Asked) -> tuple[Plan, ...]:
    return tuple(
        Plan(spec.name, (asked.request.batch, *spec.shape[1:]), ("batch", *spec.axes), np.dtype("float32"))
        for spec in asked.card.outputs
    )


_PLANS = {
    "states": _plan_states,
    "jacobian": _plan_jacobian,
    "vjp": _plan_vjp,
    "saliency": _plan_saliency,
    "infer": _plan_infer,
}


def _pair_name(of: str, wrt: str, pairs: Sequence[tuple[str, str]]) -> str:
    return "value" if len(pairs) == 1 else f"{of} / {wrt}"


def _checked_parameters(row: Operation, given: Mapping[str, Any]) -> dict[str, Any]:
    """Every parameter of the operation, given or by default."""
    unknown = sorted(set(given) - {parameter.name for parameter in row.parameters})
    if unknown:
        known = ", ".join(parameter.name for parameter in row.parameters)
        raise BadParameter(f"{row.name} has no parameter {unknown[0]!r}; it takes {known}")
    missing = [parameter.name for parameter in row.parameters if parameter.required and parameter.name not in given]
    if missing:
        raise BadParameter(f"{row.name} needs the parameter {missing[0]!r}")
    return {
        parameter.name: _checked_parameter(parameter, given[parameter.name])
        if parameter.name in given
        else parameter.default
        for parameter in row.parameters
    }


def _checked_parameter(parameter: Parameter, value: Any) -> Any:
    if value is None and not parameter.required:
        return parameter.default
    fits, wanted = _KINDS[parameter.kind]
    if not fits(value):
        raise BadParameter(f"{parameter.name} is {_shown(value)}; expected {wanted}")
    if parameter.kind == "choice" and value not in parameter.choices:
        raise BadParameter(f"{parameter.name} is {value!r}; expected one of {', '.join(parameter.choices)}")
    if isinstance(value, int | float):
        least, most = parameter.least, parameter.most
        if (least is not None and value < least) or (most is not None and value > most):
            bounds = f"at least {least}" + ("" if most is None else f" and at most {most}")
            raise BadParameter(f"{parameter.name} is {value}; it must be {bounds}")
    return value


def _points(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(text, str) for text in value)


def _some_points(value: Any) -> bool:
    return isinstance(value, str) or (_points(value) and len(value) > 0)


def _integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and bool(np.isfinite(value))


_KINDS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "point": (lambda value: isinstance(value, str), "the text of a point, as 'lstm.h[-1]'"),
    "points": (lambda value: isinstance(value, str) or _points(value), "a list of points"),
    "point or points": (_some_points, "the text of a point, as 'lstm.h[-1]', or a list of them"),
    "bool": (lambda value: isinstance(value, bool), "true or false"),
    "int": (_integer, "a whole number"),
    "float": (_number, "a number"),
    "string": (lambda value: isinstance(value, str), "text"),
    "choice": (lambda value: isinstance(value, str), "text"),
    "tensor": (lambda value: isinstance(value, np.ndarray | Mapping), "a tensor"),
    "number or tensor": (lambda value: isinstance(value, np.ndarray) or _number(value), "a number or a tensor"),
}


def _shown(value: Any) -> str:
    text = f"a tensor of shape {value.shape}" if isinstance(value, np.ndarray) else repr(value)
    return text if len(text) <= 80 else text[:77] + "…"


def _too_large(plans: Sequence[Plan], total: int, limit: int) -> str:
    largest = max(plans, key=lambda plan: plan.bytes)
    return (
        f"the answer would be {_mebibytes(total)} ({largest.name}: {list(largest.axes)} = {list(largest.shape)}), over "
        f"the limit of {_mebibytes(limit)}. Ask for less: a slice of timesteps or units in `of` or `wrt`, fewer "
        f"samples a request, or a vjp with the combination of outputs you need"
    )


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB"
