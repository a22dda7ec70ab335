"""The servers that ours is held against: plain FastAPI around a compiled `batch_jacobian`, and the ceiling of HTTP.

python -m benchmarks.plain tensorflow|threads|ceiling FOLDER

`tensorflow` computes where the request arrives, `threads` on FastAPI's thread pool, `ceiling` decodes the request and
sends back an answer that lies ready. FOLDER holds model.keras, and answer.npy for the ceiling. The first line printed
is the address.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool

from tapehead.server.run import listen, uvicorn_config
from tapehead.server.settings import Settings

_MSGPACK = "application/vnd.msgpack"
_Compute = Callable[[Any], Any]


def _application(compute: _Compute, *, threads: bool) -> FastAPI:
    app = FastAPI()

    @app.post("/jacobian")
    async def jacobian(request: Request) -> Response:
        x = _array(msgpack.unpackb(await request.body())["inputs"])
        found = await run_in_threadpool(compute, x) if threads else compute(x)
        body = msgpack.packb({"v": 1, "tensors": {"value": _tensor(found)}})
        return Response(body, media_type=_MSGPACK)

    return app


def _array(tensor: dict[str, Any]) -> Any:
    return np.frombuffer(tensor["data"], tensor["dtype"]).reshape(tensor["shape"])


def _tensor(array: Any) -> dict[str, Any]:
    return {"dtype": array.dtype.name, "shape": array.shape, "data": array.tobytes()}


def _compiled(folder: Path) -> _Compute:
    """`batch_jacobian` of the model's output, compiled once for any batch."""
    import keras
    import tensorflow as tf

    model = keras.models.load_model(folder / "model.keras")
    shape = np.load(folder / "answer.npy", mmap_mode="r").shape

    def derivative(x: Any) -> Any:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(x)
            h = model(x)
        return tape.batch_jacobian(h, x)

    run = tf.function(derivative, input_signature=[tf.TensorSpec((None, *shape[2:]), tf.float32)], autograph=False)
    return lambda x: run(tf.constant(x)).numpy()


def _ready(folder: Path) -> _Compute:
    answer = np.load(folder / "answer.npy")
    return lambda _: answer


def _main(kind: str, folder: Path) -> None:
    compute = _ready(folder) if kind == "ceiling" else _compiled(folder)
    settings = Settings()
    config = uvicorn_config(_application(compute, threads=kind == "threads"), settings)
    with listen("127.0.0.1", 0) as listener:
        print(f"http://127.0.0.1:{listener.getsockname()[1]}/jacobian", flush=True)
        uvicorn.Server(config).run([listener])


if __name__ == "__main__":
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    _main(sys.argv[1], Path(sys.argv[2]))
