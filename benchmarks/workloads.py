"""What is measured: each workload's size, cell and question, and the least work that its answer takes.

The least work counts, for each vector of the stack and each timestep, the products that remain once a step's local
Jacobian has been formed elementwise; `Cell.products` are those n×n and n×d matrices. One multiply and add is two
operations.

    LSTM      ∂c/∂h and ∂h/∂h, whatever the gates           2 n² + 2 n d
    GRU       reset after the product: ∂h/∂h                1 n² + 1 n d
              reset before it: it sits between two products  2 n² + 2 n d
    SimpleRNN ∂h/∂h                                         1 n² + 1 n d
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

Question = Literal["jacobian", "lag", "norms", "saliency", "integrated"]

N_STEPS = 50
"""The points of the integrated gradients' path."""
TARGET = 1
"""The output that attributions are asked for."""
OUTPUTS = 3


class Size(NamedTuple):
    """How large a workload is."""

    batch: int
    timesteps: int
    features: int
    units: int

    def __str__(self) -> str:
        return "×".join(map(str, self))


@dataclass(frozen=True)
class Cell:
    """A kind of recurrent cell: how many gates its kernel holds, and the matrix products of its least work."""

    name: str
    gates: int
    products: int


CELLS: Mapping[str, Cell] = {
    cell.name: cell for cell in (Cell("lstm", 4, 2), Cell("gru", 3, 1), Cell("gru-before", 3, 2), Cell("rnn", 1, 1))
}
"""`gru` resets after the recurrent product (`reset_after=True`), `gru-before` before it."""


@dataclass(frozen=True)
class Asked:
    """What a row is to reach; nothing where nothing is said.

    Args:
        ratio: how many times faster ours is to be than the fastest of `rivals`, or of all peers where none is named.
        shares: the least share of each of the machine's limits.
        mebibytes: the most memory above the model.
    """

    ratio: float | None = None
    rivals: tuple[str, ...] = ()
    shares: tuple[tuple[str, float], ...] = ()
    mebibytes: float | None = None


@dataclass(frozen=True)
class Workload:
    """One row of the table."""

    name: str
    question: Question
    cell: Cell
    size: Size
    asked: Asked = Asked()

    @property
    def flops(self) -> int:
        """The least floating-point operations of the answer; for attributions, a run forward and one back."""
        batch, timesteps, d, n = self.size
        vectors = self.cell.products * n * (n + d)
        match self.question:
            case "jacobian":
                return 2 * batch * timesteps * n * vectors
            case "norms":
                # n vectors from each timestep to the first, half of all the pairs.
                return 2 * batch * (timesteps * timesteps // 2) * n * self.cell.products * n * n
            case "lag":
                return 0
        points = N_STEPS if self.question == "integrated" else 1
        return 2 * 2 * points * batch * timesteps * self.cell.gates * n * (n + d)

    @property
    def answer_shape(self) -> tuple[int, ...]:
        """The shape of the answer."""
        batch, timesteps, d, n = self.size
        return {
            "jacobian": (batch, n, timesteps, d),
            "lag": (batch, timesteps, n, n),
            "norms": (batch, timesteps, timesteps),
        }.get(self.question, (batch, timesteps, d))


PARAMETERS: Mapping[Question, tuple[str, Mapping[str, Any]]] = {
    "jacobian": ("jacobian", {"of": "rnn.h[-1]", "wrt": "inputs"}),
    "lag": ("jacobian", {"of": "rnn.h", "wrt": "rnn.h", "lag": 1}),
    "norms": ("jacobian", {"of": "rnn.h", "wrt": "rnn.h", "reduce": "norm"}),
    "saliency": ("saliency", {"target": f"outputs[{TARGET}]"}),
    "integrated": (
        "saliency",
        {"target": f"outputs[{TARGET}]", "method": "integrated_gradients", "n_steps": N_STEPS},
    ),
}
"""The operation and its parameters that put a question to ours."""

_SMALL, _WIDE, _LONG, _LARGE = Size(8, 20, 5, 32), Size(64, 50, 8, 64), Size(16, 100, 16, 128), Size(16, 50, 16, 256)
_SIZES = (_SMALL, _WIDE, _LONG, _LARGE)
_ASKED: Mapping[str, tuple[Asked, ...]] = {
    "lstm": (
        Asked(1.0, rivals=("JAX jacrev", "JAX jacfwd")),
        Asked(3.0),
        Asked(2.5),
        Asked(2.4, shares=(("peak", 0.6), ("step", 0.75))),
    ),
    "gru": (Asked(2.5),) * 4,
    "gru-before": (Asked(1.4),) * 4,
    "rnn": (Asked(1.3),) * 4,
}


def _jacobians() -> list[Workload]:
    return [
        Workload(f"jacobian-{cell}-{size}", "jacobian", CELLS[cell], size, asked)
        for cell, each in _ASKED.items()
        for size, asked in zip(_SIZES, each, strict=True)
    ]


_OF_A_COPY = Asked(15.0, rivals=("TensorFlow",), shares=(("copy", 1 / 3),))
_OF_CAPTUM = ("Captum",)


TIMESTEPS, UNITS = (10, 30, 100, 300, 1000, 2000), (16, 32, 64, 128, 256, 512)

SERVED = Workload("served", "jacobian", CELLS["lstm"], Size(1, 20, 5, 32))
"""The small question that servers are asked under load."""
WORKLOADS: tuple[Workload, ...] = (
    *_jacobians(),
    Workload("lag-lstm", "lag", CELLS["lstm"], _LONG, _OF_A_COPY),
    Workload("saliency-lstm", "saliency", CELLS["lstm"], Size(8, 100, 16, 128), Asked(1.0, _OF_CAPTUM)),
    Workload("integrated-lstm", "integrated", CELLS["lstm"], Size(8, 100, 16, 128), Asked(2.5, _OF_CAPTUM)),
    Workload("norms-lstm", "norms", CELLS["lstm"], Size(4, 500, 8, 64), Asked(3.0, mebibytes=200.0)),
)
CURVES: Mapping[str, tuple[Workload, ...]] = {
    "timesteps": tuple(Workload(f"timesteps-{n}", "jacobian", CELLS["lstm"], Size(4, n, 8, 64)) for n in TIMESTEPS),
    "units": tuple(Workload(f"units-{n}", "jacobian", CELLS["lstm"], Size(4, 50, 8, n)) for n in UNITS),
}
"""The Jacobian's cost against one length, the others fixed: what the two plots draw."""
GROWTH = 1.05
"""The largest exponent that is asked of the cost against timesteps."""
EVERY: Mapping[str, Workload] = {
    one.name: one for one in (*WORKLOADS, *(one for curve in CURVES.values() for one in curve))
}
