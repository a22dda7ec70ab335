"""The benchmarks: everyone answers the same question, and the arithmetic of the table. Nothing here is timed."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from benchmarks.contest import Disagreement, Effort, agree, medians
from benchmarks.growth import exponents
from benchmarks.limits import Limit, share
from benchmarks.ours import ours
from benchmarks.peers import PEERS, Peer
from benchmarks.pictures import draw
from benchmarks.problems import Array, problem
from benchmarks.rows import OURS, Row
from benchmarks.run import _kept, _named, _write
from benchmarks.workloads import CELLS, CURVES, EVERY, TIMESTEPS, UNITS, WORKLOADS, Asked, Size, Workload

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
    assert len(EVERY) == len(WORKLOADS) + sum(map(len, CURVES.values()))


def test_a_row_says_what_it_falls_short_of() -> None:
    asked = Asked(2.0, rivals=("a", "b"), shares=(("peak", 0.5),), mebibytes=100)
    workload = Workload("w", "jacobian", CELLS["lstm"], TINY, asked)
    good = Row(workload, {OURS: 1.0, "a": 3.0, "b": 2.0, "other": 0.1}, shares={"peak": 0.5}, peak_mib=99.0)
    assert good.short == []
    bad = Row(workload, {OURS: 1.0, "a": 3.0, "b": 1.5}, shares={"peak": 0.25}, peak_mib=101.0)
    assert bad.short == ["1.50 of 2 times a and b", "25% of the peak, not 50%", "101 MiB, not 100"]
    assert Row(workload, {OURS: 1.0, "other": 0.1}).short == []


def test_whom_a_workload_is_held_against_is_among_the_peers() -> None:
    named = {name for one in WORKLOADS for name in one.asked.rivals}
    assert named <= {peer.name for peer in PEERS}
    assert {limit for one in WORKLOADS for limit, _ in one.asked.shares} == {"peak", "step", "copy"}


def curve(exponent: float, name: str = OURS) -> list[Row]:
    return [Row(one, {name: 0.5 * one.size.timesteps**exponent}) for one in CURVES["timesteps"]]


def test_a_power_law_is_fitted_exactly() -> None:
    assert exponents(curve(1.25)) == {OURS: pytest.approx(1.25)}
    bent = [*curve(0.0)[:3], *curve(2.0)[3:]]
    assert exponents(bent, 300) == {OURS: pytest.approx(2.0)}
    assert exponents(bent[:2]) == {}


def test_a_run_may_be_made_in_parts(tmp_path: Path) -> None:
    rows = [Row(one, {OURS: 2.0, "a": 3.0}, {"b": "slow"}, [], {"peak": 1.0}, {"peak": 0.5}) for one in WORKLOADS[:3]]
    _write(tmp_path / "results.json", datetime.now(UTC), rows)
    kept = _kept(tmp_path / "results.json", [WORKLOADS[1]])
    assert kept == [rows[0], rows[2]]
    assert _kept(tmp_path / "absent.json", []) == []


def test_a_whole_name_means_that_workload_alone() -> None:
    assert [name for name, one in EVERY.items() if _named(one, ["timesteps-10"])] == ["timesteps-10"]
    assert [name for name, one in EVERY.items() if _named(one, ["timesteps"])] == [f"timesteps-{n}" for n in TIMESTEPS]


def test_a_plot_has_a_line_for_everyone_who_answered(tmp_path: Path) -> None:
    rows = [Row(one, {OURS: 1.0 + n, **({"Captum": 2.0} if n else {})}) for n, one in enumerate(CURVES["units"])]
    figure = draw(rows, "units", tmp_path / "units.png")
    drawn = {line.get_label(): line.get_xydata().tolist() for line in figure.axes[0].lines}
    assert drawn[OURS] == [[n, 1.0 + i] for i, n in enumerate(UNITS)]
    assert drawn["Captum"] == [[n, 2.0] for n in UNITS[1:]]
    assert (tmp_path / "units.png").stat().st_size > 10_000
