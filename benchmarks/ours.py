"""Ours: the engine in process, its programs compiled for their shapes as a worker beside its work would."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.problems import Array, Problem, keras_model
from benchmarks.workloads import PARAMETERS
from tapehead.engine import OPERATIONS, Model
from tapehead.operations import Request, check


def model_of(given: Problem) -> Model:
    """The problem's model, resident."""
    return Model(keras_model(given), "benchmark", later=lambda work: work())


def asked(model: Model, given: Problem) -> Callable[[], Array]:
    """A call that answers the problem, of a model that is there."""
    operation, parameters = PARAMETERS[given.workload.question]
    request, _ = check(model.card, operation, Request({"": given.x}, None, {}, dict(parameters)))
    return lambda: OPERATIONS[operation](model, request).tensors["value"]


def ours(given: Problem) -> Callable[[], Array]:
    """A call that answers the problem."""
    return asked(model_of(given), given)
