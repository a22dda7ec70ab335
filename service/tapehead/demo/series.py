"""The two records that ship in data/: monthly CO₂ over Mauna Loa, yearly sunspot numbers."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Series:
    """One number at each time, in time's order; `times` are text such as "1958-03" or "1700"."""

    name: str
    unit: str
    times: tuple[str, ...]
    values: Array


def sunspots() -> Series:
    """Yearly mean sunspot numbers, 1700 to 2008."""
    return Series("sunspot number", "sunspots", *_columns("sunspots_yearly.csv"))


def co2() -> Series:
    """Monthly mean CO₂ over Mauna Loa in ppm, March 1958 to December 2001; SOURCES.md tells which months are filled."""
    return Series("CO₂", "ppm", *_columns("co2_monthly.csv"))


def _columns(file: str) -> tuple[tuple[str, ...], Array]:
    with Path(__file__).with_name("data").joinpath(file).open(encoding="utf-8", newline="") as lines:
        rows = list(csv.reader(lines))[1:]
    return tuple(row[0] for row in rows), np.array([row[1] for row in rows], np.float32)
