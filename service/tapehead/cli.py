"""The command `tapehead`: demo, serve, report, doctor, bench.

Every flag has a twin in the environment (`--answer-limit`, `TAPEHEAD_ANSWER_LIMIT`); a flag that is given wins. This is
the one place that reads the environment for the server. What a command needs is imported when it runs.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tapehead.errors import BadParameter, TapeheadError
from tapehead.version import VERSION

OK, FAILED, MISUSED = 0, 1, 2

_SERVER = ("fastapi", "uvicorn", "prometheus_client", "keras", "tensorflow")
_PICTURES = ("matplotlib",)


@dataclass(frozen=True)
class Option:
    """A flag and its twin in the environment. `read` makes the value of a text and raises ValueError."""

    name: str
    read: Callable[[str], Any]
    default: Any
    doc: str
    flag: str
    variable: str
    short: str = ""


@dataclass(frozen=True)
class Command:
    """One command: its options, the libraries it needs, and what it does. `positional` are options without a flag."""

    name: str
    doc: str
    options: Callable[[], Sequence[Option]]
    needs: Sequence[str]
    run: Callable[[Mapping[str, Any]], int]
    positional: Sequence[str] = ()


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; the exit status: 0 well, 1 failed, 2 asked for wrongly, 130 interrupted."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    given = _parser().parse_args(arguments)
    command = COMMANDS[given.command]
    try:
        values = {option.name: _value(option, getattr(given, option.name)) for option in command.options()}
    except ValueError as error:
        return _complain(command.name, str(error), MISUSED)
    missing = _absent(command.needs)
    if missing:
        return _complain(command.name, f"{missing[0]} is not installed: pip install 'tapehead[server]'", FAILED)
    try:
        return command.run(values)
    except TapeheadError as error:
        return _complain(command.name, f"{error.code}: {error.detail}", FAILED)
    except KeyboardInterrupt:
        return 130


def _serve(values: Mapping[str, Any]) -> int:
    settings = dict(values)
    if settings["models_dir"] is None:
        settings |= _demo_models(settings["imports"])
    elif not Path(settings["models_dir"]).is_dir():
        return _complain("serve", f"{settings['models_dir']} is no folder", MISUSED)
    from tapehead.server.run import serve
    from tapehead.server.settings import Settings

    return serve(Settings(**settings))


def _demo_models(imports: tuple[str, ...]) -> dict[str, Any]:
    """The settings that serve the models Tapehead ships with; says so."""
    from tapehead.demo import IMPORTS, models_folder

    folder = models_folder()
    names = ", ".join(sorted(path.stem for path in folder.glob("*.keras")))
    print(f"tapehead serve: no folder given, so these are the demo's models: {names}", file=sys.stderr, flush=True)
    return {"models_dir": str(folder), "imports": (*imports, *IMPORTS)}


def _demo(values: Mapping[str, Any]) -> int:
    from tapehead.demo.run import run

    # Told to end, the demo ends its server too: as an exception, so that every `with` is left.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    return run(Path(values["out"]), keep=values["keep"])


def _report(values: Mapping[str, Any]) -> int:
    from tapehead.report import write_report

    if values["model"] is None:
        return _complain("report", "name a model: a .keras file, its folder, or http://…/v2/models/NAME", MISUSED)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.path.insert(0, str(Path.cwd()))
    out = Path(values["out"])
    try:
        for name in values["imports"]:
            importlib.import_module(name)
        write_report(values["model"], values["input"], out, target=values["target"])
    except BadParameter as error:
        return _complain("report", error.detail, MISUSED)
    except ImportError as error:
        return _complain("report", f"--import: {error}", MISUSED)
    except OSError as error:
        return _complain("report", f"{out}: {error.strerror or error}", FAILED)
    print(f"{out}  {out.stat().st_size / 1024:.0f} KB")
    return OK


def _doctor(_: Mapping[str, Any]) -> int:
    from tapehead.doctor import findings

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    failed = False
    for finding in findings():
        print(f"{finding.verdict:<5} {finding.name:<20} {finding.detail}", flush=True)
        failed = failed or finding.verdict == "FAIL"
    return FAILED if failed else OK


def _bench(values: Mapping[str, Any]) -> int:
    missing = [] if values["url"] else _absent(_SERVER)
    if missing:
        reason = f"{missing[0]} is not installed: pip install 'tapehead[server]', or give --url"
        return _complain("bench", reason, FAILED)
    from tapehead.bench.run import Effort, measured

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    effort = Effort(values["batches"], values["timesteps"], values["clients"], values["seconds"])
    report = measured(values["model"], values["url"], effort, values["imports"])
    print(report.json if values["json"] else report.text)
    return OK if report.agrees else FAILED


def _absent(libraries: Sequence[str]) -> list[str]:
    return [name for name in libraries if importlib.util.find_spec(name) is None]


def _serve_options() -> Sequence[Option]:
    from tapehead.server.settings import SETTINGS

    flags = {"imports": "--import"}
    return [
        Option(one.name, one.read, one.default, one.doc, flags.get(one.name, one.flag), one.variable)
        for one in SETTINGS
    ]


def _demo_options() -> Sequence[Option]:
    from tapehead.server.settings import read_bool

    return (
        Option("out", str, "tapehead-demo", "folder for the pictures", "--out", "TAPEHEAD_OUT"),
        Option("keep", read_bool, False, "leave the server running until Ctrl-C", "--keep", "TAPEHEAD_KEEP"),
    )


def _report_options() -> Sequence[Option]:
    from tapehead.server.settings import read_names

    model = "a .keras file, a folder with one, http://…/v2/models/NAME, or one of the demo's models"
    return (
        Option("model", str, None, model, "", "TAPEHEAD_MODEL"),
        Option("input", str, None, "file of input: .npy, .csv or .json", "", "TAPEHEAD_INPUT"),
        Option("out", str, "report.html", "file to write", "--out", "TAPEHEAD_OUT", "-o"),
        Option("target", str, None, "point to explain, as outputs[0]", "--target", "TAPEHEAD_TARGET"),
        Option("imports", read_names, (), "module with custom layers", "--import", "TAPEHEAD_IMPORTS"),
    )


def _bench_options() -> Sequence[Option]:
    from tapehead.server.settings import read_bool, read_names, read_seconds, whole

    def read_batches(text: str) -> tuple[int, ...]:
        return tuple(map(whole(1), read_names(text)))

    return (
        Option("model", str, None, "a .keras file, or with --url a model's name", "MODEL", "TAPEHEAD_MODEL"),
        Option("url", str, None, "a server to measure; else the model runs in this process", "--url", "TAPEHEAD_URL"),
        Option("batches", read_batches, (1, 32), "samples of a request; may be repeated", "--batch", "TAPEHEAD_BATCH"),
        Option("timesteps", whole(1), 50, "where the model takes any number", "--timesteps", "TAPEHEAD_TIMESTEPS"),
        Option("clients", whole(1), 8, "requests at a time, for requests/s", "--clients", "TAPEHEAD_CLIENTS"),
        Option("seconds", read_seconds, 3.0, "for each of a row's three parts", "--seconds", "TAPEHEAD_SECONDS"),
        Option("imports", read_names, (), "a module to import first (custom cells)", "--import", "TAPEHEAD_IMPORTS"),
        Option("json", read_bool, False, "print JSON", "--json", "TAPEHEAD_JSON"),
    )


COMMANDS: Mapping[str, Command] = {
    command.name: command
    for command in (
        Command(
            "demo",
            "start a server of its own, ask trained models for derivatives, draw two pictures",
            _demo_options,
            (*_SERVER, *_PICTURES),
            _demo,
        ),
        Command(
            "serve",
            "serve a folder of models over HTTP; without a folder, the demo's models",
            _serve_options,
            _SERVER,
            _serve,
            positional=("models_dir",),
        ),
        Command(
            "report",
            "write one HTML file with a model's verdict and pictures",
            _report_options,
            (*_SERVER, *_PICTURES),
            _report,
            positional=("model", "input"),
        ),
        Command(
            "bench",
            "measure a model's derivatives here, beside a compiled gradient tape; without a model, the demo's",
            _bench_options,
            (),
            _bench,
            positional=("model",),
        ),
        Command("doctor", "tell what this machine has, and try one real Jacobian", tuple, (), _doctor),
    )
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tapehead", description="Derivatives of any tensor inside a recurrent Keras model, over HTTP."
    )
    parser.add_argument("--version", action="version", version=f"tapehead {VERSION}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS.values():
        sentence = f"{command.doc[0].upper()}{command.doc[1:]}."
        one = commands.add_parser(command.name, help=command.doc, description=sentence)
        for option in command.options():
            _add(one, option, positional=option.name in command.positional)
    return parser


def _add(parser: argparse.ArgumentParser, option: Option, *, positional: bool) -> None:
    """One option: a switch (with a `--no-` twin), a flag that may be repeated, or one with a value. None: not given."""
    doc = f"{option.doc} [{option.variable}{_shown(option.default)}]".replace("%", "%%")
    if positional:
        parser.add_argument(option.name, nargs="?", metavar=option.name.upper(), help=doc)
    elif isinstance(option.default, bool):
        parser.add_argument(option.flag, dest=option.name, action=argparse.BooleanOptionalAction, help=doc)
    elif isinstance(option.default, tuple):
        parser.add_argument(option.flag, dest=option.name, action="append", metavar=_metavar(option), help=doc)
    else:
        flags = filter(None, (option.short, option.flag))
        parser.add_argument(*flags, dest=option.name, metavar="VALUE", help=doc)


def _metavar(option: Option) -> str:
    if any(isinstance(entry, int) for entry in option.default):
        return "N"
    return "SHAPE" if option.default else "NAME"


def _value(option: Option, given: str | list[str] | bool | None) -> Any:
    """The option's value: of its flag, else of its twin in the environment, else its default.

    Raises:
        ValueError: the text cannot be read; the message names the flag or the variable.
    """
    if isinstance(given, bool):
        return given
    source, text = option.flag, ",".join(given) if isinstance(given, list) else given
    if text is None:
        source, text = option.variable, os.environ.get(option.variable)
    if not text:
        return option.default
    try:
        return option.read(text)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error


def _shown(default: Any) -> str:
    """A default as help tells it; large sizes in MiB."""
    if isinstance(default, int) and default >= 2**20:
        default = f"{default // 2**20}MiB"
    if isinstance(default, tuple):
        default = ",".join("x".join(map(str, one)) if isinstance(one, tuple) else str(one) for one in default)
    return "" if default in (None, "", False) else f", {default}"


def _complain(command: str, reason: str, status: int) -> int:
    print(f"tapehead {command}: {reason}", file=sys.stderr)
    return status
