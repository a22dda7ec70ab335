"""Weekly CO₂ figures made into monthly means: `python -m tapehead.demo.monthly < co2.csv > co2_monthly.csv`.

Reads the `co2.csv` of statsmodels' datasets (`date,co2`: YYYYMMDD of a Saturday, ppm or nothing).
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Iterator, Mapping

import numpy as np


def by_month(rows: Iterable[Mapping[str, str]]) -> dict[str, list[float]]:
    """The weekly figures of every month, "1958-03" → [316.1]; a month without figures is there, empty."""
    months: dict[str, list[float]] = {}
    for row in rows:
        figures = months.setdefault(f"{row['date'][:4]}-{row['date'][4:6]}", [])
        if row["co2"]:
            figures.append(float(row["co2"]))
    return months


def monthly_means(months: Mapping[str, list[float]]) -> Iterator[tuple[str, float, int]]:
    """(month, ppm, weeks averaged); a month without figures lies on the straight line between its neighbours."""
    known = [i for i, figures in enumerate(months.values()) if figures]
    means = [float(np.mean(figures)) for figures in months.values() if figures]
    filled = np.interp(range(len(months)), known, means)
    for (month, figures), ppm in zip(months.items(), filled, strict=True):
        yield month, float(ppm), len(figures)


def main() -> None:
    """Reads the weekly figures from standard input and writes the monthly ones to standard output."""
    print("month,ppm,weeks")
    for month, ppm, weeks in monthly_means(by_month(csv.DictReader(sys.stdin))):
        print(f"{month},{ppm:.2f},{weeks}")


if __name__ == "__main__":
    main()
