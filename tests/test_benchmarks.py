"""The benchmarks: everyone answers the same question, and the arithmetic of the table. Nothing here is timed."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from benchmarks.contest import Disagreement, Effort, agree, medians
from benchmarks.limits import Limit, share
from benchmarks.ours import ours
from benchmarks.peers import PEERS, Peer
from benchmarks.problems import Array, problem
from benchmarks.rows import OURS, Row
from benchmarks.workloads import CELLS, CURVES, WORKLOADS, Size, Workload

TINY = Size(2, 4, 3, 5)
SLOW = {"TensorFlow", "TensorFlow XLA"}
QUESTIONS = dict.fromkeys((workload.question, workload.cell.name) for workload in WORKLOADS)


def tiny(question: str, cell: str) -> Workload:
    return Workload("tiny", question, CELLS[cell], TINY)  # type: ignore[arg-type]


@cache
def own(question: str, cell: str) -> Array:
    return ours(problem(tiny(question, cell)))()


@pytest.mark.parametrize(
    "peer", [pytest.param(one, id=one.name, marks=[pytest.mark.slow] * (one.name in SLOW)) for one in PEERS]
)
def test_a_peer_gives_our_answer_to_all_it_is_asked(peer: Peer) -> None:
    if not peer.installed:
        pytest.skip(f"{peer.library} is not installed: pip install 'tapehead[bench]'")
    answered = 0
    for question, cell in QUESTIONS:
        workload = tiny(question, cell)
        make = peer.maker(workload)
        if make is not None:
            agree(make(problem(workload))(), own(question, cell), f"{peer.name}, {question} of {cell}")
            answered += 1
    assert answered


@pytest.mark.parametrize(("question", "cell"), QUESTIONS)
def test_an_answer_has_the_shape_its_copy_is_measured_with(question: str, cell: str) -> None:
    assert own(question, cell).shape == tiny(question, cell).answer_shape


def test_answers_apart_by_more_than_a_ten_thousandth_are_refused() -> None:
    expected = np.array([1.0, 10.0], np.float32)
    agree(expected + 0.0005, expected, "a peer")
    for wrong in (expected + 0.01, expected[:1], expected * np.nan):
        with pytest.raises(Disagreement, match="a peer"):
            agree(wrong, expected, "a peer")


def test_everyone_is_called_in_turns() -> None:
    order: list[str] = []
    medians({name: lambda name=name: order.append(name) for name in "ab"}, Effort(2, 2, 60))
    calls = "".join(order).removeprefix("aaaabbbb")
    turn = len(calls) // 4
    assert calls == ("a" * turn + "b" * turn) * 2


def test_the_least_work_of_an_lstms_jacobian() -> None:
    batch, timesteps, d, n = size = Size(16, 50, 16, 256)
    assert Workload("w", "jacobian", CELLS["lstm"], size).flops == 2 * batch * timesteps * n * 2 * n * (n + d)


def test_the_share_of_a_limit_is_the_least_time_over_ours() -> None:
    workload = Workload("w", "jacobian", CELLS["lstm"], TINY)
    assert share(workload, Limit(int, 2 * workload.flops), 0.2, 0.4) == pytest.approx(0.25)
    assert share(workload, Limit(int, 0), 0.1, 0.4) == pytest.approx(0.25)


def test_the_ratio_is_the_fastest_peers_over_ours() -> None:
    row = Row(WORKLOADS[0], {OURS: 2.0, "quick": 5.0, "slow": 9.0})
    assert (row.fastest, row.ratio) == ("quick", 2.5)
    assert Row(WORKLOADS[0], {OURS: 2.0}).ratio is None


def test_no_two_workloads_share_a_name() -> None:
    names = [one.name for one in (*WORKLOADS, *(one for curve in CURVES.values() for one in curve))]
    assert len(set(names)) == len(names)
