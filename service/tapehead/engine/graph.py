"""A Keras model opened into a flat list of calls: nested models and Bidirectional layers are taken apart.

A tensor is a number; a call reads tensors and gives tensors. Everything after this module walks that list, forwards or
backwards, and meets three kinds of call: a recurrent layer (`Recurrence`), the joining of a Bidirectional's two
directions (`Merge`), and any other layer or operation (`Call`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
from keras import tree

from tapehead.engine.rules import cell_rule
from tapehead.engine.rules.cells import CellRule
from tapehead.errors import UnsupportedModel
from tapehead.points import quoted

# Layers whose call is RNN's own loop over a cell; a subclass that overrides `call` is taken as any other layer.
_LOOPS = tuple(
    getattr(keras.layers, kind).call
    for kind in ("RNN", "SimpleRNN", "GRU", "LSTM", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D")
)


@dataclass(frozen=True)
class Ref:
    """Stands for a tensor in the arguments of a call."""

    id: int


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a layer or operation: `args` and `kwargs` hold a `Ref` where a tensor goes."""

    name: str
    layer: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: tuple[int, ...]

    @property
    def inputs(self) -> tuple[int, ...]:
        """The tensors that the call reads."""
        return tuple(leaf.id for leaf in tree.flatten((self.args, self.kwargs)) if isinstance(leaf, Ref))


@dataclass(frozen=True, eq=False)
class Recurrence:
    """One call of a recurrent layer. `outputs` are its output and, with `return_state`, its final states."""

    name: str
    layer: Any
    rule: CellRule
    sequence: int
    initial: tuple[int, ...] | None
    mask: int | None
    outputs: tuple[int, ...]

    @property
    def inputs(self) -> tuple[int, ...]:
        """The tensors that the call reads."""
        return (self.sequence, *(self.initial or ()), *(() if self.mask is None else (self.mask,)))

    @property
    def backwards(self) -> bool:
        """Whether the layer runs from the last timestep to the first."""
        return bool(self.layer.go_backwards)


@dataclass(frozen=True, eq=False)
class Merge:
    """Where a Bidirectional joins the outputs of its two directions; `outputs` are two where it does not join them."""

    name: str
    layer: Any
    forward: int
    backward: int
    outputs: tuple[int, ...]

    @property
    def inputs(self) -> tuple[int, ...]:
        """The tensors that the call reads."""
        return (self.forward, self.backward)


AnyCall = Call | Recurrence | Merge


@dataclass(frozen=True)
class Graph:
    """The flat model: inputs by name, outputs in order, calls so that each comes after those it reads.

    `nested` are the outputs of what was taken apart (models inside the model, a Bidirectional that returns its states),
    by the name that each stands under.
    """

    inputs: dict[str, int]
    outputs: tuple[int, ...]
    calls: tuple[AnyCall, ...]
    nested: dict[str, tuple[int, ...]]

    @property
    def recurrences(self) -> tuple[Recurrence, ...]:
        """The calls of recurrent layers."""
        return tuple(call for call in self.calls if isinstance(call, Recurrence))

    def before(self, tensors: Sequence[int], calls: Sequence[AnyCall] = ()) -> list[AnyCall]:
        """The calls that must run to have `tensors` and `calls`, in order."""
        needed, wanted = set(tensors), set(calls)
        kept = []
        for call in reversed(self.calls):
            if call in wanted or needed.intersection(call.outputs):
                needed.update(call.inputs)
                kept.append(call)
        return kept[::-1]


def flatten(model: Any) -> Graph:
    """The graph of a Functional or Sequential Keras model.

    Raises:
        UnsupportedModel: the model has no graph of layers.
    """
    function = function_of(model)
    if function is None:
        raise UnsupportedModel(
            f"{type(model).__name__} {getattr(model, 'name', '')!r} has no graph of layers; expected a built "
            f"Functional or Sequential Keras model: give a Sequential an Input, and write a subclassed model with "
            f"keras.Model(inputs, outputs)"
        )
    opener = _Opener()
    inputs = {_input_name(tensor): opener.new(tensor) for tensor in function.inputs}
    if len(inputs) != len(function.inputs):
        raise UnsupportedModel(f"two inputs of the model have one name; they are {list(inputs)}: name each Input")
    opener.open(function, "")
    outputs = tuple(opener.ids[id(tensor)] for tensor in function.outputs)
    graph = Graph(inputs, outputs, tuple(opener.named()), opener.named_nested())
    # What leads to no output, of the model or of one in it, made masks.
    shown = (*outputs, *(tensor for tensors in graph.nested.values() for tensor in tensors))
    return replace(graph, calls=tuple(graph.before(shown)))


