"""One function, compiled twice: once for any shapes, and by XLA for those shapes that come again and again.

XLA needs every length fixed and takes seconds to compile, so it is never in a request's way: while it compiles, and
wherever it proves no faster, the function for any shapes answers. Who runs the compiling, and when, is the caller's to
say (`later`); without that nothing is compiled beside the first. The two add numbers up in different orders, so an
answer's last bits may change once, when the faster one takes over.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

Tensor = Any
Later = Callable[[Callable[[], None]], object]
Shapes = tuple[tuple[int, ...], ...]

OFTEN = 3
"""How many calls with the same shapes it takes to have them compiled."""
KEPT = 32
"""How many sets of shapes a function is kept compiled for; the least recently used goes."""
_TRIALS = 3
_SHORT_S = 1.0
"""A first run over this is mostly the run itself."""

log = logging.getLogger("tapehead.engine")


class Program:
    """A function of tensors, run in the fastest way that is ready for their shapes."""

    def __init__(self, function: Callable[..., Any], signature: Sequence[Any], later: Later | None) -> None:
        self._function, self._later = function, later
        self._signature = list(signature)
        self._any: Callable[..., Any] | None = None
        self._fixed: OrderedDict[Shapes, Callable[..., Any] | None] = OrderedDict()
        self._calls: Counter[Shapes] = Counter()
        self.compile_s = 0.0

    def __call__(self, *args: Any, shapes: Shapes | None = None) -> Any:
        """What the function gives; the first call compiles it for any shapes.

        `shapes` are those of all tensors in `args`, where the caller has them at hand.
        """
        if self._later is None:
            return self._run(*args)
        if shapes is None:
            shapes = tuple(tuple(tensor.shape) for tensor in tf.nest.flatten(args))
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
        if self._any is not None:
            return self._any(*args)
        began = time.perf_counter()
        traced = tf.function(self._function, input_signature=self._signature, autograph=False)
        run = self._any = traced.get_concrete_function()
        after = time.perf_counter()
        found = run(*args)
        first_s = time.perf_counter() - after
        if first_s < _SHORT_S:
            run(*args)
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
        """Compiles for these shapes, and keeps what was compiled where it is faster."""
        specs = tf.nest.map_structure(lambda tensor: tf.TensorSpec(tensor.shape, tensor.dtype), list(args))
        fixed = tf.function(self._function, input_signature=specs, autograph=False, jit_compile=True)
        try:
            fixed = fixed.get_concrete_function()
            fixed(*args)
        except (tf.errors.OpError, ValueError, TypeError, NotImplementedError) as error:
            # Some of TensorFlow's operations have no form in XLA: such a function stays as it is.
            log.info("XLA cannot compile this: %s", str(error).strip().partition("\n")[0])
            return
        if min(_seconds(fixed, args) for _ in range(_TRIALS)) < min(_seconds(self._run, args) for _ in range(_TRIALS)):
            self._fixed[shapes] = fixed


def _seconds(function: Callable[..., Any], args: Any) -> float:
    began = time.perf_counter()
    for tensor in tf.nest.flatten(function(*args)):
        memoryview(tensor)  # waits for a device that works on its own
    return time.perf_counter() - began
