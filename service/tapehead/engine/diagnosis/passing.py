"""What the measures tell of how gradients pass back through time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tapehead.engine.diagnosis import literature
from tapehead.engine.diagnosis.finding import Finding, Look, Thresholds
from tapehead.engine.diagnosis.fits import Fit
from tapehead.engine.diagnosis.measures import Influence, Measures
from tapehead.operations.request import Array


def vanishing(measures: Measures, thresholds: Thresholds) -> Iterator[Finding]:
    """The influence of the state has fallen too low within the sequence."""
    state, faint, lost = measures.state, measures.state.horizon["faint"], measures.state.horizon["lost"]
    if faint is None:
        return
    name = measures.subject.name
    level = f"{thresholds['faint']:.3g}"
    beyond = "" if lost is None else f", and after {lost} below {thresholds['lost']:.3g}, where float32 adds nothing"
    yield Finding(
        "warning" if lost is None else "critical",
        name,
        "vanishing",
        state.least,
        thresholds["faint"],
        f"{faint} timesteps before the end the state's influence on the last hidden state has fallen below {level} "
        f"of what it is at the end{beyond}: the layer hardly learns from what lies further back.",
        _LONGER_MEMORY.get(measures.subject.rule.kind, _ORTHOGONAL),
        f"{literature.HOCHREITER}; {literature.BENGIO}",
    )


_ORTHOGONAL = (
    "Start the recurrent kernel orthogonal or as the identity, use an LSTM or GRU, or let attention or skip "
    "connections shorten the way back."
)
_LONGER_MEMORY = {
    "LSTMCell": "Raise the forget gate's bias (1 or more at the start), shorten or window the sequences, or let "
    "attention or skip connections shorten the way back.",
    "GRUCell": "Raise the update gate's bias (Keras's update gate keeps the state), shorten or window the sequences, "
    "or let attention or skip connections shorten the way back.",
}


def exploding(measures: Measures, thresholds: Thresholds) -> Iterator[Finding]:
    """The influence of some earlier state has grown too large."""
    largest = measures.state.largest
    if not largest > thresholds["exploding"]:
        return
    yield Finding(
        "critical" if not largest <= thresholds["overflowing"] else "warning",
        measures.subject.name,
        "exploding",
        largest,
        thresholds["exploding"],
        "The influence of an earlier state on the last hidden state is so many times what it is at the end: gradients "
        "through this layer are dominated by a few early timesteps, and single steps of training can undo the rest.",
        "Clip the gradients' norm, lower the learning rate, start the recurrent kernel smaller or orthogonal.",
        literature.PASCANU,
    )


def decay(measures: Measures, thresholds: Thresholds) -> Iterator[Finding]:
    """How fast influence changes with every step back."""
    for which, influence in _influences(measures):
        if influence.rate is None:
            continue
        yield Finding(
            "info",
            measures.subject.name,
            "rate",
            influence.rate.slope.value,
            0.0,
            f"The logarithm of ‖∂h_T/∂{which}_t‖ {_course(influence.rate, thresholds)}",
            "Compare it with how far back the task must reach: after n steps the factor to the power of n is left.",
            literature.BENGIO,
        )


def learning(measures: Measures, thresholds: Thresholds) -> Iterator[Finding]:
    """The gradients of the weights: whether they are finite, and how fast they change with every step back."""
    learnt = measures.learning
    if learnt is None:
        return
    name = measures.subject.name
    wrong = [(weight, norms) for weight, norms in zip(learnt.weights, learnt.norms, strict=True) if _unsound(norms)]
    for weight, norms in wrong[:1]:
        timestep = int(np.flatnonzero(~np.isfinite(norms))[-1 if not measures.subject.call.backwards else 0])
        yield Finding(
            "critical",
            name,
            "not_finite",
            float(timestep),
            None,
            f"The gradient of {weight} is infinite or no number at timestep {timestep}.",
            "Clip the gradients' norm, lower the learning rate, start the recurrent kernel smaller or orthogonal.",
            literature.PASCANU,
        )
    if learnt.rate is not None:
        yield Finding(
            "info",
            name,
            "weight_gradients",
            learnt.rate.slope.value,
            0.0,
            f"The logarithm of the norm of the weights' gradients {_course(learnt.rate, thresholds)}",
            "Where it falls fast the layer learns from the last timesteps alone: see its horizon.",
            literature.BENGIO,
        )


def _unsound(norms: Array) -> bool:
    return not bool(np.isfinite(norms).all())


def _influences(measures: Measures) -> list[tuple[str, Influence]]:
    several = len(measures.subject.rule.states) > 1
    return [("h", measures.hidden), *([("s", measures.state)] if several else [])]


def _course(fit: Fit, thresholds: Thresholds) -> str:
    slope = fit.slope
    assert slope.low is not None
    assert slope.high is not None
    direction = "falls" if slope.high < 0 else "grows" if slope.low > 0 else "neither falls nor grows for certain"
    interval = f"{thresholds['confidence']:.3g} interval {_power(slope.low)} to {_power(slope.high)}"
    return (
        f"{direction} with each step back: a factor of {_power(slope.value)} a timestep ({interval}; a straight line "
        f"explains {fit.explained:.0%} of its variance)."
    )


def _power(rate: float) -> str:
    return f"{np.exp(min(rate, 700.0)):.4g}"


def contracting(measures: Measures, _: Thresholds) -> Iterator[Finding]:
    """Every step shrinks every cotangent."""
    if measures.singular_values is None or measures.singular_values[2] >= 1:
        return
    yield Finding(
        "info",
        measures.subject.name,
        "contracting",
        measures.singular_values[2],
        1.0,
        "The largest singular value of every local Jacobian that was formed is below 1: each step shrinks every "
        "cotangent, so gradients must vanish with distance.",
        "A larger recurrent kernel, an orthogonal one, or gates that stay open.",
        literature.PASCANU,
    )


def chaotic(measures: Measures, thresholds: Thresholds) -> Iterator[Finding]:
    """The largest Lyapunov exponent is positive."""
    leading = measures.exponents[0]
    if not leading.value > thresholds["chaotic"]:
        return
    yield Finding(
        "warning",
        measures.subject.name,
        "chaotic",
        leading.value,
        thresholds["chaotic"],
        "The largest Lyapunov exponent is positive: states that begin close together part, by this rate a timestep, "
        "and gradients over long sequences grow with them.",
        "Start the recurrent kernel smaller, clip gradients, shorten the sequences that are backpropagated through.",
        literature.ENGELKEN,
    )


LOOKS: tuple[Look, ...] = (exploding, vanishing, decay, learning, contracting, chaotic)
