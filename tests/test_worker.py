"""The seam: what crosses it, and the two carriers of a worker, a thread and a process, which must do the same."""

from __future__ import annotations

import asyncio
import gc
import importlib
import io
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import keras
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import small_engine
from tapehead.errors import (
    BY_CODE,
    Deadline,
    Internal,
    OutOfMemory,
    TapeheadError,
    UnknownOperation,
    UnsupportedModel,
    WorkerDied,
)
from tapehead.operations import Request, Result
from tapehead.worker import crossing
from tapehead.worker.channel import Channel
from tapehead.worker.child import ChildWorker, Limits
from tapehead.worker.memory import Shelf
from tapehead.worker.process import environment
from tapehead.worker.protocol import Growth, Job, ModelRef, Resident, Worker, WorkerSettings, WorkerStatus
from tapehead.worker.thread import ThreadWorker
from tapehead.worker.transport import INLINE_BYTES, Inbox, pack, receive, send, send_shared

T = TypeVar("T")
Run = Callable[[Coroutine[Any, Any, T]], T]

ENVIRON = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])}
SMALL = WorkerSettings(engine="small_engine", budget_bytes=1 << 20)


def descriptors() -> int:
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir()))


on_linux = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts descriptors in /proc")


# -- what crosses ------------------------------------------------------------------------------------------------------


def crossed(tree: Any) -> Any:
    """`tree` sent through a real socket by one thread and received by another."""
    here, there = socket.socketpair()
    with here, there:
        sender = threading.Thread(target=send, args=(here, tree))
        sender.start()
        inbox = Inbox()
        while not (messages := receive(there, inbox)):
            assert messages is not None
        sender.join()
    (message,) = messages
    return message


SHAPES = arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=40)
DTYPES = st.sampled_from(["bool", "int8", "uint16", "int64", "float16", "float32", "float64", ml_dtypes.bfloat16])


@given(arrays.arrays(st.sampled_from(["bool", "int8", "uint16", "int64", "float16", "float32", "float64"]), SHAPES))
def test_any_array_crosses_unchanged_and_read_only(array: np.ndarray) -> None:
    back = crossed({"a": array})["a"]
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert back.tobytes() == array.tobytes()
    assert not back.flags.writeable


@pytest.mark.parametrize("count", [3, INLINE_BYTES])
def test_bfloat16_keeps_its_dtype(count: int) -> None:
    array = np.arange(count).astype(ml_dtypes.bfloat16)
    back = crossed(array)
    assert back.dtype.name == "bfloat16"
    assert back.tobytes() == array.tobytes()


def test_large_arrays_share_one_descriptor_and_small_ones_travel_in_the_header() -> None:
    large, small = np.random.default_rng(0).normal(size=(3, 100, 101)), np.arange(12.0).reshape(3, 4)
    parcel = pack({"a": large[0], "b": [small, {"c": large[1].T}], "d": large[2, :, ::2]})
    assert len(parcel.shared) == 2
    assert all(offset % 64 == 0 for offset, _ in parcel.shared)
    back = crossed({"a": large[0], "b": [small, {"c": large[1].T}], "d": large[2, :, ::2]})
    np.testing.assert_array_equal(back["a"], large[0])
    np.testing.assert_array_equal(back["b"][0], small)
    np.testing.assert_array_equal(back["b"][1]["c"], large[1].T)
    np.testing.assert_array_equal(back["d"], large[2, :, ::2])


def test_plain_values_cross_and_tuples_become_lists() -> None:
    tree = {"t": "\ud800é", "n": None, "f": 1e300, "i": -5, "l": (1, [2.5, True]), "b": b"\0", "s": np.float32(0.5)}
    assert crossed(tree) == {**tree, "l": [1, [2.5, True]]}


@pytest.mark.parametrize("value", [object(), {1, 2}, np.array([object()]), 1j])
def test_what_has_no_plain_form_does_not_cross(value: Any) -> None:
    with pytest.raises(TypeError, match="does not cross"):
        pack({"a": value})