def function_of(layer: Any) -> Any:
    """The layer's own graph of layers, if it has one."""
    if isinstance(layer, keras.Sequential):
        return getattr(layer, "_functional", None)
    return layer if isinstance(layer, keras.Function | keras.Model) and hasattr(layer, "_nodes_by_depth") else None


def _input_name(tensor: Any) -> str:
    return str(tensor._keras_history.operation.name)


class _Opener:
    """Walks a model's nodes and collects calls."""

    def __init__(self) -> None:
        self.ids: dict[int, int] = {}
        self.alive: list[Any] = []
        self.calls: list[tuple[str, AnyCall]] = []
        self.shapes: dict[int, tuple[int | None, ...]] = {}
        self.nested: list[tuple[str, tuple[int, ...]]] = []
        self.next = 0

    def new(self, tensor: Any) -> int:
        """A number for a Keras tensor, which is kept alive so that its id stays its own."""
        self.alive.append(tensor)
        self.ids[id(tensor)] = self.fresh()
        self.shapes[self.ids[id(tensor)]] = tuple(tensor.shape)
        return self.ids[id(tensor)]

    def fresh(self) -> int:
        self.next += 1
        return self.next - 1

    def open(self, function: Any, prefix: str) -> None:
        for node in _nodes(function):
            args, kwargs = node.arguments.convert(self._ref)
            kwargs = {key: value for key, value in kwargs.items() if not _is_own_mask(node, key)}
            name = prefix + quoted(node.operation.name)
            inner = function_of(node.operation)
            if inner is not None:
                self._open_nested(inner, node, args, name)
                continue
            outputs = tuple(self.new(tensor) for tensor in node.outputs)
            self._add(name, node.operation, args, kwargs, outputs)

    def named(self) -> Iterator[AnyCall]:
        """The calls; those of a layer called several times get `.call.0`, `.call.1` …"""
        times = Counter(call.name for _, call in self.calls)
        seen: Counter[str] = Counter()
        for base, call in self.calls:
            if times[call.name] > 1:
                number = seen[call.name]
                seen[call.name] += 1
                part = call.name[len(base) :]
                call = type(call)(**{**vars(call), "name": f"{base}.call.{number}{part}"})
            yield call

    def named_nested(self) -> dict[str, tuple[int, ...]]:
        """The outputs of what was taken apart, numbered likewise where it was called several times."""
        times, seen, found = Counter(name for name, _ in self.nested), Counter[str](), {}
        for name, tensors in self.nested:
            found[f"{name}.call.{seen[name]}" if times[name] > 1 else name] = tensors
            seen[name] += 1
        return found

    def _ref(self, leaf: Any) -> Any:
        return Ref(self.ids[id(leaf)]) if isinstance(leaf, keras.KerasTensor) else leaf

    def _open_nested(self, inner: Any, node: Any, args: tuple[Any, ...], name: str) -> None:
        given = [leaf for leaf in tree.flatten(args) if isinstance(leaf, Ref)]
        before = {id(tensor): self.ids.get(id(tensor)) for tensor in inner.inputs}
        for tensor, ref in zip(inner.inputs, given, strict=True):
            self.alive.append(tensor)
            self.ids[id(tensor)] = ref.id
        self.open(inner, name + ".")
        results = [self.ids[id(tensor)] for tensor in inner.outputs]
        self.nested.append((name, tuple(results)))
        self.ids.update({key: value for key, value in before.items() if value is not None})
        for tensor, result in zip(node.outputs, results, strict=True):
            self.alive.append(tensor)
            self.ids[id(tensor)] = result

    def _add(
        self, name: str, layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any], outputs: tuple[int, ...]
    ) -> None:
        if _is_loop(layer) or _is_bidirectional(layer):
            sequence, initial, mask = _recurrent_arguments(name, *args, **kwargs)
            if _is_loop(layer):
                self._add_recurrence(name, name, layer, sequence, initial, mask, outputs)
            else:
                self._add_bidirectional(name, layer, sequence, initial, mask, outputs)
            return
        if weights := [leaf.path for leaf in tree.flatten((args, kwargs)) if isinstance(leaf, keras.Variable)]:
            raise UnsupportedModel(
                f"{name!r} is given weights, {weights}, as constants: derivatives would leave them out. Use them "
                f"within a layer of your own that holds them"
            )
        self.calls.append((name, Call(name, layer, args, kwargs, outputs)))

    def _add_recurrence(
        self,
        base: str,
        name: str,
        layer: Any,
        sequence: int,
        initial: tuple[int, ...] | None,
        mask: int | None,
        outputs: tuple[int, ...],
    ) -> None:
        rule = cell_rule(layer.cell, self.shapes[sequence][2:])
        self.calls.append((base, Recurrence(name, layer, rule, sequence, initial, mask, outputs)))

    def _add_bidirectional(
        self,
        name: str,
        layer: Any,
        sequence: int,
        initial: tuple[int, ...] | None,
        mask: int | None,
        outputs: tuple[int, ...],
    ) -> None:
        joined = 2 if layer.merge_mode is None else 1
        states = outputs[joined:]
        half = len(states) // 2
        ends = []
        for which, one, own in (
            ("forward", layer.forward_layer, states[:half]),
            ("backward", layer.backward_layer, states[half:]),
        ):
            first = None if initial is None else _half(initial, which)
            ends.append(self.fresh())
            self._add_recurrence(name, f"{name}.{which}", one, sequence, first, mask, (ends[-1], *own))
        self.calls.append((name, Merge(name, layer, ends[0], ends[1], outputs[:joined])))
        if states:
            self.nested.append((name, outputs))


