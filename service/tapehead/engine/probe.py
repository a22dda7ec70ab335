"""One run of a model on made-up inputs at load: every tensor's shape, and that the engine computes what Keras does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from keras import tree

from tapehead.engine.graph import Graph
from tapehead.engine.rules.any_layer import unfused
from tapehead.engine.trace import Given, Trace, trace
from tapehead.errors import UnsupportedModel

_BATCH = 2
# Lengths to try where the model leaves them open: primes, so that they are not mistaken for a size of the model.
_LENGTHS = (11, 13, 17, 19, 23, 29, 37, 41, 43, 47)
_SEED = 20


@dataclass(frozen=True)
class Seen:
    """What the run showed. `shapes` leave the batch axis out and have None for a length that follows an input, or that
    no one can know before a run; `follows` names that input; `masks` says whether the model masks of its own."""

    shapes: dict[int, tuple[int | None, ...]]
    dtypes: dict[int, str]
    follows: dict[int, str]
    masks: bool


def probed(graph: Graph, model: Any, dtype: str) -> Seen:
    """Runs the model once in the engine and once in Keras.

    Raises:
        UnsupportedModel: the two differ, or the model does not run.
    """
    symbols = dict(zip(graph.inputs, model.inputs, strict=True))
    inputs, lengths = _made_up(symbols)
    try:
        made = trace(graph, graph.calls, Given(inputs, dtype))
        _compare(graph, model, made, inputs)
    except (tf.errors.InvalidArgumentError, ValueError, TypeError, KeyError) as error:
        raise UnsupportedModel(
            f"the model does not run on inputs of shapes { {n: tuple(x.shape) for n, x in inputs.items()} }: "
            f"{str(error).strip().splitlines()[0]}"
        ) from error
    open_lengths = {lengths[name]: name for name, symbol in symbols.items() if name in lengths}
    ranked = {name: len(symbol.shape) for name, symbol in symbols.items()}
    fixed = {n: name for name, n in _fixed_lengths(symbols).items() if ranked[name] > 1}
    shapes: dict[int, tuple[int | None, ...]] = {}
    follows: dict[int, str] = {}
    for tensor, value in made.values.items():
        own = tuple(value.shape)[1:]
        timed = len(own) > 1 or (tensor in graph.inputs.values() and own and not value.dtype.is_floating)
        if timed and own[0] in open_lengths:
            follows[tensor] = open_lengths[own[0]]
            own = (None, *own[1:])
        elif timed and own[0] in fixed:
            follows[tensor] = fixed[own[0]]
        elif timed and open_lengths and tensor not in graph.inputs.values() and own[0] not in _static(model):
            own = (None, *own[1:])
        shapes[tensor] = own
    dtypes = {tensor: value.dtype.name for tensor, value in made.values.items()}
    return Seen(shapes, dtypes, follows, bool(made.masks))


def _made_up(symbols: dict[str, Any]) -> tuple[dict[str, Any], dict[str, int]]:
    """Inputs of the shapes and dtypes that the model declares, a prime for each open length."""
    random = np.random.default_rng(_SEED)
    taken = {n for symbol in symbols.values() for n in symbol.shape if n}
    free = iter([n for n in _LENGTHS if n not in taken] * 4)
    inputs, lengths = {}, {}
    for name, symbol in symbols.items():
        shape = [_BATCH]
        for axis, size in enumerate(symbol.shape[1:]):
            shape.append(next(free) if size is None else size)
            if size is None and axis == 0:
                lengths[name] = shape[-1]
        values = random.normal(size=shape) if "float" in symbol.dtype else random.integers(0, 2, size=shape)
        inputs[name] = tf.cast(tf.convert_to_tensor(values), symbol.dtype)
    return inputs, lengths


def _fixed_lengths(symbols: dict[str, Any]) -> dict[str, int]:
    return {
        name: symbol.shape[1]
        for name, symbol in symbols.items()
        if len(symbol.shape) > 1 and symbol.shape[1] is not None and (len(symbol.shape) > 2 or "int" in symbol.dtype)
    }


def _static(model: Any) -> set[int]:
    """Lengths that the model's own layers fix."""
    return {n for layer in model._flatten_layers(include_self=False) for n in _sizes(layer)}


def _sizes(layer: Any) -> list[int]:
    output = getattr(layer, "output", None) if getattr(layer, "_inbound_nodes", None) else None
    shape = getattr(output, "shape", ())
    return [n for n in shape[1:2] if isinstance(n, int)]


def _compare(graph: Graph, model: Any, made: Trace, inputs: dict[str, Any]) -> None:
    """Holds the engine's outputs against Keras's own."""
    given = tree.pack_sequence_as(getattr(model, "_functional", model)._inputs_struct, list(inputs.values()))
    with unfused(model):
        theirs = tree.flatten(model(given, training=False))
    for tensor, other in zip(graph.outputs, theirs, strict=True):
        ours, other = np.asarray(made.values[tensor], np.float64), np.asarray(other, np.float64)
        # A float64 model may hold layers that Keras runs in float32; another computation would be off by far more.
        tolerance = 1e-5 if made.values[tensor].dtype == tf.float64 else 1e-3
        if ours.shape != other.shape or not np.allclose(ours, other, rtol=tolerance, atol=tolerance, equal_nan=True):
            raise UnsupportedModel(
                "the model's outputs as computed here differ from Keras's own; please report this model's architecture"
            )
