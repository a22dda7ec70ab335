"""Which models there are, and how each one stands."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from tapehead.errors import BadRequest, Internal, TapeheadError, UnknownModel, UnsupportedModel
from tapehead.operations import Card
from tapehead.residency.repository import Repository
from tapehead.worker.protocol import ModelRef

_DEATHS_IN_A_ROW = 2


@dataclass
class Standing:
    """How one version of a model stands: with a card it was loaded; with a refusal it is not tried again.

    A changed file starts with a new standing.
    """

    ref: ModelRef
    reason: str = "not loaded yet; the first request loads it"
    card: Card | None = None
    refusal: TapeheadError | None = None
    deaths: int = 0

    def admit(self) -> None:
        """Raises the refusal, if there is one."""
        if self.refusal is not None:
            raise copy.copy(self.refusal)

    def forgive(self) -> None:
        """The next request may try again."""
        self.refusal, self.deaths = None, 0

    def loaded(self, card: Card) -> None:
        """A worker has it, and gets it back by itself after an eviction."""
        self.card, self.reason, self.deaths = card, "", 0

    def failed(self, error: TapeheadError, *, fatal: bool) -> None:
        """Loading it went wrong: what is no good, or `fatal` to its worker again and again, is not tried again."""
        self.card, self.reason = None, error.detail
        self.deaths += fatal
        if isinstance(error, BadRequest | Internal):
            self.refusal = error
        elif self.deaths >= _DEATHS_IN_A_ROW:
            self.refusal = UnsupportedModel(f"loading it ended its worker {self.deaths} times; last, {error.detail}")

    def unloaded(self) -> None:
        """It was unloaded on request, and stays so until it is loaded on request."""
        self.card, self.reason = None, "unloaded"
        self.refusal = UnknownModel(
            f"model {self.ref.name!r} was unloaded; POST /v2/repository/models/{self.ref.name}/load loads it again"
        )


class Catalogue:
    """The models of a repository, looked through again when asked after a while, and the live ones.

    Args:
        repository: a folder of model files.
        live: names of live models, each version 1; they go before files of the same name.
        clock: seconds.
        rescan_s: for how long what was seen in the folder is believed.
    """

    def __init__(
        self, repository: Repository | None, live: Iterable[str], clock: Callable[[], float], rescan_s: float
    ) -> None:
        self._repository, self._clock, self._rescan_s = repository, clock, rescan_s
        self._live = {name: {1: Standing(ModelRef(name, 1))} for name in live}
        self._models: Mapping[str, Mapping[int, Standing]] = self._live
        self._scanned = float("-inf")

    def __iter__(self) -> Iterator[Standing]:
        for versions in self._present().values():
            yield from versions.values()

    def versions(self, name: str) -> list[int]:
        """The versions of a model, ascending.

        Raises:
            UnknownModel: there is none of that name.
        """
        models = self._present()
        if name not in models:
            raise UnknownModel(f"no model {name!r}; models here: {', '.join(models) or 'none'}")
        return sorted(models[name])

    def find(self, name: str, version: int | None) -> Standing:
        """One version of a model, the highest where none is named.

        Raises:
            UnknownModel: there is no such model or version.
        """
        versions = self.versions(name)
        if version is not None and version not in versions:
            raise UnknownModel(f"model {name!r} has no version {version}; it has {', '.join(map(str, versions))}")
        return self._models[name][versions[-1] if version is None else version]

    def look_again(self) -> None:
        """Believes no longer what was seen in the folder."""
        self._scanned = float("-inf")

    def newest(self) -> list[Standing]:
        """The highest version of every model."""
        return [self.find(name, None) for name in self._present()]

    def _present(self) -> Mapping[str, Mapping[int, Standing]]:
        now = self._clock()
        if self._repository is not None and now - self._scanned >= self._rescan_s:
            self._scanned = now
            seen = {
                name: {version: self._standing(ref) for version, ref in versions.items()}
                for name, versions in self._repository.scan().items()
            }
            self._models = {**seen, **self._live}
        return self._models

    def _standing(self, ref: ModelRef) -> Standing:
        """The standing of a file that has not changed; else a new one."""
        known = self._models.get(ref.name, {}).get(ref.version)
        return known if known is not None and known.ref == ref else Standing(ref)
