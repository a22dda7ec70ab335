"""The numbers of a layer held against thresholds, in words; and the verdict."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tapehead.engine.diagnosis import literature
from tapehead.engine.diagnosis.finite import First
from tapehead.engine.diagnosis.measures import GateUse, Influence, Measures
from tapehead.engine.rules.ranges import RECTIFIERS

Severity = Literal["info", "warning", "critical"]
Thresholds = Mapping[str, float]


@dataclass(frozen=True)
class Finding:
    """One thing found in a layer: the number and the threshold it is held against, what it means, what people do."""

    severity: Severity
    layer: str
    kind: str
    number: float | None
    threshold: float | None
    meaning: str
    advice: str
    source: str


VERDICTS = ("not_finite", "exploding", "dead", "saturated", "vanishing")
"""What a layer may suffer from, the gravest and the most particular first; `healthy` where from nothing."""


def verdict(findings: Sequence[Finding]) -> str:
    """The first of `VERDICTS` that a layer's findings tell of, more than by the way."""
    kinds = {finding.kind for finding in findings if finding.severity != "info"}
    return next((kind for kind in VERDICTS if kind in kinds), "healthy")


def findings(measures: Measures, first: First | None, thresholds: Thresholds) -> list[Finding]:
    """All that is found in one layer, the gravest first; `first` is where a number up to it first was not finite."""
    found = [finding for look in _LOOKS for finding in look(measures, thresholds)]
    if first is not None:
        found.append(_not_finite(measures, first))
    order = ("critical", "warning", "info")
    return sorted(found, key=lambda finding: order.index(finding.severity))


def _not_finite(measures: Measures, first: First) -> Finding:
    where = f"layer {first.layer!r}, sample {first.sample}" + (
        "" if first.timestep is None else f", timestep {first.timestep}"
    )
    return Finding(
        "critical",
        measures.subject.name,
        "not_finite",
        None if first.timestep is None else float(first.timestep),
        None,
        f"A number is infinite or no number; the first of them is at {where}.",
        "Look at that layer's weights and inputs there; clip gradients and lower the learning rate before training on.",
        literature.PASCANU,
    )


def _vanishing(measures: Measures, thresholds: Thresholds) -> Iterator[Finding]:
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


def _exploding(measures: Measures, thresholds: Thresholds) -> Iterator[Finding]:
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


def _decay(measures: Measures, thresholds: Thresholds) -> Iterator[Finding]:
    for which, influence in _influences(measures):
        fit = influence.rate
        if fit is None:
            continue
        slope = fit.slope
        assert slope.low is not None
        assert slope.high is not None
        direction = "falls" if slope.high < 0 else "grows" if slope.low > 0 else "neither falls nor grows for certain"
        yield Finding(
            "info",
            measures.subject.name,
            "rate",
            slope.value,
            0.0,
            f"The logarithm of ‖∂h_T/∂{which}_t‖ {direction} with each step back: a factor of "
            f"{_power(slope.value)} a timestep ({thresholds['confidence']:.3g} interval {_power(slope.low)} to "
            f"{_power(slope.high)}; a straight line explains {fit.explained:.0%} of its variance).",
            "Compare it with how far back the task must reach: after n steps the factor to the power of n is left.",
            literature.BENGIO,
        )


def _influences(measures: Measures) -> list[tuple[str, Influence]]:
    several = len(measures.subject.rule.states) > 1
    return [("h", measures.hidden), *([("s", measures.state)] if several else [])]


def _power(rate: float) -> str:
    return f"{np.exp(min(rate, 700.0)):.4g}"


def _contracting(measures: Measures, _: Thresholds) -> Iterator[Finding]:
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


def _chaotic(measures: Measures, thresholds: Thresholds) -> Iterator[Finding]:
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


def _saturated(measures: Measures, thresholds: Thresholds) -> Iterator[Finding]:
    """One finding a gate; and one of the layer where, over all of its gates, most numbers are at their bounds.

    A rectifier is left out: about half of its numbers are 0 in a sound network, and a unit that always is, is dead.
    """
    activated = measures.subject.cell.activated
    gates = {gate: use for gate, use in measures.gates.items() if activated[gate] not in RECTIFIERS}
    if not gates:
        return
    overall = float(np.mean([use.low + use.high for use in gates.values()]))
    if overall >= thresholds["saturated"]:
        yield Finding(
            "critical" if overall >= _MOSTLY else "warning",
            measures.subject.name,
            "saturated",
            overall,
            thresholds["saturated"],
            "So large a share of all the layer's activations is at their bounds, where they are flat: little of any "
            "gradient passes.",
            "Scale the inputs, start the kernels smaller, or normalise (layer normalisation) before the activations.",
            literature.GLOROT.partition(";")[0],
        )
    for gate, use in gates.items():
        yield from _of_gate(measures, gate, use, thresholds)


