"""What happens in the fleet, for whoever counts and times it."""

from __future__ import annotations

from typing import Protocol


class Observer(Protocol):
    """Called as things happen, on the event loop; every call has to return at once."""

    def queued(self, model: str, operation: str) -> None:
        """A request was taken."""

    def started(self, model: str, operation: str, queue_s: float) -> None:
        """A request went to its worker after `queue_s` seconds of waiting."""

    def finished(self, model: str, operation: str, compute_s: float, code: str | None) -> None:
        """A request left its worker; `code` is the error's, None for a result."""

    def batched(self, device: str, size: int) -> None:
        """A worker was handed `size` requests at once."""

    def warmed_up(self, model: str, version: int, seconds: float) -> None:
        """A model was tried before it is ready, which took so long."""

    def worker_lost(self, device: str, reason: str) -> None:
        """A worker died, and is being started again."""

    def model_loaded(self, model: str, version: int, device: str, size: int) -> None:
        """A model became resident; `size` is in bytes."""

    def model_evicted(self, model: str, version: int, device: str) -> None:
        """A model gave its memory back."""


class Silent:
    """An observer that notes nothing; a base for those that note a part."""

    def queued(self, model: str, operation: str) -> None:
        """Nothing."""

    def started(self, model: str, operation: str, queue_s: float) -> None:
        """Nothing."""

    def finished(self, model: str, operation: str, compute_s: float, code: str | None) -> None:
        """Nothing."""

    def batched(self, device: str, size: int) -> None:
        """Nothing."""

    def warmed_up(self, model: str, version: int, seconds: float) -> None:
        """Nothing."""

    def worker_lost(self, device: str, reason: str) -> None:
        """Nothing."""

    def model_loaded(self, model: str, version: int, device: str, size: int) -> None:
        """Nothing."""

    def model_evicted(self, model: str, version: int, device: str) -> None:
        """Nothing."""


SILENT = Silent()
