"""What the server is: its name and extensions, its figures, its description for programs and for people."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse

from tapehead.server import bodies, docs, oip, openapi
from tapehead.server.service import serving

router = APIRouter(tags=["about"])


@router.get("/v2/", include_in_schema=False)
@router.get("/v2")
async def server(request: Request) -> Response:
    """Tells the server's name, version and protocol extensions."""
    about = {"name": "tapehead", "version": serving(request).version, "extensions": list(oip.EXTENSIONS)}
    return bodies.plain(request, about)


@router.get("/metrics")
async def metrics(request: Request) -> Response:
    """Tells the server's figures, as Prometheus reads them."""
    page, media = serving(request).metrics.page(request.headers.get("accept", ""))
    return Response(page, headers={"Content-Type": media})


@router.get("/openapi.json")
async def description(request: Request) -> Response:
    """Describes every path and body (OpenAPI 3.1)."""
    return JSONResponse(openapi.describe(request.app))


@router.get("/docs")
async def documentation(request: Request) -> Response:
    """Shows the description as one page that needs no network and no script."""
    return HTMLResponse(docs.page(openapi.describe(request.app)), headers=docs.HEADERS)
