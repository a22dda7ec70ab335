"""Panels made into a figure, and a figure into the bytes of a file."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tapehead.pictures.choice import by_axes
from tapehead.pictures.diagnosis import diagnose
from tapehead.pictures.kinds import KINDS
from tapehead.pictures.panel import Array, Labels, Panel
from tapehead.pictures.sheet import Sheet, Shown
from tapehead.pictures.states import states
from tapehead.pictures.weights import weight_gradients
from tapehead.pictures.words import height

WIDTH = 800
_WIDE, _DPI = 8.0, 100
_TITLE_LETTERS = 95
_LINE = 0.17
_HIGH: Mapping[str, float] = {"norm_map": 5.6, "scatter": 3.6}
_HIGH_ALONE, _HIGH_EACH = 4.0, 2.6

# Operations whose pictures more than the axes of each tensor decides.
SHEETS: Mapping[str, Callable[[Shown], Sheet]] = {
    "states": states,
    "weight_gradients": weight_gradients,
    "diagnose": diagnose,
}


def picture(
    *,
    tensors: Mapping[str, Array],
    axes: Mapping[str, Sequence[str]],
    meta: Mapping[str, Any],
    title: str,
    row: int = 0,
    labels: Labels | None = None,
) -> Figure:
    """An answer as a figure 800 pixels wide, the kinds of its panels chosen by what was asked and by the axes.

    `meta` may hold what was asked (`operation`, `of`, `wrt`, `target`, `method`), which the axes' names then say, and
    which timesteps are `valid`: padding is grey. `row` is the sample that is drawn, others of a batch are faint where
    lines are; `labels` maps an axis ("timestep", "wrt.feature") to the words at its entries.

    Raises:
        NoPicture: there is nothing in the answer that can be drawn.
    """
    shown = Shown(tensors, axes, meta, row, labels or {})
    sheet = SHEETS.get(str(meta.get("operation")), by_axes)(shown)
    notes = [
        title,
        f"sample {row} of {shown.samples}" if shown.samples > 1 else "",
        *sheet.notes,
        f"largest difference {meta['difference']:.2g} of the largest entry" if "difference" in meta else "",
        f"argmax is {meta['target_index'][row]}" if meta.get("target_index") else "",
        str(meta.get("precision", "")),
    ]
    return drawn(sheet.panels, title=" · ".join(filter(None, notes)), columns=sheet.columns)


def drawn(panels: Sequence[tuple[str, Panel]], *, title: str, columns: int = 1) -> Figure:
    """Panels, each of its kind, under one title, in columns; words take a row of their own."""
    rows = _rows(panels, columns)
    heights = [max(_height(*one, len(panels)) for one in row) for row in rows]
    figure = Figure(figsize=(_WIDE, max(_HIGH_ALONE, sum(heights))), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(textwrap.fill(title, _TITLE_LETTERS), fontsize=11)
    grid = figure.add_gridspec(max(1, len(rows)), columns, height_ratios=heights or [1])
    for down, row in enumerate(rows):
        for right, (kind, one) in enumerate(row):
            wide = len(row) == 1
            place = grid[down, :] if wide else grid[down, right]
            KINDS[kind](figure.add_subplot(place), one if wide else replace(one, small=True))
    return figure


def png(figure: Figure, width: int = WIDTH) -> bytes:
    """The figure as the bytes of a PNG file, `width` pixels wide."""
    return _bytes(figure, format="png", dpi=width / _WIDE)


def svg(figure: Figure, width: int = WIDTH) -> bytes:
    """The figure as the bytes of an SVG file; `width` is how finely dense clouds of points in it are drawn."""
    return _bytes(figure, format="svg", dpi=width / _WIDE)


def _bytes(figure: Figure, **options: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, **options)
    return buffer.getvalue()


def _rows(panels: Sequence[tuple[str, Panel]], columns: int) -> list[list[tuple[str, Panel]]]:
    """The panels row by row; words stand alone."""
    rows: list[list[tuple[str, Panel]]] = []
    for kind, one in panels:
        full = not rows or len(rows[-1]) == columns or "words" in (kind, rows[-1][-1][0])
        if full:
            rows.append([])
        rows[-1].append((kind, one))
    return rows


def _height(kind: str, one: Panel, count: int) -> float:
    """A panel's height in inches, of so many."""
    if kind == "words":
        return height(one) * _LINE
    if kind == "dots":
        return max(_HIGH_EACH, 1.2 + 0.25 * len(one.labels["weight"]))
    return _HIGH.get(kind, _HIGH_ALONE if count == 1 else _HIGH_EACH)
