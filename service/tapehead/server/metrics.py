"""The server's figures, in a registry of the application's own. The fleet tells them as its observer, HTTP the rest."""

from __future__ import annotations

from typing import Any, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import choose_encoder

from tapehead.scheduling import Fleet, Silent

M = TypeVar("M", Counter, Histogram)

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))


class Metrics(Silent):
    """What is counted and timed. One for each application; nothing is registered globally."""

    def __init__(self, fleet: Fleet) -> None:
        own = self.registry = CollectorRegistry()
        self._children: dict[tuple[Any, ...], Any] = {}
        self.in_flight = Gauge("tapehead_requests_in_flight", "Requests being answered.", registry=own)
        self._requests = Counter("tapehead_requests", "Requests answered.", ("method", "path", "status"), registry=own)
        self._seconds = Histogram(
            "tapehead_request_seconds",
            "From a request's headers to the last byte of its reply.",
            ("path",),
            buckets=_SECONDS,
            registry=own,
        )
        self._stages = Histogram(
            "tapehead_stage_seconds",
            "Where an answer's time goes: decode, queue, compute, encode.",
            ("operation", "stage"),
            buckets=_SECONDS,
            registry=own,
        )
        Gauge("tapehead_waiting", "Requests that wait for a device.", registry=own).set_function(lambda: fleet.waiting)
        Gauge("tapehead_running", "Requests on a device.", registry=own).set_function(lambda: fleet.running)
        answered = ("model", "operation", "code")
        self._answers = Counter("tapehead_answers", "Workers' answers, ok or an error's code.", answered, registry=own)
        self._batches = Histogram(
            "tapehead_batch_size", "Requests that went to a device at once.", ("device",), buckets=_SIZES, registry=own
        )
        one = ("model", "version")
        self._warm_up = Gauge("tapehead_warm_up_seconds", "What warming a model up took.", one, registry=own)
        self._lost = Counter("tapehead_workers_lost", "Workers that died.", ("device",), registry=own)
        self._resident = Gauge(
            "tapehead_resident_bytes", "Weights in device memory.", ("model", "version", "device"), registry=own
        )
        self._evicted = Counter("tapehead_evictions", "Models that gave their memory back.", ("device",), registry=own)

    def _child(self, metric: M, *labels: str) -> M:
        """The metric for these labels, which stays for good: asked for by way of `labels`, each takes a microsecond."""
        key = (metric, *labels)
        found = self._children.get(key)
        if found is None:
            found = self._children[key] = metric.labels(*labels)
        return found

    def page(self, accept: str) -> tuple[bytes, str]:
        """The figures as Prometheus reads them, and their media type."""
        encode, media = choose_encoder(accept)
        return encode(self.registry), media

    def request(self, method: str, path: str, status: int, seconds: float) -> None:
        """An HTTP request is over."""
        self._child(self._requests, method if method in _METHODS else "other", path, str(status)).inc()
        self._child(self._seconds, path).observe(seconds)

    def stage(self, operation: str, stage: str, seconds: float) -> None:
        """A stage of an answer is over."""
        self._child(self._stages, operation, stage).observe(seconds)

    def started(self, model: str, operation: str, queue_s: float) -> None:  # noqa: ARG002  # the observer's signature
        """A request went to its worker."""
        self.stage(operation, "queue", queue_s)

    def finished(self, model: str, operation: str, compute_s: float, code: str | None) -> None:
        """A request left its worker."""
        self.stage(operation, "compute", compute_s)
        self._child(self._answers, model, operation, code or "ok").inc()

    def batched(self, device: str, size: int) -> None:
        """A worker was handed requests."""
        self._child(self._batches, device).observe(size)

    def warmed_up(self, model: str, version: int, seconds: float) -> None:
        """A model was tried before it is ready."""
        self._warm_up.labels(model, str(version)).set(seconds)

    def worker_lost(self, device: str, reason: str) -> None:  # noqa: ARG002  # the observer's signature
        """A worker died."""
        self._lost.labels(device).inc()

    def model_loaded(self, model: str, version: int, device: str, size: int) -> None:
        """A model became resident."""
        self._resident.labels(model, str(version), device).set(size)

    def model_evicted(self, model: str, version: int, device: str) -> None:
        """A model gave its memory back."""
        self._resident.remove(model, str(version), device)
        self._evicted.labels(device).inc()
