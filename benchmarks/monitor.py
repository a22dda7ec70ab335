"""What a GradientMonitor costs in training: `python -m benchmarks.monitor [--verdicts]`.

Shown are the seconds of a batch of training, of the first record (which makes the functions that the later ones run)
and of a later one, and what share of training the records take every so many batches.
"""

from __future__ import annotations

import os
import sys
import time
from statistics import median
from typing import Any

BATCH, TIMESTEPS, FEATURES, UNITS = 32, 100, 16, 128
BATCHES, EVERY = 40, 10


def _main(verdicts: bool) -> None:
    import keras
    import numpy as np

    from tapehead.keras import GradientMonitor

    numbers = np.random.default_rng(0)
    x = numbers.normal(size=(BATCH * BATCHES, TIMESTEPS, FEATURES)).astype("float32")
    y = numbers.normal(size=(len(x), 1)).astype("float32")

    class Clock(keras.callbacks.Callback):
        """Seconds of each batch, callbacks left out."""

        def __init__(self) -> None:
            super().__init__()
            self.batches: list[float] = []

        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002 - Keras's signature
            self.began = time.perf_counter()

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002 - Keras's signature
            self.batches.append(time.perf_counter() - self.began)

    class Timed(GradientMonitor):
        """Keeps the seconds of each record."""

        records: list[float]

        def _record(self) -> None:
            before = self.seconds
            super()._record()
            self.records = [*getattr(self, "records", []), self.seconds - before]

    series = keras.Input((None, FEATURES))
    model = keras.Model(series, keras.layers.Dense(1)(keras.layers.LSTM(UNITS, name="lstm")(series)))
    model.compile(optimizer="adam", loss="mse")
    clock, monitor = Clock(), Timed(x[:BATCH], y[:BATCH], every=EVERY, verdicts=verdicts)
    model.fit(x, y, batch_size=BATCH, verbose=0, callbacks=[clock, monitor])
    batch, first, later = median(clock.batches[3:]), monitor.records[0], median(monitor.records[1:])
    print(f"LSTM {UNITS}, batch {BATCH}, {TIMESTEPS} timesteps, {FEATURES} features; probe of {BATCH} samples")
    print(f"a batch {batch * 1e3:.1f} ms; the first record {first:.2f} s; a later one {later * 1e3:.1f} ms")
    for every in (10, 100, 1000):
        print(f"every {every} batches: {later / (every * batch):.2%} of training")


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    _main("--verdicts" in sys.argv)