@given(st.integers(1, 60), st.integers(0, 5))
def test_messages_come_whole_from_any_pieces(step: int, count: int) -> None:
    sent = [{"n": n, "a": np.arange(n)} for n in range(count)]
    stream = b"".join(pack(tree).head for tree in sent)
    inbox = Inbox()
    pieces = [stream[start : start + step] for start in range(0, len(stream), step)]
    got = [message for piece in pieces for message in inbox.feed(piece)]
    assert [message["n"] for message in got] == [tree["n"] for tree in sent]


def test_a_descriptor_waits_for_its_message() -> None:
    first, second = pack({"a": np.zeros(10)}), pack({"a": np.ones(INLINE_BYTES)})
    memory = second.memory()
    assert memory is not None
    inbox = Inbox()
    stream = first.head + second.head
    assert inbox.feed(stream[:-3], [memory])[0]["a"].size == 10
    assert inbox.feed(stream[-3:])[0]["a"].sum() == INLINE_BYTES


SIZE = 40_000


def lent(shelf: Shelf) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """An array in shared memory as its writer has it, and as its reader does."""
    shared = shelf.take(8 * SIZE)
    array = np.frombuffer(shared.mapping, np.float64, SIZE)
    here, there = socket.socketpair()
    with here, there:
        send_shared(here, {"array": array, "small": np.ones(3)}, shared.descriptor)
        (message,) = receive(there, Inbox()) or []
    return array, message["array"]


@on_linux
def test_an_array_in_shared_memory_is_seen_as_it_is_filled() -> None:
    array, seen = lent(Shelf())
    assert not seen.any()
    array[:100] = 7
    assert seen.sum() == 700
    assert not seen.flags.writeable


@on_linux
def test_shared_memory_is_used_again_once_nobody_reads_it() -> None:
    shelf = Shelf()
    array, seen = lent(shelf)
    array[:] = 1
    other, also_seen = lent(shelf)
    other[:] = 2
    assert (seen == 1).all()
    part = seen[5:7]
    del seen, array
    assert lent(shelf)[1].sum() == 0  # a third: parts of both are still read
    del part
    again, _ = lent(shelf)
    assert (again == 1).all()
    assert (also_seen == 2).all()


@on_linux
def test_no_more_shared_memory_is_kept_than_is_allowed_and_all_of_it_is_closed() -> None:
    before = descriptors()
    shelf = Shelf(kept_bytes=20 * SIZE)
    held = [lent(shelf) for _ in range(5)]
    array, seen = held[0]
    array[:] = 3
    assert (seen == 3).all()
    del array, seen
    held.clear()
    assert descriptors() == before + 4  # two are kept, each with a descriptor to send and one for its mapping
    shelf.close()
    assert descriptors() == before


@on_linux
def test_a_hundred_messages_leave_no_descriptor_behind() -> None:
    crossed(np.zeros(INLINE_BYTES))
    before = descriptors()
    for _ in range(100):
        crossed({"a": np.zeros(INLINE_BYTES), "b": np.ones(INLINE_BYTES)})
    assert descriptors() == before


@on_linux
def test_memory_stays_mapped_as_long_as_an_array_needs_it_and_no_longer() -> None:
    before = descriptors()
    array = crossed({"a": np.arange(INLINE_BYTES), "b": np.ones(INLINE_BYTES)})["a"][5:7]
    assert array.tolist() == [5, 6]
    assert descriptors() == before + 1
    del array
    assert descriptors() == before


@on_linux
def test_an_inbox_closes_the_descriptors_of_messages_that_never_became_whole() -> None:
    before = descriptors()
    parcel = pack(np.zeros(INLINE_BYTES))
    memory = parcel.memory()
    assert memory is not None
    inbox = Inbox()
    inbox.feed(parcel.head[:9], [memory])
    inbox.close()
    assert descriptors() == before


def test_memory_without_memfd_is_a_file_that_has_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create", raising=False)
    array = np.arange(INLINE_BYTES)
    np.testing.assert_array_equal(crossed(array), array)


