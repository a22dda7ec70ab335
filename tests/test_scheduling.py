"""Admission, backlog, batch, placement, catalogue, and the fleet that joins them."""

from __future__ import annotations

import asyncio
import io
import os
import signal
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import small_engine
from tapehead.errors import (
    BadParameter,
    BadShape,
    Deadline,
    Draining,
    Loading,
    OutOfMemory,
    QueueFull,
    TapeheadError,
    UnknownModel,
    UnknownOperation,
    UnsupportedModel,
    WorkerDied,
)
from tapehead.operations import Card, Request, Result, TensorSpec
from tapehead.residency.repository import Repository
from tapehead.scheduling import Fleet, FleetSettings, Silent
from tapehead.scheduling.admission import Admission
from tapehead.scheduling.backlog import Backlog
from tapehead.scheduling.batch import Pace, alike
from tapehead.scheduling.catalogue import Catalogue
from tapehead.scheduling.placement import Placement
from tapehead.scheduling.speed import FIRST_GUESS, OVERHEAD_S, Speed
from tapehead.worker.child import ChildWorker, hiring
from tapehead.worker.protocol import Growth, Job, ModelRef, Resident, Worker, WorkerSettings, WorkerStatus

M = ModelRef("m", 1, "/models/m.keras")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def job(name: str = "j", model: ModelRef = M, operation: str = "infer", **rest: Any) -> Job:
    parameters = rest.pop("parameters", {})
    return Job(name, model, operation, Request({"x": np.zeros((1, 2))}, parameters=parameters), **rest)


# -- speed -------------------------------------------------------------------------------------------------------------


def test_before_any_answer_the_speed_is_a_guess() -> None:
    assert Speed().seconds(10**9) == pytest.approx(OVERHEAD_S + 1e9 / FIRST_GUESS)


def test_the_speed_is_learnt_and_small_answers_do_not_hide_it() -> None:
    speed = Speed()
    for _ in range(100):
        speed.note(2 * 10**10, 1.0 + OVERHEAD_S)
    assert speed.flops_a_second == pytest.approx(2e10)
    for _ in range(10):
        speed.note(1000, OVERHEAD_S / 2)
    assert speed.flops_a_second == pytest.approx(2e10)
    for _ in range(100):
        speed.note(10**9, 1.0 + OVERHEAD_S)
    assert speed.seconds(10**9) == pytest.approx(1.0 + OVERHEAD_S, rel=0.01)


# -- admission ---------------------------------------------------------------------------------------------------------


def test_only_so_many_are_inside_and_one_more_is_told_when_to_come_again() -> None:
    clock = Clock()
    admission = Admission(2, clock)
    for _ in range(40):
        with admission.admit():
            clock.now += 4.0
    with admission.admit(), admission.admit(), pytest.raises(QueueFull) as refused, admission.admit():
        pass
    assert admission.inside == 0
    assert refused.value.retry_after == pytest.approx(4.0)


def test_who_is_told_to_come_again_waits_a_second_at_least_and_a_minute_at_most() -> None:
    clock = Clock()
    admission = Admission(1, clock)
    assert admission.retry_after_s == 1.0
    with admission.admit():
        clock.now += 1e6
    with admission.admit():
        assert admission.retry_after_s == 60.0


# -- backlog and batch -------------------------------------------------------------------------------------------------


def in_loop(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 120))


def test_what_nobody_wants_any_more_drops_out_before_it_costs_anything() -> None:
    async def test() -> None:
        clock = Clock()
        backlog = Backlog(clock)
        late = backlog.put(job("late", deadline=clock.now + 1))
        cancelled = backlog.put(job("cancelled"))
        wanted = backlog.put(job("wanted", deadline=clock.now + 3))
        cancelled.cancel()
        clock.now += 2
        assert [waiting.job.id for waiting in backlog.take(lambda _: 10)] == ["wanted"]
        assert len(backlog) == 0
        assert not wanted.done()
        with pytest.raises(Deadline, match=r"waited 2\.0 s"):
            await late

    in_loop(test)


