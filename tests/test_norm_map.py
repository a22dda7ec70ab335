"""A map of norms is reduced before anything large is formed: its memory is far below the Jacobian's own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "norm_map.py"
BUDGET_BYTES = 800 << 20
"""The engine's chunk (256 MiB) as it is computed, turned round and reduced."""


@pytest.mark.slow
@pytest.mark.parametrize("layer", ["LSTM", "GRU"])
def test_the_map_of_all_norms_never_holds_the_whole_jacobian(layer: str) -> None:
    """500 timesteps of 64 units: 4.1 GB in single precision if it were formed."""
    asked = [sys.executable, str(SCRIPT), "--timesteps", "500", "--units", "64", "--layer", layer]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=900, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["finite"]
    assert found["shape"] == [1, 500, 500]
    assert found["whole_bytes"] == 500**2 * 64**2 * 4
    assert found["peak_bytes"] - found["before_bytes"] < BUDGET_BYTES < found["whole_bytes"] / 4