def test_jobs_answers_and_status_cross_as_what_they_were() -> None:
    parameters = {"of": "lstm.h", "lag": None}
    request = Request({"x": np.ones((2, 3))}, {"x": np.array([1, 2])}, {"s": np.zeros((2, 4))}, parameters)
    job = Job("id", ModelRef("m", 2, "/p", 7, 8), "jacobian", request, 12.5)
    asked_alike = Job(
        "other", job.model, "jacobian", Request({"x": np.zeros((1, 3))}, None, {}, parameters), None, Growth()
    )
    (back, alike), growing = crossing.jobs(crossed(crossing.jobs_tree([job, asked_alike])))
    assert growing == [False, True]
    assert (back.id, back.model, back.operation, back.deadline) == (job.id, job.model, job.operation, job.deadline)
    assert back.request.parameters == request.parameters
    assert alike.request.parameters is back.request.parameters
    assert (alike.id, alike.model, alike.request.lengths, alike.request.batch) == ("other", job.model, None, 1)
    np.testing.assert_array_equal(back.request.inputs["x"], request.inputs["x"])
    result = Result({"v": np.ones(3)}, {"v": ("unit",)}, {"finite": True})
    answer = crossing.answer(crossed(crossing.answer_tree(result)))
    assert isinstance(answer, Result)
    assert (answer.axes, answer.meta) == (result.axes, result.meta)
    status = WorkerStatus("gpu:1", ("gpu:0", "gpu:1"), 100, 60, (Resident("m", 2, 30),))
    assert crossing.status(crossed(crossing.status_tree(status))) == status


@pytest.mark.parametrize("kind", sorted(set(BY_CODE.values()), key=lambda kind: kind.code))
def test_an_error_crosses_as_its_own_class(kind: type[TapeheadError]) -> None:
    back = crossing.error(crossed(crossing.error_tree(kind("what came", retry_after=2.5))))
    assert (back.code, back.detail, back.retry_after) == (kind.code, "what came", 2.5)


# -- the carriers ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run() -> Iterator[Run[Any]]:
    with asyncio.Runner() as runner:
        yield runner.run


@pytest.fixture(scope="module")
def ref(tmp_path_factory: pytest.TempPathFactory) -> ModelRef:
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((None, 3)), keras.layers.SimpleRNN(4), keras.layers.Dense(2)])
    path = tmp_path_factory.mktemp("models") / "tiny.keras"
    model.save(path)
    return ModelRef("tiny", 1, str(path))


@pytest.fixture(scope="module", params=["thread", "child"])
def worker(request: pytest.FixtureRequest, run: Run[Any]) -> Iterator[Worker]:
    made: Worker = ThreadWorker(SMALL) if request.param == "thread" else ChildWorker(SMALL, ENVIRON)
    run(made.start())
    yield made
    run(made.close())


def job(ref: ModelRef, first: float = 0.5, operation: str = "infer", timesteps: int = 5, **rest: Any) -> Job:
    array = np.full((1, timesteps, 3), 0.5, "float32")
    array[0, 0, 0] = first
    return Job(f"r{first}", ref, operation, Request({"inputs": array}), **rest)


def value(answer: Result | TapeheadError) -> np.ndarray:
    assert isinstance(answer, Result), answer
    return answer.tensors["outputs"]


def test_a_worker_computes_what_the_model_computes(worker: Worker, run: Run[Any], ref: ModelRef) -> None:
    (answer,) = run(worker.run([job(ref)]))
    expected = keras.saving.load_model(ref.path)(job(ref).request.inputs["inputs"]).numpy()
    np.testing.assert_allclose(value(answer), expected, rtol=1e-6)
    assert answer.axes == {"outputs": ("batch", "unit")}
    assert answer.meta["device"] == run(worker.status()).device
    assert answer.meta["timings"]["compute"] > 0


def test_a_worker_tells_a_models_card_and_that_it_is_resident(worker: Worker, run: Run[Any], ref: ModelRef) -> None:
    card = run(worker.load(ref))
    assert (card.name, card.version) == ("tiny", 1)
    assert card.inputs[0].shape == (None, None, 3)
    assert run(worker.load(ref)) == card
    assert Resident("tiny", 1, card.bytes) in run(worker.status()).resident
    run(worker.unload("tiny", 1))
    assert run(worker.status()).resident == ()
    run(worker.unload("tiny", 1))


