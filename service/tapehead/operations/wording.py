"""What was asked of a model, in words that client and server share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tapehead.operations.table import OPERATIONS

# parameter -> how a title says it, in the order of a title
_SAID: Mapping[str, str] = {
    "points": "at {}",
    "of": "of {}",
    "target": "of {}",
    "wrt": "wrt {}",
    "layer": "of {}",
    "by": "by {}",
    "method": "by {}",
    "lag": "at lag {}",
    "reduce": "as its {}",
}
_CHOICES = ("method", "reduce")
_UNSAID: tuple[Any, ...] = (None, "none", (), [], "")
_MOST_NAMED = 4


def what_was_asked(operation: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The operation and its parameters, arrays left out."""
    plain = {name: value for name, value in parameters.items() if not isinstance(value, np.ndarray | Mapping)}
    return {"operation": operation, **plain}


def title(model: str, asked: Mapping[str, Any]) -> str:
    """What was asked, in a line: `sunspots: jacobian of lstm.h[-1] wrt inputs`."""
    operation = str(asked.get("operation", "answer"))
    given = {**_defaults(operation), **{name: value for name, value in asked.items() if value is not None}}
    told = [name for name in _SAID if given.get(name) not in _UNSAID]
    said = [_SAID[name].format(_words(given[name]) if name in _CHOICES else _listed(given[name])) for name in told]
    return " ".join([f"{model}: {operation.replace('_', ' ')}", *said])


def _defaults(operation: str) -> dict[str, Any]:
    """The parameters whose defaults a title says too: they tell what the numbers are."""
    row = OPERATIONS.get(operation)
    known = () if row is None else row.parameters
    return {one.name: one.default for one in known if one.name in ("method", "wrt") and not one.required}


def _words(choice: Any) -> str:
    return str(choice).replace("_", " ")


def _listed(value: Any) -> str:
    names = [str(value)] if isinstance(value, str | int) else list(map(str, value))
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
