"""Jobs, results, errors, cards and settings as trees of plain values and arrays, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from tapehead.errors import BY_CODE, Internal, TapeheadError
from tapehead.operations import Array, Request, Result
from tapehead.worker.protocol import Answer, Growth, Job, ModelRef, Resident, WorkerSettings, WorkerStatus

Tree = Mapping[str, Any]


def job_tree(job: Job) -> Tree:
    """A job as a tree."""
    return {
        "id": job.id,
        "model": ref_tree(job.model),
        "operation": job.operation,
        "request": _shallow(job.request),
        "deadline": job.deadline,
        "grows": job.growth is not None,
    }


def job(tree: Tree) -> Job:
    """The job that `job_tree` was given, but for its growth, which stays where it is waited for."""
    request = Request(**tree["request"])
    return Job(tree["id"], ref(tree["model"]), tree["operation"], request, tree["deadline"])


def ref_tree(ref: ModelRef) -> Tree:
    """A reference to a model as a tree."""
    return asdict(ref)


def ref(tree: Tree) -> ModelRef:
    """The reference that `ref_tree` was given."""
    return ModelRef(**tree)


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


def _shallow(value: Request) -> Tree:
    # asdict would copy every array
    return {field.name: getattr(value, field.name) for field in fields(value)}
