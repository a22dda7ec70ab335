"""The loss of a request: which of Keras's losses on which output, its targets, and its value within a sweep.

It is Keras's own function, mask and reduction: with a mask m over timesteps, `sum_over_batch_size` is
sum(m * l) / sum(m), without one the mean of l. Penalties of the weights (regularizers, `add_loss`) are left out.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import tree

from tapehead.engine.model import Model
from tapehead.engine.places import TensorAt
from tapehead.engine.prepared import Prepared
from tapehead.engine.trace import Trace
from tapehead.errors import BadParameter, BadShape
from tapehead.operations.request import Array

Tensor = Any

# Losses whose targets are the indices of classes, and those whose targets' shape is not the output's.
_INDICES = ("sparse_categorical_crossentropy", "circle")
_FREE = ("ctc",)


@dataclass(frozen=True)
class OutputLoss:
    """A loss on one output of the model: the output's name, point and tensor, the loss with its name, what it was asked
    for as, and its weight."""

    output: str
    point: str
    tensor: int
    loss: Any
    name: str
    asked: Hashable
    weight: float = 1.0


def losses(model: Model, asked: str | Mapping[str, str] | None, targets: Sequence[str]) -> tuple[OutputLoss, ...]:
    """The losses on the outputs that have targets, in the order of outputs: those asked for, else the compiled ones.

    Raises:
        BadParameter: a name is none of Keras's losses, the model has no compiled loss, or not for these outputs.
    """
    outputs = [spec.name for spec in model.card.outputs]
    points = output_points(model)
    if asked is None:
        found = _compiled(model, outputs, targets)
    else:
        names = dict.fromkeys(targets, asked) if isinstance(asked, str) else asked
        found = {output: (names[output], 1.0) for output in targets}
    return tuple(
        _made(model, output, point, *found[output])
        for output, point in zip(outputs, points, strict=True)
        if output in found
    )


def output_points(model: Model) -> list[str]:
    """The outputs' points, in order."""
    count = len(model.graph.outputs)
    return ["outputs"] if count == 1 else [f"outputs.{n}" for n in range(count)]


def _compiled(model: Model, outputs: Sequence[str], targets: Sequence[str]) -> dict[str, tuple[Any, float]]:
    """What the model is compiled with, and the weight, by output."""
    compiled = getattr(model.handed, "_compile_loss", None)
    if compiled is None or compiled._user_loss is None:
        raise BadParameter(
            f"the model {model.card.name!r} has no compiled loss (it was saved without one, or with a function that "
            f"nothing registers here): name one, as loss='mse', or ask for the gradient of a point with `of`"
        )
    given = _by_output(model, compiled._user_loss, outputs)
    weights = _by_output(model, compiled._user_loss_weights, outputs)
    found = {output: (loss, weights.get(output) or 1.0) for output, loss in given.items() if loss is not None}
    if missing := sorted(set(found) - set(targets)):
        raise BadParameter(f"targets lacks {missing}, on which the model's compiled loss is; or name a loss yourself")
    if extra := sorted(set(targets) - set(found)):
        raise BadParameter(f"targets has {extra}, on which the model's compiled loss is not; it is on {sorted(found)}")
    return found


def _by_output(model: Model, given: Any, outputs: Sequence[str]) -> dict[str, Any]:
    """What `compile` was given, for each output: one for all, a list in order, or a map of names or keys."""
    if given is None:
        return {}
    if not tree.is_nested(given):
        return dict.fromkeys(outputs, given)
    keys = model.card.output_keys
    if isinstance(given, Mapping) and set(given) <= {*outputs, *keys}:
        return {keys.get(name, name): value for name, value in given.items()}
    if not isinstance(given, Mapping) and len(given) == len(outputs):
        return dict(zip(outputs, given, strict=True))
    raise BadParameter(
        f"the model's compiled loss {given!r} does not fit its outputs {list(outputs)}: name a loss for each, as "
        f"loss={{'{outputs[0]}': 'mse'}}"
    )


def _made(model: Model, output: str, point: str, asked: Any, weight: float) -> OutputLoss:
    """A loss of its own in the model's dtype: Keras's are in float32 whatever a model computes in."""
    place = model.place(point)
    assert isinstance(place, TensorAt)
    loss = _in_dtype(_found(asked), model.dtype)
    key = asked if isinstance(asked, Hashable) else id(asked)
    return OutputLoss(output, point, place.tensor, loss, _name(asked), key, weight)


def _found(asked: Any) -> Any:
    if isinstance(asked, str) and asked.lower() in ("crossentropy", "ce"):
        raise BadParameter(
            f"loss {asked!r} leaves open which crossentropy is meant; name binary_crossentropy, "
            f"categorical_crossentropy or sparse_categorical_crossentropy"
        )
    try:
        found = keras.losses.get(asked)
    except ValueError as error:
        raise BadParameter(
            f"loss {asked!r} is none of Keras's; expected a name as in keras.losses, such as 'mse', 'mae', "
            f"'binary_crossentropy', 'sparse_categorical_crossentropy'"
        ) from error
    return found if isinstance(found, keras.losses.Loss) else _OfFunction(found)