def test_each_job_has_its_own_answer_in_order(worker: Worker, run: Run[Any], ref: ModelRef) -> None:
    absent = ModelRef("absent", 1, "/nowhere/absent.keras")
    jobs = [
        job(ref),
        job(absent),
        job(ref, operation="divine"),
        job(ref, small_engine.STUMBLE),
        job(ref, deadline=time.monotonic() - 1),
        job(ref),
    ]
    answers = run(worker.run(jobs))
    kinds = [Result, UnsupportedModel, UnknownOperation, Internal, Deadline, Result]
    assert [type(answer) for answer in answers] == kinds
    np.testing.assert_array_equal(value(answers[0]), value(answers[5]))


def test_one_that_stumbles_spoils_none_of_those_it_is_joined_with(worker: Worker, run: Run[Any], ref: ModelRef) -> None:
    stumbled, *others = run(worker.run([job(ref, small_engine.STUMBLE), job(ref), job(ref)]))
    assert isinstance(stumbled, Internal)
    np.testing.assert_array_equal(value(others[0]), value(others[1]))


def test_a_file_that_cannot_be_served_says_why(worker: Worker, run: Run[Any], tmp_path: Path) -> None:
    (tmp_path / "bad.keras").write_bytes(b"no zip")
    with pytest.raises(UnsupportedModel, match=r"model\.save"):
        run(worker.load(ModelRef("bad", 1, str(tmp_path / "bad.keras"))))


def test_a_worker_that_is_not_started_says_so(run: Run[Any], ref: ModelRef) -> None:
    for made in (ThreadWorker(SMALL), ChildWorker(SMALL, ENVIRON)):
        with pytest.raises(WorkerDied, match="not running"):
            run(made.run([job(ref)]))
        run(made.close())


# -- a thread ----------------------------------------------------------------------------------------------------------


def test_a_live_model_is_used_as_it_is_at_every_call(run: Run[Any]) -> None:
    model = keras.Sequential([keras.Input((None, 3)), keras.layers.SimpleRNN(2)])

    async def twice() -> tuple[np.ndarray, np.ndarray]:
        made = ThreadWorker(SMALL, {"mine": model})
        await made.start()
        before = await made.run([job(ModelRef("mine", 1))])
        model.layers[0].set_weights([np.zeros_like(array) for array in model.layers[0].get_weights()])
        after = await made.run([job(ModelRef("mine", 1))])
        await made.close()
        return value(before[0]), value(after[0])

    before, after = run(twice())
    assert np.abs(before).max() > 0
    assert np.abs(after).max() == 0


# -- a process ---------------------------------------------------------------------------------------------------------


class Skewed:
    """The real clock, set ahead."""

    ahead_s = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead_s


@pytest.fixture(scope="module")
def clock() -> Skewed:
    return Skewed()


@pytest.fixture(scope="module")
def process(run: Run[Any], clock: Skewed) -> Iterator[ChildWorker]:
    made = ChildWorker(SMALL, ENVIRON, output=io.StringIO(), clock=clock)
    yield made
    run(made.close())


@pytest.fixture
def child(process: ChildWorker, run: Run[Any]) -> ChildWorker:
    """A worker in a process, started again if the test before has ended it."""
    try:
        run(process.status())
    except WorkerDied:
        run(process.start())
    return process


@pytest.mark.slow
def test_out_of_memory_is_an_answer_and_the_next_job_is_computed(
    child: ChildWorker, run: Run[Any], ref: ModelRef
) -> None:
    hungry, modest = run(child.run([job(ref, small_engine.DEVOUR), job(ref)]))
    assert isinstance(hungry, OutOfMemory)
    assert "fewer samples" in hungry.detail
    assert np.isfinite(value(modest)).all()


@on_linux
def test_kill_9_in_the_middle_of_a_request_is_told_at_once_and_a_new_process_goes_on(
    child: ChildWorker, run: Run[Any], ref: ModelRef
) -> None:
    before = descriptors()
    large = job(ref, small_engine.DIE, timesteps=INLINE_BYTES)
    with pytest.raises(WorkerDied, match=r"killed by SIGKILL.*try again"):
        run(child.run([large]))
    assert "SIGKILL" in run(child.lost())
    with pytest.raises(WorkerDied, match="not running"):
        run(child.run([large]))
    dead = child.pid
    run(child.start())
    assert child.pid != dead
    assert np.isfinite(value(run(child.run([job(ref)]))[0])).all()
    assert descriptors() == before