def test_a_batch_is_the_first_in_line_and_those_alike_behind_it() -> None:
    async def test() -> None:
        backlog = Backlog(Clock())
        other = replace(M, version=2)
        for name, model in (("a", M), ("b", other), ("c", M), ("d", M), ("e", other)):
            backlog.put(job(name, model))
        batches = []
        while batch := backlog.take(lambda _: 2):
            batches.append("".join(waiting.job.id for waiting in batch))
        assert batches == ["ac", "be", "d"]

    in_loop(test)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ({}, {}, True),
        ({"of": "h", "lag": 1}, {"of": "h", "lag": 1}, True),
        ({"of": "h"}, {"of": "c"}, False),
        ({"lag": 1}, {"lag": True}, False),
        ({"of": ["h", "c"]}, {"of": ("h", "c")}, True),
        ({"of": ["h"]}, {"of": ["h", "c"]}, False),
        ({"cotangent": np.ones(3)}, {"cotangent": np.ones(3)}, True),
        ({"cotangent": np.ones(3)}, {"cotangent": np.zeros(3)}, False),
        ({"cotangent": np.ones(3)}, {"cotangent": np.ones(3, "float32")}, False),
        ({"cotangent": {"h": np.ones(3)}}, {"cotangent": {"h": np.ones(3)}}, True),
        ({"baseline": np.zeros(3)}, {"baseline": 0.0}, False),
    ],
)
def test_jobs_are_alike_when_their_parameters_are(one: dict[str, Any], other: dict[str, Any], expected: bool) -> None:
    assert alike(job(parameters=one), job(parameters=other)) is expected
    assert not alike(job(parameters=one), job(parameters=one, operation="states"))
    assert not alike(job(parameters=one), job(parameters=one, model=replace(M, modified_ns=1)))


def test_a_batch_takes_a_few_hundredths_of_a_second_and_one_of_unknown_length_goes_alone() -> None:
    pace = Pace(16)
    assert pace.limit(job()) == 1
    for seconds, limit in ((0.01, 5), (0.2, 1), (1e-4, 16)):
        for _ in range(100):
            pace.note(job(), seconds)
        assert pace.limit(job()) == limit
    assert pace.limit(job(operation="states")) == 1


# -- placement ---------------------------------------------------------------------------------------------------------


def test_a_model_goes_where_most_is_free_and_stays_there() -> None:
    placement, budgets = Placement(), [100, 120]
    refs = [ModelRef(name, 1, "/p", size=size) for name, size in (("a", 50), ("b", 60), ("c", 10))]
    assert [placement.home(ref, budgets, {0, 1}) for ref in refs] == [1, 0, 1]
    placement.learn(("c", 1), 1000)
    assert placement.home(refs[2], budgets, {0, 1}) == 1
    assert placement.home(ModelRef("d", 1, "/p"), budgets, {0, 1}) == 0


def test_a_model_moves_when_its_worker_is_in_trouble_and_another_is_not() -> None:
    placement, budgets = Placement(), [100, 100]
    assert placement.home(M, budgets, {0, 1}) == 0
    assert placement.home(M, budgets, {1}) == 1
    assert placement.home(M, budgets, set()) == 1
    assert placement.forget(M.key) == 1
    assert placement.forget(M.key) is None


@given(st.lists(st.integers(0, 100), min_size=1, max_size=30), st.integers(1, 4))
def test_no_device_is_filled_while_another_has_more_room(sizes: list[int], devices: int) -> None:
    placement, taken = Placement(), [0] * devices
    for number, size in enumerate(sizes):
        place = placement.home(ModelRef(f"m{number}", 1, "/p", size=size), [1000] * devices, range(devices))
        assert taken[place] == min(taken)
        taken[place] += size


# -- catalogue ---------------------------------------------------------------------------------------------------------


