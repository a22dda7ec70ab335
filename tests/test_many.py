"""Many inputs side by side: in order, so many at a time, on as many connections, none lost to another's error."""

import asyncio
import io
import re
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import msgpack
import numpy as np
import pytest

import tapehead
from scripted import MANNER, X, complaining, drive, received, refused, saying
from tapehead.client.calls import exchange, get
from tapehead.client.many import AHEAD, Many
from tapehead.client.models import PATIENCE
from tapehead.client.progress import INPUTS, LARGE, Bar
from tapehead.errors import BadParameter, BadShape, QueueFull, UnknownPoint, Unreachable


def inputs(count):
    """Arrays that hold their own index."""
    return [np.full((1, 1, 1), n, np.float32) for n in range(count)]


def index_in(body):
    return int(np.frombuffer(msgpack.unpackb(body)["inputs"]["data"], np.float32)[0])


def echoing(body, **options):
    return saying(np.full((1, 1, 1), index_in(body), np.float32), **options)


def values(answers):
    return [answer.value.item() for answer in answers]


def ended(value=None, error=None):
    future = Future()
    if error is None:
        future.set_result(value)
    else:
        future.set_exception(error)
    return future


# ---- which are asked, and whose turn it is


def test_so_many_are_asked_at_a_time_and_given_in_the_order_of_the_inputs():
    many = Many("abcde", 2)
    assert list(many.due()) == [(0, "a"), (1, "b")]
    assert list(many.due()) == []
    many.settle(1, ended("B"))
    assert not many.ready
    assert list(many.due()) == [(2, "c")]
    many.settle(0, ended("A"))
    assert (many.ready, many.give(), many.ready, many.give(), many.ready) == (True, "A", True, "B", False)


def test_the_others_go_on_while_the_first_is_slow_but_not_for_ever():
    many, drawn = Many(iter(range(100)), 3), []
    while due := list(many.due()):
        drawn += due
        for index, _ in due:
            if index:
                many.settle(index, ended(index))
    assert len(drawn) == 3 * AHEAD


def test_inputs_are_drawn_as_they_are_due():
    drawn = []
    many = Many((drawn.append(n) or n for n in range(100)), 4)
    list(many.due())
    assert drawn == [0, 1, 2, 3]


def test_it_is_over_once_every_ending_is_given():
    many = Many([0], 4)
    assert not many.over
    list(many.due())
    many.settle(0, ended("A"))
    assert not many.over
    many.give()
    assert many.over
    assert not list(Many([], 1).due())


def test_an_error_says_which_inputs_it_is_and_where_it_came_from():
    many, error = Many("ab", 2), QueueFull("full", retry_after=3, request_id="id-1")
    list(many.due())
    many.settle(0, ended("A"))
    many.settle(1, ended(error=error))
    assert many.give() == "A"
    given = many.give()
    assert (type(given), str(given)) == (QueueFull, "input 1: full")
    assert (given.detail, given.retry_after, given.request_id, given.__cause__) == ("input 1: full", 3, "id-1", error)


def test_what_is_no_error_of_ours_is_raised_at_once():
    many = Many("a", 1)
    list(many.due())
    with pytest.raises(ZeroDivisionError):
        many.settle(0, ended(error=ZeroDivisionError()))


@pytest.mark.parametrize("total", [None, 3, 99])
def test_who_asks_is_told_how_many_are_answered(total):
    told = []
    many = Many("abc", 1, total, lambda *at: told.append(at))
    while not many.over:
        for index, _ in many.due():
            many.settle(index, ended())
            many.give()
    assert told[:3] == [(1, total), (2, total), (3, total)]
    assert told[-1] == (3, 3)


def test_a_bar_of_inputs_counts_them_and_ends_its_line():
    stream = io.StringIO()
    bar = Bar(stream, INPUTS)
    for done, total in ((1, None), (2, None), (2, 2)):
        bar(done, total)
    first, second, last = stream.getvalue().split("\r")[1:]
    assert (first, second) == ("answered 1", "answered 2")
    assert re.fullmatch("answered 2/2 █+\n", last)


def test_a_full_queue_is_waited_for_and_leaves_the_retries_to_failures():
    manner = replace(MANNER, retries=1, patience=PATIENCE)
    full = refused(QueueFull(), retry_after="2")
    answer, calls = drive(exchange(get("/v2"), manner), [full, Unreachable(""), full, full, received(body=b"ok")])
    assert answer.body == b"ok"
    assert [call.wait for call in calls] == [0, 2.5, 0.5, 3.0, 4.0]
    for failure, attempts in ((full, 1 + 1 + PATIENCE), (Unreachable(""), 1 + 1)):
        tried = []
        with pytest.raises(type(failure) if isinstance(failure, Unreachable) else QueueFull):
            drive(
                exchange(get("/v2"), manner), lambda call, failure=failure, tried=tried: tried.append(call) or failure
            )
        assert len(tried) == attempts


# ---- both clients, over real HTTP


def test_answers_come_in_the_order_of_the_inputs_so_many_at_a_time_on_as_many_connections(server, connect):
    """The earlier an input, the later its answer: only the order of the inputs can have put them right."""
    server.script = lambda body: echoing(body, delay=0.02 * (6 - index_in(body) % 6))
    with connect(server.url, timeout=None) as client:
        answers = client.model("sunspots").map(inputs(24), concurrency=4, of="lstm.h", wrt="inputs")
        assert values(answers) == list(range(24))
    assert server.most == 4
    assert server.connections <= 4 + 1
    assert [path for _, path, _, _ in server.seen[1:]] == ["/v2/models/sunspots/jacobian"] * 24


