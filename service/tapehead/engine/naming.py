"""The names of a model's points, and its card."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import keras

from tapehead.engine.graph import Call, Graph, Recurrence
from tapehead.engine.places import Final, Gate, Initial, Inner, Place, State, TensorAt
from tapehead.engine.rules import cell_gates
from tapehead.engine.rules.ranges import activations
from tapehead.operations import Card, PointInfo, TensorSpec
from tapehead.operations.card import Kind
from tapehead.points import quoted

if TYPE_CHECKING:
    from tapehead.engine.model import Model


def named_places(graph: Graph) -> dict[str, Place]:
    """Every point of the model by its canonical name."""
    places: dict[str, Place] = {quoted(name): TensorAt(tensor) for name, tensor in graph.inputs.items()}
    for n, tensor in enumerate(graph.outputs):
        places["outputs" if len(graph.outputs) == 1 else f"outputs.{n}"] = TensorAt(tensor)
    for name, tensors in graph.nested.items():
        places.update(_output_places(name, tensors))
    for call in graph.calls:
        places.update(_output_places(call.name, call.outputs))
        if isinstance(call, Recurrence):
            places.update(_inner_places(call))
    return places


def _output_places(name: str, tensors: tuple[int, ...]) -> dict[str, Place]:
    """A layer's output under its name, or several as `.output.0`, `.output.1` …"""
    if len(tensors) == 1:
        return {name: TensorAt(tensors[0])}
    return {f"{name}.output.{n}": TensorAt(tensor) for n, tensor in enumerate(tensors)}


def _inner_places(call: Recurrence) -> dict[str, Place]:
    places: dict[str, Place] = {}
    for state in call.rule.states:
        places[f"{call.name}.{state}"] = State(call, state)
        places[f"{call.name}.{state}.initial"] = Initial(call, state)
        places[f"{call.name}.{state}.final"] = Final(call, state)
    places.update({f"{call.name}.{gate}": Gate(call, gate) for gate in call.rule.gates})
    return places


def describe(model: Model, name: str, version: int) -> Card:
    """The model's card."""
    graph = model.graph
    points = {point: _point_info(model, point, place) for point, place in model.places.items()}
    outputs = [f"outputs.{n}" if len(graph.outputs) > 1 else "outputs" for n in range(len(graph.outputs))]
    inputs = {quoted(name): name for name in graph.inputs}
    return Card(
        name=name,
        version=version,
        inputs=tuple(_input_spec(model, own, points[point]) for point, own in inputs.items()),
        outputs=tuple(
            TensorSpec(label, (None, *points[point].shape), points[point].dtype, points[point].axes)
            for point, label in zip(outputs, _output_names(model.keras, outputs), strict=True)
        ),
        points=points,
        recurrent={call.name: _recurrent_info(call, model.places) for call in graph.recurrences},
        weights={name: tuple(variable.shape) for name, variable in model.weights.items()},
        bytes=model.bytes,
        dtype=model.dtype,
        aliases={**_paths(model), **_aliases(graph, points)},
        closed=_closed(graph),
        columns=_columns(model),
        output_keys=_output_keys(model.keras, _output_names(model.keras, outputs)),
        layers=tuple(_layers(graph)),
    )


def _point_info(model: Model, name: str, place: Place) -> PointInfo:
    seen = model.seen
    if isinstance(place, TensorAt):
        shape, dtype = seen.shapes[place.tensor], seen.dtypes[place.tensor]
        follows = seen.follows.get(place.tensor)
        kind: Kind = "input" if place.tensor in model.graph.inputs.values() else "layer"
        kind = "output" if name.startswith("outputs") and kind == "layer" else kind
        return PointInfo(shape, _axes(shape, follows, kind), dtype, "float" in dtype, kind, follows)
    assert isinstance(place, Inner)
    rule = place.call.rule
    shapes = dict(zip((*rule.states, *rule.gates), (*rule.state_shapes, *rule.gate_shapes), strict=True))
    shape = tuple(shapes[place.name])
    unit_axes = ("unit",) if len(shape) == 1 else tuple(f"unit{n}" for n in range(len(shape)))
    if isinstance(place, Initial | Final):
        return PointInfo(shape, unit_axes, model.dtype, True, "initial" if isinstance(place, Initial) else "final")
    sequence = place.call.sequence
    timesteps = seen.shapes[sequence][0]
    kind = "gate" if isinstance(place, Gate) else "state"
    return PointInfo((timesteps, *shape), ("timestep", *unit_axes), model.dtype, True, kind, seen.follows.get(sequence))


def _axes(shape: tuple[int | None, ...], follows: str | None, kind: Kind) -> tuple[str, ...]:
    """The names of a tensor's axes: timesteps first where it has them, features of an input, units of a layer."""
    last = "feature" if kind == "input" else "unit"
    rest = len(shape)
    lead: tuple[str, ...] = ()
    if follows is not None or len(shape) > 1:
        lead, rest = ("timestep",), len(shape) - 1
    if rest == 0:
        return lead
    return (*lead, *(f"axis{n + 1}" for n in range(rest - 1)), last)


def _input_spec(model: Model, own: str, info: PointInfo) -> TensorSpec:
    symbol = dict(zip(model.graph.inputs, model.keras.inputs, strict=True))[own]
    dtype = symbol.dtype if "float" not in symbol.dtype else info.dtype
    return TensorSpec(own, (None, *symbol.shape[1:]), dtype, info.axes)


def _output_names(keras_model: Any, points: list[str]) -> list[str]:
    """The outputs' names in Keras, where they are all different, else the points'."""
    names = [str(name) for name in getattr(keras_model, "output_names", points)]
    return names if len(names) == len(points) == len(set(names)) else points