def test_the_folder_is_looked_through_again_after_a_while(tmp_path: Path) -> None:
    clock = Clock()
    (tmp_path / "a.keras").touch()
    catalogue = Catalogue(Repository(tmp_path), ["live"], clock, rescan_s=5.0)
    (tmp_path / "b").mkdir()
    first = catalogue.find("a", None)
    for version in ("1", "12", "3"):
        (tmp_path / "b" / version).mkdir()
        (tmp_path / "b" / version / "model.keras").touch()
    with pytest.raises(UnknownModel, match="models here: a, live"):
        catalogue.find("b", None)
    clock.now += 5
    assert catalogue.find("b", None).ref.version == 12
    assert catalogue.versions("b") == [1, 3, 12]
    assert catalogue.find("a", 1) is first
    with pytest.raises(UnknownModel, match="has no version 2; it has 1, 3, 12"):
        catalogue.find("b", 2)
    os.utime(tmp_path / "a.keras", ns=(1, 1))
    catalogue.look_again()
    assert catalogue.find("a", 1) is not first


def test_what_is_no_good_or_ends_its_worker_twice_is_not_tried_again() -> None:
    standing = Catalogue(None, ["live"], Clock(), 1.0).find("live", None)
    standing.failed(WorkerDied("killed"), fatal=True)
    standing.admit()
    standing.failed(WorkerDied("killed"), fatal=True)
    with pytest.raises(UnsupportedModel, match="ended its worker 2 times"):
        standing.admit()
    standing.forgive()
    standing.admit()
    standing.failed(UnsupportedModel("Lambda"), fatal=False)
    with pytest.raises(UnsupportedModel, match="Lambda"):
        standing.admit()


# -- the fleet, over workers that do their sums in this process --------------------------------------------------------


class Adder:
    """A worker that answers the sums of its inputs, when it is let; it can be told to die."""

    def __init__(self, device: str, devices: Sequence[str] = ("d:0",)) -> None:
        self.device, self.devices = device or devices[0], tuple(devices)
        self.may_run, self.may_start, self.may_load = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.refusal: TapeheadError | None = None
        self.resident: dict[tuple[str, int], ModelRef] = {}
        self.batches: list[list[str]] = []
        self.growths: list[Growth | None] = []
        self.starts = 0
        self.death: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        for gate in (self.may_run, self.may_start, self.may_load):
            gate.set()

    async def start(self) -> WorkerStatus:
        self.starts += 1
        await self.may_start.wait()
        if self.refusal is not None:
            raise self.refusal
        self.resident.clear()
        self.death = asyncio.get_running_loop().create_future()
        return await self.status()

    async def load(self, ref: ModelRef) -> Card:
        await self._unless_dead(self.may_load)
        if ref.name == "bad":
            raise UnsupportedModel("bad file")
        self.resident[ref.key] = ref
        while len(self.resident) > 2:
            del self.resident[next(iter(self.resident))]
        spec = TensorSpec("x", (None, 2), "float32", ("feature",))
        return Card(ref.name, ref.version, (spec,), (spec,), {}, {}, {}, 10)

    async def unload(self, name: str, version: int) -> None:
        self.resident.pop((name, version), None)

    async def run(self, jobs: Sequence[Job]) -> list[Any]:
        self.batches.append([job.id for job in jobs])
        self.growths += [job.growth for job in jobs]
        await self._unless_dead(self.may_run)
        sums = [job.request.inputs["x"].sum(axis=1) for job in jobs]
        return [Result({"y": array}, {"y": ("batch",)}, {"device": self.device}) for array in sums]

    async def status(self) -> WorkerStatus:
        resident = tuple(Resident(*key, 10) for key in self.resident)
        return WorkerStatus(self.device, self.devices, 100, 50, resident)

    async def lost(self) -> str:
        return await asyncio.shield(self.death)

    async def close(self) -> None:
        self.may_run.set()

    def die(self) -> None:
        self.death.set_result("was killed")

    async def _unless_dead(self, gate: asyncio.Event) -> None:
        passing = asyncio.ensure_future(gate.wait())
        await asyncio.wait([passing, self.death], return_when=asyncio.FIRST_COMPLETED)
        passing.cancel()
        if self.death.done():
            raise WorkerDied("was killed")