def test_an_error_is_raised_in_its_place_and_the_next_goes_on_after_it(server, connect):
    server.script = lambda body: complaining(UnknownPoint("no x")) if index_in(body) == 2 else echoing(body)
    with connect(server.url, timeout=None) as client:
        answers = client.model("sunspots").map(inputs(5), "saliency", target="outputs[0]", concurrency=3)
        assert [next(answers).value.item() for _ in range(2)] == [0, 1]
        with pytest.raises(UnknownPoint, match=r"^input 2: no x"):
            next(answers)
        assert values(answers) == [3, 4]


def test_errors_stand_among_the_answers_where_they_are_asked_for(server, connect):
    """One that the server tells of, and one that is found before anything is sent."""
    server.script = lambda body: complaining(UnknownPoint("no x")) if index_in(body) == 1 else echoing(body)
    given = [*inputs(3), [np.ones((2, 2)), np.ones((2, 3))]]
    with connect(server.url, timeout=None) as client:
        endings = list(client.model("sunspots").map(given, "infer", return_exceptions=True))
    assert [type(one) for one in endings] == [tapehead.Answer, UnknownPoint, tapehead.Answer, BadShape]
    assert [str(endings[n])[:8] for n in (1, 3)] == ["input 1:", "input 3:"]


def test_a_full_queue_is_waited_for_longer_than_failures_are(server, connect):
    left = dict.fromkeys(range(4), 2)

    def reply(body):
        left[index_in(body)] -= 1
        return complaining(QueueFull()) if left[index_in(body)] >= 0 else echoing(body)

    server.script = reply
    with connect(server.url, retries=0, timeout=None) as client:
        assert values(client.model("sunspots").map(inputs(4), "infer", concurrency=2)) == [0, 1, 2, 3]
    assert set(left.values()) == {-1}


def test_nothing_is_asked_before_it_is_wanted_nor_after_it_is_closed(server, connect):
    server.script = echoing
    with connect(server.url, timeout=None) as client:
        answers = client.model("sunspots").map(inputs(100), "infer", concurrency=2)
        assert len(server.seen) == 1
        assert next(answers).value.item() == 0
        answers.close()
        with pytest.raises(StopIteration):
            next(answers)
    assert len(server.seen) <= 1 + 2 * AHEAD


def test_progress_counts_the_inputs_and_is_silent_of_their_bytes(server, connect):
    large = np.zeros((1, LARGE // 4, 1), np.float32)
    server.script = lambda _: saying(large)
    told, bytes_told = [], []
    with connect(server.url, timeout=None, progress=lambda *at: bytes_told.append(at)) as client:
        model = client.model("sunspots")
        assert len(list(model.map(inputs(3), "infer", progress=lambda *at: told.append(at)))) == 3
        assert len(list(model.map(iter(inputs(2)), "infer", progress=lambda *at: told.append(at)))) == 2
    assert told == [(1, 3), (2, 3), (3, 3), (0, 2), (1, 2), (2, 2)]
    assert bytes_told == []


def test_what_cannot_be_mapped_is_refused_before_anything_is_asked(server, connect):
    with connect(server.url, timeout=None) as client:
        model = client.model("sunspots")
        with pytest.raises(BadParameter, match="concurrency is 0"):
            model.map([X], concurrency=0)
        with pytest.raises(TypeError, match="iterable"):
            model.map(3)
    with pytest.raises(RuntimeError, match="closed"):
        model.map([X])
    assert len(server.seen) == 1


# ---- a real server, and in process


SEQUENCES = [np.random.default_rng(n).normal(size=(1 + n % 2, 4, 2)).astype(np.float32) for n in range(12)]
ASKED = {"of": "lstm.h[-1]", "wrt": "inputs"}


def connections(url):
    """The other ends of all connections to a server that are open, or were until just now."""
    here = f":{int(url.rpartition(':')[2]):04X}"
    pairs = [line.split()[1:3] for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    ends = [*pairs, *(pair[::-1] for pair in pairs)]
    return {other for end, other in ends if end.endswith(here) and not other.endswith(":0000")}


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="this system does not tell its connections so")
def test_a_real_server_sees_as_many_connections_as_requests_at_a_time(small_server):
    with tapehead.Client(small_server, timeout=None) as client:
        before, model = connections(small_server), client.model("mine")
        answers = list(model.map(SEQUENCES, concurrency=6, **ASKED))
        assert 1 <= len(connections(small_server) - before) <= 6
        np.testing.assert_allclose(answers[5].value, model.jacobian(SEQUENCES[5], **ASKED).value, atol=1e-6)
    assert [answer.value.shape for answer in answers] == [(len(x), 3, 4, 2) for x in SEQUENCES]


def test_in_process_many_inputs_are_answered_as_each_alone(small_model):
    with tapehead.Client(models={"mine": small_model}) as client:
        model = client.model("mine")
        for x, answer in zip(SEQUENCES, model.map(SEQUENCES, concurrency=3, **ASKED), strict=True):
            np.testing.assert_allclose(answer.value, model.jacobian(x, **ASKED).value, rtol=1e-5, atol=1e-7)


def test_in_process_on_an_event_loop_many_inputs_leave_the_loop_free(small_model):
    async def asking():
        async with tapehead.AsyncClient(models={"mine": small_model}) as client:
            model = await client.model("mine")
            return [answer.value.shape async for answer in model.map(SEQUENCES[:6], concurrency=3, **ASKED)]

    assert asyncio.run(asking()) == [(len(x), 3, 4, 2) for x in SEQUENCES[:6]]
