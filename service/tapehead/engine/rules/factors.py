"""What is measured of a weight's gradient, without forming it wherever its norm alone is asked.

A recurrent cell's weight gets x[t]^T z[t] from every timestep and sample. With r for what is summed over,

    |sum_r x_r^T z_r|^2 = sum_rs (x_r . x_s) (z_r . z_s)          (Gram matrices: Goodfellow 2015 for one r)

which takes r^2 (a + b) multiplications where forming the (a, b) matrix takes r a b. Contracted axes lie on `r`, kept
ones (samples, then timesteps) are flattened into one in front.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import tensorflow as tf

from tapehead.engine.rules.cells import Keep, Tensor

# What the gradients that are formed at once may take, where each is measured and dropped.
FORMED_BYTES = 16 << 20

NORM, STATISTICS = "norm", ("mean", "minimum", "maximum", "zeros")

Measures = dict[str, Tensor]


@dataclass(frozen=True)
class Factors:
    """Some columns or rows of a weight's cotangents as products not multiplied out, one for each call of the layer:
    `lefts` (timesteps, rows, a), None where it is all ones and drops its axis, and `rights` (timesteps, rows, b)."""

    lefts: tuple[Tensor | None, ...]
    rights: tuple[Tensor, ...]

    def each(self, change: Callable[[Tensor], Tensor]) -> Factors:
        """Every factor changed alike."""
        lefts = tuple(None if left is None else change(left) for left in self.lefts)
        return Factors(lefts, tuple(map(change, self.rights)))


@dataclass(frozen=True)
class Factored:
    """A weight's cotangents as the factors of its columns (`beside`) or of its rows (`stacked`)."""

    parts: tuple[Factors, ...]
    lie: Literal["beside", "stacked"] = "beside"

    def each(self, change: Callable[[Tensor], Tensor]) -> Factored:
        """Every factor changed alike."""
        return replace(self, parts=tuple(part.each(change) for part in self.parts))

    def __add__(self, other: Factored) -> Factored:
        """The sum with what another call of the same layer gives."""
        pairs = zip(self.parts, other.parts, strict=True)
        return replace(self, parts=tuple(Factors(a.lefts + b.lefts, a.rights + b.rights) for a, b in pairs))


@dataclass(frozen=True)
class Measuring(Keep):
    """Keeps a cell's products as they are, and measures what other weights get entry by entry.

    `gates` are how many each variable's last axis is split into (none: 0), by its id; `formed` the variables whose
    cotangents are wanted themselves.
    """

    gates: Mapping[int, int] = field(default_factory=dict)
    formed: frozenset[int] = frozenset()
    statistics: bool = False

    def contracted(self, left: Tensor | None, right: Tensor) -> Any:
        """The two factors; the stack is of one."""
        return Factored((Factors((left,), (right[:, :, 0],)),))

    def beside(self, parts: Sequence[Factored]) -> Any:
        """A weight's columns."""
        return Factored(tuple(part for whole in parts for part in whole.parts))

    def stacked(self, parts: Sequence[Factored]) -> Any:
        """A weight's rows."""
        return Factored(tuple(part for whole in parts for part in whole.parts), "stacked")

    def entry(self, variable: Any, cotangents: Tensor) -> Any:
        """The measures of one entry, or the entry."""
        if id(variable) in self.formed:
            return cotangents
        return self.measured(variable, cotangents, 0)

    def entry_spec(self, variable: Any, dtype: Any) -> Any:
        """The shapes of what `entry` gives."""
        if id(variable) in self.formed:
            return tf.TensorSpec(variable.shape, dtype)
        return self.specs(variable, dtype)

    def measured(self, variable: Any, cotangents: Tensor, lead: int) -> Measures:
        """The measures of (*lead axes, *weight) cotangents: (*lead axes, gates or nothing)."""
        return measures(cotangents, lead, self.gates.get(id(variable), 0), statistics=self.statistics)

    def specs(self, variable: Any, dtype: Any, lead: tuple[None, ...] = ()) -> dict[str, Any]:
        """The shapes of what `measured` gives."""
        gates = self.gates.get(id(variable), 0)
        names = (NORM, *(STATISTICS if self.statistics else ()))
        return {name: tf.TensorSpec([*lead, *([gates] if gates else [])], dtype) for name in names}


def measures(value: Tensor, lead: int, gates: int, *, statistics: bool) -> Measures:
    """The Frobenius norm of each (*weight) behind `lead` axes, of each gate's columns where there are gates; with
    `statistics` the mean, the extremes and the share of entries that are exactly 0."""
    flat = _entries(value, lead, gates)
    found = {NORM: norm(flat)}
    if statistics:
        zeros = tf.reduce_mean(tf.cast(tf.equal(flat, 0), flat.dtype), axis=-1)
        extremes = tf.reduce_min(flat, axis=-1), tf.reduce_max(flat, axis=-1)
        found |= dict(zip(STATISTICS, (tf.reduce_mean(flat, axis=-1), *extremes, zeros), strict=True))
    return found


def norm(value: Tensor) -> Tensor:
    """The Euclidean norm over the last axis; scaled, since the square of 1e-23 is 0 in float32."""
    largest = tf.reduce_max(tf.abs(value), axis=-1)
    scale = tf.where((largest > 0) & tf.math.is_finite(largest), largest, tf.ones([], value.dtype))
    scaled = value / scale[..., None]
    return scale * tf.sqrt(tf.reduce_sum(scaled * scaled, axis=-1))