def _output_keys(keras_model: Any, names: list[str]) -> dict[str, str]:
    """The outputs' names by the keys under which the model gives them, where it gives a map."""
    structure = getattr(getattr(keras_model, "_functional", keras_model), "_outputs_struct", None)
    if not isinstance(structure, dict) or len(structure) != len(names):
        return {}
    # Keras flattens a map in the order of its sorted keys.
    return dict(zip(sorted(structure), names, strict=True))


def _recurrent_info(call: Recurrence, places: dict[str, Place]) -> dict[str, Any]:
    rule = call.rule
    read = TensorAt(call.sequence)
    return {
        "cell": rule.kind,
        "units": list(rule.output_shape),
        "states": {state: list(shape) for state, shape in zip(rule.states, rule.state_shapes, strict=True)},
        "gates": list(rule.gates),
        "activations": activations(rule),
        "direction": "backward" if call.backwards else "forward",
        "reads": [name for name, place in places.items() if place == read],
        "fed": call.initial is not None,
    }


def _layers(graph: Graph) -> Iterator[dict[str, Any]]:
    """Every input, call and output with the names of those whose tensors it reads, each after what it reads."""
    made = {tensor: quoted(name) for name, tensor in graph.inputs.items()}
    yield from ({"name": name, "class": "Input", "inbound": []} for name in made.values())
    for call in graph.calls:
        inbound = list(dict.fromkeys(made[tensor] for tensor in call.inputs))
        yield {"name": call.name, "class": type(call.layer).__name__, "inbound": inbound}
        made.update(dict.fromkeys(call.outputs, call.name))
    for n, tensor in enumerate(graph.outputs):
        name = "outputs" if len(graph.outputs) == 1 else f"outputs.{n}"
        yield {"name": name, "class": "Output", "inbound": [made[tensor]]}


def named_weights(graph: Graph) -> dict[str, Any]:
    """Every weight by its name: the layer's point, a slash, the variable, the cell's own component left out.

    A layer called several times has its weights once, under its bare name.
    """
    found: dict[str, Any] = {}
    for call in graph.calls:
        base = call.name.partition(".call.")[0]
        if isinstance(call, Recurrence):
            for name, cell in _cells(base, call.layer.cell):
                found.update(_own_weights(name, cell))
        elif isinstance(call, Call):
            found.update(_own_weights(base, call.layer))
    return found


def _cells(name: str, cell: Any) -> list[tuple[str, Any]]:
    """The cells of a layer with the names that their weights stand under."""
    if not isinstance(cell, keras.layers.StackedRNNCells):
        return [(name, cell)]
    return [pair for n, one in enumerate(cell.cells) for pair in _cells(f"{name}.cells.{n}", one)]


def _own_weights(name: str, layer: Any) -> dict[str, Any]:
    own = f"{getattr(layer, 'path', None)}/"
    return {f"{name}/{variable.path.removeprefix(own)}": variable for variable in getattr(layer, "weights", ())}


def _paths(model: Model) -> dict[str, str]:
    """Keras's full path of each weight, where it is not its name."""
    found = {"/".join(map(quoted, v.path.split("/"))): name for name, v in model.weights.items() if hasattr(v, "path")}
    return {path: name for path, name in found.items() if path not in model.weights}


def _closed(graph: Graph) -> dict[str, str]:
    """The recurrent layers within layers that are called as a whole, and why they have no points."""
    whole = [call for call in graph.calls if isinstance(call, Call) and isinstance(call.layer, keras.layers.Layer)]
    return {
        quoted(inner.name): _within(call, inner)
        for call in whole
        for inner in call.layer._flatten_layers(include_self=False)
        if isinstance(inner, keras.layers.RNN)
    }


def _within(call: Call, inner: Any) -> str:
    return (
        f"layer {inner.name!r} lies inside {call.name!r} ({type(call.layer).__name__}), which is called as a whole: "
        f"its output and its weights are points. A model whose call is made of layers and keras.ops alone is opened"
    )


def _columns(model: Model) -> dict[str, dict[str, tuple[int, int]]]:
    """Where each gate's columns stand on the last axis of a recurrent layer's weights, in the kernel's order."""
    names = dict(zip(named_weights(model.graph), model.weights, strict=True))
    found = {}
    for call in model.graph.recurrences:
        base = call.name.partition(".call.")[0]
        for name, cell in _cells(base, call.layer.cell):
            gates = cell_gates(call.rule, name.removeprefix(base).lstrip("."))
            for weight in _own_weights(name, cell) if gates else ():
                width = model.weights[names[weight]].shape[-1] // len(gates)
                found[names[weight]] = {gate: (n * width, (n + 1) * width) for n, gate in enumerate(gates)}
    return found


def _aliases(graph: Graph, points: dict[str, PointInfo]) -> dict[str, str]:
    """`inputs` for the only input; the bare name of a layer called several times, to what it could mean."""
    aliases: dict[str, str] = {}
    if "inputs" not in points:
        names = [quoted(name) for name in graph.inputs]
        aliases["inputs"] = ",".join(names)
    if len(graph.outputs) > 1:
        aliases["outputs"] = ",".join(f"outputs.{n}" for n in range(len(graph.outputs)))
    names = list(dict.fromkeys([*graph.nested, *(call.name for call in graph.calls)]))
    for name in names:
        base, called, _ = name.partition(".call.")
        if called:
            aliases.setdefault(base, ",".join(other for other in names if other.partition(".call.")[0] == base))
    for call in graph.calls:
        if len(call.outputs) > 1:
            own = [f"{call.name}.output.{n}" for n in range(len(call.outputs))]
            aliases.setdefault(call.name, own[0] if isinstance(call, Recurrence) else ",".join(own))
    return aliases