@dataclass
class Crew:
    """A fleet over adders, the adders, and what the observer was told."""

    fleet: Fleet
    workers: list[Adder]
    told: list[tuple[Any, ...]] = field(default_factory=list)

    def ask(self, name: str = "m", value: float = 1.0, **rest: Any) -> asyncio.Task[Any]:
        request = rest.pop("request", Request({"": np.full((3, 2), value, "float32")}))
        return asyncio.ensure_future(self.fleet.ask(name, None, "infer", request, **{"id": "r", **rest}))


class Telling(Silent):
    def __init__(self, told: list[tuple[Any, ...]]) -> None:
        self.told = told

    def queued(self, *what: Any) -> None:
        self.told.append(("queued", *what))

    def finished(self, *what: Any) -> None:
        self.told.append(("finished", *what[:2], what[3]))

    def batched(self, *what: Any) -> None:
        self.told.append(("batched", *what))

    def worker_lost(self, *what: Any) -> None:
        self.told.append(("worker_lost", *what))

    def model_loaded(self, *what: Any) -> None:
        self.told.append(("model_loaded", *what))

    def model_evicted(self, *what: Any) -> None:
        self.told.append(("model_evicted", *what))


def crew(test: Callable[[Crew], Awaitable[None]], devices: Sequence[str] = ("d:0",), **settings: Any) -> None:
    """Runs `test` with a fleet of models `m` and `n` over adders."""

    async def run() -> None:
        workers: list[Adder] = []

        def hire(device: str) -> Adder:
            workers.append(Adder(device, devices))
            return workers[-1]

        told: list[tuple[Any, ...]] = []
        chosen = FleetSettings(**{"restart_pauses_s": (0.0, 0.01), **settings})
        fleet = Fleet(hire, live=("m", "n", "bad"), settings=chosen, observer=Telling(told), clock=Clock())
        async with fleet:
            await fleet.settled()
            await test(Crew(fleet, workers, told))

    in_loop(run)


async def turns(count: int = 20) -> None:
    """Lets everything happen that can."""
    for _ in range(count):
        await asyncio.sleep(0)


def test_a_request_is_answered_with_its_model_and_where_the_time_went() -> None:
    async def test(crew: Crew) -> None:
        result, ref = await crew.ask(value=2.0)
        assert result.tensors["y"].tolist() == [4.0, 4.0, 4.0]
        assert (ref.name, ref.version) == ("m", 1)
        assert result.meta["timings"].keys() == {"queue", "compute"}
        assert crew.told[-3:] == [("queued", "m", "infer"), ("batched", "d:0", 1), ("finished", "m", "infer", None)]

    crew(test)


def test_requests_are_refused_before_they_wait_when_they_cannot_be_answered() -> None:
    async def test(crew: Crew) -> None:
        crew.workers[0].may_run.clear()
        with pytest.raises(UnknownModel):
            await crew.ask("nobody")
        with pytest.raises(BadShape):
            await crew.ask(request=Request({"": np.zeros((3, 7), "float32")}))
        with pytest.raises(UnknownOperation):
            await crew.fleet.ask("m", None, "divine", Request({"": np.zeros((3, 2), "float32")}), id="r")
        with pytest.raises(UnsupportedModel, match="bad file"):
            await crew.ask("bad")
        assert crew.workers[0].batches == []

    crew(test)


def test_a_dry_run_asks_no_worker() -> None:
    async def test(crew: Crew) -> None:
        crew.workers[0].may_run.clear()
        dry = Request({"": np.zeros((3, 2), "float32")}, parameters={"dry_run": True})
        result, ref = await crew.ask(request=dry)
        (plan,) = result.plans
        assert (ref.name, plan.name, plan.shape) == ("m", "x", (3, 2))
        assert {"bytes", "flops", "seconds", "route", "precision", "device", "dry_run"} == result.meta.keys()
        assert result.meta["bytes"] == plan.bytes
        assert result.meta["seconds"] >= OVERHEAD_S
        assert crew.workers[0].batches == []

    crew(test)


