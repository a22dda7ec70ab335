"""Everything that can go wrong, as one tree.

    TapeheadError
    ├── BadRequest              what was asked cannot be answered as asked; asking again changes nothing
    │   ├── MalformedBody               400 malformed_body
    │   ├── Unauthorized                401 unauthorized
    │   ├── UnknownPath                 404 unknown_path
    │   ├── UnknownModel                404 unknown_model
    │   ├── UnknownOperation            404 unknown_operation
    │   ├── MethodNotAllowed            405 method_not_allowed
    │   ├── NotAcceptable               406 not_acceptable
    │   ├── BodyTooLarge                413 body_too_large
    │   ├── AnswerTooLarge              413 answer_too_large
    │   ├── UnsupportedMediaType        415 unsupported_media_type
    │   ├── UnknownPoint                422 unknown_point
    │   ├── BadShape                    422 bad_shape
    │   ├── BadDtype                    422 bad_dtype
    │   ├── BadLengths                  422 bad_lengths
    │   ├── LengthsUnsupported          422 lengths_unsupported
    │   ├── BadParameter                422 bad_parameter
    │   ├── NotFinite                   422 not_finite
    │   ├── NotDifferentiable           422 not_differentiable
    │   ├── CannotRebuild               422 cannot_rebuild
    │   └── UnsupportedModel            422 unsupported_model
    ├── TryAgain                the request was fine; the same request may succeed later
    │   ├── QueueFull                   429 queue_full
    │   ├── WorkerDied                  503 worker_died
    │   ├── Draining                    503 draining
    │   ├── Loading                     503 loading
    │   ├── OutOfMemory                 503 out_of_memory
    │   └── Deadline                    504 deadline
    ├── Internal                        500 internal    a fault of ours
    └── Unreachable                     the client's own: no answer, or none that can be read

Each class carries its `code` (what programs compare), its HTTP `status` and its `title`; each instance its `detail`,
which says what came, what was expected and what to do. The same classes are raised in the server and in the client.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar


class TapeheadError(Exception):
    """The root of every error Tapehead raises on purpose."""

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    title: ClassVar[str] = "Something went wrong in the server"

    def __init__(self, detail: str = "", *, retry_after: float | None = None, request_id: str | None = None) -> None:
        super().__init__(detail or self.title)
        self.detail = detail or self.title
        self.retry_after = retry_after
        self.request_id = request_id

    def __reduce__(self) -> tuple[Any, ...]:
        return _revive, (type(self), self.detail, self.retry_after, self.request_id)


class BadRequest(TapeheadError):
    """What was asked cannot be answered as asked."""

    code, status, title = "bad_request", 400, "The request cannot be answered as asked"


class MalformedBody(BadRequest):
    """The body is not what its Content-Type says."""

    code, status, title = "malformed_body", 400, "The body cannot be read"


class Unauthorized(BadRequest):
    """A key is needed and none that is known came."""

    code, status, title = "unauthorized", 401, "A valid API key is needed"


class UnknownPath(BadRequest):
    """Nothing is served at this path."""

    code, status, title = "unknown_path", 404, "Nothing is served at this path"


class UnknownModel(BadRequest):
    """No model of that name or version is known."""

    code, status, title = "unknown_model", 404, "No such model"


class UnknownOperation(BadRequest):
    """No operation of that name is built."""

    code, status, title = "unknown_operation", 404, "No such operation"


class MethodNotAllowed(BadRequest):
    """The path is served, with another HTTP method."""

    code, status, title = "method_not_allowed", 405, "This path takes another HTTP method"


class NotAcceptable(BadRequest):
    """None of the media types asked for can be made."""

    code, status, title = "not_acceptable", 406, "No answer in the media types asked for"


class BodyTooLarge(BadRequest):
    """The body is over the server's limit."""

    code, status, title = "body_too_large", 413, "The body is too large"


class AnswerTooLarge(BadRequest):
    """The answer would be over the server's limit; refused before any work."""

    code, status, title = "answer_too_large", 413, "The answer would be too large"


class UnsupportedMediaType(BadRequest):
    """The body's Content-Type is none that can be read."""

    code, status, title = "unsupported_media_type", 415, "The body's media type is not supported"


class UnknownPoint(BadRequest):
    """No tensor of that name is in the model."""

    code, status, title = "unknown_point", 422, "No such point in the model"