@on_linux
def test_calls_in_hand_when_the_process_is_killed_all_end(child: ChildWorker, run: Run[Any], ref: ModelRef) -> None:
    async def killed() -> list[Any]:
        assert child.pid is not None
        calls = [asyncio.create_task(child.run([job(ref, small_engine.FREEZE)])) for _ in range(3)]
        await small_engine.frozen(child.pid)
        os.kill(child.pid, signal.SIGKILL)
        return await asyncio.gather(*calls, return_exceptions=True)

    assert [type(answer) for answer in run(killed())] == [WorkerDied] * 3


@on_linux
def test_a_frozen_process_is_found_out_by_its_silence(
    child: ChildWorker, run: Run[Any], ref: ModelRef, clock: Skewed
) -> None:
    async def frozen() -> None:
        asked = asyncio.create_task(child.run([job(ref, small_engine.FREEZE)]))
        assert child.pid is not None
        await small_engine.frozen(child.pid)
        clock.ahead_s += 61.0
        await asked

    with pytest.raises(WorkerDied, match="no sign of life for 6"):
        run(frozen())


def test_a_batch_over_its_limit_ends_the_process(run: Run[Any], ref: ModelRef) -> None:
    async def over() -> None:
        made = ChildWorker(SMALL, ENVIRON, Limits(run_s=0.1), output=io.StringIO())
        await made.start()
        try:
            await made.run([job(ref, small_engine.DAWDLE, timesteps=n) for n in range(1, 11)])  # lengths join nothing
        finally:
            await made.close()

    with pytest.raises(WorkerDied, match="on one call"):
        run(over())


def test_a_call_that_waits_for_those_before_it_is_not_overdue(run: Run[Any]) -> None:
    async def three() -> list[float | None]:
        here, there = socket.socketpair()
        now, seen = [0.0], []
        with there:
            channel = Channel(here, lambda: now[0])
            calls = [asyncio.create_task(channel.call("run", None, 10.0)) for _ in range(2)]
            await asyncio.sleep(0)
            now[0] = 9.0
            seen.append(channel.overdue_s())
            send(there, {"call": 1, "value": None})
            await calls[0]
            for now[0] in (18.0, 20.0):
                seen.append(channel.overdue_s())
            await channel.close(WorkerDied())
            await asyncio.gather(*calls, return_exceptions=True)
        return seen

    assert run(three()) == [None, None, 11.0]


def test_a_cancelled_call_leaves_the_others_their_answers(child: ChildWorker, run: Run[Any], ref: ModelRef) -> None:
    async def cancelled() -> Any:
        calls = [asyncio.create_task(child.run([job(ref, small_engine.DAWDLE)])) for _ in range(2)]
        await asyncio.sleep(0.1)
        calls[0].cancel()
        return await child.run([job(ref)])

    assert np.isfinite(value(run(cancelled())[0])).all()


def test_large_arrays_cross_both_ways(child: ChildWorker, run: Run[Any], ref: ModelRef) -> None:
    batch = np.full((300_000, 2, 3), 0.25, "float32")
    (answer,) = run(child.run([Job("large", ref, "infer", Request({"inputs": batch}))]))
    assert value(answer).shape == (300_000, 2)
    assert not value(answer).flags.writeable


def test_what_a_process_prints_goes_on_with_its_device_before_it(
    child: ChildWorker, run: Run[Any], ref: ModelRef
) -> None:
    run(child.run([job(ref, small_engine.STUMBLE)]))
    run(child.close())
    printed = child._output.getvalue()
    assert "KeyError: 'nothing'" in printed
    assert all(line.startswith("[worker") for line in printed.splitlines())


def test_a_process_that_cannot_start_says_why(run: Run[Any]) -> None:
    for settings, why in (
        (WorkerSettings(engine="small_engine", imports=("no_such_cells",)), "--import no_such_cells"),
        (WorkerSettings(engine="small_engine", device="gpu:7"), "no device 'gpu:7'"),
    ):
        with pytest.raises(WorkerDied, match=why):
            run(ChildWorker(settings, ENVIRON, output=io.StringIO()).start())


