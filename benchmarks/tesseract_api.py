"""What Tesseract Core serves: the Jacobian of `benchmarks.serve` as JAX gives it, compiled, by the faster of its modes.

Read by its `tesseract-runtime`, in an environment of its own that has `tesseract-core[runtime]` and `jax`. The names
and signatures are those that it looks for. One sequence a call, since it takes every axis of an input for one to
differentiate along.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
from pydantic import BaseModel
from tesseract_core.runtime import Array, Differentiable, Float32

from benchmarks.peers.with_jax import last
from benchmarks.problems import problem
from benchmarks.workloads import SERVED

_GIVEN = problem(SERVED)
_SEQUENCE = _GIVEN.x[0]
_TRIALS = 20


def _seconds(run: Callable[[Any], Any]) -> float:
    np.asarray(run(_SEQUENCE))
    began = time.perf_counter()
    for _ in range(_TRIALS):
        np.asarray(run(_SEQUENCE))
    return time.perf_counter() - began


_RUN = min((jax.jit(mode(partial(last, _GIVEN))) for mode in (jax.jacrev, jax.jacfwd)), key=_seconds)


class InputSchema(BaseModel):
    """A sequence, (timesteps, features)."""

    x: Differentiable[Array[(None, None), Float32]]


class OutputSchema(BaseModel):
    """The last hidden state, (units,)."""

    h: Differentiable[Array[(None,), Float32]]


def apply(inputs: InputSchema) -> OutputSchema:
    """The last hidden state."""
    return OutputSchema(h=np.asarray(last(_GIVEN, inputs.x)))


def jacobian(inputs: InputSchema, jac_inputs: set[str], jac_outputs: set[str]) -> dict[str, dict[str, Any]]:
    """d h / d x, (units, timesteps, features)."""
    assert (jac_inputs, jac_outputs) == ({"x"}, {"h"})
    return {"h": {"x": np.asarray(_RUN(inputs.x))}}


def abstract_eval(abstract_inputs: Any) -> dict[str, Any]:  # noqa: ARG001  # the signature is looked for
    """The output's shape."""
    return {"h": {"shape": (SERVED.size.units,), "dtype": "float32"}}