def _half(initial: tuple[int, ...], which: str) -> tuple[int, ...]:
    half = len(initial) // 2
    return initial[:half] if which == "forward" else initial[half:]


def _nodes(function: Any) -> Iterator[Any]:
    for depth in sorted(function._nodes_by_depth, reverse=True):
        for node in function._nodes_by_depth[depth]:
            if node.operation is not None and not node.is_input:
                yield node


def _is_own_mask(node: Any, key: str) -> bool:
    """Whether an argument is the mask that Keras carries along with another one: the sweeps carry it themselves.

    A model read from its config holds such a mask as a tensor of its own, so which tensor it is does not tell. A
    recurrent layer fed with initial states gets none from Keras: one that it has was given to it.
    """
    if node.arguments.kwargs.get("initial_state") is not None and isinstance(node.operation, _RECURRENT):
        return False
    given = tree.flatten(node.arguments.kwargs.get(key))
    carried = [getattr(tensor, "_keras_mask", None) for tensor in node.arguments.keras_tensors]
    tensors = bool(given) and all(isinstance(mask, keras.KerasTensor) for mask in given)
    return "mask" in key and tensors and any(mask is not None for mask in carried)


_RECURRENT = (keras.layers.RNN, keras.layers.Bidirectional)


def _is_loop(layer: Any) -> bool:
    return isinstance(layer, keras.layers.RNN) and type(layer).call in _LOOPS


def _is_bidirectional(layer: Any) -> bool:
    if type(layer) is not keras.layers.Bidirectional:
        return False
    return _is_loop(layer.forward_layer) and _is_loop(layer.backward_layer)


def _recurrent_arguments(
    name: str,
    sequences: Any,
    initial_state: Any = None,
    mask: Any = None,
    training: Any = None,  # noqa: ARG001 - a call may give it; models run as in predict
) -> tuple[int, tuple[int, ...] | None, int | None]:
    leaves = [] if initial_state is None else tree.flatten(initial_state)
    if not isinstance(sequences, Ref) or not all(isinstance(leaf, Ref) for leaf in leaves):
        raise UnsupportedModel(
            f"{name!r} is called with constants for its sequence or initial state; give them as inputs of the model"
        )
    initial = tuple(leaf.id for leaf in leaves) if leaves else None
    return sequences.id, initial, mask.id if isinstance(mask, Ref) else None