CELLS = """
import keras

@keras.saving.register_keras_serializable("brought")
class Brought(keras.layers.Layer):
    def __init__(self, units, **rest):
        super().__init__(**rest)
        self.units = self.state_size = units

    def build(self, input_shape):
        self.scale = self.add_weight(shape=(input_shape[-1], self.units), name="scale")

    def call(self, inputs, states):
        h = states[0] + inputs @ self.scale
        return h, [h]

    def get_config(self):
        return {**super().get_config(), "units": self.units}
"""


def test_custom_cells_come_from_modules_named_at_start_and_from_installed_packages(
    run: Run[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("here", "installed"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "brought_cells.py").write_text(CELLS)
    plugin = tmp_path / "installed" / "brought-1.dist-info"
    plugin.mkdir()
    (plugin / "METADATA").write_text("Metadata-Version: 2.1\nName: brought\nVersion: 1\n")
    (plugin / "entry_points.txt").write_text("[tapehead.cells]\nbrought = brought_cells\n")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.syspath_prepend(str(tmp_path / "here"))
    cells = importlib.import_module("brought_cells")
    path = tmp_path / "model.keras"
    keras.Sequential([keras.Input((None, 3)), keras.layers.RNN(cells.Brought(2))]).save(path)
    installed = {**ENVIRON, "PYTHONPATH": os.pathsep.join([str(tmp_path / "installed"), ENVIRON["PYTHONPATH"]])}

    async def load(imports: tuple[str, ...], environ: dict[str, str]) -> Any:
        made = ChildWorker(replace(SMALL, imports=imports), environ, output=io.StringIO())
        await made.start()
        try:
            return await made.load(ModelRef("m", 1, str(path)))
        finally:
            await made.close()

    with pytest.raises(UnsupportedModel, match=r"brought>Brought.*--import MODULE"):
        run(load((), ENVIRON))
    assert run(load(("brought_cells",), ENVIRON)).name == "m"
    assert run(load((), installed)).name == "m"


def test_a_process_ends_when_its_parent_is_gone() -> None:
    program = (
        "import asyncio, os, sys, time\n"
        "from tapehead.worker.child import ChildWorker\n"
        "from tapehead.worker.protocol import WorkerSettings\n"
        "async def main():\n"
        "    worker = ChildWorker(WorkerSettings(engine='small_engine'), os.environ)\n"
        "    await worker.start()\n"
        "    print(worker.pid, flush=True)\n"
        "    os.kill(os.getpid(), 9)\n"
        "asyncio.run(main())\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], env=ENVIRON, stdout=subprocess.PIPE, text=True, timeout=120)
    orphan = int(ran.stdout)
    for _ in range(100):
        try:
            os.kill(orphan, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    os.kill(orphan, signal.SIGKILL)
    pytest.fail("the worker outlived its parent by ten seconds")


def test_a_childs_environment_finds_this_package_and_caches_kernels() -> None:
    settings = WorkerSettings(cache_dir="/cache")
    made = environment(settings, {"PYTHONPATH": "/mine", "TF_CPP_MIN_LOG_LEVEL": "0"})
    assert made["PYTHONPATH"].split(os.pathsep)[0] == "/mine"
    assert made["TF_CPP_MIN_LOG_LEVEL"] == "0"
    assert made["CUDA_CACHE_PATH"] == "/cache/cuda"
    assert "=/cache/xla " in made["TF_XLA_FLAGS"]


# -- without TensorFlow ------------------------------------------------------------------------------------------------

TF_FREE = (
    "tapehead.errors, tapehead.worker.protocol, tapehead.worker.child, tapehead.worker.transport, "
    "tapehead.scheduling.fleet, tapehead.residency.repository"
)


def imports_tensorflow(modules: str) -> bool:
    program = f"import sys, {modules}; print('tensorflow' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=120)
    return ran.stdout.strip() == "True"


def test_the_parents_side_of_the_seam_imports_no_tensorflow() -> None:
    assert not imports_tensorflow(TF_FREE)


def test_a_module_that_did_would_be_found_out() -> None:
    assert imports_tensorflow("tapehead.worker.station")