@pytest.mark.parametrize(("threshold", "growing"), [(24, True), (25, False)])
def test_an_answer_from_the_threshold_on_is_passed_on_as_it_grows(threshold: int, growing: bool) -> None:
    async def test(crew: Crew) -> None:
        growth = Growth()
        await crew.ask(growth=growth)
        await crew.ask()
        assert crew.workers[0].growths == [growth if growing else None, None]
        assert growth.model == ModelRef("m", 1)

    crew(test, stream_threshold=threshold)


def test_a_full_queue_refuses_and_takes_again_when_one_has_left() -> None:
    async def test(crew: Crew) -> None:
        crew.workers[0].may_run.clear()
        inside = [crew.ask()]
        await turns()
        inside += [crew.ask(), crew.ask()]
        await turns()
        with pytest.raises(QueueFull) as refused:
            await crew.ask()
        assert refused.value.retry_after is not None
        assert refused.value.retry_after >= 1.0
        assert (crew.fleet.running, crew.fleet.waiting) == (1, 2)
        crew.workers[0].may_run.set()
        await asyncio.gather(*inside)
        await crew.ask()

    crew(test, queue_limit=3)


def test_those_alike_that_gathered_while_the_worker_was_busy_go_together() -> None:
    async def test(crew: Crew) -> None:
        worker = crew.workers[0]
        await crew.ask("m", id="first")  # tells how long one takes: on this clock, no time
        await crew.ask("n", id="second")
        worker.may_run.clear()
        asked = []
        for n, name in enumerate("mmnmmn"):
            asked.append(crew.ask(name, id=f"{name}{n}"))
            await turns()
        worker.may_run.set()
        await asyncio.gather(*asked)
        assert worker.batches[2:] == [["m0"], ["m1", "m3", "m4"], ["n2", "n5"]]

    crew(test, batch_limit=3)


def test_a_deadline_that_passes_is_told_at_once_and_the_request_is_not_computed() -> None:
    async def test(crew: Crew) -> None:
        worker = crew.workers[0]
        worker.may_run.clear()
        first = crew.ask(id="first")
        await turns()
        with pytest.raises(Deadline, match=r"within 0\.05 s"):
            await crew.ask(id="late", deadline_s=0.05)
        given_up = crew.ask(id="given up")
        await turns()
        given_up.cancel()
        worker.may_run.set()
        await first
        await crew.ask(id="next")
        assert worker.batches == [["first"], ["next"]]

    crew(test)


def test_a_model_still_loading_when_the_time_is_over_says_so_and_the_load_goes_on() -> None:
    async def test(crew: Crew) -> None:
        crew.workers[0].may_load.clear()
        with pytest.raises(Loading):
            await crew.ask(deadline_s=0.05)
        assert (await crew.fleet.index())[0]["state"] == "LOADING"
        crew.workers[0].may_load.set()
        await crew.ask()
        assert crew.fleet.model_ready("m")

    crew(test, preload=False)


def test_a_worker_that_dies_takes_the_batch_in_hand_and_no_other() -> None:
    async def test(crew: Crew) -> None:
        worker = crew.workers[0]
        worker.may_run.clear()
        in_hand, waiting = crew.ask(id="in hand"), crew.ask("n", id="waiting")
        await turns()
        worker.may_start.clear()
        worker.die()
        with pytest.raises(WorkerDied):
            await in_hand
        assert not crew.fleet.ready
        assert {each["state"] for each in await crew.fleet.index()} == {"LOADING", "UNAVAILABLE"}
        worker.may_run.set()
        worker.may_start.set()
        result, _ = await waiting
        assert result.tensors["y"].tolist() == [2.0] * 3
        assert worker.starts == 2
        assert set(worker.resident) == {("m", 1), ("n", 1)}
        assert ("worker_lost", "d:0", "was killed") in crew.told

    crew(test)


