"""A recurrent layer's loop over its cell: forward, keeping what derivatives need, and back for a stack of cotangents.

Arrays here are in run order, timesteps first: (timesteps, rows, …); index 0 is the timestep that the layer runs first.
A masked timestep changes no state and returns no output of its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import tensorflow as tf

from tapehead.engine.rules.cells import CellRule, Keep, Kept, Local, Nudges, Pulled, Tensor, forming_pays


@dataclass(frozen=True)
class Run:
    """A forward sweep through a recurrent layer: states and outputs after each timestep, and what the rule kept."""

    rule: CellRule
    inputs: Tensor
    valid: Tensor | None
    initial: tuple[Tensor, ...]
    states: tuple[Tensor, ...]
    outputs: Tensor
    kept: Kept
    nudges: Nudges
    made: Local | None = None

    @property
    def previous(self) -> tuple[Tensor, ...]:
        """The states before each timestep."""
        pairs = zip(self.initial, self.states, strict=True)
        return tuple(tf.concat([first[None], states[:-1]], axis=0) for first, states in pairs)

    @property
    def local(self) -> Local:
        """Every step's own numbers: those made in the steps, else made here for all timesteps at once."""
        if self.made is not None:
            return self.made
        return self.rule.local(self.inputs, self.previous, self.kept, self.nudges)

    @property
    def final(self) -> tuple[Tensor, ...]:
        """The states after the last timestep."""
        return tuple(states[-1] for states in self.states)


@dataclass(frozen=True)
class Spike:
    """Cotangents that arrive at one timestep each: stack entry j of row r is `values[r, j]`, at run time `times[r, j]`.

    `values` is (rows or 1, m, *state), `times` (rows or 1, m). `once` says that all those times are one.
    """

    values: Tensor
    times: Tensor
    once: bool = False

    def at(self, time: Tensor) -> Tensor:
        """The cotangents of one timestep."""
        here = self.times == time
        for _ in self.values.shape[2:]:
            here = here[..., None]
        return tf.where(here, self.values, tf.zeros([], self.values.dtype))


@dataclass(frozen=True)
class Wave:
    """Cotangents that arrive at every timestep: (timesteps, rows, m, *state)."""

    values: Tensor

    def at(self, time: Tensor) -> Tensor:
        """The cotangents of one timestep."""
        return self.values[time]


Seed = Spike | Wave


@dataclass(frozen=True)
class Seeds:
    """The cotangents that reach a recurrent layer: by state or gate name, at its output, at its final states."""

    points: Mapping[str, Seed] = field(default_factory=dict)
    output: Seed | None = None
    final: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Adjoint:
    """The total derivatives that a sweep back found.

    By state or gate name (timesteps, rows, m, *state); of the inputs likewise, where they were asked for; of the
    initial states (rows, m, *state); and the rule's `rights` where they were asked for.
    """

    points: Mapping[str, Tensor]
    inputs: Tensor | None
    initial: tuple[Tensor, ...]
    rights: Mapping[str, Tensor]


def forward(
    rule: CellRule,
    inputs: Tensor,
    initial: tuple[Tensor, ...],
    valid: Tensor | None,
    nudges: Nudges,
    *,
    zero_masked: bool = False,
) -> Run:
    """Runs the cell over (timesteps, rows, …) inputs; `valid` is (timesteps, rows) or None, nudges are laid out alike.

    At a masked timestep the output is 0 with `zero_masked`, else the one before it (0 before the first). What needs no
    state is made for all timesteps at once, and so are the steps' own numbers later; but each in its step where they
    would come back from memory.
    """
    timesteps, projected = tf.shape(inputs)[0], rule.project(inputs)
    in_steps = _outgrows_cache(projected.shape, projected.dtype)

    def step(time: Tensor | int, states: tuple[Tensor, ...]) -> tuple[Any, ...]:
        given, moved = inputs[time], _at(nudges, time)
        found = rule.step(rule.project(given) if in_steps else projected[time], states, moved)
        return (*found, rule.local(given, states, found[2], moved)) if in_steps else found

    example = step(0, initial)
    arrays = [_array(value, timesteps) for value in tf.nest.flatten(example)]

    def body(time: Tensor, states: tuple[Tensor, ...], shown: Tensor, arrays: list[Any]) -> Any:
        output, new, *kept = step(time, states)
        if valid is not None:
            new = tuple(in_rows(valid[time], a, b) for a, b in zip(new, states, strict=True))
            output = in_rows(valid[time], output, shown)
            shown = shown if zero_masked else output
        values = tf.nest.flatten((output, new, *kept))
        arrays = [array.write(time, value) for array, value in zip(arrays, values, strict=True)]
        return time + 1, tuple(map(_shaped, new, states)), shown, arrays

    start = (tf.constant(0), initial, tf.zeros_like(example[0]), arrays)
    *_, arrays = tf.while_loop(lambda time, *_: time < timesteps, body, start)
    output, states, kept, *made = tf.nest.pack_sequence_as(example, [array.stack() for array in arrays])
    return Run(rule, inputs, valid, initial, states, output, kept, nudges, *made)


