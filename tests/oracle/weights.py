"""Gradients with respect to every weight, a copy of it for each timestep, by JAX's reverse mode: one sample at a time.

The loss is handed in as a function of a sample's outputs. A sample's padding is cut off, so nothing here knows of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from oracle.oracle import Arrays, Lengths, alone, as_rows, forward, run_shapes
from oracle.signals import Run
from oracle.without_compiling import without_compiling

Loss = Callable[[Run, Any], Any]


def weight_gradients(
    model: Any,
    inputs: Any,
    loss: Loss,
    targets: Arrays | None = None,
    *,
    lengths: Lengths = None,
    initial_states: Arrays | None = None,
) -> dict[str, np.ndarray]:
    """By weight (batch, timesteps, *weight), or (batch, *weight) where no timestep reads it; `loss` gives a sample's
    number from its run and its targets, by output; those over timesteps are cut to its length."""
    rows = as_rows(model, inputs, initial_states)
    batch, timesteps = next(iter(rows["inputs"].values())).shape[:2]
    found: dict[str, np.ndarray] = {}
    with jax.enable_x64(True):
        for members, cut in alone(model, rows, lengths, batch):
            steps = next(iter(cut["inputs"].values())).shape[1]
            own = {name: target[members] for name, target in (targets or {}).items()}
            own = {name: target[:, :steps] if target.ndim > 2 else target for name, target in own.items()}
            for name, gradient in _gradients(model, cut, loss, own).items():
                timed = name.endswith("@")
                shape = (batch, timesteps, *gradient.shape[2:]) if timed else (batch, *gradient.shape[1:])
                into = found.setdefault(name.rstrip("@"), np.zeros(shape))
                if timed:
                    into[members, :steps] = gradient
                else:
                    into[members] = gradient
    return found


def _gradients(model: Any, rows: Any, loss: Loss, targets: Arrays) -> Mapping[str, np.ndarray]:
    layout = run_shapes(model, rows)
    longest = max(x.shape[1] for x in rows["inputs"].values())
    nudges = {
        f"{name}@" if name in layout.by_time else name: np.zeros(
            (longest, *layout.values[name].shape) if name in layout.by_time else layout.values[name].shape
        )
        for name in layout.values
        if "/" in name
    }

    def number(nudges: Any, row: Any, target: Any) -> Any:
        return loss(forward(model, row, nudges), target)

    by_row = without_compiling(jax.vmap(jax.grad(number), in_axes=(None, 0, 0)))
    return jax.tree.map(np.asarray, by_row(nudges, rows, targets))
