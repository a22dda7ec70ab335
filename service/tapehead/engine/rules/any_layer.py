"""Any layer or operation without a rule of its own: called as Keras calls it, and differentiated alone.

Stack entries travel as rows beside copies of the layer's inputs, so one reverse-mode pass serves them all. A fused or
cuDNN kernel is never differentiated: recurrent layers inside are told not to use one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import tensorflow as tf
from keras import tree

from tapehead.engine.graph import Call, Ref
from tapehead.engine.rules.cells import Keep
from tapehead.engine.rules.stacks import flattened, in_axes, repeated, stacked

Tensor = Any


def call_layer(
    call: Call, value: Callable[[int], Tensor], mask: Callable[[int], Tensor | None], dtype: str
) -> tuple[list[Tensor], list[Tensor | None]]:
    """The layer's outputs, floats in `dtype`, and the masks that Keras gives them, as in `predict`."""
    layer = call.layer
    masked = getattr(layer, "supports_masking", False) or getattr(layer, "_call_has_mask_arg", False)

    def fill(leaf: Any) -> Any:
        if not isinstance(leaf, Ref):
            return leaf
        tensor, own = value(leaf.id), mask(leaf.id)
        if own is not None and masked:
            tensor = tf.identity(tensor)
            tensor._keras_mask = own
        return tensor

    args, kwargs = tree.map_structure(fill, (call.args, call.kwargs))
    if getattr(layer, "_call_has_training_arg", False):
        kwargs = {**kwargs, "training": False}
    with unfused(layer):
        own = _OWN.get(type(layer))
        outputs = tree.flatten(layer(*args, **kwargs)) if own is None else [own(layer, args[0])]
    carried = [getattr(args[0], "_keras_mask", None)] if own else [getattr(out, "_keras_mask", None) for out in outputs]
    return [in_dtype(output, dtype) for output in outputs], carried


def _at_every_timestep(layer: Any, inputs: Tensor) -> Tensor:
    """What TimeDistributed gives, its timesteps as rows of one call: Keras's own loop over an open number of timesteps
    cannot be differentiated for any batch."""
    inner = {"training": False} if getattr(layer.layer, "_call_has_training_arg", False) else {}
    own = _OWN.get(type(layer.layer))
    folded = tf.reshape(inputs, tf.concat([[-1], tf.shape(inputs)[2:]], axis=0))
    folded = tf.ensure_shape(folded, [None, *inputs.shape[2:]])
    outputs = layer.layer(folded, **inner) if own is None else own(layer.layer, folded)
    unfolded = tf.reshape(outputs, tf.concat([tf.shape(inputs)[:2], tf.shape(outputs)[1:]], axis=0))
    return tf.ensure_shape(unfolded, [*inputs.shape[:2], *outputs.shape[1:]])


def _layer_normalized(layer: Any, inputs: Tensor) -> Tensor:
    """What LayerNormalization gives. Keras takes the moments from `tf.nn.moments`, which stops a gradient that is 0 in
    the first derivative and not in the second."""
    axes = layer.axis if isinstance(layer.axis, list | tuple) else [layer.axis]
    centred = inputs if layer.rms_scaling else inputs - tf.reduce_mean(inputs, axis=axes, keepdims=True)
    about = centred - tf.reduce_mean(centred, axis=axes, keepdims=True) if layer.rms_scaling else centred
    outputs = centred * tf.math.rsqrt(tf.reduce_mean(about * about, axis=axes, keepdims=True) + layer.epsilon)
    shape = [1] * inputs.shape.rank
    for axis in axes:
        shape[axis] = inputs.shape[axis]
    if layer.gamma is not None:
        outputs *= tf.reshape(tf.convert_to_tensor(layer.gamma), shape)
    return (
        outputs
        if layer.rms_scaling or layer.beta is None
        else outputs + tf.reshape(tf.convert_to_tensor(layer.beta), shape)
    )


# Layers whose own call cannot be differentiated as it must be here; each gives what Keras gives.
_OWN: Mapping[type, Callable[[Any, Tensor], Tensor]] = {
    keras.layers.TimeDistributed: _at_every_timestep,
    keras.layers.LayerNormalization: _layer_normalized,
}


