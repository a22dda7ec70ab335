"""The page at `/` and its files, which need no key: what they show is asked for with one."""

from anyio import to_thread
from fastapi import APIRouter, Request, Response

from tapehead import page

router = APIRouter(include_in_schema=False)

_HEADERS = {
    "Content-Security-Policy": page.CONTENT_SECURITY_POLICY,
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # a browser asks whether its copy still holds, and is told 304
}


@router.get("/")
async def index(request: Request) -> Response:
    """Shows the page."""
    return await _sent(request, page.INDEX)


@router.get("/page/{name}")
async def file(request: Request, name: str) -> Response:
    """Sends one of the page's files."""
    return await _sent(request, name)


async def _sent(request: Request, name: str) -> Response:
    found = await to_thread.run_sync(page.file, name)
    headers = {**_HEADERS, "ETag": found.tag, "Vary": "Accept-Encoding"}
    if found.tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    if found.zipped is not None and "gzip" in request.headers.get("accept-encoding", ""):
        return Response(found.zipped, headers={**headers, "Content-Encoding": "gzip"}, media_type=found.media)
    return Response(found.body, headers=headers, media_type=found.media)
