"""A subclassed model, which has no graph of layers, as a Functional model around the very same layers and weights.

Its `call` is run once on Keras tensors, and Keras notes each layer and operation that it meets. Where the call is made
of layers and `keras.ops` alone, that is the whole graph. Where it is not (TensorFlow's own functions, weights outside
layers), the model stands in the graph as one layer: its inputs, outputs and weights are points, and no more.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import tree

from tapehead.engine.graph import function_of
from tapehead.engine.rules.any_layer import unfused
from tapehead.errors import UnsupportedModel

Shapes = Any  # (batch, …), or a list or a dict of such
_BATCH, _TIMESTEPS, _SEED = 3, 7, 7
_TOLERANCE = 1e-3


def with_graph(model: Any) -> Any:
    """`model` itself where it has a graph of layers, else a Functional model around it.

    Timesteps are left open where the model runs with them open, whatever it was built with.

    Raises:
        UnsupportedModel: it is not built, takes several arguments, or cannot be called on Keras tensors at all.
    """
    if function_of(model) is not None or isinstance(model, keras.Sequential) or not isinstance(model, keras.Model):
        return model
    shapes = _input_shapes(model)
    why: Exception | None = None
    for make, timesteps_open in product((_opened, _whole), (True, False)):
        try:
            return _held_against(model, make(model, _symbols(model, shapes, timesteps_open=timesteps_open)), shapes)
        except Exception as error:  # noqa: BLE001 - a user's own code, on tensors it may not know, raises anything
            why = error
    raise UnsupportedModel(
        f"{_title(model)} has no graph of layers, and its call cannot be followed: {str(why).strip()[:300]}. Write its "
        f"call with layers and keras.ops, or the model as keras.Model(inputs, outputs)"
    ) from why


def _title(model: Any) -> str:
    return f"the subclassed model {model.name!r} ({type(model).__name__})"


def _input_shapes(model: Any) -> Shapes:
    """The shapes that the model was built with, nested as its call takes them."""
    parameters = inspect.signature(model.call).parameters.values()
    needed = [one.name for one in parameters if one.default is one.empty and one.kind is one.POSITIONAL_OR_KEYWORD]
    if len(needed) != 1:
        raise UnsupportedModel(
            f"{_title(model)} is called with {len(needed)} arguments, {needed}; expected one: pass several tensors as "
            f"a list or a dict"
        )
    config = model.get_build_config() or {}
    if not model.built or "input_shape" not in config:
        raise UnsupportedModel(f"{_title(model)} is not built: call it once on data")
    return config["input_shape"]


def _each(shapes: Shapes, make: Callable[[tuple[int | None, ...], str], Any]) -> Any:
    """What `make` gives for each shape and its name, nested as the shapes are."""
    if isinstance(shapes, dict):
        return {name: make(tuple(shape), name) for name, shape in shapes.items()}
    if all(size is None or isinstance(size, int) for size in shapes):
        return make(tuple(shapes), "inputs")
    return [make(tuple(shape), f"input_{n}") for n, shape in enumerate(shapes)]


def _symbols(model: Any, shapes: Shapes, *, timesteps_open: bool) -> Any:
    """A Keras Input for each shape; flat ones are words where the model looks words up."""
    looks_up = any(isinstance(layer, keras.layers.Embedding) for layer in model._flatten_layers())

    def symbol(shape: tuple[int | None, ...], name: str) -> Any:
        words = looks_up and len(shape) == 2
        steps = None if timesteps_open and (len(shape) > 2 or words) else shape[1]
        return keras.Input((steps, *shape[2:]), dtype="int32" if words else model.compute_dtype, name=name)

    return _each(shapes, symbol)


def _opened(model: Any, symbols: Any) -> Any:
    """The graph of the layers that the model's call meets."""
    outputs = model.call(symbols, **({"training": False} if model._call_has_training_arg else {}))
    found = keras.Model(symbols, outputs, name=model.name)
    outside = {variable.path for variable in model.weights} - {variable.path for variable in found.weights}
    if outside:
        raise ValueError(f"its weights {sorted(outside)} lie outside the layers that its call meets")
    if any(map(_is_number, _arguments(found))):
        raise ValueError("its call computes on numbers of its own, which may come from its weights")
    return found


def _arguments(functional: Any) -> Iterator[Any]:
    for nodes in functional._nodes_by_depth.values():
        for node in nodes:
            yield from tree.flatten((node.arguments.args, node.arguments.kwargs))


def _is_number(argument: Any) -> bool:
    """Whether a call was given a weight, or a tensor that Keras cannot trace back to what it was computed from."""
    return isinstance(argument, keras.Variable) or tf.is_tensor(argument)


def _whole(model: Any, symbols: Any) -> Any:
    """The model as the one layer of a graph."""
    return keras.Model(symbols, model(symbols, training=False))


def _held_against(model: Any, found: Any, shapes: Shapes) -> Any:
    """`found`, if it computes what the model does, for another number of timesteps where that is open."""
    numbers, sizes = np.random.default_rng(_SEED), iter(found.inputs)

    def made_up(_: tuple[int | None, ...], __: str) -> Any:
        symbol = next(sizes)
        shape = (_BATCH, *(_TIMESTEPS if size is None else size for size in symbol.shape[1:]))
        values = numbers.integers(0, 2, shape) if "int" in symbol.dtype else numbers.normal(size=shape)
        return tf.cast(values, symbol.dtype)

    inputs = _each(shapes, made_up)
    with unfused(model):
        ours, theirs = (tree.flatten(one(inputs, training=False)) for one in (found, model))
    if not all(map(_near, ours, theirs)):
        raise ValueError("on Keras tensors it does not compute what it computes on numbers")
    return found


def _near(ours: Any, theirs: Any) -> bool:
    return ours.shape == theirs.shape and np.allclose(ours, theirs, rtol=_TOLERANCE, atol=_TOLERANCE, equal_nan=True)