def test_while_a_worker_cannot_start_requests_are_told_so_and_it_is_tried_again() -> None:
    async def test(crew: Crew) -> None:
        worker = crew.workers[0]
        worker.refusal = WorkerDied("no driver")
        worker.may_run.clear()
        asked = [crew.ask(id="in hand"), crew.ask("n", id="waiting")]
        await turns()
        worker.die()
        assert [type(error) for error in await asyncio.gather(*asked, return_exceptions=True)] == [WorkerDied] * 2
        with pytest.raises(WorkerDied, match="no driver") as refused:
            await crew.ask()
        assert refused.value.retry_after is not None
        assert "no driver" in (await crew.fleet.index())[1]["reason"]
        worker.refusal = None
        worker.may_run.set()
        while not crew.fleet.ready:
            await asyncio.sleep(0.01)
        await crew.ask()

    crew(test)


def test_a_fleet_whose_first_worker_cannot_start_says_why() -> None:
    async def test() -> None:
        def hire(device: str) -> Adder:
            worker = Adder(device)
            worker.refusal = WorkerDied("no TensorFlow")
            return worker

        async with Fleet(hire, live=("m",)) as fleet:
            with pytest.raises(WorkerDied, match="no TensorFlow"):
                await fleet.settled()
            assert fleet.live
            assert not fleet.ready
            assert (await fleet.index())[0]["state"] == "UNAVAILABLE"

    in_loop(test)


def test_a_model_that_ends_its_worker_as_it_loads_is_given_up_and_the_others_stay() -> None:
    async def test(crew: Crew) -> None:
        worker = crew.workers[0]
        for _ in range(2):
            worker.may_load.clear()
            asked = crew.ask("n")
            await turns()
            worker.die()
            with pytest.raises(WorkerDied):
                await asked
            worker.may_load.set()
            while not crew.fleet.ready:
                await asyncio.sleep(0.01)
        with pytest.raises(UnsupportedModel, match="2 times"):
            await crew.ask("n")
        await crew.ask("m")
        await crew.fleet.load("n")
        await crew.ask("n")

    crew(test, preload=False)


def test_an_unloaded_model_is_refused_until_it_is_loaded() -> None:
    async def test() -> None:
        workers: list[Adder] = []

        def hire(device: str) -> Adder:
            workers.append(Adder(device))
            return workers[-1]

        async with Fleet(hire, repository=Files("a", "b", "c")) as fleet:
            await fleet.settled()
            assert set(workers[0].resident) == {("b", 1), ("c", 1)}
            assert {each["name"]: each["state"] for each in await fleet.index()} == dict.fromkeys("abc", "READY")
            await fleet.unload("c")
            assert ("c", 1) not in workers[0].resident
            assert not fleet.model_ready("c")
            with pytest.raises(UnknownModel, match="was unloaded"):
                await fleet.card("c")
            await fleet.load("c")
            assert ("c", 1) in workers[0].resident
            assert fleet.model_ready("c")
            await fleet.load("a")
            assert ("a", 1) in workers[0].resident
            with pytest.raises(UnknownModel):
                await fleet.unload("../a")

    in_loop(test)


class Files(Repository):
    """A repository of files that are only said to be there."""

    def __init__(self, *names: str) -> None:
        self.names = names

    def scan(self) -> dict[str, Any]:
        return {name: {1: ModelRef(name, 1, f"/{name}.keras")} for name in self.names}


def test_a_live_model_is_not_unloaded() -> None:
    async def test(crew: Crew) -> None:
        with pytest.raises(BadParameter, match="live model"):
            await crew.fleet.unload("m")

    crew(test)


