"""A .keras file -> the Keras model it holds, whole; or what is wrong with it and what to do."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

import tapehead.keras  # noqa: F401 - registers the cells that ship with us, so that files that hold them load
from tapehead.errors import TapeheadError, UnsupportedModel

_CONFIG, _WEIGHTS = "config.json", "model.weights.h5"
_BUILD_ADVICE = (
    "A custom layer or cell has to create all of its weights in build(self, input_shape), and to build its sublayers "
    "there; Keras restores a saved file only into weights that exist by then. Add it, and save the model again"
)


def load_keras(path: str) -> keras.Model:
    """The model in a file, with the loss it was compiled with where that can be restored, without its optimizer.

    Loading can run code, as the model's custom classes do; Lambda layers, whose code lies in the file, are refused.

    Raises:
        UnsupportedModel: it is no .keras file, needs classes that are not registered, holds a Lambda layer, or fills
            fewer variables than the model has.
    """
    with _opened(path) as archive:
        config, stored = _config(archive), _stored(archive)
    _refuse_unknown_classes(config)
    model = _loaded(path)
    _refuse_unfilled(model, stored)
    _restore_loss(model, config.get("compile_config") or {})
    return model


def weigh(path: str) -> int:
    """The bytes of the weights in a file, its optimizer's left out.

    Raises:
        UnsupportedModel: it is no .keras file.
    """
    with _opened(path) as archive, _weights(archive) as datasets:
        return sum(int(dataset.nbytes) for dataset in datasets)


@contextmanager
def _opened(path: str) -> Iterator[zipfile.ZipFile]:
    name = Path(path).name
    try:
        with zipfile.ZipFile(path) as archive:
            absent = {_CONFIG, _WEIGHTS} - set(archive.namelist())
            if absent:
                raise UnsupportedModel(f"{name} is a zip archive without {' and '.join(sorted(absent))}: {_EXPECTED}")
            yield archive
    except zipfile.BadZipFile:
        raise UnsupportedModel(f"{name} is no zip archive: {_EXPECTED}") from None
    except OSError as error:
        raise UnsupportedModel(f"{name} cannot be read: {error.strerror or error}") from None


_EXPECTED = "expected the .keras file that model.save('name.keras') writes in Keras 3"


def _config(archive: zipfile.ZipFile) -> dict[str, Any]:
    try:
        config = json.loads(archive.read(_CONFIG))
    except ValueError as error:
        raise UnsupportedModel(f"its {_CONFIG} cannot be read: {error}") from None
    if not isinstance(config, dict):
        raise UnsupportedModel(f"its {_CONFIG} is no description of a model: {_EXPECTED}")
    return config


@contextmanager
def _weights(archive: zipfile.ZipFile) -> Iterator[list[Any]]:
    """The datasets of every layer."""
    found: list[Any] = []

    def note(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and not name.startswith("optimizer/"):
            found.append(item)

    try:
        with h5py.File(io.BytesIO(archive.read(_WEIGHTS)), "r") as file:
            file.visititems(note)
            yield found
    except OSError as error:  # what h5py raises for anything that is no HDF5
        raise UnsupportedModel(f"its {_WEIGHTS} cannot be read: {error}") from None


def _stored(archive: zipfile.ZipFile) -> Counter[Any]:
    with _weights(archive) as datasets:
        return Counter(_digest(dataset[()]) for dataset in datasets)


def _refuse_unknown_classes(config: Mapping[str, Any]) -> None:
    wanted = {key: value for key, value in config.items() if key != "compile_config"}
    missing = sorted({name for name in _custom_names(wanted) if keras.saving.get_registered_object(name) is None})
    if missing:
        raise UnsupportedModel(
            f"it needs the custom {', '.join(missing)}, which nothing has registered. Put the code in a module, with "
            f"@keras.saving.register_keras_serializable() on each, and name the module at start: tapehead serve "
            f"--import MODULE"
        )


def _custom_names(node: Any) -> Iterator[str]:
    """The names under which a config's own classes and functions have to be registered."""
    if isinstance(node, list):
        for each in node:
            yield from _custom_names(each)
    elif isinstance(node, dict):
        if (name := _custom_name(node)) is not None:
            yield name
        for each in node.values():
            yield from _custom_names(each)


def _custom_name(node: Mapping[str, Any]) -> str | None:
    name = node.get("config") if node.get("class_name") == "function" else node.get("registered_name")
    module = str(node.get("module") or "")
    if not isinstance(name, str) or module.split(".")[0] == "keras":
        return None
    return name if ">" in name or module != "builtins" else None


def _loaded(path: str) -> keras.Model:
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except (TapeheadError, tf.errors.ResourceExhaustedError, MemoryError):
        raise
    except Exception as error:  # Keras and the file's custom classes raise anything at all
        raise UnsupportedModel(_why(str(error), type(error).__name__)) from error


def _why(message: str, kind: str) -> str:
    """Keras's reason in our words, where it is known; else in its own, the first lines of them."""
    if "lambda" in message.lower():
        return "it holds a Lambda layer, whose code lies in the file: make it a registered layer of a module of yours"
    if "never built" in message:
        return f"Keras finds layers in it without weights to fill. {_BUILD_ADVICE}"
    return f"Keras cannot load it: {kind}: {message[:500]}"


def _refuse_unfilled(model: keras.Model, stored: Counter[Any]) -> None:
    """A weight that is nowhere in the file is a fresh one, and what it computes would be noise."""
    unbuilt = [layer.name for layer in model._flatten_layers() if not layer.built and _has_build(layer)]
    wanted: Counter[Any] = Counter()
    fresh = []
    for weight in model.weights:
        digest = _digest(np.asarray(weight))
        wanted[digest] += 1
        if wanted[digest] > stored[digest]:
            fresh.append(weight.path)
    if unbuilt or fresh:
        raise UnsupportedModel(
            f"the file does not fill all of the model's weights; left as they were made: {', '.join(unbuilt + fresh)}. "
            f"{_BUILD_ADVICE}"
        )


def _has_build(layer: Any) -> bool:
    return type(layer).build is not keras.layers.Layer.build


def _digest(array: npt.NDArray[Any]) -> tuple[tuple[int, ...], bytes]:
    return array.shape, hashlib.blake2b(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data).digest()


def _restore_loss(model: keras.Model, compiled: Mapping[str, Any]) -> None:
    """Compiles with the saved loss alone: the optimizer's state would take twice the memory of the weights."""
    try:
        loss = keras.saving.deserialize_keras_object(compiled.get("loss"))
        weights = keras.saving.deserialize_keras_object(compiled.get("loss_weights"))
    except (TypeError, ValueError):  # a loss of the user's own, not registered here: nothing but a loss needs it
        return
    if loss is not None:
        # A class may have a compile of its own, which takes something else.
        keras.Model.compile(model, loss=loss, loss_weights=weights)
