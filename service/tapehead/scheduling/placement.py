"""Which worker holds which model: where it is, or else where most is free."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from tapehead.worker.protocol import ModelRef

Key = tuple[str, int]


@dataclass(frozen=True)
class Home:
    """The place of a model, by its number, and the bytes it is reckoned with."""

    place: int
    size: int


class Placement:
    """Remembers the homes of models. Sizes are those of the files until a worker has told better."""

    def __init__(self) -> None:
        self._homes: dict[Key, Home] = {}

    def home(self, ref: ModelRef, budgets: Sequence[int], healthy: Collection[int]) -> int:
        """The place of a model: where it is if that is healthy, else the healthy place with most budget free.

        `budgets` has the bytes of each place, all of them; when no place is healthy, all are taken to be.
        """
        candidates = healthy or range(len(budgets))
        known = self._homes.get(ref.key)
        if known is not None and known.place in candidates:
            return known.place
        place = max(candidates, key=lambda number: (budgets[number] - self._taken(number), -self._count(number)))
        self._homes[ref.key] = Home(place, known.size if known else ref.size)
        return place

    def learn(self, key: Key, size: int) -> None:
        """A model's bytes, now that they are known."""
        if key in self._homes:
            self._homes[key] = Home(self._homes[key].place, size)

    def forget(self, key: Key) -> int | None:
        """The model is nowhere any more; says where it was."""
        home = self._homes.pop(key, None)
        return home.place if home else None

    def _count(self, place: int) -> int:
        return sum(home.place == place for home in self._homes.values())

    def _taken(self, place: int) -> int:
        return sum(home.size for home in self._homes.values() if home.place == place)