def test_draining_finishes_what_was_taken_and_refuses_what_comes() -> None:
    async def test(crew: Crew) -> None:
        worker = crew.workers[0]
        worker.may_run.clear()
        taken = [crew.ask(), crew.ask("n")]
        await turns()
        draining = asyncio.ensure_future(crew.fleet.drain(30.0))
        await turns()
        assert not crew.fleet.ready
        with pytest.raises(Draining):
            await crew.ask()
        assert not draining.done()
        worker.may_run.set()
        await draining
        assert all(task.done() and task.exception() is None for task in taken)

    crew(test)


def test_closing_ends_what_draining_could_not_wait_for() -> None:
    async def test(crew: Crew) -> None:
        crew.workers[0].may_run.clear()
        taken = [crew.ask(), crew.ask("n")]
        await turns()
        await crew.fleet.drain(0.05)
        await crew.fleet.close()
        assert [type(error) for error in await asyncio.gather(*taken, return_exceptions=True)] == [Draining] * 2

    crew(test)


def test_models_spread_over_every_device_the_first_worker_sees() -> None:
    async def test(crew: Crew) -> None:
        assert [worker.device for worker in crew.workers] == ["d:0", "d:1", "d:2"]
        places = {(await crew.ask(name))[0].meta["device"] for name in "mn"}
        assert len(places) == 2
        again = {(await crew.ask(name))[0].meta["device"] for name in "mn"}
        assert again == places

    crew(test, devices=("d:0", "d:1", "d:2"))


# -- the fleet, over real workers --------------------------------------------------------------------------------------

ENVIRON = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])}
SMALL = WorkerSettings(engine="small_engine")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("left", "right")):
        save(made / f"{name}.keras", seed)
    return made


def save(path: Path, seed: int) -> None:
    keras.utils.set_random_seed(seed)
    layers = [keras.Input((None, 3), name="x"), keras.layers.LSTM(4, name="lstm"), keras.layers.Dense(2)]
    keras.Sequential(layers).save(path)


def real(
    test: Callable[[Fleet, list[ChildWorker]], Awaitable[None]],
    folder: Path,
    worker: WorkerSettings = SMALL,
    **settings: Any,
) -> None:
    """Runs `test` with a fleet over processes that serve `folder`."""

    async def run() -> None:
        hire, workers = hiring(worker, ENVIRON, output=io.StringIO()), []

        def remembered(device: str) -> Worker:
            workers.append(hire(device))
            return workers[-1]

        fleet = Fleet(remembered, repository=Repository(folder), settings=FleetSettings(**settings))
        async with fleet:
            await fleet.settled()
            await test(fleet, workers)

    in_loop(run)


def ask(fleet: Fleet, name: str, first: float = 0.5) -> Awaitable[tuple[Result, ModelRef]]:
    inputs = np.full((1, 4, 3), 0.5, "float32")
    inputs[0, 0, 0] = first
    return fleet.ask(name, None, "infer", Request({"": inputs}), id="r")


def test_two_models_run_on_two_devices_each_in_a_process_of_its_own(folder: Path) -> None:
    async def test(fleet: Fleet, workers: list[ChildWorker]) -> None:
        assert len({worker.pid for worker in workers} | {os.getpid()}) == 3
        answers = {name: (await ask(fleet, name))[0] for name in ("left", "right")}
        assert {answer.meta["device"] for answer in answers.values()} == {"cpu:0", "cpu:1"}
        for answer in answers.values():
            assert answer.meta["place"].lower().endswith(answer.meta["device"])
        assert not np.array_equal(answers["left"].tensors["outputs"], answers["right"].tensors["outputs"])

    real(test, folder, replace(SMALL, logical_cpus=2))


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="sees in /proc that a process has stopped")
def test_kill_9_in_the_middle_of_a_request_is_one_error_and_the_next_request_works(folder: Path) -> None:
    async def test(fleet: Fleet, workers: list[ChildWorker]) -> None:
        before = (await ask(fleet, "left"))[0].tensors["outputs"]
        pid = workers[0].pid
        assert pid is not None
        in_hand = asyncio.ensure_future(ask(fleet, "left", small_engine.FREEZE))
        await small_engine.frozen(pid)
        waiting = asyncio.ensure_future(ask(fleet, "right"))
        await turns()
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(WorkerDied, match="SIGKILL"):
            await in_hand
        await waiting
        after, _ = await ask(fleet, "left")
        np.testing.assert_array_equal(after.tensors["outputs"], before)
        assert {each["state"] for each in await fleet.index()} == {"READY"}

    real(test, folder)


