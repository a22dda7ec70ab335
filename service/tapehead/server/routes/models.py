"""What is known of a model."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from tapehead.operations import OPERATIONS, Card
from tapehead.server import bodies, oip
from tapehead.server.asking import read_version
from tapehead.server.service import serving

router = APIRouter(prefix="/v2/models", tags=["models"])


@router.get("/{model}")
@router.get("/{model}/versions/{version}")
async def metadata(request: Request, model: str, version: str | None = None) -> Response:
    """Tells a model's inputs, outputs, points, recurrent layers, weights and operations."""
    fleet = serving(request).fleet
    card = await fleet.card(model, read_version(model, version))
    return bodies.plain(request, {**oip.metadata(card, fleet.versions(model)), **_extension(card)})


@router.get("/{model}/ready")
@router.get("/{model}/versions/{version}/ready")
async def ready(request: Request, model: str, version: str | None = None) -> Response:
    """Tells whether a model can be asked."""
    yes = serving(request).fleet.model_ready(model, read_version(model, version))
    return JSONResponse({"name": model, "ready": yes}, 200 if yes else 503)


def _extension(card: Card) -> dict[str, object]:
    """What Tapehead tells of a model beside the protocol's own."""
    return {
        "points": {
            name: {"shape": info.shape, "axes": info.axes, "dtype": info.dtype, "differentiable": info.differentiable}
            for name, info in card.points.items()
        },
        "recurrent": dict(card.recurrent),
        "weights": dict(card.weights),
        "operations": list(OPERATIONS),
    }
