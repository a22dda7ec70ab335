"""What can be asked of a server, each as a flow: written once, driven by either client."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from tapehead.client.answers import Answer
from tapehead.client.calls import MSGPACK, Flow, Manner, Received, exchange, get, model_path, post
from tapehead.client.lengthwise import Part, apart, together
from tapehead.errors import BadShape, LengthsUnsupported, TapeheadError, Unreachable
from tapehead.operations import Request, what_was_asked
from tapehead.wire.messages import decode_reply, encode_request
from tapehead.wire.plain import Bytes, decode

T = TypeVar("T")


@dataclass(frozen=True)
class ModelEntry:
    """A model in the server's repository. `state` is READY, LOADING or UNAVAILABLE, `reason` why."""

    name: str
    version: int
    state: str
    reason: str


@dataclass(frozen=True)
class Subject:
    """The model that is asked. `version` is None where the highest is meant, whichever that is at the time."""

    name: str
    version: int | None
    metadata: Mapping[str, Any]

    @functools.cached_property
    def last_timesteps(self) -> Mapping[str, int]:
        """By the states' points, the timestep that padding repeats: the last, but for layers that run backward, which
        meet the padding first and repeat what they start from."""
        recurrent: Mapping[str, Mapping[str, Any]] = self.metadata.get("recurrent", {})
        return {
            f"{layer}.{state}": -1
            for layer, info in recurrent.items()
            if info.get("direction") != "backward"
            for state in info.get("states", ())
        }


def list_models(manner: Manner) -> Flow[list[ModelEntry]]:
    """Every version of every model in the server's repository."""
    received = yield from exchange(post("/v2/repository/index", b"{}"), manner)
    return _read(received, _entries)


def describe(name: str, version: int | None, manner: Manner) -> Flow[Subject]:
    """A model, with what the server tells of it."""
    received = yield from exchange(get(model_path(name, version)), manner)
    return Subject(name, version, _read(received, _metadata))


def ask(subject: Subject, operation: str, request: Request, manner: Manner) -> Flow[Answer]:
    """The answer to a request; where the model cannot take lengths, put together from one request a length."""
    try:
        return (yield from _ask_once(subject, operation, request, manner))
    except LengthsUnsupported as refused:
        parts = apart(request)
        if not parts:
            raise
        try:
            answers = yield from _ask_each(subject, operation, parts, manner)
        except BadShape:
            # The model takes no other number of timesteps: what was asked cannot be had in parts either.
            raise refused from None
        timesteps = next(array.shape[1] for array in request.inputs.values())
        answer = together(parts, answers, timesteps, subject.last_timesteps)
        if answer is None:
            raise
        return answer


def _ask_each(subject: Subject, operation: str, parts: Sequence[Part], manner: Manner) -> Flow[list[Answer]]:
    answers = []
    for part in parts:
        answer = yield from _ask_once(subject, operation, part.request, manner)
        answers.append(answer)
    return answers


def _ask_once(subject: Subject, operation: str, request: Request, manner: Manner) -> Flow[Answer]:
    path = model_path(subject.name, subject.version, operation)
    received = yield from exchange(post(path, encode_request(request, MSGPACK), MSGPACK), manner)
    return Answer.of(_read(received, decode_reply), what_was_asked(operation, request.parameters))


def _read(received: Received, decoded: Callable[[Bytes, str], T]) -> T:
    """What a response holds.

    Raises:
        Unreachable: not what a Tapehead server says.
    """
    media = received.headers.get("content-type", "no media type")
    try:
        return decoded(received.body, media)
    except (TapeheadError, KeyError, TypeError, ValueError) as error:
        raise Unreachable(f"the answer ({media}) cannot be read; is this a Tapehead server? {error}") from error


def _entries(body: Bytes, media: str) -> list[ModelEntry]:
    return [
        ModelEntry(one["name"], int(one["version"]), one.get("state", ""), one.get("reason", ""))
        for one in decode(body, media)
    ]


def _metadata(body: Bytes, media: str) -> Mapping[str, Any]:
    metadata = decode(body, media)
    if not isinstance(metadata, dict) or "name" not in metadata:
        raise ValueError(f"expected a map with a name, found {str(metadata)[:80]}")
    return metadata
