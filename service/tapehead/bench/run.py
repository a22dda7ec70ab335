"""`tapehead bench`: a model in this process or of a server, asked through the client as its user would ask."""

from __future__ import annotations

import importlib
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import tapehead
from tapehead.bench.measure import in_turns, per_second, percentile, timed, warmed
from tapehead.bench.questions import Array, Question, inputs, questions
from tapehead.bench.report import Report, Row
from tapehead.demo import IMPORTS, models_folder
from tapehead.errors import BadParameter

_DEMO = "sunspots"


@dataclass(frozen=True)
class Effort:
    """What is asked and for how long: `seconds` of warming up, of single requests and of several at a time, a row."""

    batches: Sequence[int]
    timesteps: int
    clients: int
    seconds: float


def measured(model: str | None, url: str | None, effort: Effort, modules: Sequence[str]) -> Report:
    """What a model's derivatives cost here.

    Args:
        model: a `.keras` file, or with `url` a model's name; else the demo's, or the server's first.
        modules: imported before the file is loaded; they register the cells it names.

    Raises:
        TapeheadError: as the client raises it.
    """
    with _served(url, model) if url else _in_process(model, modules) as (asked, live):
        peak = _peak(effort.seconds) if live is not None else None
        rows = tuple(_rows(asked, live, peak, effort))
        return Report(asked.name, url or "in this process", effort.timesteps, effort.clients, peak, rows)


@contextmanager
def _served(url: str, name: str | None) -> Iterator[tuple[Any, None]]:
    with tapehead.Client(url) as client:
        ready = [entry.name for entry in client.models() if entry.state == "READY"]
        if not (name or ready):
            raise BadParameter(f"{url} serves no model; expected one to measure")
        yield client.model(name or ready[0]), None


@contextmanager
def _in_process(path: str | None, modules: Sequence[str]) -> Iterator[tuple[Any, Any]]:
    import keras

    file = Path(path) if path else models_folder() / f"{_DEMO}.keras"
    for module in (*modules, *(IMPORTS if path is None else ())):
        importlib.import_module(module)
    if not file.is_file():
        raise BadParameter(f"{file} is no file; expected a .keras file, or a model's name together with --url")
    try:
        live = keras.models.load_model(file)
    except (OSError, TypeError, ValueError) as error:
        raise BadParameter(f"{file} cannot be loaded (cells of its own are named by --import): {error}") from error
    with tapehead.Client(models={file.stem: live}, timeout=None) as client:
        yield client.model(file.stem), live


def _peak(seconds: float) -> float:
    """Floating-point operations a second of a large matrix product."""
    from tapehead.bench.alternative import matrix_peak

    call = matrix_peak()
    flops = call()
    times = in_turns({"peak": call}, seconds / 2, time.perf_counter)["peak"]
    return flops / percentile(times, 0.5)


def _rows(asked: Any, live: Any, peak: float | None, effort: Effort) -> Iterator[Row]:
    draw = np.random.default_rng(0)
    for question, batch in itertools.product(questions(asked.metadata), effort.batches):
        yield _row(asked, live, peak, question, inputs(asked.metadata, batch, effort.timesteps, draw), effort)


def _row(asked: Any, live: Any, peak: float | None, question: Question, x: dict[str, Array], effort: Effort) -> Row:
    computing: list[float] = []

    def ours() -> Array:
        answer = asked.ask(question.operation, x, **question.parameters)
        computing.append(answer.meta["timings"]["compute"])
        value: Array = answer.value
        return value

    first, answer = timed(ours, time.perf_counter)
    tape = _tape(live, question, x)
    tape_first, expected = timed(tape, time.perf_counter) if tape else (None, None)
    warmed(ours, effort.seconds, time.perf_counter)
    computing.clear()
    calls = {"ours": ours, **({"tape": tape} if tape else {})}
    times = in_turns(calls, effort.seconds, time.perf_counter)
    options = {"concurrency": effort.clients, "progress": False, **question.parameters}
    rate = per_second(lambda each: asked.map(each, question.operation, **options), x, effort.seconds, time.perf_counter)
    flops = asked.ask(question.operation, x, dry_run=True, **question.parameters).meta["flops"]
    median = percentile(times["ours"], 0.5)
    return Row(
        question.name,
        len(next(iter(x.values()))),
        first,
        1e3 * median,
        1e3 * percentile(times["ours"], 0.99),
        1e3 * percentile(sorted(computing), 0.5),
        rate,
        answer.nbytes,
        None if peak is None else flops / median / peak,
        tape_first,
        1e3 * percentile(times["tape"], 0.5) if tape else None,
        None if expected is None else _distance(answer, expected),
    )


def _tape(live: Any, question: Question, x: dict[str, Array]) -> Callable[[], Array] | None:
    if live is None:
        return None
    from tapehead.bench.alternative import alternative

    return alternative(live, question, x)


def _distance(answer: Array, expected: Array) -> float:
    return float(np.abs(answer.reshape(expected.shape) - expected).max() / (np.abs(expected).max() or 1.0))
