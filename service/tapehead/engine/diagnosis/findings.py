"""All that is found in a layer, the gravest first; and the verdict."""

from __future__ import annotations

from collections.abc import Sequence

from tapehead.engine.diagnosis import literature, passing, units
from tapehead.engine.diagnosis.finding import Finding, Thresholds
from tapehead.engine.diagnosis.finite import First
from tapehead.engine.diagnosis.measures import Measures

_LOOKS = (*passing.LOOKS, *units.LOOKS)

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
