"""Second derivatives of one number a sample, by JAX's forward mode over its reverse mode."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from oracle.answers import split
from oracle.oracle import Arrays, as_rows, forward, run_shapes
from oracle.without_compiling import without_compiling


def hessian(model: Any, inputs: Arrays, of: str, wrt: str) -> np.ndarray:
    """d² of / d wrt d wrt for each sample, (batch, *wrt axes, *wrt axes); `of` is indexed down to one number."""
    rows = as_rows(model, inputs, None)
    layout = run_shapes(model, rows)
    name, index = split(of)
    name, nudged = layout.aliases.get(name, name), layout.aliases.get(wrt, wrt)

    def number(nudge: Any, row: Any) -> Any:
        return forward(model, row, {nudged: nudge}).values[name][index].reshape(())

    by_row = without_compiling(jax.vmap(jax.hessian(number), in_axes=(None, 0)))
    with jax.enable_x64(True):
        return np.asarray(by_row(np.zeros(layout.values[nudged].shape), rows))
