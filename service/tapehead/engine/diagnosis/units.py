"""What the measures tell of gates, units and the step that they were started with."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tapehead.engine.diagnosis import literature
from tapehead.engine.diagnosis.finding import MOSTLY, Finding, Look, Thresholds
from tapehead.engine.diagnosis.measures import GateUse, Measures
from tapehead.engine.rules.ranges import RECTIFIERS


def saturated(measures: Measures, thresholds: Thresholds) -> Iterator[Finding]:
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
            "critical" if overall >= MOSTLY else "warning",
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


def dead(measures: Measures, thresholds: Thresholds) -> Iterator[Finding]:
    """Units that a rectifier keeps at 0."""
    if measures.dead is None or not measures.dead[0]:
        return
    silent, units = measures.dead
    share = silent / units
    yield Finding(
        "critical" if share >= MOSTLY else "warning" if share >= thresholds["dead"] else "info",
        measures.subject.name,
        "dead",
        share,
        thresholds["dead"],
        f"{silent} of {units} rectified units are 0 at every timestep of every sample: they pass no gradient on.",
        "Lower the learning rate, start biases a little above 0, or use a leaky rectifier.",
        literature.MAAS,
    )


def initialisation(measures: Measures, thresholds: Thresholds) -> Iterator[Finding]:
    """The variance of a step's Jacobian, against 1 and against theory."""
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


LOOKS: tuple[Look, ...] = (dead, saturated, initialisation)
