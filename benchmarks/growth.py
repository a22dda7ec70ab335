"""How the cost grows with the number of timesteps: the exponent of a power law, fitted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.rows import Row

LONG = 100
"""From so many timesteps on a call's own cost, which does not grow, hides nothing."""


def exponents(rows: Sequence[Row], least: int = 0) -> dict[str, float]:
    """For ours and each peer, k of milliseconds = a T^k, by least squares of the logarithms.

    Those with fewer than three lengths of at least `least` timesteps are left out.
    """
    found = {}
    for name in dict.fromkeys(name for row in rows for name in row.ms):
        points = [(row.workload.size.timesteps, row.ms[name]) for row in rows if name in row.ms]
        points = [point for point in points if point[0] >= least]
        if len(points) >= 3:
            found[name] = float(np.polyfit(*np.log(points).T, 1)[0])
    return found
