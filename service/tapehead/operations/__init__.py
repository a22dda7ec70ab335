"""What can be asked of a model, in plain values: parameters, axes, shapes, bytes and cost. Nothing here computes.

card.py        what is known of a model without its framework
request.py     what is asked, and what comes back
table.py       the operations that are built: one row each
selection.py   a point and its index -> which timesteps and units, on which axes
arrays.py      the arrays of a request, held against the card
weights.py     what weight gradients may be asked, and what they answer
check.py       a whole request, held against the card: normalised, with the plan of its answer
wording.py     what was asked, in words
cost.py        the route of an answer, and about how much work it is
recurrent.py   the recurrent cells that a diagnosis takes one by one
thresholds.py  what its findings are held against;  diagnosing.py  its tensors and its cost
"""

from tapehead.operations.card import Card, PointInfo, TensorSpec
from tapehead.operations.check import check
from tapehead.operations.cost import Cost, cost
from tapehead.operations.request import Array, Plan, Request, Result, Sink
from tapehead.operations.table import INFER, OPERATIONS, Operation, Parameter
from tapehead.operations.wording import title, what_was_asked

__all__ = [
    "INFER",
    "OPERATIONS",
    "Array",
    "Card",
    "Cost",
    "Operation",
    "Parameter",
    "Plan",
    "PointInfo",
    "Request",
    "Result",
    "Sink",
    "TensorSpec",
    "check",
    "cost",
    "title",
    "what_was_asked",
]
