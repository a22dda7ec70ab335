"""The walk over a Keras graph: every tensor that has a name is nudged where it is produced, and recorded.

Values are (timesteps, features) or (rows, timesteps, features): time is the last axis but one. Masks are (timesteps,)
or (rows, timesteps). How a cell or a plain layer computes is left to a *book* (`formulas` or `keras_own`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import tree

from oracle.recurrence import bidirectional, recurrence
from oracle.signals import Run, Signal


def run_whole(run: Run, model: Any, inputs: Mapping[str, Any]) -> Run:
    """A run through a whole model: its inputs and outputs are points too."""
    entering = [run.at(name, Signal(inputs[name])) for name in input_names(model)]
    if len(entering) == 1:
        run.also("inputs", entering)
    run.also("outputs", run_model(run, model, entering))
    return run


def input_names(model: Any) -> list[str]:
    """The names of a model's inputs, in its order."""
    return [tensor._keras_history[0].name for tensor in model.inputs]


def run_model(run: Run, model: Any, arguments: Sequence[Signal], prefix: str = "") -> list[Signal]:
    """The signals of a model's outputs, having passed every layer on the way."""
    known = {id(tensor): signal for tensor, signal in zip(model.inputs, arguments, strict=True)}
    names = call_names(model)
    seen: dict[tuple[int, int], list[Signal]] = {}

    def signal(tensor: Any) -> Signal:
        if id(tensor) in known:
            return known[id(tensor)]
        layer, call, index = tensor._keras_history
        if (id(layer), call) not in seen:
            entering = [signal(before) for before in fed(layer, call)]
            path = prefix + names[id(layer), call]
            seen[id(layer), call] = run_layer(run, layer, entering, path, hears_mask=hears_mask(layer, call))
        return seen[id(layer), call][index]

    return [signal(tensor) for tensor in model.outputs]


def call_names(model: Any) -> dict[tuple[int, int], str]:
    """Each call that the outputs need, by (layer, call): the layer's name; `name.call.i` where there are several."""
    found: dict[tuple[int, int], str] = {}
    inputs = {id(tensor) for tensor in model.inputs}

    def visit(tensor: Any) -> None:
        layer, call, _ = tensor._keras_history
        if id(tensor) not in inputs and (id(layer), call) not in found:
            found[id(layer), call] = quoted(layer.name)
            for before in fed(layer, call):
                visit(before)

    for tensor in model.outputs:
        visit(tensor)
    calls = {layer: sorted(call for other, call in found if other == layer) for layer, _ in found}
    return {
        (layer, call): name if len(calls[layer]) == 1 else f"{name}.call.{calls[layer].index(call)}"
        for (layer, call), name in found.items()
    }


def quoted(name: str) -> str:
    """A layer's name as it stands in a point: in double quotes where it holds more than letters, digits, _ and -."""
    return name if re.fullmatch(r"[\w-]+", name) else f'"{name}"'


def fed(layer: Any, call: int) -> list[Any]:
    """The tensors that a call of a layer reads: its inputs, then initial states. Masks are left out."""
    given = layer._inbound_nodes[call].arguments
    leaves = tree.flatten((given.args, given.kwargs.get("initial_state")))
    return [leaf for leaf in leaves if isinstance(leaf, keras.KerasTensor)]


def hears_mask(layer: Any, call: int) -> bool:
    """Whether Keras hands a recurrent layer the mask of its input: not beside initial states, unless spelt out."""
    given = layer._inbound_nodes[call].arguments
    return len(fed(layer, call)) == 1 or given.kwargs.get("mask") is not None


def run_layer(run: Run, layer: Any, arguments: list[Signal], path: str, *, hears_mask: bool) -> list[Signal]:
    """The signals that leave a layer, each nudged after it has left."""
    if isinstance(layer, keras.Model):
        leaving = run_model(run, layer, arguments, path + ".")
        run.also(path if len(leaving) == 1 else f"{path}.output", leaving)
        return leaving
    if isinstance(layer, keras.layers.Bidirectional):
        leaving = bidirectional(run, layer, arguments[0], arguments[1:], path, hears_mask)
    elif isinstance(layer, keras.layers.RNN):
        leaving = recurrence(run, layer, arguments[0], arguments[1:], path, hears_mask)
    else:
        leaving = [plain(run, layer, arguments, path)]
    names = [path] if len(leaving) == 1 else [f"{path}.output.{i}" for i in range(len(leaving))]
    return [run.at(name, signal) for name, signal in zip(names, leaving, strict=True)]


def plain(run: Run, layer: Any, arguments: list[Signal], path: str) -> Signal:
    """A layer without a recurrence: Masking and Embedding make a mask, some layers end one, most hand it on.

    A timestep that is masked is invalid at the point it was read from, too.
    """
    entering = arguments[0]
    if isinstance(layer, keras.layers.Masking):
        mask = run.held_mask(path, run.book.xp.any(entering.value != layer.mask_value, -1))
        run.valid[entering.point] = mask
        return Signal(run.book.xp.where(mask[..., None], entering.value, 0.0), mask)
    value = run.book.layer(layer, arguments, run.weights_of(layer, path))
    if isinstance(layer, keras.layers.Embedding):
        mask = run.held_mask(path, entering.value != 0) if layer.mask_zero else None
        run.valid[entering.point] = mask
        return Signal(value, mask)
    ends = not layer.supports_masking or len(value.shape) < len(entering.value.shape)
    return Signal(value, None if ends else entering.mask)
