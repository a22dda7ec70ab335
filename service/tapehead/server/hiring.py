"""The fleet that settings describe, its workers in child processes or on a thread. Only this module knows of either."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from tapehead.residency.repository import Repository
from tapehead.scheduling import Fleet, FleetSettings
from tapehead.server.settings import Settings
from tapehead.worker.protocol import WorkerSettings


def child_fleet(settings: Settings, environ: Mapping[str, str]) -> Fleet:
    """A fleet of child processes, one for each device; TensorFlow is in them and not in this one.

    Raises:
        NotADirectoryError: the folder of models is none.
    """
    from tapehead.worker.child import hiring  # a door, as the one below: what carries the workers is chosen here

    workers = hiring(_worker_settings(settings), environ)
    return Fleet(workers, repository=_repository(settings.models_dir), settings=_fleet_settings(settings))


def thread_fleet(settings: Settings, live: Mapping[str, object]) -> Fleet:
    """A fleet of one thread of this process, which imports TensorFlow once it starts, with live models.

    Raises:
        NotADirectoryError: the folder of models is none.
    """
    from tapehead.worker.thread import hiring

    workers = hiring(_worker_settings(settings), live)
    # A caller's own process is not kept busy with what they may never ask.
    settings = dataclasses.replace(settings, warm_up=())
    return Fleet(workers, repository=_repository(settings.models_dir), live=live, settings=_fleet_settings(settings))


def _repository(models_dir: str | None) -> Repository | None:
    return None if models_dir is None else Repository(models_dir)


def _fleet_settings(settings: Settings) -> FleetSettings:
    return FleetSettings(
        devices=settings.devices or None,
        queue_limit=settings.queue_limit,
        batch_limit=settings.batch_limit,
        deadline_s=settings.deadline,
        answer_limit=settings.answer_limit,
        stream_threshold=settings.stream_threshold,
        preload=settings.preload,
        warm_up=settings.warm_up,
    )


def _worker_settings(settings: Settings) -> WorkerSettings:
    return WorkerSettings(
        budget_bytes=settings.memory_budget,
        imports=settings.imports,
        logical_cpus=settings.logical_cpus,
        cache_dir=settings.cache_dir,
    )
