"""One thing found in a layer, in numbers and in words."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from tapehead.engine.diagnosis.measures import Measures

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


Look = Callable[[Measures, Thresholds], Iterator[Finding]]
"""Looks at a layer's measures for one kind of thing."""

MOSTLY = 0.9
"""The share of a layer from which what has befallen its units is critical."""
