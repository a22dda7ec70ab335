"""The calculus of recurrences: derivatives of any point of a Keras model with respect to any other. No bytes, no HTTP.

graph.py       a Keras model opened into a flat list of calls
naming.py      the names of its points, and its card;  places.py  where a point lies
probe.py       one run at load: shapes, and that the engine computes what Keras does
trace.py       the forward sweep;  sweep.py  the sweep back;  rules/  how one kind of layer passes cotangents on
programs.py    the compiled functions;  prepared.py  a request made ready for them
tuning.py      each function in the way that is fastest;  abreast.py  in parts, a thread for each
states.py jacobian.py products.py saliency.py weight_gradients.py      one operation each
losses.py      the loss of a request;  reach.py  which weights something depends on at all
diagnosis/     a verdict on each recurrent layer, with the evidence
precision.py   the same model in another dtype
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tapehead.engine.diagnosis import diagnose
from tapehead.engine.differences import check
from tapehead.engine.jacobian import jacobian
from tapehead.engine.model import Model
from tapehead.engine.products import hvp, jvp, vjp
from tapehead.engine.saliency import saliency
from tapehead.engine.states import infer, states
from tapehead.engine.weight_gradients import weight_gradients
from tapehead.operations import Result

OPERATIONS: Mapping[str, Callable[..., Result]] = {
    "states": states,
    "jacobian": jacobian,
    "vjp": vjp,
    "jvp": jvp,
    "hvp": hvp,
    "check": check,
    "saliency": saliency,
    "weight_gradients": weight_gradients,
    "diagnose": diagnose,
    "infer": infer,
}

GROWN = frozenset({"jacobian"})
"""The operations that take a sink besides, to fill a large answer in place."""

__all__ = ["GROWN", "OPERATIONS", "Model"]