def back(
    run: Run,
    stack: Tensor,
    seeds: Seeds,
    reads: frozenset[str],
    *,
    weights: bool = False,
    inputs: bool = True,
    vectors: int = 0,
    norms: int = 0,
) -> Adjoint:
    """The sweep back: `stack` cotangents at once, from the last timestep to the first.

    `reads` names the states and gates whose total derivatives are kept, `weights` and `inputs` say whether the rights
    and those of the inputs are. The stack holds `vectors` or more: from the rule's `many` on, a step's derivative is
    formed before it is applied. With `norms` each state's or gate's derivatives are kept as the norm of every `norms`
    stack entries alone: (timesteps, rows, m / norms).
    """
    rule, local = run.rule, run.local
    timesteps, rows = tf.unstack(tf.shape(run.inputs)[:2])
    gates = frozenset(rule.gates) & reads
    seeds, latest = _begun(run, seeds), _latest(seeds, timesteps)
    start = tuple(
        _full(seeds.final.get(name), (rows, stack, *shape), run.states[0].dtype)
        for name, shape in zip(rule.states, rule.state_shapes, strict=True)
    )
    plain = not weights and gates.union(seeds.points).isdisjoint(rule.gates)
    matrices = rule.matrices(inputs=inputs) if plain and forming_pays(rule, vectors) else None
    kernels = None if matrices else rule.kernels()
    shapes = {name: () if norms else shape for name, shape in _inner_shapes(rule) if name in reads}
    few = inputs and matrices is None and _are_few(start[0])
    example = _example(rule, _at_time(local, 0), kernels, start, seeds) if weights or few else None
    if inputs:
        shapes |= _shape_at_inputs(run, example if few else None)
    if weights and example:
        shapes |= {RIGHTS + name: tuple(value.shape[2:]) for name, value in example.rights.items()}
    arrays = [_stack_array(start[0].dtype, timesteps, shape) for shape in shapes.values()]
    # A masked timestep shows an earlier output: what arrives there is carried back to where that output was made.
    carried = tf.zeros_like(start[0]) if seeds.output is None else tf.zeros_like(seeds.output.at(timesteps - 1))

    def body(time: Tensor, cotangents: tuple[Tensor, ...], carried: Tensor, arrays: list[Any]) -> Any:
        arriving = _arriving(rule, seeds, cotangents, time)
        output = None if seeds.output is None else carried + seeds.output.at(time)
        at_gates = {name: seeds.points[name].at(time) for name in rule.gates if name in seeds.points}
        here = _at_time(local, time)
        if matrices is None:
            pulled = rule.pull(here, kernels, arriving, output, at_gates, gates)
        else:
            pulled = matrices.pull(here, arriving, output)
        previous, found = pulled.previous, found_by_name(rule, pulled)
        if run.valid is not None:
            now = run.valid[time]
            previous = tuple(in_rows(now, a, b) for a, b in zip(previous, arriving, strict=True))
            found = {name: in_rows(now, found[name], tf.zeros_like(found[name])) for name in shapes}
            carried = carried if output is None else in_rows(now, tf.zeros_like(output), output)
        if norms:
            found |= {name: _norms(found[name], norms) for name in shapes if name in reads}
        arrays = [array.write(time, found[name]) for array, name in zip(arrays, shapes, strict=True)]
        return time - 1, tuple(map(_shaped, previous, cotangents)), carried, arrays

    # What stays unwritten, after the last seeded timestep, reads 0: exactly, even where a later state is not finite.
    _, first, _, arrays = tf.while_loop(lambda time, *_: time >= 0, body, (latest, start, carried, arrays))
    values = {name: array.stack() for name, array in zip(shapes, arrays, strict=True)}
    if PROJECTED in values:
        values[INPUTS] = rule.unproject(values[PROJECTED], kernels)
    rights = {name.removeprefix(RIGHTS): value for name, value in values.items() if name.startswith(RIGHTS)}
    return Adjoint(values, values.get(INPUTS), first, rights)


def weight_cotangents(run: Run, rights: Mapping[str, Tensor], keep: Keep) -> list[tuple[Any, Tensor]]:
    """The cotangents of the cell's weights, each beside its variable, from the rights that a sweep back kept."""
    return run.rule.weight_cotangents(run.inputs, run.previous, run.kept, run.nudges, rights, keep)


# Not names that a state or gate can have.
INPUTS = ""
PROJECTED = "projected "
RIGHTS = "rights "


def found_by_name(rule: CellRule, pulled: Pulled) -> dict[str, Tensor]:
    """What a step found, by state and gate name; the inputs' under INPUTS, the rights behind RIGHTS."""
    rights = {RIGHTS + name: value for name, value in pulled.rights.items()}
    apart = {INPUTS: pulled.inputs, PROJECTED: pulled.projected}
    return {**dict(zip(rule.states, pulled.totals, strict=True)), **pulled.gates, **apart, **rights}