def test_models_that_do_not_fit_together_take_turns(folder: Path) -> None:
    async def test(fleet: Fleet, workers: list[ChildWorker]) -> None:
        for name in ("left", "right", "left", "right"):
            await ask(fleet, name)
            (resident,) = (await workers[0].status()).resident
            assert resident.name == name
        assert {each["state"] for each in await fleet.index()} == {"READY"}

    one_and_a_half = int(1.5 * 4 * (4 * (3 * 4 + 4 * 4 + 4) + 4 * 2 + 2))
    real(test, folder, replace(SMALL, budget_bytes=one_and_a_half))


def test_a_file_that_has_changed_answers_anew(tmp_path: Path) -> None:
    save(tmp_path / "m.keras", 1)

    async def test(fleet: Fleet, workers: list[ChildWorker]) -> None:
        before = (await ask(fleet, "m"))[0].tensors["outputs"]
        save(tmp_path / "m.keras", 2)
        after = (await ask(fleet, "m"))[0].tensors["outputs"]
        assert np.abs(after - before).max() > 1e-3
        (tmp_path / "m.keras").write_bytes(b"broken")
        with pytest.raises(UnsupportedModel):
            await ask(fleet, "m")
        (tmp_path / "m.keras").unlink()
        with pytest.raises(UnknownModel):
            await ask(fleet, "m")

    real(test, tmp_path, rescan_s=0.0)


def test_a_jacobian_of_the_real_engine_comes_through_the_whole_chain(folder: Path) -> None:
    async def test(fleet: Fleet, workers: list[ChildWorker]) -> None:
        inputs = np.linspace(-1, 1, 2 * 5 * 3).reshape(2, 5, 3)
        asked = Request({"": inputs}, parameters={"of": "lstm.h[-1]", "wrt": "inputs", "precision": "float64"})
        answer, ref = await fleet.ask("left", 1, "jacobian", asked, id="r")
        assert (ref.name, answer.tensors["value"].shape) == ("left", (2, 4, 5, 3))
        assert answer.tensors["value"].dtype == np.float64
        assert answer.meta["device"] == "cpu:0"
        assert {"queue", "compute"} <= answer.meta["timings"].keys()
        final = Request({"": inputs}, parameters={"points": ["lstm.h[-1]"], "precision": "float64"})
        nudge = np.zeros_like(inputs)
        nudge[:, 2, 1] = 1e-6
        above, below = [
            (await fleet.ask("left", 1, "states", replace(final, inputs={"": inputs + s * nudge}), id="r"))[0]
            for s in (1, -1)
        ]
        difference = (above.tensors["lstm.h[-1]"] - below.tensors["lstm.h[-1]"]) / 2e-6
        np.testing.assert_allclose(answer.tensors["value"][:, :, 2, 1], difference, atol=1e-8)

    real(test, folder, WorkerSettings())


@pytest.mark.gpu
@pytest.mark.skipif(not Path("/dev/nvidiactl").exists(), reason="there is no NVIDIA card here")
def test_every_card_has_a_worker_and_out_of_memory_leaves_it_healthy(folder: Path) -> None:
    async def test(fleet: Fleet, workers: list[ChildWorker]) -> None:
        devices = {(await worker.status()).device for worker in workers}
        assert all(device.startswith("gpu:") for device in devices)
        with pytest.raises(OutOfMemory):
            await ask(fleet, "left", small_engine.DEVOUR)
        answer, _ = await ask(fleet, "left")
        assert answer.meta["device"].startswith("gpu:")

    real(test, folder)