_MOSTLY = 0.9
"""The share from which saturation is critical, as a dead layer is."""


def _of_gate(measures: Measures, gate: str, use: GateUse, thresholds: Thresholds) -> Iterator[Finding]:
    for side, share in (("low", use.low), ("high", use.high)):
        if share < thresholds["saturated"]:
            continue
        meaning, advice, source = _GATES.get((gate, side), _ANY_GATE)
        yield Finding(
            "info",
            measures.subject.name,
            f"gate_{side}",
            share,
            thresholds["saturated"],
            f"{gate}: so large a share of its numbers is at the {side} bound of its activation. {meaning}",
            advice,
            source,
        )
    if use.stuck:
        yield Finding(
            "info",
            measures.subject.name,
            "stuck_units",
            use.stuck / use.units,
            thresholds["stuck"],
            f"{gate}: {use.stuck} of {use.units} units are at a bound in at least {thresholds['stuck']:.0%} of all "
            f"timesteps; they hardly learn from here.",
            "Expect it of gates that have learnt to stay open or shut; in a new network scale inputs and kernels down.",
            literature.KARPATHY,
        )


_ANY_GATE = (
    "There its slope is small and little gradient passes.",
    "Scale the inputs or start the kernels smaller.",
    literature.KARPATHY,
)
_GATES = {
    ("forget_gate", "low"): (
        "It is shut: the cell state is lost at every step.",
        "Raise the forget gate's bias (unit_forget_bias, or more than 1).",
        f"{literature.GERS}; {literature.JOZEFOWICZ}",
    ),
    ("forget_gate", "high"): (
        "It is open: the cell state is kept, which is what carries gradients far.",
        "None is needed unless states grow without end.",
        f"{literature.GERS}; {literature.JOZEFOWICZ}",
    ),
    ("update_gate", "low"): (
        "In Keras it then takes the candidate and drops the state at every step.",
        "Raise the update gate's bias.",
        literature.JOZEFOWICZ,
    ),
    ("update_gate", "high"): (
        "In Keras it then keeps the state and lets nothing in.",
        "Lower the update gate's bias if the layer does not learn.",
        literature.JOZEFOWICZ,
    ),
    ("input_gate", "low"): (
        "It is shut: nothing enters the cell state.",
        "Raise the input gate's bias, or scale the inputs.",
        literature.KARPATHY,
    ),
    ("output_gate", "low"): (
        "It is shut: nothing of the cell state is shown, and no gradient reaches it from here.",
        "Raise the output gate's bias.",
        literature.KARPATHY,
    ),
}


def _dead(measures: Measures, thresholds: Thresholds) -> Iterator[Finding]:
    if measures.dead is None or not measures.dead[0]:
        return
    dead, units = measures.dead
    share = dead / units
    yield Finding(
        "critical" if share >= _MOSTLY else "warning" if share >= thresholds["dead"] else "info",
        measures.subject.name,
        "dead",
        share,
        thresholds["dead"],
        f"{dead} of {units} rectified units are 0 at every timestep of every sample: no gradient passes through them.",
        "Lower the learning rate, start biases a little above 0, or use a leaky rectifier.",
        literature.MAAS,
    )


def _initialisation(measures: Measures, thresholds: Thresholds) -> Iterator[Finding]:
    check = measures.initialisation
    if check is None:
        return
    passes = check.theory is not None or check.found == 0
    off = passes and abs(check.found - 1) > thresholds["variance"]
    theory = f"Theory says {check.theory:.3g} at the start of training ({check.why})" if check.theory else check.why
    size = (
        "at every step the mean square of a gradient is multiplied by about that much, and 1 keeps it."
        if passes
        else "1 would keep a gradient's size if the entries had mean 0 and nothing else carried it."
    )
    yield Finding(
        "warning" if off else "info",
        measures.subject.name,
        "initialisation",
        check.found,
        thresholds["variance"],
        f"The variance of the entries of ∂h_t/∂h_(t-1), times the units, is {check.found:.3g}: {size} {theory}.",
        "For relu start with twice Glorot's variance (He's) or the identity; for linear and tanh units orthogonally.",
        f"{literature.GLOROT}; {literature.LE}; {literature.SAXE}",
    )


_LOOKS = (_exploding, _dead, _saturated, _vanishing, _decay, _contracting, _chaotic, _initialisation)
