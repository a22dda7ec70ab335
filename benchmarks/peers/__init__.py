"""Everyone else, each in the best form found: one row a peer, one module a library.

A module's `CALLS` holds, by the peer's kind and the question, what makes a call of a problem; the call gives the answer
as NumPy. A library is imported only when its module is.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.problems import Array, Problem
from benchmarks.workloads import Workload

Call = Callable[[], Array]


def _always(_: Workload) -> bool:
    return True


def _few_tangents(workload: Workload) -> bool:
    """Forward mode carries a tangent for every entry of the input: hopeless where those are many."""
    size = workload.size
    return workload.question != "jacobian" or size.timesteps * size.features <= 4 * size.units


def _not_in_reverse(workload: Workload) -> bool:
    """The map of all norms took 1.4 s in reverse and 0.44 s forward for 60 timesteps, and grows with their square."""
    return workload.question != "norms" or workload.size.timesteps <= 100


def _short(workload: Workload) -> bool:
    """`torch.func` runs operation by operation: 22.8 s were measured at 16×100×16×128, and 8 s for every lag-1 one."""
    return workload.size.timesteps * workload.size.units <= 1000


@dataclass(frozen=True)
class Peer:
    """One way to answer, of one library. `fits` says where it ends in reasonable time."""

    name: str
    library: str
    module: str
    kind: str
    fits: Callable[[Workload], bool] = _always

    @property
    def installed(self) -> bool:
        """Whether its library is there."""
        return importlib.util.find_spec(self.library) is not None

    def maker(self, workload: Workload) -> Callable[[Problem], Call] | None:
        """What makes a call for the workload; None where this peer has no answer to it."""
        calls: Any = importlib.import_module(f"benchmarks.peers.{self.module}").CALLS
        made = calls.get((self.kind, workload.question))
        return made if made is not None and _offered(self, workload) else None


def _offered(peer: Peer, workload: Workload) -> bool:
    """PyTorch's own layers have no GRU that resets before its product."""
    layered = peer.library in ("torch", "captum") and peer.kind != "func"
    return not (layered and workload.question != "lag" and workload.cell.name == "gru-before")


PEERS = (
    Peer("TensorFlow", "tensorflow", "with_tensorflow", "graph"),
    Peer("TensorFlow XLA", "tensorflow", "with_tensorflow", "xla"),
    Peer("JAX jacrev", "jax", "with_jax", "reverse", _not_in_reverse),
    Peer("JAX jacfwd", "jax", "with_jax", "forward", _few_tangents),
    Peer("PyTorch grad", "torch", "with_torch", "grad"),
    Peer("torch.func", "torch", "with_torch", "func", _short),
    Peer("Captum", "captum", "with_torch", "captum"),
)
