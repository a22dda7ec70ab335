"""The meta of an answer: how it was made, in what, where, and whether every number of it is finite."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tapehead.engine.model import Model
from tapehead.engine.prepared import Prepared, Target
from tapehead.operations import Result
from tapehead.operations.request import Array, Request


class Stopwatch:
    """Seconds by stage: each `lap` names the stage that has just ended."""

    def __init__(self) -> None:
        self._last = time.perf_counter()
        self.seconds: dict[str, float] = {}

    def lap(self, stage: str) -> None:
        """Ends a stage."""
        now = time.perf_counter()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self._last
        self._last = now


def answer(
    prepared: Prepared,
    tensors: Mapping[str, Array],
    axes: Mapping[str, tuple[str, ...]],
    stopwatch: Stopwatch,
    *,
    route: str,
    about: Target | None = None,
    **more: Any,
) -> Result:
    """The result with its meta; `about` is the point whose valid timesteps `meta.valid` tells."""
    meta: dict[str, Any] = {
        "route": route,
        "precision": prepared.model.dtype,
        "device": prepared.model.device,
        "finite": all(finite(array) for array in tensors.values() if array.dtype.kind == "f"),
        **more,
    }
    valid = _valid(prepared, about)
    if valid is not None:
        meta["valid"] = valid.tolist()
    stopwatch.lap("finish")
    meta["timings"] = stopwatch.seconds
    return Result(dict(tensors), dict(axes), meta)


def finite(array: Array) -> bool:
    """Whether every number is finite: the sum of squares tells in one quick pass, unless it overflows."""
    flat = array.reshape(-1)
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(np.dot(flat, flat))) or bool(np.isfinite(flat).all())


def _valid(prepared: Prepared, about: Target | None) -> Any:
    found = None if about is None else prepared.valid(about.place)
    if found is not None:
        return found
    return next((mask for key, mask in prepared.masks.items() if isinstance(key, str)), None)


def in_precision(model: Model, request: Request) -> Model:
    """The model in the precision that the request asks for."""
    precision = request.parameters.get("precision")
    # TensorFloat-32 rounds a product's factors to 10 bits; TensorFlow would use it for float32 unasked.
    tf.config.experimental.enable_tensor_float_32_execution(precision == "tf32")
    return model.at(precision)
