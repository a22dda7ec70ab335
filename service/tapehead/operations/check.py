"""A whole request, held against the card of its model: normalised, with the plan of its answer, or refused."""

from __future__ import annotations

from collections.abc import Sequence

from tapehead.errors import AnswerTooLarge, UnknownOperation
from tapehead.operations.arrays import checked_initial_states, checked_inputs, checked_lengths
from tapehead.operations.card import Card
from tapehead.operations.diagnosing import diagnosis_plans
from tapehead.operations.parameters import checked_parameters
from tapehead.operations.plans import PLANS, Asked, result_dtype
from tapehead.operations.request import Plan, Request
from tapehead.operations.table import INFER, OPERATIONS
from tapehead.operations.weights import weight_plans

DEFAULT_ANSWER_LIMIT = 4 << 30

EVERY_PLAN = {**PLANS, "weight_gradients": weight_plans, "diagnose": diagnosis_plans}
"""The plan of every operation: those of plans.py, and those that have a module of their own."""


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
    parameters = checked_parameters(row, request.parameters)
    dtype = result_dtype(card, parameters["precision"])
    inputs = checked_inputs(card, request.inputs, dtype)
    batch = next(iter(inputs.values())).shape[0]
    checked = Request(
        inputs,
        checked_lengths(card, request.lengths, inputs),
        checked_initial_states(card, request.initial_states, batch, dtype),
        parameters,
    )
    plans = EVERY_PLAN[operation](Asked(card, checked, dtype))
    total = sum(plan.bytes for plan in plans)
    if total > answer_limit and not parameters.get("dry_run"):
        raise AnswerTooLarge(_too_large(plans, total, answer_limit))
    return checked, plans


def _too_large(plans: Sequence[Plan], total: int, limit: int) -> str:
    largest = max(plans, key=lambda plan: plan.bytes)
    return (
        f"the answer would be {_mebibytes(total)} ({largest.name}: {list(largest.axes)} = {list(largest.shape)}), over "
        f"the limit of {_mebibytes(limit)}. Ask for less: a slice of timesteps or units in `of` or `wrt`; a reduction, "
        f"as reduce='norm' with one number a pair of timesteps; or a vjp with the combination of outputs you need. "
        f"dry_run=true tells the size of an answer beforehand"
    )


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB"