_CACHE_BYTES = 1 << 24
"""How large an array may be that a processor's cache is to hold from one pass over it to the next."""

_FEW = 32
"""Up to so many cotangents, of all rows, are too few for a product with the inputs' narrow kernel in each step: those
of all steps make one product in the end."""


def _are_few(cotangents: Tensor) -> bool:
    """Whether a step is known to carry no more."""
    lead = cotangents.shape[:2]
    return None not in lead and math.prod(lead) <= _FEW


def _shape_at_inputs(run: Run, example: Pulled | None) -> dict[str, tuple[int | None, ...]]:
    """What the steps keep for the inputs, by name: with an `example` what reaches `project`, if the cache holds it."""
    projected = None if example is None else example.projected
    if projected is None or _outgrows_cache((run.inputs.shape[0], *projected.shape), projected.dtype):
        return {INPUTS: tuple(run.inputs.shape[2:])}
    return {PROJECTED: tuple(projected.shape[2:])}


def _outgrows_cache(shape: Sequence[int | None], dtype: tf.DType) -> bool:
    """Whether so much is known to leave a processor's cache before it is read again."""
    known = [n for n in shape if n is not None]
    if len(known) < len(shape) or tf.config.list_logical_devices("GPU"):
        return False
    return bool(math.prod(known) * dtype.size > _CACHE_BYTES)


def _inner_shapes(rule: CellRule) -> list[tuple[str, tuple[int | None, ...]]]:
    """Each state's and each gate's name and shape."""
    return list(zip((*rule.states, *rule.gates), (*rule.state_shapes, *rule.gate_shapes), strict=True))


def _arriving(rule: CellRule, seeds: Seeds, cotangents: tuple[Tensor, ...], time: Tensor) -> tuple[Tensor, ...]:
    """What reaches the states that a step returned: from later steps, and what is seeded there."""
    return tuple(
        cotangent + seeds.points[name].at(time) if name in seeds.points else cotangent
        for name, cotangent in zip(rule.states, cotangents, strict=True)
    )


def _begun(run: Run, seeds: Seeds) -> Seeds:
    """The same with what is seeded once, and nothing later, as cotangents that the sweep starts with."""
    output, final, points = seeds.output, dict(seeds.final), dict(seeds.points)
    alone = len(points) + (output is not None) == 1 and not final
    shown = run.rule.output_state if run.valid is None else None
    if alone and shown is not None and isinstance(output, Spike) and output.once:
        return Seeds({}, None, {run.rule.states[shown]: output.values})
    for name, seed in points.items():
        if alone and name in run.rule.states and isinstance(seed, Spike) and seed.once:
            return Seeds({}, None, {name: seed.values})
    return seeds


def _latest(seeds: Seeds, timesteps: Tensor) -> Tensor:
    """The last run time at which anything is seeded."""
    spikes = [seed for seed in seeds.points.values() if isinstance(seed, Spike)]
    if seeds.output is not None or seeds.final or len(spikes) < len(seeds.points):
        return timesteps - 1
    return tf.reduce_max([tf.reduce_max(spike.times) for spike in spikes])


def _norms(value: Tensor, entries: int) -> Tensor:
    """The Frobenius norm of every `entries` stack entries: (rows, m, …) to (rows, m / entries)."""
    squares = tf.reduce_sum(value * value, axis=list(range(2, value.shape.rank)))
    return tf.sqrt(tf.reduce_sum(tf.reshape(squares, [tf.shape(value)[0], -1, entries]), axis=-1))


def _example(rule: CellRule, local: Local, kernels: Any, start: tuple[Tensor, ...], seeds: Seeds) -> Pulled:
    """One step pulled for the shapes that it shows alone: nothing reads its numbers."""
    output = None if seeds.output is None else seeds.output.at(tf.constant(0))
    return rule.pull(local, kernels, start, output, {}, frozenset())


def _stack_array(dtype: Any, size: Tensor, shape: tuple[int | None, ...]) -> Any:
    return tf.TensorArray(dtype, size, element_shape=[None, None, *shape])


def _at(nudges: Nudges, time: Tensor) -> Nudges:
    return {name: value[time] for name, value in nudges.items()}


def _at_time(nest: Any, time: Tensor | int) -> Any:
    return tf.nest.map_structure(lambda value: value[time], nest)


def _array(value: Tensor, size: Tensor) -> Any:
    return tf.TensorArray(value.dtype, size, element_shape=[None, *value.shape[1:]])


def in_rows(rows: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """`a` in the rows that are true, else `b`."""
    for _ in a.shape[1:]:
        rows = rows[..., None]
    return tf.where(rows, a, b)


def _full(value: Tensor | None, shape: tuple[Any, ...], dtype: Any) -> Tensor:
    zeros = tf.zeros(shape, dtype)
    return zeros if value is None else value + zeros


def _shaped(value: Tensor, like: Tensor) -> Tensor:
    """`value` with what is known of the shape of `like`: loops need the same each time round."""
    return tf.ensure_shape(value, like.shape)
