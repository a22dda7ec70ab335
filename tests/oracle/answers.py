"""Points written as text, looked up in the values and derivatives that a walk gave."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Index = tuple[Any, ...]


def split(text: str) -> tuple[str, Index]:
    """A point's name and its index: `lstm.h[-1, 3]` is `lstm.h` and `(-1, 3)`."""
    name, bracket, rest = text.partition("[")
    index = eval("np.s_[" + rest, {"np": np}) if bracket else ()
    return name, index if isinstance(index, tuple) else (index,)


@dataclass(frozen=True)
class Answer:
    """What was found for a batch: values by point, and blocks[of][wrt] = d of / d wrt as (batch, *of axes, *wrt axes).

    `valid` is (batch, timesteps) by point, for the points that have timesteps; `order` tells the recurrent ones: +1, or
    -1 where they run backwards in time. `aliases` are other names of the same points, `inputs` and `outputs` too.
    """

    values: Mapping[str, np.ndarray]
    blocks: Mapping[str, Mapping[str, np.ndarray]]
    valid: Mapping[str, np.ndarray]
    order: Mapping[str, int]
    aliases: Mapping[str, str]

    def value(self, point: str) -> np.ndarray:
        """The value of a point."""
        name, index = self._split(point)
        return np.stack([row[self._of_row(name, index, i)] for i, row in enumerate(self.values[name])])

    def jacobian(self, of: str, wrt: str) -> np.ndarray:
        """d of / d wrt, axes (batch, *of axes, *wrt axes)."""
        (of, of_index), (wrt, wrt_index) = self._split(of), self._split(wrt)
        rank = self.values[of].ndim - 1
        rows = []
        for i, block in enumerate(self.blocks[of][wrt]):
            rows.append(block[(slice(None),) * rank + self._of_row(wrt, wrt_index, i)])
            rows[i] = rows[i][self._of_row(of, of_index, i)]
        return np.stack(rows)

    def lag(self, of: str, wrt: str, k: int) -> np.ndarray:
        """d of[t] / d wrt[p] at every t, p the k-th valid timestep before t in the order that wrt's layer runs."""
        (of, index), (wrt, _) = self._split(of), self._split(wrt)
        whole = np.stack([self._lag_row(of, wrt, k, i) for i in range(len(self.values[of]))])
        return np.stack([row[self._of_row(of, index, i)] for i, row in enumerate(whole)])

    def where_valid(self, of: str, values: np.ndarray) -> np.ndarray:
        """With zeros where a layer's output is of an invalid timestep: it gives nothing there. States repeat theirs."""
        name, index = self._split(of)
        if index or f"{name}.final" in self.values or name not in self.valid:
            return values
        valid = self.valid[name]
        return values * valid.reshape(*valid.shape, *[1] * (values.ndim - 2))

    def _lag_row(self, of: str, wrt: str, k: int, row: int) -> np.ndarray:
        block = self.blocks[of][wrt][row]
        units_of = self.values[of].ndim - 2
        order = np.flatnonzero(self.valid[wrt if wrt in self.order else of][row])[:: self.order.get(wrt, 1)].tolist()
        entries = []
        for t in range(block.shape[0]):
            if t in order and order.index(t) >= k:
                entry = block[(t,) + (slice(None),) * units_of + (order[order.index(t) - k],)]
            elif t in order and f"{wrt}.initial" in self.values:
                entry = self.blocks[of][f"{wrt}.initial"][row, t]
            else:
                entry = np.zeros_like(block[(t,) + (slice(None),) * units_of + (0,)])
            entries.append(entry)
        return np.stack(entries)

    def _split(self, point: str) -> tuple[str, Index]:
        name, index = split(point)
        return self.aliases.get(name, name), index

    def _of_row(self, name: str, index: Index, row: int) -> Index:
        """The index with its time part counted from the row's own last valid timestep."""
        if not index or index[0] is Ellipsis or name not in self.valid:
            return index
        return (own_time(index[0], int(np.flatnonzero(self.valid[name][row])[-1]) + 1), *index[1:])


def own_time(index: int | slice, timesteps: int) -> int | slice:
    """A time index with its negative parts counted from the end of a sequence of so many timesteps."""
    if isinstance(index, int):
        return index + timesteps if index < 0 else index
    start, stop = index.start, index.stop
    relative = any(bound is not None and bound < 0 for bound in (start, stop))
    start = start + timesteps if start is not None and start < 0 else start
    stop = stop + timesteps if stop is not None and stop < 0 else stop
    if relative and stop is None and (index.step or 1) > 0:
        stop = timesteps
    return slice(start, stop, index.step)
