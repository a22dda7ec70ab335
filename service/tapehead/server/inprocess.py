"""The same application in this process: no socket, no child process, the models' own Python objects."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace

from fastapi import FastAPI

from tapehead.server.app import create_app
from tapehead.server.hiring import thread_fleet
from tapehead.server.settings import Settings

# In process no one else waits: how long a request may take is for the caller's own timeout to say.
DEFAULTS = Settings(deadline=86_400.0)


def application(
    models: str | os.PathLike[str] | Mapping[str, object], settings: Settings = DEFAULTS
) -> FastAPI:
    """The ASGI application over `models`: a folder of them, or live Keras models by name.

    Its lifespan starts the worker, and with it imports TensorFlow, which this module does not.

    Raises:
        NotADirectoryError: the folder is none.
    """
    if isinstance(models, Mapping):
        return create_app(settings, thread_fleet(settings, models), patient=True)
    settings = replace(settings, models_dir=os.fspath(models))
    return create_app(settings, thread_fleet(settings, {}), patient=True)
