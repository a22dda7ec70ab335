"""One step of each cell, for any library whose arrays know `@`, `*` and slices; weights laid out as Keras has them.

`projected` is the step's input already multiplied, x W + b, so that all timesteps share one product. `tanh` and
`sigmoid` come from the library. The state is (h, c) for an LSTM, (h,) for the others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

Array = Any
State = tuple[Array, ...]


class Functions(NamedTuple):
    """What a library calls the two activations."""

    tanh: Callable[[Array], Array]
    sigmoid: Callable[[Array], Array]


class Recurrent(NamedTuple):
    """What a step multiplies its state by; the second bias is there with a GRU that resets after its product."""

    kernel: Array
    bias: Array | None


def lstm(by: Functions, u: Recurrent, state: State, projected: Array) -> State:
    """i, f, g, o = x W + h U + b;  c' = f c + i g;  h' = o tanh(c')."""
    h, c = state
    i, f, g, o = _gates(projected + h @ u.kernel, 4)
    c = by.sigmoid(f) * c + by.sigmoid(i) * by.tanh(g)
    return by.sigmoid(o) * by.tanh(c), c


def gru(by: Functions, u: Recurrent, state: State, projected: Array) -> State:
    """h' = z h + (1 - z) tanh(x W + r (h U + b))."""
    (h,) = state
    z, r, g = _gates(projected, 3)
    hz, hr, hg = _gates(h @ u.kernel + u.bias, 3)
    z = by.sigmoid(z + hz)
    return (z * h + (1 - z) * by.tanh(g + by.sigmoid(r + hr) * hg),)


def gru_before(by: Functions, u: Recurrent, state: State, projected: Array) -> State:
    """h' = z h + (1 - z) tanh(x W + (r h) U)."""
    (h,) = state
    n = h.shape[-1]
    z, r, g = _gates(projected, 3)
    hz, hr = _gates(h @ u.kernel[:, : 2 * n], 2)
    z = by.sigmoid(z + hz)
    return (z * h + (1 - z) * by.tanh(g + (by.sigmoid(r + hr) * h) @ u.kernel[:, 2 * n :]),)


def rnn(by: Functions, u: Recurrent, state: State, projected: Array) -> State:
    """h' = tanh(x W + h U + b)."""
    (h,) = state
    return (by.tanh(projected + h @ u.kernel),)


STEPS: Mapping[str, Callable[[Functions, Recurrent, State, Array], State]] = {
    "lstm": lstm,
    "gru": gru,
    "gru-before": gru_before,
    "rnn": rnn,
}
STATES: Mapping[str, int] = {"lstm": 2, "gru": 1, "gru-before": 1, "rnn": 1}


def _gates(array: Array, count: int) -> list[Array]:
    n = array.shape[-1] // count
    return [array[..., k * n : (k + 1) * n] for k in range(count)]
