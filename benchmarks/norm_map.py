"""How much memory the map of all norms |d h[t] / d h[s]| takes, and how long: one line of JSON.

    python benchmarks/norm_map.py [--timesteps 1000] [--units 128] [--layer LSTM] [--reduce norm]

`whole_bytes` is what the Jacobian itself would fill, timesteps² x units² numbers; it must never be held. `before_bytes`
is this process's peak before the question, TensorFlow and the compiled program of a short sequence included. The engine
is asked directly: a server's deadline may be shorter than this takes.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import keras
import numpy as np

from tapehead.engine import OPERATIONS, Model
from tapehead.operations import Request, Result, check

WARM_UP = 8


def peak_bytes() -> int:
    """The most memory this process has held so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def measure(timesteps: int, units: int, layer: str, reduce: str) -> dict[str, object]:
    recurrent = getattr(keras.layers, layer)(units, name="rnn", return_sequences=True)
    model = keras.Sequential([keras.Input((None, 4)), recurrent])
    x = np.random.default_rng(0).normal(size=(1, timesteps, 4)).astype("float32")
    served = Model(model, "m", 1)

    def ask(inputs: np.ndarray) -> Result:
        request = Request({"": inputs}, None, {}, {"of": "rnn.h", "wrt": "rnn.h", "reduce": reduce})
        return OPERATIONS["jacobian"](served, check(served.card, "jacobian", request)[0])

    ask(x[:, :WARM_UP])
    before, start = peak_bytes(), time.perf_counter()
    answer = ask(x)
    value = answer.tensors["value"]
    return {
        "shape": value.shape,
        "finite": bool(np.isfinite(value).all()),
        "route": answer.meta["route"],
        "seconds": round(time.perf_counter() - start, 1),
        "before_bytes": before,
        "peak_bytes": peak_bytes(),
        "whole_bytes": timesteps**2 * units**2 * x.itemsize,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--timesteps", type=int, default=1000)
    parser.add_argument("--units", type=int, default=128)
    parser.add_argument("--layer", choices=("SimpleRNN", "GRU", "LSTM"), default="LSTM")
    parser.add_argument("--reduce", choices=("norm", "spectral_norm"), default="norm")
    options = parser.parse_args()
    print(json.dumps(measure(options.timesteps, options.units, options.layer, options.reduce)))


if __name__ == "__main__":
    main()
