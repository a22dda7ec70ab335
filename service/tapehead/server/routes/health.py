"""Whether the server is up, and whether it can answer. Neither needs a key."""

from fastapi import APIRouter, Request, Response

from tapehead.server.service import serving

router = APIRouter(prefix="/v2/health", tags=["health"])


@router.get("/live")
async def live(request: Request) -> Response:
    """Tells whether the server is up."""
    return _answer(serving(request).fleet.live)


@router.get("/ready")
async def ready(request: Request) -> Response:
    """Tells whether the server takes work: its workers run, and it is not stopping."""
    return _answer(serving(request).fleet.ready)


def _answer(yes: bool) -> Response:
    return Response(status_code=200 if yes else 503)