class _OfFunction(keras.losses.Loss):
    """A function of targets and outputs, reduced as Keras reduces it."""

    def __init__(self, function: Any) -> None:
        super().__init__(name=getattr(function, "__name__", type(function).__name__))
        self.function = function

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """What the function gives."""
        return self.function(y_true, y_pred)


def _in_dtype(loss: Any, dtype: str) -> Any:
    if loss.dtype == dtype:
        return loss
    # Keras's own copies go by way of a saved file.
    own = object.__new__(type(loss))
    own.__dict__.update(loss.__dict__)
    own._dtype_policy, own._dtype = keras.DTypePolicy(dtype), dtype
    return own


def _name(asked: Any) -> str:
    if isinstance(asked, str):
        return asked
    return str(getattr(asked, "name", None) or getattr(asked, "__name__", type(asked).__name__))


def aligned(prepared: Prepared, loss: OutputLoss, target: Array) -> Array:
    """The targets of one output as its loss takes them, 0 at the timesteps that do not count.

    Raises:
        BadShape: they have not the output's shape.
        BadParameter: they are to be the indices of classes, and are not.
    """
    shape = (prepared.batch, *prepared.targets[loss.point].shape)
    kind = _kind(loss.loss)
    if kind in _INDICES and target.shape == (*shape[:-1], 1):
        target = target[..., 0]
    elif kind not in _INDICES and target.shape == shape[:-1] and shape[-1] == 1:
        target = target[..., None]
    wanted = shape[:-1] if kind in _INDICES else shape
    if kind and kind not in _FREE and target.shape != wanted:
        raise BadShape(
            f"targets of {loss.output!r} have shape {target.shape}; {loss.name} of an output of shape {shape} takes "
            f"{wanted}"
        )
    counts = _counts(prepared, loss.tensor, shape)
    if counts is not None and target.shape[:2] == counts.shape:
        target = target.copy()
        target[~counts] = 0
    if kind == _INDICES[0]:
        _refuse_other_classes(loss, target, shape[-1])
    return target


def _kind(loss: Any) -> str:
    """The name of Keras's own function behind a loss; empty for a loss of the user's own."""
    function = getattr(loss, "fn", None) or getattr(loss, "function", None)
    if getattr(function, "__module__", "").partition(".")[0] == "keras":
        return str(getattr(function, "__name__", ""))
    return ""


def _counts(prepared: Prepared, tensor: int, shape: tuple[int, ...]) -> Any:
    """Which timesteps of an output count, (batch, timesteps); None where all do."""
    if tensor in prepared.masks:
        return prepared.masks[tensor]
    lengths = prepared.lengths.get(prepared.model.seen.follows.get(tensor, ""))
    return None if lengths is None or len(shape) < 3 else np.arange(shape[1])[None] < lengths[:, None]


def _refuse_other_classes(loss: OutputLoss, target: Array, classes: int) -> None:
    ignored = getattr(loss.loss, "ignore_class", None)
    wrong = (target != np.round(target)) | (target < 0) | (target >= classes)
    if ignored is not None:
        wrong &= target != ignored
    if wrong.any():
        where = tuple(int(n) for n in np.argwhere(wrong)[0])
        raise BadParameter(
            f"targets of {loss.output!r} at {list(where)} is {target[where]:g}; {loss.name} takes the index of a "
            f"class, 0 to {classes - 1}"
        )


def cotangents(
    made: Trace, terms: Sequence[OutputLoss], targets: Sequence[Tensor], *, per_sample: bool
) -> tuple[Tensor, dict[int, Tensor]]:
    """The loss's value, () or one a sample (batch,), and its gradient at each output, (batch, *output).

    With `per_sample` each sample's loss is its own, as if it were alone.
    """
    outputs = {term.tensor: tf.identity(made.values[term.tensor]) for term in terms}
    masks = {tensor: mask for tensor in outputs if (mask := _mask(made, tensor)) is not None}

    def value(rows: Any) -> Tensor:
        own = {tensor: outputs[tensor][rows] for tensor in outputs}
        for tensor, mask in masks.items():
            own[tensor]._keras_mask = mask[rows]
        found = [
            term.weight * tf.reduce_sum(tf.cast(term.loss(target[rows], own[term.tensor]), made.given.dtype))
            for term, target in zip(terms, targets, strict=True)
        ]
        return tf.add_n(found)

    with tf.GradientTape() as tape:
        tape.watch(list(outputs.values()))
        if per_sample:
            found = tf.map_fn(
                lambda row: value(slice(row, row + 1)),
                tf.range(made.batch),
                fn_output_signature=tf.TensorSpec([], made.given.dtype),
            )
        else:
            found = value(slice(None))
    gradients = tape.gradient(found, list(outputs.values()), unconnected_gradients="zero")
    return found, dict(zip(outputs, gradients, strict=True))


def _mask(made: Trace, tensor: int) -> Tensor | None:
    """The mask that leaves with an output; the lengths where no layer carried them that far."""
    if tensor in made.masks:
        return made.masks[tensor]
    lengths = made.given.lengths_of(tensor)
    value = made.values[tensor]
    return None if lengths is None or value.shape.rank < 3 else tf.sequence_mask(lengths, tf.shape(value)[1])