def in_dtype(value: Tensor, dtype: str) -> Tensor:
    """A tensor of floats cast to `dtype`; any other as it is."""
    return tf.cast(value, dtype) if value.dtype.is_floating else value


def pull_layer(
    call: Call,
    values: Mapping[int, Tensor],
    masks: Mapping[Any, Tensor],
    cotangents: Sequence[Tensor | None],
    stack: Tensor,
) -> dict[int, Tensor]:
    """The cotangents of the call's inputs, (rows, m, …) by tensor, from those of its outputs."""
    ids = list(dict.fromkeys(call.inputs))
    dtype = next(own.dtype.name for own in cotangents if own is not None)
    copies = {n: repeated(values[n], stack) for n in ids}
    copied_masks = {n: repeated(masks[n], stack) for n in ids if n in masks}
    sources = [n for n in ids if copies[n].dtype.is_floating]
    with tf.GradientTape() as tape:
        tape.watch([copies[n] for n in sources])
        outputs, _ = call_layer(call, copies.__getitem__, copied_masks.get, dtype)
    pairs = [(output, flattened(own)) for output, own in zip(outputs, cotangents, strict=True) if own is not None]
    found = tape.gradient(
        [output for output, _ in pairs],
        [copies[n] for n in sources],
        output_gradients=[own for _, own in pairs],
        unconnected_gradients="zero",
    )
    return {n: stacked(tf.convert_to_tensor(own), stack) for n, own in zip(sources, found, strict=True)}


def weights_layer(
    call: Call,
    values: Mapping[int, Tensor],
    masks: Mapping[Any, Tensor],
    cotangents: Sequence[Tensor | None],
    variables: Sequence[Any],
    keep: Keep,
) -> list[tuple[Any, Tensor]]:
    """The cotangents of the call's weights, each beside its variable: (m, *weight), or (rows, m, *weight).

    One reverse-mode pass for each stack entry, and for each row too where rows are kept.
    """
    ids = list(dict.fromkeys(call.inputs))
    weights = [variable.value for variable in variables]
    present = [n for n, own in enumerate(cotangents) if own is not None]
    given: list[Tensor] = [cotangents[n] for n in present]
    dtype = given[0].dtype.name

    def of_one(index: Tensor) -> list[Any]:
        rows = slice(index[0], index[0] + 1) if keep.rows else slice(None)
        own = {n: values[n][rows] for n in ids}
        own_masks = {n: masks[n][rows] for n in ids if n in masks}
        with tf.GradientTape() as tape:
            tape.watch(weights)
            outputs, _ = call_layer(call, own.__getitem__, own_masks.get, dtype)
        arrived = [one[rows, index[-1]] for one in given]
        targets = [outputs[n] for n in present]
        found = tape.gradient(targets, weights, output_gradients=arrived, unconnected_gradients="zero")
        cast = (tf.cast(tf.convert_to_tensor(value), dtype) for value in found)
        return [keep.entry(*pair) for pair in zip(variables, cast, strict=True)]

    shape = tf.shape(given[0])
    sizes = shape[:2] if keep.rows else shape[1:2]
    entries = tf.transpose(tf.unravel_index(tf.range(tf.reduce_prod(sizes)), sizes))
    specs = [keep.entry_spec(variable, dtype) for variable in variables]
    found = tf.map_fn(of_one, entries, fn_output_signature=specs)
    return list(zip(variables, in_axes(found, sizes), strict=True))


@contextmanager
def unfused(layer: Any) -> Iterator[None]:
    """Recurrent layers within `layer` use no fused kernel meanwhile, and neither read nor keep states of their own."""
    inner = list(layer._flatten_layers()) if isinstance(layer, keras.layers.Layer) else []
    loops = [one for one in inner if isinstance(one, keras.layers.RNN)]
    before = [{name: getattr(one, name) for name in _OFF if getattr(one, name, False)} for one in loops]
    for one, names in zip(loops, before, strict=True):
        for name in names:
            setattr(one, name, False)
    try:
        yield
    finally:
        for one, names in zip(loops, before, strict=True):
            for name, value in names.items():
                setattr(one, name, value)


_OFF = ("use_cudnn", "stateful")
