"""The kinds of picture: one row each, a function that draws a panel on a matplotlib Axes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from matplotlib.axes import Axes

from tapehead.pictures.bars import bars
from tapehead.pictures.dots import dots
from tapehead.pictures.exponents import exponents
from tapehead.pictures.heatmap import heatmap
from tapehead.pictures.lines import lines
from tapehead.pictures.norm_map import norm_map
from tapehead.pictures.norms import norms
from tapehead.pictures.panel import Panel
from tapehead.pictures.saturation import saturation
from tapehead.pictures.scatter import scatter
from tapehead.pictures.spectrum import spectrum
from tapehead.pictures.words import words

Kind = Callable[[Axes, Panel], None]

KINDS: Mapping[str, Kind] = {
    "heatmap": heatmap,
    "norm_map": norm_map,
    "norms": norms,
    "bars": bars,
    "lines": lines,
    "saturation": saturation,
    "spectrum": spectrum,
    "exponents": exponents,
    "scatter": scatter,
    "dots": dots,
    "words": words,
}
