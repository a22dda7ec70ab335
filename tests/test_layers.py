"""Who may import whom.

`ROOMS` is the table; the longest name that fits a module is its row. A room may always import itself. What a function
imports beyond its room's row is a door: it stands in `DOORS` with the reason why it opens upward.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "service"

# room: (rooms it may import, libraries it may import among those that only some may)
ROOMS: dict[str, tuple[str, str]] = {
    "errors": ("", ""),
    "version": ("", ""),
    "points": ("errors", ""),
    "operations": ("errors points", ""),
    "wire": ("errors points operations", "msgpack"),
    "engine": ("errors points operations", "tensorflow keras"),
    "keras": ("", "tensorflow keras"),
    "worker.protocol": ("errors points operations", ""),
    "residency.repository": ("errors worker.protocol", ""),
    "residency": ("errors operations worker.protocol engine", "tensorflow keras h5py"),
    "worker.station": ("errors operations worker.protocol worker.joining residency engine", "tensorflow"),
    "worker": ("__init__ errors operations worker.protocol", "msgpack"),
    "scheduling": ("errors points operations worker.protocol residency.repository", ""),
    "page": ("errors", ""),
    "server": (
        "errors version page points operations wire worker.protocol residency.repository scheduling",
        "fastapi starlette uvicorn pydantic prometheus_client msgpack",
    ),
    "client": ("errors version points operations wire", "httpx2"),
    "pictures": ("", "matplotlib"),
    "demo": ("__init__ errors pictures", ""),
    "demo.cells": ("", "keras"),
    "demo.networks": ("demo.cells", "keras"),
    "demo.train": ("demo demo.networks", "tensorflow keras"),
    "report": ("__init__ errors version wire demo pictures", ""),
    "doctor": ("", ""),
    "bench": ("__init__ errors version demo", ""),
    "bench.alternative": ("bench.questions", "tensorflow keras"),
    "cli": ("errors version", ""),
    "__main__": ("cli", ""),
    "__init__": ("errors version client", ""),
}

GUARDED = frozenset(library for _, libraries in ROOMS.values() for library in libraries.split())

HEAVY = ("tensorflow", "keras", "fastapi", "uvicorn", "matplotlib", "jax")

# (module, what one of its functions imports): why
DOORS: dict[tuple[str, str], str] = {
    (
        "keras.gradient_monitor",
        "engine",
    ): "it asks the engine, which who only registers cells does without",
    ("keras.gradient_monitor", "operations.check"): "and holds the probe against the model's card as a server would",
    ("keras.gradient_monitor", "client.inputs"): "the probe is given as a client's inputs are",
    ("keras.gradient_monitor", "client.answers"): "and a record is an answer: it can be plotted and written",
    ("keras.records", "client.answers"): "the type of what a record holds",
    ("client.inprocess", "server.inprocess"): "`Client(models=…)` runs the server's own application in process",
    ("server.hiring", "worker.child"): "a server carries its workers in processes",
    ("server.hiring", "worker.thread"): "and in process they are on a thread; only this module knows of either",
    ("client.answers", "pictures"): "`Answer.plot` draws what it holds; who does not plot needs no matplotlib",
    ("client.answers", "matplotlib"): "the type of what `Answer.plot` gives",
    ("server.pictures", "pictures"): "an answer as a picture; who asks for none needs no matplotlib",
    ("worker.thread", "worker.station"): "TensorFlow comes in when the thread starts, not before",
    ("worker.child_main", "worker.station"): "the worker's process gives signs of life before TensorFlow is there",
    ("cli", "server.run"): "`tapehead serve`",
    ("cli", "server.settings"): "the flags of `tapehead serve` are the server's settings",
    ("cli", "demo"): "`tapehead serve` without a folder serves the demo's models",
    ("cli", "demo.run"): "`tapehead demo`",
    ("cli", "report"): "`tapehead report`",
    ("report.subject", "demo.cells"): "registers the cell that one of the demo's models names; it imports Keras",
    ("cli", "doctor"): "`tapehead doctor`",
    ("cli", "bench.run"): "`tapehead bench`",
    ("bench.run", "bench.alternative"): "what ours is held against needs TensorFlow; a server's models do not",
    ("bench.run", "keras"): "it loads a file itself, so that the tape differentiates the model that is served",
    ("doctor", "tensorflow"): "it tells what TensorFlow sees, if TensorFlow is there",
    ("doctor", "keras"): "and loads the model that its one real Jacobian asks",
    ("doctor", "__init__"): "its one real Jacobian is asked as a user asks",
    ("doctor", "demo"): "the model it asks ships with the demo",
    ("doctor", "demo.studies"): "and so does the series",
}


@dataclass(frozen=True)
class Import:
    """One imported module, where it stands, and whether only a function (or a type checker) meets it."""

    module: str
    name: str
    line: int
    inner: bool


def modules() -> dict[str, Path]:
    """Every module of the package by its name below `tapehead`; a package by the package's own name."""
    root = SOURCE / "tapehead"
    found = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)] = path
    return found