class BadShape(BadRequest):
    """A tensor has not the shape the model or the operation needs."""

    code, status, title = "bad_shape", 422, "A tensor has the wrong shape"


class BadDtype(BadRequest):
    """A tensor has not the dtype the model or the operation needs."""

    code, status, title = "bad_dtype", 422, "A tensor has the wrong dtype"


class BadLengths(BadRequest):
    """The lengths do not fit the batch."""

    code, status, title = "bad_lengths", 422, "The lengths do not fit the inputs"


class LengthsUnsupported(BadRequest):
    """A layer of the model mixes timesteps and cannot be told which are padding."""

    code, status, title = "lengths_unsupported", 422, "This model cannot take lengths"


class BadParameter(BadRequest):
    """A parameter of the operation is unknown, missing or out of range."""

    code, status, title = "bad_parameter", 422, "A parameter is wrong"


class NotFinite(BadRequest):
    """An input holds NaN or an infinity."""

    code, status, title = "not_finite", 422, "An input is not finite"


class NotDifferentiable(BadRequest):
    """The derivative asked for does not exist (integers, indices, masks)."""

    code, status, title = "not_differentiable", 422, "This derivative does not exist"


class CannotRebuild(BadRequest):
    """The model cannot be rebuilt from its config in the precision asked for."""

    code, status, title = "cannot_rebuild", 422, "The model cannot be rebuilt in this precision"


class UnsupportedModel(BadRequest):
    """The file or object is not a model that can be served."""

    code, status, title = "unsupported_model", 422, "This model cannot be served"


class TryAgain(TapeheadError):
    """The request was fine; the same request may succeed later."""

    code, status, title = "unavailable", 503, "Not available at present"


class QueueFull(TryAgain):
    """As many requests wait as the server lets wait."""

    code, status, title = "queue_full", 429, "Too many requests are waiting"


class WorkerDied(TryAgain):
    """The process that held the device ended while it worked on the request."""

    code, status, title = "worker_died", 503, "The worker process died"


class Draining(TryAgain):
    """The server is stopping and takes no new work."""

    code, status, title = "draining", 503, "The server is stopping"


class Loading(TryAgain):
    """The model is being loaded."""

    code, status, title = "loading", 503, "The model is being loaded"


class OutOfMemory(TryAgain):
    """The device has not the memory for this request."""

    code, status, title = "out_of_memory", 503, "The device is out of memory"


class Deadline(TryAgain):
    """The request was not answered in the time it had."""

    code, status, title = "deadline", 504, "The deadline passed"


class Internal(TapeheadError):
    """A fault of ours: the log has it under the request's id."""

    code, status, title = "internal", 500, "Something went wrong in the server"


class Unreachable(TapeheadError):
    """The client got no answer, or none that can be read."""

    code, status, title = "unreachable", 0, "The server could not be reached"


def _tree(root: type[TapeheadError]) -> Iterator[type[TapeheadError]]:
    yield root
    for branch in root.__subclasses__():
        yield from _tree(branch)


BY_CODE: Mapping[str, type[TapeheadError]] = {kind.code: kind for kind in reversed(list(_tree(TapeheadError)))} | {
    "internal": Internal
}


def _revive(kind: type[TapeheadError], detail: str, retry_after: float | None, request_id: str | None) -> TapeheadError:
    return kind(detail, retry_after=retry_after, request_id=request_id)


def problem(error: TapeheadError) -> dict[str, Any]:
    """`error` as the members of an RFC 9457 problem, and `error` for Open Inference Protocol clients."""
    return {
        "type": f"urn:tapehead:problem:{error.code}",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "code": error.code,
        "request_id": error.request_id,
        "error": error.detail,
    }


def from_problem(members: Mapping[str, Any], *, status: int, retry_after: float | None = None) -> TapeheadError:
    """The error a problem document stands for; an unknown code keeps its words, under the nearest class."""
    fallback = BadRequest if 400 <= status < 500 else TryAgain if status in (502, 503, 504) else Internal
    kind = BY_CODE.get(str(members.get("code")), fallback)
    detail = str(members.get("detail") or members.get("error") or f"HTTP status {status}")
    return kind(detail, retry_after=retry_after, request_id=members.get("request_id"))
