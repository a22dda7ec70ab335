"""Jobs, results, errors, cards and settings as trees of plain values and arrays, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from tapehead.errors import BY_CODE, Internal, TapeheadError
from tapehead.operations import Request, Result
from tapehead.worker.protocol import Answer, Job, ModelRef, Resident, WorkerSettings, WorkerStatus

Tree = Mapping[str, Any]


def job_tree(job: Job) -> Tree:
    """A job as a tree."""
    return {
        "id": job.id,
        "model": ref_tree(job.model),
        "operation": job.operation,
        "request": _shallow(job.request),
        "deadline": job.deadline,
    }


def job(tree: Tree) -> Job:
    """The job that `job_tree` was given."""
    return Job(**{**tree, "model": ref(tree["model"]), "request": Request(**tree["request"])})


def ref_tree(ref: ModelRef) -> Tree:
    """A reference to a model as a tree."""
    return asdict(ref)


def ref(tree: Tree) -> ModelRef:
    """The reference that `ref_tree` was given."""
    return ModelRef(**tree)


def answer_tree(answer: Answer) -> Tree:
    """A result, or the error in its place, as a tree."""
    return {"error": error_tree(answer)} if isinstance(answer, TapeheadError) else {"result": _shallow(answer)}


def answer(tree: Tree) -> Answer:
    """The result or error that `answer_tree` was given."""
    if "error" in tree:
        return error(tree["error"])
    result = tree["result"]
    axes = {name: tuple(axes) for name, axes in result["axes"].items()}
    return Result(result["tensors"], axes, result["meta"])


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


def _shallow(value: Request | Result) -> Tree:
    # asdict would copy every array
    return {field.name: getattr(value, field.name) for field in fields(value)}
