"""Lines of text as a panel: a verdict and what it rests on."""

from __future__ import annotations

import textwrap

from matplotlib.axes import Axes

from tapehead.pictures.panel import Panel

_LETTERS = 108


def words(axes: Axes, panel: Panel) -> None:
    """Writes a panel's words, the first line larger."""
    axes.set_axis_off()
    first, *others = panel.words
    axes.text(0, 1, first, transform=axes.transAxes, va="top", fontsize=12, fontweight="bold")
    axes.text(0, 1 - 1.4 / height(panel), "\n".join(wrapped(others)), transform=axes.transAxes, va="top", fontsize=9)


def height(panel: Panel) -> float:
    """How many lines high the words are."""
    return 1.8 + len(wrapped(panel.words[1:]))


def wrapped(lines: tuple[str, ...] | list[str]) -> list[str]:
    """The lines, each broken where it is too long for a panel across the figure."""
    return [part for line in lines for part in textwrap.wrap(line, _LETTERS, subsequent_indent="   ")]
