"""Answers made into figures: values in, a matplotlib Figure out. No pyplot, no global state, any thread.

    panel.py     one tensor of an answer -> the array, axes and words of one panel
    sheet.py     an answer as the pictures see it, and the sheet of panels made of it
    choice.py    the table: what the numbers are, and their axes -> kinds of picture
    states.py, weights.py, diagnosis.py     the sheets of operations whose tensors belong together
    figures.py   panels -> a Figure -> the bytes of a file
    kinds.py     the table of kinds; one file a kind:
                 heatmap.py norm_map.py norms.py bars.py lines.py saturation.py spectrum.py exponents.py scatter.py
                 dots.py words.py
    colours.py, labels.py     what the kinds share: palettes and scales, words along the axes
"""

from tapehead.pictures.choice import TABLE
from tapehead.pictures.figures import WIDTH, drawn, picture, png, svg
from tapehead.pictures.kinds import KINDS, Kind
from tapehead.pictures.norms import Decay, decay
from tapehead.pictures.panel import NoPicture, NoSample, Panel, panel
from tapehead.pictures.sheet import Shown

__all__ = [
    "KINDS",
    "TABLE",
    "WIDTH",
    "Decay",
    "Kind",
    "NoPicture",
    "NoSample",
    "Panel",
    "Shown",
    "decay",
    "drawn",
    "panel",
    "picture",
    "png",
    "svg",
]
