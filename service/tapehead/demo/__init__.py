"""The main job on real data: series, models trained on them, and one run from a server's start to pictures.

    series.py    the two records that ship in data/
    studies.py   what each model is asked: sequences cut from a record, and what follows them
    cells.py     a recurrent cell of our own, as a user would bring one
    networks.py  the four models, layer by layer
    train.py     makes the files in models/ anew
    service.py   the real server as a process of its own
    report.py    numbers -> text, at most 100 columns wide
    run.py       `tapehead demo`
"""

from __future__ import annotations

from pathlib import Path

IMPORTS = ("tapehead.demo.cells",)
"""Modules a server imports before it loads these models: they register the cells the files name."""


def models_folder() -> Path:
    """The folder of the models that ship with Tapehead, in the layout a server serves."""
    return Path(__file__).with_name("models")