def imports(module: str, source: str, known: frozenset[str]) -> Iterator[Import]:
    """What `source` imports of ours (named below `tapehead`) and of the guarded libraries."""
    for node, inner in _statements(ast.parse(source), inner=False):
        for dotted in _names(node):
            head, _, rest = dotted.partition(".")
            if head == "tapehead":
                yield Import(module, _known_prefix(rest, known), node.lineno, inner)
            elif head in GUARDED:
                yield Import(module, head, node.lineno, inner)


def _statements(node: ast.AST, *, inner: bool) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child, inner
        deeper = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or (
            isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
        )
        yield from _statements(child, inner=inner or deeper)


def _names(node: ast.Import | ast.ImportFrom) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    assert node.level == 0, f"line {node.lineno}: imports name the whole path"
    return [f"{node.module}.{alias.name}" for alias in node.names]


def _known_prefix(dotted: str, known: frozenset[str]) -> str:
    """`points.parse` is the module `points`; a name of the package's own is `__init__`."""
    while dotted and dotted not in known:
        dotted = dotted.rpartition(".")[0]
    return dotted or "__init__"


def room(name: str) -> str | None:
    """The row that holds for a module."""
    while name and name not in ROOMS:
        name = name.rpartition(".")[0]
    return name or None


def allowed(one: Import) -> bool:
    """Whether the table lets the module import it."""
    here = room(one.module)
    assert here is not None
    rooms, libraries = ROOMS[here]
    if one.name in GUARDED:
        return one.name in libraries.split()
    there = room(one.name)
    return there == here or there in rooms.split() or one.name in rooms.split()


def trespasses(module: str, source: str, known: frozenset[str]) -> list[str]:
    """The imports of one module that neither the table nor a door allows."""
    return [
        f"{module}:{one.line} imports {one.name}" + (" inside a function; is it a door?" if one.inner else "")
        for one in imports(module, source, known)
        if not allowed(one) and not (one.inner and (module, one.name) in DOORS)
    ]


def heavy(statement: str) -> set[str]:
    """Which of the heavy libraries are loaded once `statement` has run in a fresh process."""
    program = f"{statement}\nimport sys\nprint(*sys.modules.keys() & set({HEAVY!r}))"
    ran = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=120)
    return set(ran.stdout.split())


def test_every_module_is_in_a_room_and_every_room_exists() -> None:
    found = modules()
    assert [name for name in found if room(name) is None] == []
    assert [name for name in ROOMS if not any(f"{module}.".startswith(f"{name}.") for module in found)] == []


def test_imports_keep_to_the_table() -> None:
    found = modules()
    known = frozenset(found)
    faults = [t for name, path in found.items() for t in trespasses(name, path.read_text("utf-8"), known)]
    assert "\n".join(faults) == ""


def test_every_door_is_used() -> None:
    found = modules()
    known = frozenset(found)
    used = {
        (one.module, one.name)
        for name, path in found.items()
        for one in imports(name, path.read_text("utf-8"), known)
        if one.inner and not allowed(one)
    }
    assert DOORS.keys() - used == set()


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("errors", "import tensorflow as tf"),
        ("errors", "from tapehead.points import parse"),
        ("operations", "from tapehead import engine"),
        ("engine.trace", "from tapehead.wire.tensors import pack"),
        ("scheduling.fleet", "def f():\n    import tapehead.worker.station"),
        ("server.app", "try:\n    from keras.layers import LSTM\nexcept ImportError:\n    pass"),
        ("client.sync", "if TYPE_CHECKING:\n    from fastapi import FastAPI"),
    ],
)
def test_the_table_catches_a_trespass(module: str, source: str) -> None:
    known = frozenset({"points", "engine", "wire", "wire.tensors", "worker", "worker.station"})
    assert len(trespasses(module, source, known)) == 1


def test_the_client_imports_without_the_server_and_without_tensorflow() -> None:
    assert heavy("import tapehead") == set()


@pytest.mark.parametrize("name", ["tapehead.cli", "tapehead.server.app", "tapehead.scheduling", "tapehead.wire"])
def test_the_process_that_speaks_http_imports_no_tensorflow(name: str) -> None:
    assert heavy(f"import {name}") & {"tensorflow", "keras"} == set()


def test_a_client_that_imported_tensorflow_would_be_found_out() -> None:
    assert {"tensorflow", "keras"} <= heavy("import tapehead, tapehead.engine")