def _entries(value: Tensor, lead: int, gates: int) -> Tensor:
    """(*lead, *weight) as (*lead, entries), or (*lead, gates, entries)."""
    shape = tf.shape(value)[:lead]
    if not gates:
        return tf.reshape(value, tf.concat([shape, [-1]], axis=0))
    apart = tf.reshape(value, tf.concat([shape, [-1, gates, value.shape[-1] // gates]], axis=0))
    turned = tf.transpose(apart, [*range(lead), lead + 1, lead, lead + 2])
    return tf.reshape(turned, tf.concat([shape, [gates, -1]], axis=0))


def arranged(factors: Factors, keep: Keep) -> tuple[Tensor | None, Tensor]:
    """The factors as (kept, r, a), or None, and (kept, r, b): every call's samples and timesteps on `r`."""
    lefts = [left for left in factors.lefts if left is not None]
    return (_on_r(lefts, keep) if lefts else None), _on_r(factors.rights, keep)


def _on_r(values: Sequence[Tensor], keep: Keep) -> Tensor:
    """(timesteps, rows, n) of each call as (kept, r, n)."""
    if keep.timesteps:
        longest = tf.reduce_max([tf.shape(value)[0] for value in values])
        values = [tf.pad(value, [[0, longest - tf.shape(value)[0]], [0, 0], [0, 0]]) for value in values]
    if keep.rows:
        values = [tf.transpose(value, [1, 0, 2]) for value in values]
    last = values[0].shape[-1]
    if keep.rows and keep.timesteps:
        return tf.stack([tf.reshape(value, [-1, last]) for value in values], axis=1)
    if keep.rows or keep.timesteps:
        return tf.concat(values, axis=1)
    return tf.concat([tf.reshape(value, [1, -1, last]) for value in values], axis=1)


def lead_shape(factored: Factored, keep: Keep) -> Tensor:
    """The lengths of the kept axes: samples, then timesteps (the longest call's)."""
    rights = factored.parts[0].rights
    timesteps = tf.reduce_max([tf.shape(right)[0] for right in rights])
    both = ([tf.shape(rights[0])[1]] if keep.rows else []) + ([timesteps] if keep.timesteps else [])
    return tf.stack(both) if both else tf.zeros([0], tf.int32)


def formed(pairs: Sequence[tuple[Tensor | None, Tensor]], lie: str) -> Tensor:
    """The cotangents (kept, *weight) that arranged factors multiply out to."""
    blocks = [
        tf.reduce_sum(right, axis=1) if left is None else tf.matmul(left, right, transpose_a=True)
        for left, right in pairs
    ]
    return tf.concat(blocks, axis=-1) if lie == "beside" else tf.stack(blocks, axis=-2)


def gram_norms(pairs: Sequence[tuple[Tensor, Tensor]], gates: int) -> Measures:
    """The norms (kept, gates or nothing) from Gram matrices.

    They are summed up in float64: what cancels between the products costs a norm's square twice the digits.
    """
    width = sum(right.shape[-1] for _, right in pairs)
    squares = []
    for left, right in pairs:
        x, z = tf.cast(left, tf.float64), tf.cast(right, tf.float64)
        own = max(1, round(gates * right.shape[-1] / width))
        z = tf.reshape(z, [tf.shape(z)[0], tf.shape(z)[1], own, z.shape[-1] // own])
        products = tf.einsum("krgn,ksgn->kgrs", z, z) * tf.matmul(x, x, transpose_b=True)[:, None]
        squares.append(tf.reduce_sum(products, axis=[2, 3]))
    whole = tf.concat(squares, axis=-1)
    square = whole if gates else tf.reduce_sum(whole, axis=-1)
    # Rounding may leave a square below 0; where a factor is not finite it stays so.
    return {NORM: tf.cast(tf.sqrt(tf.where(square < 0, tf.zeros_like(square), square)), pairs[0][1].dtype)}


def in_chunks(
    pairs: Sequence[tuple[Tensor | None, Tensor]],
    bytes_each: int,
    specs: Mapping[str, Any],
    work: Callable[[Sequence[tuple[Tensor | None, Tensor]]], Measures],
) -> Measures:
    """What `work` gives for arranged factors, some of the kept entries at a time."""
    kept = tf.shape(pairs[0][1])[0]
    size = tf.minimum(kept, max(1, FORMED_BYTES // bytes_each))
    count = (kept + size - 1) // size

    def apart(value: Tensor) -> Tensor:
        padded = tf.pad(value, [[0, count * size - kept], [0, 0], [0, 0]])
        return tf.reshape(padded, [count, size, tf.shape(value)[1], value.shape[2]])

    flat = [value for pair in pairs for value in pair if value is not None]

    def of_chunk(values: Sequence[Tensor]) -> Measures:
        each = iter(values)
        return work([(None if left is None else next(each), next(each)) for left, _ in pairs])

    found = tf.map_fn(of_chunk, [apart(value) for value in flat], fn_output_signature=dict(specs))
    joined: Measures = tf.nest.map_structure(
        lambda value: tf.reshape(value, tf.concat([[count * size], value.shape[2:]], axis=0))[:kept], found
    )
    return joined
