"""Panels made into a figure, and a figure into the bytes of a file."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tapehead.pictures.kinds import KINDS, fitting
from tapehead.pictures.panel import Array, Labels, Panel, panel

_WIDE, _HIGH, _HIGH_EACH, _DPI = 8.0, 4.0, 2.6, 100
_MOST_PANELS, _TITLE_LETTERS = 6, 95
_QUANTITIES: Mapping[str, str] = {
    "jacobian": "d {of} / d {wrt}",
    "vjp": "cotangent · d {of} / d {wrt}",
    "saliency": "{method} of {target}",
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
    """An answer as a figure 800 pixels wide, a panel for each tensor, the kind of each chosen by its axes.

    `meta` may hold what was asked (`operation`, `of`, `wrt`, `target`, `method`), which the axes' names then say, and
    which timesteps are `valid`: padding is grey. `row` is the sample that is drawn; `labels` maps an axis ("timestep",
    "wrt.feature") to the words at its entries. One number a sample beside other tensors goes into the title.
    """
    single = {name: tensor for name, tensor in tensors.items() if len(tensors) > 1 and set(axes[name]) == {"batch"}}
    several = [name for name in tensors if name not in single]
    valid = meta["valid"][row] if meta.get("valid") else None
    panels = []
    for name in several[:_MOST_PANELS]:
        sides = _sides(name, meta)
        quantity = _quantity(name, {**meta, **sides})
        panels.append(panel(tensors[name], axes[name], quantity, row=row, sides=sides, labels=labels, valid=valid))
    samples = max((tensor.shape[0] for name, tensor in tensors.items() if axes[name][:1] == ("batch",)), default=1)
    notes = [
        title,
        f"sample {row} of {samples}" if samples > 1 else "",
        f"{_MOST_PANELS} of {len(several)} tensors" if len(several) > _MOST_PANELS else "",
        *(f"{name} {float(tensor[row]):.3g}" for name, tensor in single.items()),
        str(meta.get("precision", "")),
    ]
    return drawn([(fitting(one), one) for one in panels], title=" · ".join(filter(None, notes)))


def drawn(panels: Sequence[tuple[str, Panel]], *, title: str) -> Figure:
    """Panels below one another, each of its kind, under one title."""
    high = max(_HIGH, _HIGH_EACH * len(panels))
    figure = Figure(figsize=(_WIDE, high), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(textwrap.fill(title, _TITLE_LETTERS), fontsize=11)
    for at, (kind, one) in enumerate(panels, start=1):
        KINDS[kind](figure.add_subplot(len(panels), 1, at), one)
    return figure


def png(figure: Figure) -> bytes:
    """The figure as the bytes of a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _sides(name: str, meta: Mapping[str, Any]) -> dict[str, str]:
    """The points on both sides of a derivative: from a tensor named "of / wrt", else from what was asked."""
    if " / " in name:
        return dict(zip(("of", "wrt"), name.split(" / ", 1), strict=True))
    return {side: meta[side] for side in ("of", "wrt") if isinstance(meta.get(side), str)}


def _quantity(name: str, asked: Mapping[str, Any]) -> str:
    """What the numbers of a tensor are."""
    words = {"method": "attribution", **{key: value for key, value in asked.items() if isinstance(value, str)}}
    try:
        return _QUANTITIES[words.get("operation", "")].format_map(words)
    except KeyError:
        return name
