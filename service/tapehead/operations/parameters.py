"""The parameters of a request, held against the operation's row: known, present, of the right kind, in range."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tapehead.errors import BadParameter
from tapehead.operations.table import Operation, Parameter


def checked_parameters(row: Operation, given: Mapping[str, Any]) -> dict[str, Any]:
    """Every parameter of the operation, given or by default.

    Raises:
        BadParameter: one is unknown, missing, of another kind or out of range.
    """
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
    if parameter.kind == "choices":
        return _checked_choices(parameter, (value,) if isinstance(value, str) else tuple(value))
    if isinstance(value, int | float):
        least, most = parameter.least, parameter.most
        if (least is not None and value < least) or (most is not None and value > most):
            bounds = f"at least {least}" + ("" if most is None else f" and at most {most}")
            raise BadParameter(f"{parameter.name} is {value}; it must be {bounds}")
    return value


def _checked_choices(parameter: Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    if wrong := [value for value in values if value not in parameter.choices]:
        raise BadParameter(f"{parameter.name} holds {wrong[0]!r}; expected any of {', '.join(parameter.choices)}")
    if len(set(values)) < len(values):
        raise BadParameter(f"{parameter.name} is {list(values)}; expected each at most once")
    return values


def _names(value: Any) -> bool:
    if isinstance(value, Mapping):
        return bool(value) and all(isinstance(text, str) for text in value.values())
    return isinstance(value, str)


def _points(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(text, str) for text in value)


def _some_points(value: Any) -> bool:
    return isinstance(value, str) or (_points(value) and len(value) > 0)


def _integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and bool(np.isfinite(value))


def _numbers(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(name, str) and _number(one) for name, one in value.items())


_KINDS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "point": (lambda value: isinstance(value, str), "the text of a point, as 'lstm.h[-1]'"),
    "points": (lambda value: isinstance(value, str) or _points(value), "a list of points"),
    "point or points": (_some_points, "the text of a point, as 'lstm.h[-1]', or a list of them"),
    "bool": (lambda value: isinstance(value, bool), "true or false"),
    "int": (_integer, "a whole number"),
    "float": (_number, "a number"),
    "string": (lambda value: isinstance(value, str), "text"),
    "choice": (lambda value: isinstance(value, str), "text"),
    "choices": (lambda value: isinstance(value, str) or _points(value), "a list of texts"),
    "name or names": (_names, "a name, or a map of outputs to names"),
    "tensor": (lambda value: isinstance(value, np.ndarray | Mapping), "a tensor"),
    "number or tensor": (lambda value: isinstance(value, np.ndarray) or _number(value), "a number or a tensor"),
    "numbers": (_numbers, "a map of names to numbers"),
}


def _shown(value: Any) -> str:
    text = f"a tensor of shape {value.shape}" if isinstance(value, np.ndarray) else repr(value)
    return text if len(text) <= 80 else text[:77] + "…"
