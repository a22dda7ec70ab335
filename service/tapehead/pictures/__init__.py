"""Answers made into figures: values in, a matplotlib Figure out. No pyplot, no global state, any thread.

    panel.py     one tensor of an answer -> the array, axes and words of one panel
    heatmap.py   two axes as colours
    norms.py     one number a timestep on a log axis, with the decay fitted to it
    bars.py      one signed number a timestep, unit or feature
    kinds.py     the table of kinds, and which one suits which axes
    figures.py   panels -> a Figure -> the bytes of a file
"""

from tapehead.pictures.figures import drawn, picture, png
from tapehead.pictures.kinds import KINDS, Kind, fitting
from tapehead.pictures.norms import Decay, decay
from tapehead.pictures.panel import Panel, panel

__all__ = ["KINDS", "Decay", "Kind", "Panel", "decay", "drawn", "fitting", "panel", "picture", "png"]
