"""Everything that can be asked of a model beside its outputs."""

from collections.abc import Callable
from functools import partial

from fastapi import APIRouter, Request, Response

from tapehead.errors import UnknownOperation
from tapehead.operations import OPERATIONS, Result
from tapehead.operations import Request as Question
from tapehead.server import media, pictures
from tapehead.server.asking import Asking, asking, read_version
from tapehead.server.service import headers_of
from tapehead.server.streaming import Growing, Streamed, closing_bytes
from tapehead.wire.messages import decode_request, encode_reply
from tapehead.wire.streams import reply_pieces
from tapehead.worker.protocol import Growth, ModelRef

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
    own = media.request_type(headers_of(request).get("content-type"))
    wanted = media.reply_type(headers_of(request).get("accept"), own, media.ANSWERS)
    if wanted in media.PICTURES:
        return await drawn(request, model, operation, version, wanted, partial(decode_request, media=own))
    growth = Growth() if media.is_msgpack(wanted) else None
    async with asking(request, operation) as question:
        asked = await question.read(partial(decode_request, media=own))
        working = await question.begin(model, version, asked, growth)
        if growth is not None and not working.done():
            return Growing(working, growth, question.timed, closing_bytes(asked), wanted, question.server_timing)
        result, ref = working.result()
        return await _whole(question, question.timed(result), ref, wanted)


async def drawn(
    request: Request,
    model: str,
    operation: str,
    version: str | None,
    wanted: str,
    decode: Callable[[bytes], Question],
) -> Response:
    """The answer to a question as a picture."""
    wished = pictures.wish(wanted, request.query_params)
    async with asking(request, operation) as question:
        asked = await question.read(decode)
        card = await question.service.fleet.card(model, read_version(model, version))
        pictures.check_drawable(card, operation, asked)
        result, ref = await question.ask(model, version, asked)
        image = await question.draw(asked.parameters, result, ref, wished)
        return Response(image, headers=question.server_timing, media_type=wanted)


async def _whole(question: Asking, result: Result, ref: ModelRef, wanted: str) -> Response:
    """An answer that is there: copied into one body, or, where it is large, sent from where it lies."""
    size = sum(array.nbytes for array in result.tensors.values())
    if media.is_msgpack(wanted) and size >= question.service.settings.stream_threshold:
        views = await question.write(result, lambda: reply_pieces(result, ref.name, ref.version))
        return Streamed(views, wanted, question.server_timing)
    body = await question.write(result, lambda: encode_reply(result, ref.name, ref.version, wanted))
    return Response(body, headers=question.server_timing, media_type=wanted)
