"""Jobs, results, errors, cards and settings as trees of plain values and arrays, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from tapehead.errors import BY_CODE, Internal, TapeheadError
from tapehead.operations import Array, Request, Result
from tapehead.worker.protocol import Answer, Growth, Job, ModelRef, Resident, WorkerSettings, WorkerStatus

Tree = Mapping[str, Any]


def jobs_tree(jobs: Sequence[Job]) -> Tree:
    """Jobs as a tree, in which a question that several ask stands once, and whether each of them grows."""
    questions: dict[tuple[int, str, int], int] = {}
    asked, rows = [], []
    for job in jobs:
        request = job.request
        key = id(job.model), job.operation, id(request.parameters)
        if key not in questions:
            questions[key] = len(questions)
            asked.append((ref_tree(job.model), job.operation, request.parameters))
        grows = job.growth is not None
        rows.append(
            (questions[key], job.id, job.deadline, grows, request.inputs, request.lengths, request.initial_states)
        )
    return {"questions": asked, "jobs": rows}


def jobs(tree: Tree) -> tuple[list[Job], list[bool]]:
    """The jobs that `jobs_tree` was given, and whether each grows; its growth stays where it is waited for."""
    questions = [(ref(model), operation, parameters) for model, operation, parameters in tree["questions"]]
    found = []
    for number, name, deadline, _, inputs, lengths, states in tree["jobs"]:
        model, operation, parameters = questions[number]
        found.append(Job(name, model, operation, Request(inputs, lengths, states, parameters), deadline))
    return found, [row[3] for row in tree["jobs"]]


def ref_tree(ref: ModelRef) -> Sequence[Any]:
    """A reference to a model as a tree."""
    return ref.name, ref.version, ref.path, ref.modified_ns, ref.size


def ref(tree: Sequence[Any]) -> ModelRef:
    """The reference that `ref_tree` was given."""
    return ModelRef(*tree)


def answer_tree(answer: Answer, there: str = "") -> Tree:
    """A result, or the error in its place, as a tree; without the tensor `there`, which the other side has already."""
    if isinstance(answer, TapeheadError):
        return {"error": error_tree(answer)}
    tensors = {name: array for name, array in answer.tensors.items() if name != there}
    return {"result": {"tensors": tensors, "axes": answer.axes, "meta": answer.meta}}


def answer(tree: Tree, growth: Growth | None = None) -> Answer:
    """The result or error that `answer_tree` was given, with the tensor that has grown here."""
    if "error" in tree:
        return error(tree["error"])
    result = tree["result"]
    axes = {name: tuple(axes) for name, axes in result["axes"].items()}
    grown = {} if growth is None or growth.array is None else {growth.name: growth.array}
    return Result({**grown, **result["tensors"]}, axes, result["meta"])


def opening_tree(number: int, name: str, array: Array) -> Tree:
    """That the memory of a tensor of job `number` is there, as a tree."""
    return {"job": number, "name": name, "array": array}


def filling_tree(number: int, size: int) -> Tree:
    """That so many bytes of it are filled, as a tree."""
    return {"job": number, "filled": size}


def grow(growth: Growth, tree: Tree) -> None:
    """Tells what `opening_tree` or `filling_tree` was given."""
    if "array" in tree:
        growth.open(tree["name"], tree["array"])
    else:
        growth.fill(tree["filled"])


def error_tree(error: TapeheadError) -> Tree:
    """An error as a tree."""
    return {"code": error.code, "detail": error.detail, "retry_after": error.retry_after}


def error(tree: Tree) -> TapeheadError:
    """The error that `error_tree` was given, in its own class."""
    return BY_CODE.get(tree["code"], Internal)(tree["detail"], retry_after=tree["retry_after"])


def status_tree(status: WorkerStatus) -> Tree:
    """A worker's status as a tree."""
    return asdict(status)


def status(tree: Tree) -> WorkerStatus:
    """The status that `status_tree` was given."""
    resident = tuple(Resident(*each) for each in tree["resident"])
    return WorkerStatus(**{**tree, "devices": tuple(tree["devices"]), "resident": resident})


def settings_tree(settings: WorkerSettings) -> Tree:
    """A worker's settings as a tree."""
    return asdict(settings)


def settings(tree: Tree) -> WorkerSettings:
    """The settings that `settings_tree` was given."""
    return WorkerSettings(**{**tree, "imports": tuple(tree["imports"])})
