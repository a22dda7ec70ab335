"""What the machine can do at most, as calls to be timed beside the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from benchmarks.workloads import Workload

_SIDE = 2048
_STEPS = 20
"""Timesteps whose products are one call, so that it is the products that are timed and not the call."""


class Limit(NamedTuple):
    """A call that does nothing but what bounds an answer: `flops` operations, or a copy of its bytes where 0."""

    call: Callable[[], object]
    flops: int


def limits(workload: Workload) -> Mapping[str, Limit]:
    """What bounds the workload: matrix products for what computes, a copy for what is mostly answer.

    peak   a product of 2048×2048 matrices
    step   the products of a Jacobian's timesteps with no chain between them, for each sample (m, n) by (n, k n)
    copy   the answer copied into memory that was touched before
    """
    if workload.question == "lag":
        return {"copy": _copy(workload)}
    found = {"peak": _product((_SIDE, _SIDE), (_SIDE, _SIDE))}
    if workload.question == "jacobian":
        batch, _, _, n = workload.size
        found["step"] = _product((_STEPS * batch, n, n), (_STEPS * batch, n, workload.cell.products * n))
    return found


def share(workload: Workload, limit: Limit, limit_s: float, ours_s: float) -> float:
    """How much of the limit ours reaches, at most 1."""
    floor = limit_s * workload.flops / limit.flops if limit.flops else limit_s
    return floor / ours_s


def _product(left: tuple[int, ...], right: tuple[int, ...]) -> Limit:
    draw = np.random.default_rng(0)
    a, b = (tf.constant(draw.standard_normal(shape), tf.float32) for shape in (left, right))
    run = tf.function(tf.matmul)
    return Limit(lambda: run(a, b)[..., 0, 0].numpy(), 2 * int(np.prod(left)) * right[-1])


def _copy(workload: Workload) -> Limit:
    source, target = (np.ones(workload.answer_shape, np.float32) for _ in range(2))
    return Limit(lambda: np.copyto(target, source), 0)
