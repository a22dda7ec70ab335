"""A worker's inside: one device, its models, and the engine's function for each operation. Imports TensorFlow.

Synchronous, and called from one thread only; `worker/thread.py` and `worker/child_main.py` carry it.
"""

from __future__ import annotations

import gc
import importlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.metadata import entry_points
from typing import Any

import tensorflow as tf

from tapehead.errors import Deadline, Internal, OutOfMemory, TapeheadError, UnknownOperation
from tapehead.operations import Card, Result, Sink
from tapehead.residency import device, screening
from tapehead.residency.residents import Residents
from tapehead.worker import joining
from tapehead.worker.protocol import Answer, Job, ModelRef, WorkerSettings, WorkerStatus

CELLS = "tapehead.cells"
"""The entry point group of packages whose import registers custom Keras classes."""

log = logging.getLogger("tapehead.worker")


class Station:
    """Loads models onto one device and runs jobs on them, one after the other.

    Args:
        settings: which device, how much of it, what to import first, and which engine.
        live: Keras models by name, used as they are; each is version 1.
        own_process: whether TensorFlow may be configured for the whole process.
        clock: what deadlines are measured on.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        *,
        live: Mapping[str, Any] | None = None,
        own_process: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._device = device.claim(settings, own_process=own_process)
        _register_cells(settings.imports)
        self._engine: Any = importlib.import_module(settings.engine)
        self._grown: frozenset[str] = getattr(self._engine, "GROWN", frozenset())
        self._live, self._clock = dict(live or {}), clock
        # Compiles beside the work, in a process of its own alone: a notebook's processor is not ours to take.
        self._beside = ThreadPoolExecutor(1, "tapehead-compiling") if own_process else None
        self._compiling = 0
        budget = settings.budget_bytes or self._device.budget_bytes
        self._residents: Residents[Any] = Residents(self._open, _weigh, budget)

    def __repr__(self) -> str:
        return f"<Station on {self._device.name}, {len(self._residents)} models>"

    def load(self, ref: ModelRef) -> Card:
        """Makes the model resident, and tells what it is."""
        with self._on_device(f"loading {ref.name!r}"), self._residents.using(ref) as model:
            card: Card = model.card
            return card

    def unload(self, name: str, version: int) -> None:
        """Gives the model's memory back."""
        self._residents.evict((name, version))

    def run(self, jobs: Sequence[Job], sinks: Sequence[Sink | None] = ()) -> list[Answer]:
        """One answer a job, in order; those that differ in their samples alone share a call of the device.

        A job with a sink runs alone, and fills it where the engine can.
        """
        grown = {place: sink for place, sink in enumerate(sinks) if sink is not None}
        answers = {place: self._answer(jobs[place], sink) for place, sink in grown.items()}
        others = [place for place in range(len(jobs)) if place not in grown]
        for group in joining.groups([jobs[place] for place in others]):
            places = [others[number] for number in group]
            answers.update(zip(places, self._answers([jobs[place] for place in places]), strict=True))
        return [answers[place] for place in range(len(jobs))]

    def status(self) -> WorkerStatus:
        """The device, and what is resident."""
        device = self._device
        own = device.name, device.visible, device.memory_bytes
        return WorkerStatus(*own, self._residents.budget, self._residents.resident, self._compiling)

    def _answers(self, jobs: Sequence[Job]) -> list[Answer]:
        """One call for all where it goes well; where it does not, each alone, so that none spoils its neighbours."""
        if len(jobs) > 1 and not any(self._expired(job) for job in jobs):
            try:
                return list(joining.parted(self._result(joining.joined(jobs)), jobs))
            except TapeheadError:
                pass
            except Exception:  # whatever it is, it is one job's, and the others are not to meet it
                log.exception("%d requests joined in one call failed; each is answered alone", len(jobs))
        return [self._answer(job) for job in jobs]

    def _expired(self, job: Job) -> bool:
        return job.deadline is not None and self._clock() > job.deadline

    def _answer(self, job: Job, sink: Sink | None = None) -> Answer:
        try:
            return self._result(job, sink)
        except TapeheadError as error:
            return error
        except Exception as error:  # whatever one request brings up, the next one finds a worker
            log.exception("request %s: %s of %s failed", job.id, job.operation, job.model.name)
            return Internal(f"{job.operation} failed: {type(error).__name__}; the server's log has it")

    def _result(self, job: Job, sink: Sink | None = None) -> Result:
        if job.operation not in self._engine.OPERATIONS:
            raise UnknownOperation(f"no operation {job.operation!r}; built here: {', '.join(self._engine.OPERATIONS)}")
        began = self._clock()
        if self._expired(job):
            raise Deadline("the deadline passed before the request's turn came")
        with self._on_device(job.operation), self._residents.using(job.model) as model:
            compiled_s = getattr(model, "compile_s", 0.0)
            into = () if sink is None or job.operation not in self._grown else (sink,)
            result: Result = self._engine.OPERATIONS[job.operation](model, job.request, *into)
            compile_s = getattr(model, "compile_s", 0.0) - compiled_s
        timings = {**result.meta.get("timings", {}), "compute": self._clock() - began}
        if compile_s > 0:
            timings["compile"] = compile_s
        return Result(result.tensors, result.axes, {**result.meta, "device": self._device.name, "timings": timings})

    @contextmanager
    def _on_device(self, what: str) -> Iterator[None]:
        try:
            with self._device.using():
                yield
        except (tf.errors.ResourceExhaustedError, MemoryError) as error:
            # Without its traceback, whose frames hold on to the tensors that did not fit.
            detail = str(error).splitlines()[0] if str(error) else "no more can be allocated"
        else:
            return
        gc.collect()
        raise OutOfMemory(
            f"{self._device.name} is out of memory ({what}: {detail}); ask for less at once: fewer samples a request, "
            f"a slice of timesteps or units, or a vjp"
        )

    def _open(self, ref: ModelRef) -> Any:
        if ref.path is None:
            return self._engine.Model(self._live[ref.name], ref.name, ref.version, live=True)
        later = None if self._beside is None else self._compile_later
        return self._engine.Model(screening.load_keras(ref.path), ref.name, ref.version, later=later)

    def _compile_later(self, work: Callable[[], None]) -> None:
        assert self._beside is not None
        self._compiling += 1
        self._beside.submit(self._compiled, work)

    def _compiled(self, work: Callable[[], None]) -> None:
        try:
            with tf.device(self._device.place):
                work()
        except Exception:  # compiling is never needed: what it was for goes on as before
            log.exception("compiling beside the work failed")
        finally:
            self._compiling -= 1  # one thread compiles, and only it counts down


def _weigh(ref: ModelRef) -> int:
    return screening.weigh(ref.path) if ref.path is not None else 0


def _register_cells(modules: Sequence[str]) -> None:
    """Imports what registers custom Keras classes: installed packages that say so, then the modules named."""
    for plugin in entry_points(group=CELLS):
        try:
            plugin.load()
        except Exception:  # somebody else's package: without it only the models that need it fail
            log.exception("the entry point %s = %s cannot be loaded", plugin.name, plugin.value)
    for module in modules:
        try:
            importlib.import_module(module)
        except Exception as error:
            raise Internal(f"--import {module}: {type(error).__name__}: {error}") from error
