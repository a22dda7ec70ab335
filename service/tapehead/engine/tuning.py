"""One function, compiled for any shapes, and in other ways for those shapes that come again and again.

The other ways are XLA, and either of the two for several parts of the question at once. XLA needs every length fixed
and takes seconds to compile, so it is never in a request's way: while it compiles, and wherever nothing proves faster,
the function for any shapes answers. Who runs the compiling, and when, is the caller's to say (`later`); without that
nothing is compiled beside the first. The ways add numbers up in different orders, so an answer's last bits may change
once, when the fastest takes over.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tapehead.engine.abreast import Abreast, Split, on_host

Tensor = Any
Later = Callable[[Callable[[], None]], object]
Shapes = tuple[tuple[int, ...], ...]
Way = Callable[..., Any]

OFTEN = 3
"""How many calls with the same shapes it takes to have them compiled."""
KEPT = 32
"""How many sets of shapes a function is kept compiled for; the least recently used goes."""
_A_TURN, _TRIAL_S = 3, 0.02
"""A way is tried in turns of so many calls, until all have taken so many seconds."""
_LONG_S = 0.3
"""What takes longer is called once."""
_SHORT_S = 1.0
"""A first run over this is mostly the run itself."""
_WORTH_PARTING_S = 1e-3
"""What takes less gains nothing from more threads."""
_ROUGHLY = 1e-3
"""How far a way's answer may be from the first one's, over the largest entry."""
_MARGIN = 0.95
"""How much less time a way must take than those before it."""

log = logging.getLogger("tapehead.engine")


class Program:
    """A function of tensors, run in the fastest way that is ready for their shapes.

    `ready` makes tensors of what the program is called with, `split` makes parts of it (see `Abreast`): None where it
    has none.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        signature: Sequence[Any],
        later: Later | None,
        ready: Callable[..., tuple[Tensor, ...]] = lambda *args: args,
        split: Split | None = None,
    ) -> None:
        self._function, self._later = function, later
        self._signature = list(signature)
        self._ready, self._split = ready, split
        self._any: Callable[..., Any] | None = None
        self._fixed: OrderedDict[Shapes, Way | None] = OrderedDict()
        self._calls: Counter[Shapes] = Counter()
        self.compile_s = 0.0

    def __call__(self, *args: Any, shapes: Shapes | None = None) -> Any:
        """What the function gives, tensors or NumPy; the first call compiles it for any shapes.

        `shapes` are those of all arrays in `args`, where the caller has them at hand.
        """
        if self._later is None:
            return self._run(*args)
        if shapes is None:
            shapes = _shapes(self._ready(*args))
        fixed = self._fixed.get(shapes)
        if fixed is not None:
            self._fixed.move_to_end(shapes)
            return fixed(*args)
        if shapes not in self._fixed:
            self._note(shapes, args, self._later)
        return self._run(*args)

    def _run(self, *args: Any) -> Any:
        """What the function for any shapes gives; notes how long compiling took: tracing, and optimising at first.

        A concrete function is called in half the time that `tf.function` takes to choose one.
        """
        tensors = self._ready(*args)
        if self._any is not None:
            return self._any(*tensors)
        began = time.perf_counter()
        traced = tf.function(self._function, input_signature=self._signature, autograph=False)
        run = self._any = traced.get_concrete_function()
        after = time.perf_counter()
        found = run(*tensors)
        first_s = time.perf_counter() - after
        if first_s < _SHORT_S:
            run(*tensors)
        again_s = time.perf_counter() - after - first_s
        self.compile_s = after - began + (max(0.0, first_s - again_s) if first_s < _SHORT_S else 0.0)
        return found

    def _note(self, shapes: Shapes, args: tuple[Any, ...], later: Later) -> None:
        self._calls[shapes] += 1
        if self._calls[shapes] < OFTEN:
            return
        del self._calls[shapes]
        self._fixed[shapes] = None
        while len(self._fixed) > KEPT:
            self._fixed.popitem(last=False)
        later(lambda: self._fix(shapes, args))

    def _fix(self, shapes: Shapes, args: tuple[Any, ...]) -> None:
        """Compiles for these shapes, and keeps the way that is fastest."""
        ways = [way for way in (self._run, self._compiled(args)) if way]
        lone_s = min(_seconds(way, args) for way in ways)
        if lone_s >= _WORTH_PARTING_S:
            ways += self._abreast(args)
        ways = self._agreeing(ways, args)
        tried = _tried(ways, args, calls=_A_TURN if lone_s < _LONG_S else 1)
        best = 0
        for n, seconds in enumerate(tried):
            best = n if seconds < _MARGIN * tried[best] else best
        self._fixed[shapes] = ways[best] if best else None

    def _abreast(self, args: tuple[Any, ...]) -> Iterator[Way]:
        """The ways for all parts of the question at once."""
        if self._split is None or (parts := self._split(*args)) is None:
            return
        yield Abreast(self._split, [self._run] * len(parts.each))
        shapes = [_shapes(self._ready(*part)) for part in parts.each]
        compiled = {own: self._compiled(part) for own, part in dict(zip(shapes, parts.each, strict=True)).items()}
        runs = [run for own in shapes if (run := compiled[own])]
        if len(runs) == len(shapes):
            yield Abreast(self._split, runs)

    def _agreeing(self, ways: Sequence[Way], args: tuple[Any, ...]) -> list[Way]:
        """The first way, and those that answer as it does: a layer may mix a batch's rows, and XLA may be wrong."""
        first, *others = ways
        plain = list(map(on_host, tf.nest.flatten(first(*args))))
        found = [first]
        for way in others:
            if all(_agree(on_host(one), other) for one, other in zip(tf.nest.flatten(way(*args)), plain, strict=True)):
                found.append(way)
            else:
                told = "in parts" if isinstance(way, Abreast) else "by XLA"
                log.warning("computed %s an answer differs from that of the whole graph: it is not computed so", told)
        return found

    def _compiled(self, args: tuple[Any, ...]) -> Way | None:
        """The function compiled by XLA for the shapes of these arguments; None where XLA has no form of it."""
        tensors = self._ready(*args)
        specs = tf.nest.map_structure(lambda tensor: tf.TensorSpec(tensor.shape, tensor.dtype), list(tensors))
        fixed = tf.function(self._function, input_signature=specs, autograph=False, jit_compile=True)
        try:
            run = fixed.get_concrete_function()
            run(*tensors)
        except (tf.errors.OpError, ValueError, TypeError, NotImplementedError) as error:
            # Some of TensorFlow's operations have no form in XLA: such a function stays as it is.
            log.info("XLA cannot compile this: %s", str(error).strip().partition("\n")[0])
            return None
        return lambda *args: run(*self._ready(*args))


