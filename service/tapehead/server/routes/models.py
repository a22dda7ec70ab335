"""What is known of a model."""

from anyio import to_thread
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from tapehead.operations import OPERATIONS, Card
from tapehead.server import bodies, examples, media, oip
from tapehead.server.asking import read_version
from tapehead.server.service import serving
from tapehead.wire.messages import encode_request

router = APIRouter(prefix="/v2/models", tags=["models"])


@router.get("/{model}")
@router.get("/{model}/versions/{version}")
async def metadata(request: Request, model: str, version: str | None = None) -> Response:
    """Tells a model's inputs, outputs, points, recurrent layers, weights and operations."""
    fleet = serving(request).fleet
    card = await fleet.card(model, read_version(model, version))
    return bodies.plain(request, {**oip.metadata(card, fleet.versions(model)), **_extension(card)})


@router.get("/{model}/example")
@router.get("/{model}/versions/{version}/example")
async def example(request: Request, model: str, version: str | None = None) -> Response:
    """Gives the example that lies beside the model's file, as the start of a request; 204 where there is none."""
    service = serving(request)
    ref = service.fleet.ref(model, read_version(model, version))
    if ref.path is None:
        return Response(status_code=204)
    found = await to_thread.run_sync(examples.example, ref.path, service.settings.body_limit)
    name = media.reply_type(request.headers.get("accept"), media.JSON)
    return Response(status_code=204) if found is None else Response(encode_request(found, name), media_type=name)


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
        "layers": list(card.layers),
    }
