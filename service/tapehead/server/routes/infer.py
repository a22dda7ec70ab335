"""A model's outputs: in the Open Inference Protocol, or in Tapehead's own schema where the body is msgpack."""

from fastapi import APIRouter, Request, Response

from tapehead.operations import INFER
from tapehead.server import media, oip
from tapehead.server.asking import asking
from tapehead.server.routes.operations import answer, drawn
from tapehead.server.service import headers_of

router = APIRouter(prefix="/v2/models", include_in_schema=False)


@router.post("/{model}/infer")
@router.post("/{model}/versions/{version}/infer")
async def infer(request: Request, model: str, version: str | None = None) -> Response:
    """Runs a model."""
    if media.is_msgpack(headers_of(request).get("content-type")):
        return await answer(request, model, INFER.name, version)
    media.request_type(headers_of(request).get("content-type"), (media.JSON, media.OCTETS), missing=media.JSON)
    offered = (media.JSON, media.OCTETS, *media.PICTURES)
    wanted = media.reply_type(headers_of(request).get("accept"), media.JSON, offered)
    if wanted in media.PICTURES:
        header_length = headers_of(request).get(oip.HEADER_LENGTH.lower())
        return await drawn(
            request, model, INFER.name, version, wanted, lambda body: oip.read(body, header_length).request
        )
    return await _protocol(request, model, version)


async def _protocol(request: Request, model: str, version: str | None) -> Response:
    header_length = headers_of(request).get(oip.HEADER_LENGTH.lower())
    async with asking(request, INFER.name) as question:
        inference = await question.read(lambda body: oip.read(body, header_length))
        result, ref = await question.ask(model, version, inference.request)
        body, head = await question.write(result, lambda: oip.write(inference, result, ref.name, ref.version))
    if head is None:
        return Response(body, headers=question.server_timing, media_type=media.JSON)
    return Response(body, headers={**question.server_timing, oip.HEADER_LENGTH: str(head)}, media_type=media.OCTETS)
