"""What a report asks of a model, and what each answer is there for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tapehead import Answer
from tapehead.errors import TapeheadError
from tapehead.pictures import png
from tapehead.report.inputs import Sequences
from tapehead.report.subject import Model

_SHARP = 1600
_MOST_LAYERS, _LONGEST_MAP = 6, 500


@dataclass(frozen=True)
class Question:
    """One thing to ask: its heading, why, the operation and its parameters, and the words along the axes' entries."""

    heading: str
    why: str
    operation: str
    parameters: Mapping[str, Any]
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Section:
    """A question with its answer as a picture, or with why there is none."""

    question: Question
    answer: Answer | None
    image: bytes = b""
    refused: str = ""


def questions(model: Model, sequences: Sequences, target: str | None) -> Iterator[Question]:
    """What is asked of a model, in the order of the report; only what its server can answer."""
    along = {"timestep": sequences.times, "feature": sequences.features}
    target = target or a_number(model.points)
    layers = list(model.metadata.get("recurrent", {}))[:_MOST_LAYERS]
    for layer in layers:
        yield Question(
            f"{layer}: do gradients vanish or explode?",
            "How fast a state's influence on the last one fades, what one step does to it, and how far its gates are "
            "shut or open.",
            "diagnose",
            {"layer": layer},
        )
    yield Question(
        f"Which inputs drive {target}?",
        "Above: red where more of an input raises it, blue where more lowers it. Below: how much each timestep counts.",
        "saliency",
        {"target": target},
        {name: words for name, words in along.items() if words},
    )
    for layer in layers:
        yield from _of_layer(model, sequences, layer)
    yield _of_weights(sequences, target)


def a_number(points: Mapping[str, Any]) -> str:
    """A point that is one number a sample: the largest output, or the last timestep's first one.

    An output of several numbers is meant at the one that is largest.
    """
    name = "outputs" if "outputs" in points else "outputs.0"
    info = points.get(name, {"axes": ["unit"], "shape": [1]})
    axes, shape = info["axes"], info["shape"]
    if list(axes) == ["unit"]:
        return f"{name}[0]" if shape == [1] else f"{name}[argmax]"
    return f"{name}[{', '.join('-1' if axis == 'timestep' else '0' for axis in axes)}]"


def answered(model: Model, sequences: Sequences, question: Question) -> Section:
    """The question, asked and drawn; what is refused is told in the report and does not end it."""
    more = {"lengths": sequences.lengths, "initial_states": sequences.initial_states or None}
    try:
        answer = model.ask(question.operation, sequences.inputs, **more, **question.parameters)
        labels = {axis: words for axis, words in question.labels.items() if _fits(answer, axis, words)}
        return Section(question, answer, png(answer.plot(labels=labels), _SHARP))
    except TapeheadError as error:
        return Section(question, None, refused=f"{error.code}: {error.detail}")


def _of_layer(model: Model, sequences: Sequences, layer: str) -> Iterator[Question]:
    recurrent = model.metadata["recurrent"][layer]
    gates = [f"{layer}.{gate}" for gate in recurrent.get("gates", ())]
    state = f"{layer}.{next(iter(recurrent['states']), 'h')}"
    if gates:
        yield Question(
            f"{layer}: what do its gates do?",
            "Each gate of each unit over time, and the share of units that are shut (under 0.05) or wide open.",
            "states",
            {"points": gates},
            {"timestep": sequences.times} if sequences.times else {},
        )
    if _timesteps(sequences) <= _LONGEST_MAP:
        yield Question(
            f"{layer}: how far does a state reach?",
            "The norm of the derivative of the state at one timestep (down) by that at another (to the right). What "
            "lies along the diagonal only is soon forgotten.",
            "jacobian",
            {"of": state, "wrt": state, "reduce": "norm"},
        )


def _of_weights(sequences: Sequences, target: str) -> Question:
    of = {"targets": sequences.targets} if sequences.targets is not None else {"of": target}
    return Question(
        "Which weights still learn, and from which timesteps?",
        "The norm of each weight's gradient, by gate and by the timestep it comes from.",
        "weight_gradients",
        {**of, "by": ["gate", "timestep"]},
    )


def _timesteps(sequences: Sequences) -> int:
    given = sequences.inputs if isinstance(sequences.inputs, Mapping) else {"": sequences.inputs}
    return max((np.shape(one)[1] for one in given.values() if np.ndim(one) > 1), default=0)


def _fits(answer: Answer, axis: str, words: tuple[str, ...]) -> bool:
    """Whether an axis of the answer has as many entries as there are words for them."""
    sizes = {
        size
        for name, tensor in answer.tensors.items()
        for one, size in zip(answer.axes[name], np.shape(tensor), strict=True)
        if one == axis
    }
    return sizes == {len(words)}
