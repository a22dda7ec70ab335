"""The servers that ours is held against: plain FastAPI around a compiled `batch_jacobian`, and the ceiling of HTTP.

python -m benchmarks.plain tensorflow|threads|ceiling|large FOLDER

`tensorflow` computes where the request arrives, `threads` on FastAPI's thread pool, `ceiling` decodes the request and
sends back an answer that lies ready, `large` sends one as our own server sends large ones. FOLDER holds model.keras,
and answer.npy for what lies ready. The first line printed is the address.
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

from tapehead.operations import Result
from tapehead.server.run import listen, uvicorn_config
from tapehead.server.settings import Settings
from tapehead.server.streaming import Streamed
from tapehead.wire.streams import reply_pieces

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


def _large(folder: Path) -> FastAPI:
    """Answers whatever is asked of a model with the same bytes, by our own server's way of sending them."""
    app, answer = FastAPI(), np.load(folder / "answer.npy")
    axes = {"value": ("batch", "timestep", "of.unit", "wrt.unit")}

    @app.get("/v2/models/{model}")
    async def metadata(model: str) -> Response:  # noqa: ARG001  # the path's
        return Response((folder / "metadata.json").read_bytes(), media_type="application/json")

    @app.post("/v2/models/{model}/{operation}")
    async def ready(request: Request, model: str, operation: str) -> Response:  # noqa: ARG001  # the path's
        await request.body()
        return Streamed(reply_pieces(Result({"value": answer}, axes, {}), model, 1), _MSGPACK, {})

    return app


def _main(kind: str, folder: Path) -> None:
    settings = Settings()
    if kind == "large":
        app = _large(folder)
    else:
        app = _application(_ready(folder) if kind == "ceiling" else _compiled(folder), threads=kind == "threads")
    config = uvicorn_config(app, settings)
    with listen("127.0.0.1", 0) as listener:
        print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        uvicorn.Server(config).run([listener])


if __name__ == "__main__":
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    _main(sys.argv[1], Path(sys.argv[2]))
