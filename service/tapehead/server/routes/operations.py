"""Everything that can be asked of a model beside its outputs."""

from functools import partial

from fastapi import APIRouter, Request, Response

from tapehead.errors import UnknownOperation
from tapehead.operations import OPERATIONS
from tapehead.server import media
from tapehead.server.asking import asking
from tapehead.wire.messages import decode_request, encode_reply

router = APIRouter(prefix="/v2/models", include_in_schema=False)


@router.post("/{model}/{operation}")
@router.post("/{model}/versions/{version}/{operation}")
async def operate(request: Request, model: str, operation: str, version: str | None = None) -> Response:
    """Answers one operation of a model."""
    if operation not in OPERATIONS:
        raise UnknownOperation(f"no operation {operation!r}; those built: {', '.join(OPERATIONS)}")
    return await answer(request, model, operation, version)


async def answer(request: Request, model: str, operation: str, version: str | None) -> Response:
    """The answer to a question in Tapehead's own schema."""
    own = media.request_type(request.headers.get("content-type"))
    wanted = media.reply_type(request.headers.get("accept"), own)
    async with asking(request, operation) as question:
        asked = await question.read(partial(decode_request, media=own))
        result, ref = await question.ask(model, version, asked)
        body = await question.write(result, lambda: encode_reply(result, ref.name, ref.version, wanted))
    return Response(body, headers=question.server_timing, media_type=wanted)
