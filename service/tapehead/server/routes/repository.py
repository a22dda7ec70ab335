"""Which models there are, and which are loaded (the protocol's model repository extension)."""

from fastapi import APIRouter, Request, Response

from tapehead.server import bodies, oip
from tapehead.server.service import serving

router = APIRouter(prefix="/v2/repository", tags=["repository"])


@router.post("/index")
async def index(request: Request) -> Response:
    """Lists the models that are there, with their versions and states; `ready` leaves out those not ready."""
    service = serving(request)
    fields = oip.read_fields(await bodies.read_json(request, service.settings.body_limit), ("ready",))
    models = await service.fleet.index()
    return bodies.plain(request, [one for one in models if one["state"] == "READY" or not fields.get("ready")])


@router.post("/models/{model}/load")
async def load(request: Request, model: str) -> Response:
    """Loads a model, and finds the versions that were put into its folder since."""
    service = serving(request)
    oip.read_parameters(await bodies.read_json(request, service.settings.body_limit), ())
    await service.fleet.load(model)
    return bodies.plain(request, {})


@router.post("/models/{model}/unload")
async def unload(request: Request, model: str) -> Response:
    """Frees a model's memory; it cannot be asked until it is loaded again."""
    service = serving(request)
    oip.read_parameters(await bodies.read_json(request, service.settings.body_limit), ("unload_dependents",))
    await service.fleet.unload(model)
    return bodies.plain(request, {})
