"""Requests held against their model's card. The same question with new numbers is read and planned once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from tapehead.operations import Card, Cost, Plan, Request, check, cost
from tapehead.operations.arrays import checked_inputs
from tapehead.operations.plans import result_dtype

KEPT = 256
"""How many questions are remembered; the least recently asked goes."""

_LONG_TEXT = 2000
_PLAIN = (str, bool, int, float, type(None))


@dataclass(frozen=True)
class Question:
    """A request made ready, what its answer will be, and what that costs."""

    request: Request
    plans: Sequence[Plan]
    cost: Cost


class Questions:
    """Checks requests.

    Args:
        answer_limit: the most bytes of an answer.
    """

    def __init__(self, answer_limit: int) -> None:
        self._answer_limit = answer_limit
        self._known: OrderedDict[Hashable, tuple[Card, Question]] = OrderedDict()

    def read(self, card: Card, operation: str, request: Request) -> Question:
        """The question that a request asks.

        Raises:
            BadRequest: it cannot be answered as asked.
            AnswerTooLarge: its answer is over the limit.
        """
        key = _key(card, operation, request)
        if key is None:
            return self._ask(card, operation, request)
        found = self._known.pop(key, None)
        known = None if found is None or found[0] is not card else found[1]
        question = self._ask(card, operation, request) if known is None else _with_inputs(card, known, request)
        self._known[key] = card, known or _without_inputs(question)
        while len(self._known) > KEPT:
            self._known.popitem(last=False)
        return question

    def _ask(self, card: Card, operation: str, request: Request) -> Question:
        checked, plans = check(card, operation, request, answer_limit=self._answer_limit)
        return Question(checked, plans, cost(card, operation, checked))


def _without_inputs(question: Question) -> Question:
    return Question(Request({}, None, {}, question.request.parameters), question.plans, question.cost)


def _with_inputs(card: Card, known: Question, request: Request) -> Question:
    """The same question of other numbers."""
    dtype = result_dtype(card, known.request.parameters["precision"])
    inputs = checked_inputs(card, request.inputs, dtype)
    return Question(Request(inputs, None, {}, known.request.parameters), known.plans, known.cost)


def _key(card: Card, operation: str, request: Request) -> Hashable | None:
    """What decides about all but the numbers; None where numbers decide too, as lengths do."""
    if request.lengths is not None or request.initial_states:
        return None
    if not all(isinstance(value, _PLAIN) or _is_texts(value) for value in request.parameters.values()):
        return None
    # As text, since 1, 1.0 and True are equal and not the same.
    parameters = repr(request.parameters)
    shapes = tuple((name, array.shape, array.dtype) for name, array in request.inputs.items())
    return None if len(parameters) > _LONG_TEXT else (card.name, card.version, operation, parameters, shapes)


def _is_texts(value: object) -> bool:
    return isinstance(value, list | tuple) and all(type(text) is str for text in value)
