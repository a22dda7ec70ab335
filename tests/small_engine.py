"""An engine with little in it, for tests of what carries an engine: it runs a real model, and comes to harm on demand.

The first number of the input chooses: see `HARM`. Anything else is simply inferred.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tapehead.operations import Card, Request, Result, TensorSpec

DIE, FREEZE, DAWDLE, DEVOUR, STUMBLE = -1.0, -2.0, -3.0, -4.0, -5.0
DAWDLE_S = 0.4

HARM: Mapping[float, Callable[[], object]] = {
    DIE: lambda: os.kill(os.getpid(), signal.SIGKILL),
    FREEZE: lambda: os.kill(os.getpid(), signal.SIGSTOP),
    DAWDLE: lambda: time.sleep(DAWDLE_S),
    DEVOUR: lambda: tf.zeros((1 << 45,)),
    STUMBLE: lambda: {}["nothing"],
}


class Model:
    def __init__(
        self, model: keras.Model, name: str, version: int, *, live: bool = False, later: object = None,  # noqa: ARG002 - the engine's own compiles with it
    ) -> None:
        self.keras, self.live = model, live
        weights = {weight.path: tuple(weight.shape) for weight in model.weights}
        self.bytes = sum(4 * int(np.prod(shape)) for shape in weights.values())
        self.card = Card(
            name,
            version,
            tuple(TensorSpec(t.name, tuple(t.shape), t.dtype, ("timestep", "feature")) for t in model.inputs),
            tuple(TensorSpec("outputs", tuple(t.shape), t.dtype, ("unit",)) for t in model.outputs),
            {},
            {},
            weights,
            self.bytes,
        )


def infer(model: Model, request: Request) -> Result:
    (array,) = request.inputs.values()
    HARM.get(float(array.flat[0]), lambda: None)()
    outputs = model.keras(array)
    meta = {"place": outputs.device, "finite": True}
    return Result({"outputs": outputs.numpy()}, {"outputs": ("batch", "unit")}, meta)


OPERATIONS = {"infer": infer}


async def frozen(pid: int) -> None:
    """Waits until a process has stopped, as `FREEZE` makes it."""
    while " T " not in Path(f"/proc/{pid}/stat").read_text():
        await asyncio.sleep(0.02)
