"""What is known of a model without its framework: enough to check a request and to size its answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Kind = Literal["input", "output", "layer", "state", "initial", "final", "gate", "weight"]


@dataclass(frozen=True)
class TensorSpec:
    """An input or output of a model: its shape with the batch axis first, None where any length will do."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str
    axes: tuple[str, ...]


@dataclass(frozen=True)
class PointInfo:
    """One point of a model: its shape without the batch axis, and the names of those axes.

    `follows` names the input whose timesteps the point's timestep axis counts; None where it has none, or where some
    layer changed their number.
    """

    shape: tuple[int | None, ...]
    axes: tuple[str, ...]
    dtype: str
    differentiable: bool
    kind: Kind
    follows: str | None = None


@dataclass(frozen=True)
class Card:
    """A model's name, inputs, outputs, points, recurrent layers and weights, as plain values that cross the seam.

    `recurrent` tells of each layer its cell, units, states, gates and direction, the `activations` that give its gates,
    the points that are the sequence it `reads`, and whether the model has it `fed` with initial states.
    """

    name: str
    version: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    points: Mapping[str, PointInfo]
    recurrent: Mapping[str, Mapping[str, Any]]
    weights: Mapping[str, tuple[int, ...]]
    bytes: int
    dtype: str = "float32"
    platform: str = "tapehead_keras"
    aliases: Mapping[str, str] = field(default_factory=dict)
    """Other names of a point: `inputs` for the only input, an ambiguous name's alternatives joined by commas."""
    closed: Mapping[str, str] = field(default_factory=dict)
    """Why a recurrent layer within another layer has no points, by the inner one's name."""
    columns: Mapping[str, Mapping[str, tuple[int, int]]] = field(default_factory=dict)
    """Where on a weight's last axis each gate's columns start and end."""
    output_keys: Mapping[str, str] = field(default_factory=dict)
    """The outputs' names by the keys of the map in which the model's call gives them."""
    layers: tuple[Mapping[str, Any], ...] = ()
    """The calls of the model from inputs to outputs: each one's `name`, `class` and the names of the `inbound` ones."""

    def to_plain(self) -> dict[str, Any]:
        """The card as maps, lists, text and numbers."""
        return asdict(self)

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Card:
        """The card that `to_plain` gave."""
        return cls(
            **{
                **plain,
                "inputs": tuple(_tensor_spec(spec) for spec in plain["inputs"]),
                "outputs": tuple(_tensor_spec(spec) for spec in plain["outputs"]),
                "points": {name: _point_info(info) for name, info in plain["points"].items()},
                "weights": {name: tuple(shape) for name, shape in plain["weights"].items()},
                "columns": {
                    name: {gate: (start, end) for gate, (start, end) in gates.items()}
                    for name, gates in plain["columns"].items()
                },
                "layers": tuple(plain["layers"]),
            }
        )


def _tensor_spec(plain: Mapping[str, Any]) -> TensorSpec:
    return TensorSpec(**{**plain, "shape": tuple(plain["shape"]), "axes": tuple(plain["axes"])})


def _point_info(plain: Mapping[str, Any]) -> PointInfo:
    return PointInfo(**{**plain, "shape": tuple(plain["shape"]), "axes": tuple(plain["axes"])})
