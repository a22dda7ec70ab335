"""PyTorch: its own layers with one `grad` a unit, `torch.func`, and Captum's attributions."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch

from benchmarks.problems import Array, Problem
from benchmarks.recurrences import STATES, STEPS, Functions, Recurrent
from benchmarks.workloads import N_STEPS, TARGET

_BY = Functions(torch.tanh, torch.sigmoid)
_THREADS = torch.get_num_threads()
_LAYERS = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "rnn": torch.nn.RNN}


class _Network(torch.nn.Module):
    """The layer's last state, behind it the outputs where they are asked about."""

    def __init__(self, given: Problem) -> None:
        super().__init__()
        d, n = given.workload.size.features, given.workload.size.units
        self.rnn = _LAYERS[given.workload.cell.name](d, n, batch_first=True)
        self.dense = torch.nn.Linear(n, given.dense.shape[1]) if given.attributes else torch.nn.Identity()
        order = partial(_own_order, gru=given.workload.cell.name == "gru")
        own = given.recurrent_bias
        biases = given.input_bias, np.zeros_like(given.input_bias) if own is None else own
        self.rnn.load_state_dict(
            dict(zip(self.rnn.state_dict(), map(order, (given.kernel.T, given.recurrent.T, *biases)), strict=True))
        )
        if given.attributes:
            self.dense.load_state_dict({"weight": torch.tensor(given.dense.T), "bias": torch.tensor(given.dense_bias)})
        self.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, n) or (batch, outputs) for x (batch, timesteps, d)."""
        return self.dense(self.rnn(x)[0][:, -1])


def _own_order(array: Array, *, gru: bool) -> torch.Tensor:
    """The gates' rows in PyTorch's order: Keras' own but for a GRU, whose reset gate comes first."""
    if gru:
        z, r, g = np.split(array, 3)
        array = np.concatenate([r, z, g])
    return torch.tensor(np.ascontiguousarray(array))


def _rows(given: Problem) -> Callable[[], Array]:
    network, x = _Network(given), torch.tensor(given.x, requires_grad=True)

    def call() -> Array:
        h = network(x)
        last = h.shape[1] - 1
        rows = [torch.autograd.grad(h[:, i].sum(), x, retain_graph=i < last)[0] for i in range(h.shape[1])]
        return torch.stack(rows, 1).numpy()

    return call


def _saliency(given: Problem) -> Callable[[], Array]:
    network, x = _Network(given), torch.tensor(given.x, requires_grad=True)
    return lambda: torch.autograd.grad(network(x)[:, TARGET].sum(), x)[0].numpy()


def _stepped(given: Problem) -> Callable[[Any, Any], Any]:
    own = given.recurrent_bias
    recurrent = Recurrent(torch.tensor(given.recurrent), None if own is None else torch.tensor(own))
    return partial(STEPS[given.workload.cell.name], _BY, recurrent)


def _func(given: Problem) -> Callable[[], Array]:
    step, kernel, bias = _stepped(given), torch.tensor(given.kernel), torch.tensor(given.input_bias)
    count, n = STATES[given.workload.cell.name], given.workload.size.units

    def last(x: torch.Tensor) -> torch.Tensor:
        state = (torch.zeros(n),) * count
        for projected in x @ kernel + bias:
            state = step(state, projected)
        return state[0]

    run = torch.func.vmap(torch.func.jacrev(last))
    return lambda: run(torch.tensor(given.x)).numpy()


def _lag(given: Problem) -> Callable[[], Array]:
    """The states first, then the Jacobian of one step over batch and time at once."""
    step, kernel, bias = _stepped(given), torch.tensor(given.kernel), torch.tensor(given.input_bias)
    count, n = STATES[given.workload.cell.name], given.workload.size.units
    local = torch.func.vmap(torch.func.jacrev(lambda h, rest, part: step((h, *rest), part)[0]))

    def call() -> Array:
        projected = torch.tensor(given.x) @ kernel + bias
        states = [(torch.zeros(len(given.x), n),) * count]
        for timestep in range(projected.shape[1] - 1):
            states.append(step(states[-1], projected[:, timestep]))
        before = [torch.stack(parts, 1).flatten(0, 1) for parts in zip(*states, strict=True)]
        found = local(before[0], tuple(before[1:]), projected.flatten(0, 1))
        return found.unflatten(0, projected.shape[:2]).numpy()

    return call


def _captum(given: Problem) -> Callable[[], Array]:
    from captum.attr import Saliency

    method, x = Saliency(_Network(given)), torch.tensor(given.x, requires_grad=True)
    return lambda: method.attribute(x, target=TARGET, abs=False).detach().numpy()


def _captum_integrated(given: Problem) -> Callable[[], Array]:
    from captum.attr import IntegratedGradients

    method, x = IntegratedGradients(_Network(given)), torch.tensor(given.x)
    return lambda: method.attribute(x, target=TARGET, n_steps=N_STEPS).detach().numpy().astype(np.float32)


def _threaded(make: Callable[[Problem], Callable[[], Array]], given: Problem) -> Callable[[], Array]:
    """The call on one thread or on all, whichever is faster: its threads wait for each other, and a busy machine's do
    so a thousand times too long.
    """
    call = make(given)

    def on(threads: int) -> Array:
        torch.set_num_threads(threads)
        return call()

    def seconds(threads: int) -> float:
        began = time.perf_counter()
        on(threads)
        return time.perf_counter() - began

    on(1)
    return partial(on, min((1, _THREADS), key=seconds))


_MAKERS = {
    ("grad", "jacobian"): _rows,
    ("grad", "saliency"): _saliency,
    ("func", "jacobian"): _func,
    ("func", "lag"): _lag,
    ("captum", "saliency"): _captum,
    ("captum", "integrated"): _captum_integrated,
}

CALLS: Mapping[tuple[str, str], Callable[[Problem], Callable[[], Array]]] = {
    key: partial(_threaded, make) for key, make in _MAKERS.items()
}
