"""The endpoints, one short function each, a file for each thing they are about.

    health.py       is the server up, can it answer
    about.py        what the server is; its figures, its description, its page of documentation
    models.py       what is known of a model
    infer.py        the model's outputs
    operations.py   everything else that can be asked of a model
    repository.py   which models there are; loading and unloading them
    page.py         the page for people at `/`
"""

from fastapi import APIRouter

from tapehead.server.routes import about, health, infer, models, operations, page, repository

ROUTERS: tuple[APIRouter, ...] = (
    health.router,
    about.router,
    models.router,
    infer.router,
    repository.router,
    page.router,
    operations.router,
)
"""In the order in which paths are tried: an operation's name could be anything, so that operations come last."""

__all__ = ["ROUTERS"]
