"""Whether the server is up, and whether it can answer. Neither needs a key, and both are JSON to whoever probes."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from tapehead.server.service import serving

router = APIRouter(prefix="/v2/health", tags=["health"])


@router.get("/live")
async def live(request: Request) -> Response:
    """Tells whether the server is up."""
    yes = serving(request).fleet.live
    return JSONResponse({"live": yes}, 200 if yes else 503)


@router.get("/ready")
async def ready(request: Request) -> Response:
    """Tells whether the server takes work: its workers run, and it is not stopping."""
    fleet = serving(request).fleet
    return JSONResponse({"live": fleet.live, "ready": fleet.ready}, 200 if fleet.ready else 503)
