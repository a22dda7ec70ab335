"""Numbers made into text at most 100 columns wide."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from tapehead.demo.series import Array

WIDE = 100
_BAR = 28
_EIGHTHS = " ▏▎▍▌▋▊▉"


def signed_bars(labels: Sequence[str], values: Array) -> Iterator[str]:
    """A line for each value: its label, its bar from a middle line to the left or right, the number."""
    largest = float(np.abs(values).max(initial=0.0)) or 1.0
    for label, value in zip(labels, values.tolist(), strict=True):
        filled = round(abs(value) / largest * _BAR)
        left, right = ("█" * filled, "") if value < 0 else ("", "█" * filled)
        yield f"  {label:>10}  {left:>{_BAR}}│{right:<{_BAR}}  {value:+.4f}"


def log_bars(labels: Sequence[str], values: Array) -> Iterator[str]:
    """A line for each value: its label, its bar on a logarithmic scale from a decade below the least, the number."""
    positive = values[values > 0]
    floor = 10 ** np.floor(np.log10(positive.min(initial=1.0)) - 1)
    decades = np.log10(positive.max(initial=1.0) / floor)
    for label, value in zip(labels, values.tolist(), strict=True):
        length = np.log10(value / floor) / decades if value > 0 else 0
        yield f"  {label:>10}  {_bar(2 * _BAR * length):<{2 * _BAR}}   {value:.3g}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Columns under their heads, the first to the left and the others to the right."""
    lines = [tuple(head), *map(tuple, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for first, *others in lines:
        cells = (f"{cell:>{width}}" for cell, width in zip(others, widths[1:], strict=True))
        yield f"  {first:<{widths[0]}}   " + "   ".join(cells)


def milliseconds(timings: Mapping[str, float], stages: Sequence[str]) -> list[str]:
    """The stages' times in milliseconds, a dash where a stage has none."""
    return [f"{1e3 * timings[stage]:.2f}" if stage in timings else "-" for stage in stages]


def _bar(length: float) -> str:
    whole, eighths = divmod(round(8 * length), 8)
    return "█" * whole + _EIGHTHS[eighths].strip()
