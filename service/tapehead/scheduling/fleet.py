"""Every worker of a server, as one: asked for an answer, it finds the model, the device and the turn."""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Literal, Self

from tapehead.errors import BadParameter, BadRequest, Deadline, Draining, Loading, TapeheadError
from tapehead.operations import Card, Plan, Request, Result
from tapehead.residency.repository import Repository
from tapehead.scheduling import warming
from tapehead.scheduling.admission import Admission
from tapehead.scheduling.catalogue import Catalogue, Standing
from tapehead.scheduling.lane import DiedLoading, Lane
from tapehead.scheduling.observer import Observer, Silent
from tapehead.scheduling.placement import Placement
from tapehead.scheduling.questions import Question, Questions
from tapehead.scheduling.settings import FleetSettings
from tapehead.scheduling.speed import Speed
from tapehead.worker.protocol import Growth, Hire, Job, ModelRef

State = Literal["READY", "LOADING", "UNAVAILABLE"]

_LONG_LOOK_BYTES = 1 << 20
"""Checking larger inputs leaves the event loop free for others."""

DEFAULTS = FleetSettings()

log = logging.getLogger("tapehead.scheduling")


class Fleet:
    """Workers, models and waiting requests. Lives on one event loop.

    Args:
        hire: makes a worker for a device.
        repository: the folder of model files, if there is one.
        live: the names of the live models that every worker was given.
        settings: as they say.
        observer: is told what happens; may be set until `start`.
        clock: seconds, on the clock of the workers' machine, since deadlines cross.
    """

    def __init__(
        self,
        hire: Hire,
        *,
        repository: Repository | None = None,
        live: Iterable[str] = (),
        settings: FleetSettings = DEFAULTS,
        observer: Observer | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._hire, self._settings, self._clock = hire, settings, clock
        self.observer: Observer = observer or Silent()
        self._catalogue = Catalogue(repository, live, clock, settings.rescan_s)
        self._admission = Admission(settings.queue_limit, clock)
        self._placement = Placement()
        self._questions = Questions(settings.answer_limit)
        self._speed = Speed()
        self._lanes: list[Lane] = []
        self._loading: dict[ModelRef, asyncio.Task[Card]] = {}
        self._warming: dict[ModelRef, asyncio.Task[None]] = {}
        self._mustering: asyncio.Task[None] | None = None
        self._mustered = self._draining = False

    def __repr__(self) -> str:
        return f"<Fleet of {len(self._lanes)}, {self._admission.inside} requests inside>"

    # -- life

    async def start(self) -> None:
        """Begins to start workers and to load models, and returns at once; `ready` says when that is over."""
        self._lane((self._settings.devices or ("",))[0])
        self._mustering = asyncio.create_task(self._muster())

    async def settled(self) -> None:
        """Waits until every worker is up and every model to preload is loaded or refused.

        Raises:
            WorkerDied: the first worker cannot start; it is tried again and again meanwhile.
        """
        assert self._mustering is not None, "the fleet is not started"
        await self._lanes[0].settled()
        await asyncio.shield(self._mustering)

    async def drain(self, timeout_s: float) -> None:
        """Refuses new requests, and waits for those inside to be answered, for so long at most."""
        self._draining = True
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._admission.empty()

    async def close(self) -> None:
        """Ends every worker, and every request that is still inside."""
        self._draining = True
        tasks = [*self._loading.values(), *self._warming.values(), *([self._mustering] if self._mustering else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(lane.close() for lane in self._lanes))

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # -- what is asked

    async def ask(
        self,
        name: str,
        version: int | None,
        operation: str,
        request: Request,
        *,
        id: str,  # noqa: A002 - what the wire calls it
        deadline_s: float | None = None,
        growth: Growth | None = None,
    ) -> tuple[Result, ModelRef]:
        """The answer to one request, and the version that gave it; a large one comes to `growth` while it is computed.

        Raises:
            BadRequest: the request or the model is at fault.
            QueueFull, Draining, Loading, Deadline, WorkerDied, OutOfMemory: it may be asked again.
        """
        if self._draining:
            raise Draining()
        seconds = self._settings.deadline_s if deadline_s is None else deadline_s
        deadline = self._clock() + seconds
        with self._admission.admit():
            standing = self._catalogue.find(name, version)
            self.observer.queued(name, operation)
            lane, card = await self._loaded_within(seconds, standing)
            question = await self._question(card, operation, request)
            if question.request.parameters["dry_run"]:
                return self._foretold(question, lane.status.device), standing.ref
            growing = self._growing(growth, question.plans, standing.ref)
            job = Job(id, standing.ref, operation, question.request, deadline, growing)
            try:
                async with asyncio.timeout(deadline - self._clock()):
                    result = await lane.submit(job)
            except TimeoutError:
                raise Deadline(f"not answered within {seconds:g} s") from None
            together = result.meta.get("joined", 1)
            self._speed.note(question.cost.flops * together, result.meta["timings"]["compute"])
            return result, standing.ref

    async def card(self, name: str, version: int | None = None) -> Card:
        """What is known of a model, which is loaded for that if it never was.

        Raises:
            UnknownModel, UnsupportedModel, Loading, WorkerDied, OutOfMemory: as they say.
        """
        _, card = await self._loaded_within(self._settings.deadline_s, self._catalogue.find(name, version))
        return card

    def ref(self, name: str, version: int | None = None) -> ModelRef:
        """Which version of a model is meant, and where its file is.

        Raises:
            UnknownModel: there is none of that name, or no such version.
        """
        return self._catalogue.find(name, version).ref

    def versions(self, name: str) -> list[int]:
        """The versions of a model, ascending.

        Raises:
            UnknownModel: there is none of that name.
        """
        return self._catalogue.versions(name)

    async def index(self) -> list[dict[str, str]]:
        """Every version of every model: `name`, `version`, `state`, `reason`."""
        return [self._row(standing) for standing in self._catalogue]

    async def load(self, name: str) -> None:
        """Loads the newest version of a model, whatever was found wrong with it before, and warms it up.

        Raises:
            UnknownModel, UnsupportedModel, Loading, WorkerDied, OutOfMemory: as they say.
        """
        self._catalogue.look_again()
        for version in self.versions(name):
            self._catalogue.find(name, version).forgive()
        standing, ends = self._catalogue.find(name, None), self._clock() + self._settings.deadline_s
        async with _loading_within(self._settings.deadline_s, name):
            await self._load(standing)
        await self._warmed(standing.ref, max(0.0, ends - self._clock()))

    async def unload(self, name: str) -> None:
        """Gives the memory of every version of a model back; requests for it are refused until it is loaded again.

        Raises:
            UnknownModel: there is none of that name.
            BadParameter: it is a live model.
        """
        for version in self.versions(name):
            standing = self._catalogue.find(name, version)
            if standing.ref.path is None:
                raise BadParameter(f"{name!r} is a live model: whoever made it holds it")
            standing.unloaded()
            self._cool(standing.ref)
            place = self._placement.forget(standing.ref.key)
            if place is not None:
                await self._lanes[place].unload(standing.ref.key)

    # -- how it stands

    @property
    def live(self) -> bool:
        """Whether this process answers at all."""
        return True

    @property
    def ready(self) -> bool:
        """Whether requests are taken and a worker is up for them, the models loaded."""
        return self._mustered and not self._draining and any(lane.is_up for lane in self._lanes)

    def model_ready(self, name: str, version: int | None = None) -> bool:
        """Whether a request for the model would be computed now.

        Raises:
            UnknownModel: there is no such model or version.
        """
        return self.ready and self._state(self._catalogue.find(name, version))[0] == "READY"

    @property
    def waiting(self) -> int:
        """How many requests are inside and not being computed."""
        return self._admission.inside - self.running

    @property
    def running(self) -> int:
        """How many requests are being computed."""
        return sum(lane.running for lane in self._lanes)

    def _row(self, standing: Standing) -> dict[str, str]:
        state, reason = self._state(standing)
        return {"name": standing.ref.name, "version": str(standing.ref.version), "state": state, "reason": reason}

    def _state(self, standing: Standing) -> tuple[State, str]:
        if standing.refusal is not None:
            return "UNAVAILABLE", standing.reason
        lane = self._home(standing.ref) if standing.card is not None else self._lanes[0]
        if lane.trouble is not None:
            return "UNAVAILABLE", lane.trouble.detail
        if standing.ref in self._warming:
            return "LOADING", "it is being warmed up; requests are answered already"
        if standing.card is not None:
            return ("READY", "") if lane.is_up else ("LOADING", "its worker is being started again")
        if standing.ref in self._loading or (self._settings.preload and not self._mustered):
            return "LOADING", "it is being loaded"
        return "UNAVAILABLE", standing.reason

    # -- who does it

    def _lane(self, device: str) -> Lane:
        lane = Lane(
            self._hire(device),
            batch_limit=self._settings.batch_limit,
            pauses_s=self._settings.restart_pauses_s,
            observer=self.observer,
            clock=self._clock,
        )
        self._lanes.append(lane)
        lane.open()
        return lane

    async def _muster(self) -> None:
        """Starts the other workers once the first has told the devices, then loads models."""
        first = self._lanes[0]
        await first.up()
        seen = first.status.devices if self._settings.devices is None else self._settings.devices[1:]
        others = [self._lane(device) for device in seen if device != first.status.device]
        await asyncio.gather(*(lane.settled() for lane in others), return_exceptions=True)
        if self._settings.preload:
            await asyncio.gather(*(self._preload(standing) for standing in self._catalogue.newest()))
        self._mustered = True

    async def _preload(self, standing: Standing) -> None:
        try:
            await self._loaded(standing)
            await self._warmed(standing.ref)
        except TapeheadError as error:
            log.warning("model %s version %s is not available: %s", *standing.ref.key, error.detail)

    async def _question(self, card: Card, operation: str, request: Request) -> Question:
        look = functools.partial(self._questions.read, card, operation, request)
        large = sum(array.nbytes for array in request.inputs.values()) > _LONG_LOOK_BYTES
        return await asyncio.to_thread(look) if large else look()

    def _growing(self, growth: Growth | None, plans: Sequence[Plan], ref: ModelRef) -> Growth | None:
        """Whoever is to be told of an answer that is one tensor, large and of known shape."""
        if growth is None or len(plans) > 1 or None in plans[0].shape:
            return None
        growth.model = ref
        return growth if plans[0].bytes >= self._settings.stream_threshold else None

    def _foretold(self, question: Question, device: str) -> Result:
        """What a dry run answers, which no worker is asked for."""
        plans, work = question.plans, question.cost
        meta = {
            "route": work.route,
            "precision": plans[0].dtype.name,
            "device": device,
            "bytes": sum(plan.bytes for plan in plans),
            "flops": work.flops,
            "seconds": self._speed.seconds(work.flops),
            "dry_run": True,
        }
        return Result({}, {plan.name: plan.axes for plan in plans}, meta, plans)

    async def _loaded_within(self, seconds: float, standing: Standing) -> tuple[Lane, Card]:
        if standing.card is not None:
            return await self._loaded(standing)
        async with _loading_within(seconds, standing.ref.name):
            return await self._loaded(standing)

    async def _loaded(self, standing: Standing) -> tuple[Lane, Card]:
        """The model's lane, and its card, once a worker has loaded it."""
        standing.admit()
        card = standing.card or await self._load(standing)
        return self._home(standing.ref), card

    async def _load(self, standing: Standing) -> Card:
        """One load for all who wait for it; it is not given up with any of them."""
        task = self._loading.get(standing.ref)
        if task is None:
            task = self._loading[standing.ref] = asyncio.create_task(self._try_load(standing))
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(task)

    async def _try_load(self, standing: Standing) -> Card:
        lane = self._home(standing.ref)
        try:
            card = await lane.load(standing.ref)
        except TapeheadError as error:
            standing.failed(error, fatal=isinstance(error, DiedLoading))
            raise
        finally:
            del self._loading[standing.ref]
        standing.loaded(card)
        self._placement.learn(standing.ref.key, card.bytes)
        if self._settings.warm_up:
            self._cool(standing.ref)
            self._warming[standing.ref] = asyncio.create_task(self._warm(standing.ref, lane, card))
        return card

    async def _warm(self, ref: ModelRef, lane: Lane, card: Card) -> None:
        """Asks what is likely to be asked, until it is compiled. Whoever else asks meanwhile has their turn."""
        began = self._clock()
        try:
            for operation, request in warming.questions(card, self._settings.warm_up):
                with suppress(BadRequest):  # what this model cannot be asked
                    question = self._questions.read(card, operation, request)
                    for _ in range(warming.TIMES):
                        await lane.submit(Job("warm-up", ref, operation, question.request, warming=True))
            await lane.compiled()
        except TapeheadError as error:
            log.warning("model %s version %s was not warmed up: %s", *ref.key, error.detail)
        finally:
            if self._warming.get(ref) is asyncio.current_task():
                del self._warming[ref]
        self.observer.warmed_up(*ref.key, self._clock() - began)

    async def _warmed(self, ref: ModelRef, timeout_s: float | None = None) -> None:
        """Waits until the model has been warmed up, for so long at most."""
        if ref in self._warming:
            await asyncio.wait({self._warming[ref]}, timeout=timeout_s)

    def _cool(self, ref: ModelRef) -> None:
        if ref in self._warming:
            self._warming[ref].cancel()

    def _home(self, ref: ModelRef) -> Lane:
        """The lane that has the model, or is to have it."""
        healthy = [number for number, lane in enumerate(self._lanes) if lane.trouble is None]
        return self._lanes[self._placement.home(ref, [lane.status.budget_bytes for lane in self._lanes], healthy)]


@asynccontextmanager
async def _within(seconds: float, otherwise: TapeheadError) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise otherwise from None


def _loading_within(seconds: float, name: str) -> AbstractAsyncContextManager[None]:
    return _within(seconds, Loading(f"model {name!r} is still being loaded after {seconds:g} s; come again"))
