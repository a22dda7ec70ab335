"""The models in device memory: used while they are needed, then kept until room is needed for others."""

from __future__ import annotations

import gc
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from tapehead.errors import OutOfMemory, UnsupportedModel
from tapehead.worker.protocol import ModelRef, Resident

Key = tuple[str, int]


class Weighed(Protocol):
    """A model that knows the bytes of its weights."""

    @property
    def bytes(self) -> int: ...


M = TypeVar("M", bound=Weighed)


@dataclass
class _Held(Generic[M]):
    model: M
    ref: ModelRef
    users: int = 0

    @property
    def live(self) -> bool:
        return self.ref.path is None

    @property
    def is_idle(self) -> bool:
        return not self.users and not self.live


class Residents(Generic[M]):
    """Models under a budget of bytes; the least recently used goes first, one in use never, a live one never.

    Not for several threads at once.

    Args:
        load: makes the model.
        weigh: the bytes of a model's weights, before it is loaded.
        budget: how many bytes may be held, live models not counted.
    """

    def __init__(self, load: Callable[[ModelRef], M], weigh: Callable[[ModelRef], int], budget: int) -> None:
        self._load, self._weigh, self.budget = load, weigh, budget
        self._held: OrderedDict[Key, _Held[M]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._held)

    @property
    def resident(self) -> tuple[Resident, ...]:
        """What is held, least recently used first."""
        return tuple(Resident(*key, held.model.bytes) for key, held in self._held.items())

    @contextmanager
    def using(self, ref: ModelRef) -> Iterator[M]:
        """The model, loaded if it is not held or its file has changed; not evicted while in here.

        Raises:
            UnsupportedModel: it cannot be served, or never fits the budget.
            OutOfMemory: it does not fit beside those in use.
        """
        held = self._current(ref)
        held.users += 1
        try:
            yield held.model
        finally:
            held.users -= 1

    def evict(self, key: Key) -> None:
        """Gives a model's memory back; live ones and those in use stay, unknown ones are no error."""
        self._evict([key])

    def _current(self, ref: ModelRef) -> _Held[M]:
        if self._is_outdated(ref):
            self.evict(ref.key)
        if ref.key not in self._held:
            self._make_room(ref, self._weigh(ref))
            model = self._load(ref)
            self._make_room(ref, model.bytes)
            self._held[ref.key] = _Held(model, ref)
        self._held.move_to_end(ref.key)
        return self._held[ref.key]

    def _is_outdated(self, ref: ModelRef) -> bool:
        held = self._held.get(ref.key)
        return held is not None and not held.live and held.ref != ref

    def _make_room(self, ref: ModelRef, needed: int) -> None:
        if ref.path is None:
            return  # a live model's memory is taken already
        if needed > self.budget:
            raise UnsupportedModel(
                f"model {ref.name!r} has {_mebibytes(needed)} of weights, and the budget of its device is "
                f"{_mebibytes(self.budget)}: raise the budget or serve a smaller model"
            )
        taken, leaving = sum(held.model.bytes for held in self._held.values() if not held.live), []
        for key, held in self._held.items():
            if taken + needed > self.budget and held.is_idle:
                leaving.append(key)
                taken -= held.model.bytes
        if taken + needed > self.budget:
            raise OutOfMemory(f"model {ref.name!r} needs {_mebibytes(needed)} beside the models in use; try again")
        self._evict(leaving)

    def _evict(self, keys: Iterable[Key]) -> None:
        idle = [key for key in keys if key in self._held and self._held[key].is_idle]
        for key in idle:
            del self._held[key]
        if idle:
            # A model and its compiled functions refer to each other: without a collection their memory stays taken.
            gc.collect()


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB"