def _shapes(args: tuple[Any, ...]) -> Shapes:
    return tuple(tuple(tensor.shape) for tensor in tf.nest.flatten(args))


def _agree(found: Any, plain: Any) -> bool:
    """Whether answers differ by no more than rounding may make of them."""
    if plain.dtype.kind in "iub":
        return bool((found == plain).all())
    rough = _ROUGHLY if plain.dtype.itemsize >= 4 else 50 * _ROUGHLY
    if plain.dtype.itemsize < 4:  # NumPy compares bfloat16 with nothing
        found, plain = found.astype(np.float32), plain.astype(np.float32)
    largest = np.abs(plain[np.isfinite(plain)]).max(initial=0)
    return bool(np.allclose(found, plain, rtol=0, atol=rough * largest, equal_nan=True))


def _tried(ways: Sequence[Way], args: tuple[Any, ...], calls: int) -> list[float]:
    """The least seconds that each way took, tried in turns of some calls: the machine's own speed may change meanwhile.

    The first call of a turn meets the threads that the way before it left spinning.
    """
    rounds: list[list[float]] = []
    while sum(map(sum, rounds)) < _TRIAL_S * len(ways):
        rounds.append([min(_seconds(way, args) for _ in range(calls)) for way in ways])
    return [min(seconds) for seconds in zip(*rounds, strict=True)]


def _seconds(way: Way, args: tuple[Any, ...]) -> float:
    began = time.perf_counter()
    for tensor in tf.nest.flatten(way(*args)):
        on_host(tensor)  # waits for a device that works on its own
    return time.perf_counter() - began
