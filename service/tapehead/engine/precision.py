"""The dtype a model computes in, and the same model rebuilt in another one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from tapehead.errors import CannotRebuild


def model_dtype(model: Any) -> tuple[str, bool]:
    """What the model's derivatives are computed in, and whether its layers do: the most precise of the dtypes that the
    layers with weights compute in, at least float32."""
    layers = model._flatten_layers(include_self=False, recursive=True)
    dtypes = {layer.compute_dtype for layer in layers if layer._trainable_variables or layer._non_trainable_variables}
    floats = {dtype for dtype in dtypes or {tensor.dtype for tensor in model.inputs} if "float" in dtype}
    dtype = "float64" if "float64" in floats else "float32"
    return dtype, floats <= {dtype}


def rebuilt(model: Any, dtype: str) -> Any:
    """A copy of the model that computes in `dtype`, made from its config, its weights cast.

    Raises:
        CannotRebuild: the config does not give the model back; the message says which layer and why.
    """
    classes = {type(layer).__name__: type(layer) for layer in model._flatten_layers()}
    own = {name: kind for name, kind in classes.items() if not kind.__module__.startswith("keras.")}
    before = keras.config.dtype_policy()
    # Thread-local in Keras; for layers whose config does not hold their dtype.
    keras.config.set_dtype_policy(dtype)
    try:
        with keras.saving.custom_object_scope(own):
            copy = type(model).from_config(_in_dtype(model.get_config(), dtype))
    except (TypeError, ValueError, KeyError, AttributeError, NotImplementedError) as error:
        raise CannotRebuild(
            f"the model cannot be rebuilt in {dtype} from its config: {str(error).strip().splitlines()[0]}. Give its "
            f"custom layers get_config and from_config, or ask for the model's own precision"
        ) from error
    finally:
        keras.config.set_dtype_policy(before)
    copy_weights(model, copy)
    return copy


def copy_weights(source: Any, target: Any) -> None:
    """Gives `target` the present weights of `source`, cast.

    Raises:
        CannotRebuild: the two have not the same weights.
    """
    ours, theirs = source.variables, target.variables
    if [tuple(v.shape) for v in ours] != [tuple(v.shape) for v in theirs]:
        raise CannotRebuild(
            f"rebuilt from its config the model has {len(theirs)} weights, not the {len(ours)} it has now (or of other "
            f"shapes): a custom layer or cell must make all its weights in build()"
        )
    for mine, other in zip(ours, theirs, strict=True):
        other.assign(tf.cast(tf.convert_to_tensor(mine), other.dtype))


def _in_dtype(config: Any, dtype: str) -> Any:
    """The config with every floating dtype and dtype policy replaced."""
    if isinstance(config, Mapping):
        if config.get("class_name") == "DTypePolicy":
            return {**config, "config": {**config["config"], "name": dtype}}
        return {
            key: dtype if key == "dtype" and isinstance(value, str) and "float" in value else _in_dtype(value, dtype)
            for key, value in config.items()
        }
    if isinstance(config, list | tuple):
        return type(config)(_in_dtype(one, dtype) for one in config)
    return config
