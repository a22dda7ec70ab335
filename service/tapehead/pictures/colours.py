"""Colours that people with any colour vision can tell apart, and the scales that turn numbers into them."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import Colormap, LogNorm, Normalize

from tapehead.pictures.panel import Array, Panel

LINES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8c6d31")
"""Okabe and Ito's palette, https://jfly.uni-koeln.de/color/, without its yellow, which is lost on white."""

STYLES = ("-", "--", "-.", ":")
ABOVE, BELOW = "#b2182b", "#2166ac"
DIVERGING, SEQUENTIAL = "RdBu_r", "viridis"
NOT_FINITE, ZERO = "0.6", "0.93"

_DECADES_FROM, _DECADES_SHOWN = 0.5, 12.0


class LogOrZero(LogNorm):
    """A logarithmic scale on which exact zeros lie under the bottom, and so have a colour of their own."""

    def __call__(self, value: Any, clip: bool | None = None) -> Any:
        """The values as positions from 0 to 1; zeros below 0, what is not finite masked."""
        given = np.ma.masked_invalid(np.atleast_1d(np.ma.asarray(value)))
        scaled = np.ma.maximum(super().__call__(given, clip), 0.0)
        scaled[np.ma.filled(given == 0, False)] = -1.0
        return scaled


def scale(panel: Panel) -> tuple[Colormap, Normalize]:
    """The colours of a panel and the scale onto them.

    Symmetric about zero where signs differ, logarithmic for magnitudes that span half a decade or more (of which
    the highest twelve are told apart), and from zero to the largest otherwise.
    """
    finite = np.abs(panel.values[np.isfinite(panel.values)])
    if panel.limits is not None:
        norm = Normalize(*panel.limits)
    elif panel.magnitude and (bottom := _bottom(finite)) is not None:
        norm = LogOrZero(bottom, float(finite.max()))
    else:
        top = float(finite.max(initial=0.0)) or 1.0
        norm = Normalize(-top if panel.signed else 0.0, top)
    under = {"under": ZERO} if isinstance(norm, LogOrZero) else {}
    return colormaps[DIVERGING if panel.signed else SEQUENTIAL].with_extremes(bad=NOT_FINITE, **under), norm


def zeros_apart(panel: Panel) -> bool:
    """Whether exact zeros of the panel are drawn in a colour of their own."""
    return isinstance(scale(panel)[1], LogOrZero) and bool((panel.values == 0).any())


def _bottom(sizes: Array) -> float | None:
    """Where a logarithmic scale of these sizes begins; None where a linear one shows them."""
    positive = sizes[sizes > 0].astype(np.float64)
    if positive.size == 0 or np.log10(positive.max() / positive.min()) < _DECADES_FROM:
        return None
    return float(max(positive.min(), positive.max() * 10**-_DECADES_SHOWN))
