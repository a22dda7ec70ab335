"""A Keras model as the engine sees it: a graph, named places, a card, and the programs compiled for it so far."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tapehead.engine.graph import AnyCall, Graph, flatten
from tapehead.engine.kept import Kept
from tapehead.engine.naming import describe, named_places, named_weights
from tapehead.engine.places import Inner, Place, TensorAt, WeightAt
from tapehead.engine.precision import copy_weights, model_dtype, rebuilt
from tapehead.engine.probe import Seen, probed
from tapehead.engine.subclassed import with_graph
from tapehead.engine.tuning import Later, Program
from tapehead.operations import Card

# How many compiled functions a model keeps, one for each question: a traced one takes some 6 to 9 MB.
PROGRAMS = 64

# How many requests' points it keeps as places, timesteps and one-hot vectors: at most a few MB each.
QUESTIONS = 64

_MASKING = (keras.layers.Masking, keras.layers.Embedding)


class Model:
    """A Keras model whose derivatives can be asked for.

    `live` says that its weights may change between calls: a copy in another precision is brought up to date each time.
    `like` is the model that this one is rebuilt from, whose weights' names it keeps. `later` runs what may be compiled
    beside the work (see `tuning`).

    Raises:
        UnsupportedModel: the model has no graph of layers, or does not compute here what it computes in Keras.
    """

    seen: Seen

    def __init__(
        self,
        keras_model: Any,
        name: str,
        version: int = 1,
        *,
        live: bool = False,
        like: Model | None = None,
        later: Later | None = None,
    ) -> None:
        self.handed: Any = like.handed if like else keras_model
        """The Keras model as it was handed over, which knows the loss that it is compiled with."""
        keras_model = with_graph(keras_model)
        self.keras = keras_model
        self.live, self.later = live, later
        self.graph: Graph = flatten(keras_model)
        self.dtype, uniform = model_dtype(keras_model)
        self.programs: Kept[Program] = Kept(PROGRAMS)
        self.questions: Kept[Any] = Kept(QUESTIONS)
        self.places: dict[str, Place] = named_places(self.graph)
        own_weights = named_weights(self.graph)
        self.weights: dict[str, Any] = dict(
            zip(like.weights if like else own_weights, own_weights.values(), strict=True)
        )
        self._weight_places = {name: WeightAt(variable) for name, variable in self.weights.items()}
        self.masked_by = _masked_by(self.graph)
        self.padding = _padding(self.graph)
        native = self if uniform else Model(rebuilt(keras_model, self.dtype), name, version, like=self, later=later)
        self._variants: dict[str, Model] = {self.dtype: native}
        self.seen = probed(self.graph, keras_model, self.dtype) if uniform else native.seen
        self.card: Card = describe(self, name, version)

    def __repr__(self) -> str:
        return f"<Model {self.card.name!r} version {self.card.version}: {len(self.graph.calls)} calls, {self.dtype}>"

    @cached_property
    def on_processor(self) -> bool:
        """Whether that is the processor, and no card."""
        return self.device.startswith("cpu")

    @cached_property
    def device(self) -> str:
        """The device that its programs run on."""
        with tf.init_scope():
            placed = tf.zeros([]).device
        return str(placed).rpartition("device:")[2].lower() or "cpu:0"

    @property
    def bytes(self) -> int:
        """The bytes of its weights."""
        return int(
            sum(np.prod(v.shape, dtype=np.int64) * np.dtype(_itemtype(v.dtype)).itemsize for v in self.keras.variables)
        )

    @property
    def compile_s(self) -> float:
        """The seconds that compiling its programs took, those of its copies in other precisions among them."""
        copies = {id(copy): copy for copy in self._variants.values() if copy is not self}
        own = sum(program.compile_s for program in self.programs)
        return own + sum(copy.compile_s for copy in copies.values())

    def at(self, precision: str | None) -> Model:
        """The same model in `precision`: itself, or a copy rebuilt from its config with the weights copied.

        Raises:
            CannotRebuild: its config does not give the model back.
        """
        wanted = precision or self.dtype
        wanted = "float64" if wanted == "float64" else "float32"
        if wanted not in self._variants:
            self._variants[wanted] = self._rebuilt(wanted)
        variant = self._variants[wanted]
        if self.live and variant is not self:
            copy_weights(self.keras, variant.keras)
        return variant

    def apart(self) -> Model:
        """A copy in float64 that belongs to no one else, so that its weights may be moved and put back."""
        if "apart" not in self._variants:
            self._variants["apart"] = self._rebuilt("float64")
        copy_weights(self.keras, self._variants["apart"].keras)
        return self._variants["apart"]

    def _rebuilt(self, dtype: str) -> Model:
        return Model(rebuilt(self.keras, dtype), self.card.name, self.card.version, like=self, later=self.later)

    def place(self, name: str) -> Place:
        """Where the point of that canonical name lies."""
        if name in self.places:
            return self.places[name]
        weight = name if name in self.weights else name.rpartition(".")[0]
        return self._weight_places[weight]

    def calls_before(self, places: Sequence[Place]) -> list[AnyCall]:
        """The calls that must run before `places` have values."""
        tensors = [place.tensor for place in places if isinstance(place, TensorAt)]
        return self.graph.before(tensors, [place.call for place in places if isinstance(place, Inner)])


def _masked_by(graph: Graph) -> dict[int, int]:
    """Inputs that one layer alone reads, and which masks them: the mask of its output says which timesteps count."""
    found = {}
    for tensor in graph.inputs.values():
        readers = [call for call in graph.calls if tensor in call.inputs]
        if len(readers) == 1 and isinstance(getattr(readers[0], "layer", None), _MASKING):
            found[tensor] = readers[0].outputs[0]
    return found


def _padding(graph: Graph) -> dict[str, float]:
    """The value that padding is set to in each input: what the layer that reads it masks, else 0."""
    values = dict.fromkeys(graph.inputs, 0.0)
    for name, tensor in graph.inputs.items():
        for call in graph.calls:
            if tensor in call.inputs and isinstance(call.layer, keras.layers.Masking):
                values[name] = call.layer.mask_value
    return values


def _itemtype(dtype: str) -> str:
    return "uint16" if dtype == "bfloat16" else dtype
