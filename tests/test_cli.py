"""The command line: every flag and its twin in the environment, plain complaints, exit statuses."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tapehead import __version__, cli
from tapehead.server.settings import SETTINGS, Settings

Caught = dict[str, Any]
TEXTS = {
    "models_dir": ("models", "models"),
    "host": ("::1", "::1"),
    "port": ("0", 0),
    "api_keys": ("a,b", ("a", "b")),
    "allow_anonymous": ("true", True),
    "body_limit": ("1MiB", 2**20),
    "answer_limit": ("2GB", 2 * 10**9),
    "stream_threshold": ("64MiB", 2**26),
    "deadline": ("1.5", 1.5),
    "graceful": ("2", 2.0),
    "keep_alive": ("3", 3.0),
    "queue_limit": ("7", 7),
    "batch_limit": ("3", 3),
    "preload": ("no", False),
    "warm_up": ("1x20,16x100", ((1, 20), (16, 100))),
    "logical_cpus": ("2", 2),
    "cache_dir": ("/cache", "/cache"),
    "devices": ("CPU:0,CPU:1", ("CPU:0", "CPU:1")),
    "memory_budget": ("1KiB", 1024),
    "imports": ("json,csv", ("json", "csv")),
    "log_level": ("DEBUG", "debug"),
}


@pytest.fixture
def caught(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Caught]:
    """Runs a command line up to where the command would start; the values it would start with."""

    def run(*arguments: str, environment: Mapping[str, str] | None = None) -> Caught:
        values: Caught = {}
        for name, command in cli.COMMANDS.items():
            stopped = dataclasses.replace(command, run=lambda given: values.update(given) or 0, needs=())
            monkeypatch.setitem(cli.COMMANDS, name, stopped)  # type: ignore[arg-type]
        for variable, text in (environment or {}).items():
            monkeypatch.setenv(variable, text)
        assert cli.main(arguments) == 0
        return values

    return run


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in [one.variable for one in SETTINGS] + ["TAPEHEAD_OUT", "TAPEHEAD_KEEP"]:
        monkeypatch.delenv(variable, raising=False)


def test_without_flags_every_setting_has_its_default(caught: Callable[..., Caught]) -> None:
    assert caught("serve") == dataclasses.asdict(Settings())
    assert caught("demo") == {"out": "tapehead-demo", "keep": False}


@pytest.mark.parametrize("name", TEXTS)
def test_a_flag_and_its_twin_in_the_environment_mean_the_same(caught: Callable[..., Caught], name: str) -> None:
    text, value = TEXTS[name]
    setting = next(one for one in SETTINGS if one.name == name)
    flags = {"models_dir": [text], "imports": ["--import", text]}
    flags |= {"allow_anonymous": ["--allow-anonymous"], "preload": ["--no-preload"]}
    assert caught("serve", *flags.get(name, [setting.flag, text]))[name] == value
    assert caught("serve", environment={setting.variable: text})[name] == value


def test_every_setting_of_the_server_is_tried_above() -> None:
    assert TEXTS.keys() == {one.name for one in SETTINGS}


def test_a_flag_wins_over_the_environment_and_an_empty_variable_counts_as_none(caught: Callable[..., Caught]) -> None:
    assert caught("serve", "--port", "1", environment={"TAPEHEAD_PORT": "2", "TAPEHEAD_HOST": ""})["port"] == 1
    assert caught("serve", environment={"TAPEHEAD_HOST": ""})["host"] == "127.0.0.1"


def test_import_may_be_given_again_and_again(caught: Callable[..., Caught]) -> None:
    assert caught("serve", "--import", "json", "--import", "csv")["imports"] == ("json", "csv")


def test_a_text_that_cannot_be_read_is_one_line_that_names_its_flag_or_variable(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["serve", "--port", "http"]) == cli.MISUSED
    monkeypatch.setenv("TAPEHEAD_DEADLINE", "soon")
    assert cli.main(["serve"]) == cli.MISUSED
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("tapehead serve: --port: 'http'")
    assert second.startswith("tapehead serve: TAPEHEAD_DEADLINE: ")


def test_a_library_that_is_not_installed_is_one_line_that_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = dataclasses.replace(cli.COMMANDS["serve"], needs=("json", "no_such_library"))
    monkeypatch.setitem(cli.COMMANDS, "serve", bare)  # type: ignore[arg-type]
    assert cli.main(["serve"]) == cli.FAILED
    assert capsys.readouterr().err == (
        "tapehead serve: no_such_library is not installed: pip install 'tapehead[server]'\n"
    )


def test_a_folder_that_is_none_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["serve", str(tmp_path / "nowhere")]) == cli.MISUSED
    assert capsys.readouterr().err == f"tapehead serve: {tmp_path / 'nowhere'} is no folder\n"


@pytest.mark.parametrize("arguments", [(), ("sing",), ("serve", "--no-such-flag"), ("serve", "a", "b")])
def test_what_is_asked_for_wrongly_exits_with_2(arguments: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as exited:
        cli.main(arguments)
    assert exited.value.code == cli.MISUSED


def tapehead(*arguments: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tapehead", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)


def test_the_version_is_the_packages() -> None:
    assert tapehead("--version").stdout == f"tapehead {__version__}\n"


def test_help_tells_every_flag_with_its_twin() -> None:
    told = " ".join(tapehead("serve", "--help").stdout.split())
    for one in SETTINGS:
        assert one.variable in told
    assert "--import NAME" in told


def test_the_doctor_finds_this_machine_well_and_its_jacobian_right() -> None:
    done = tapehead("doctor")
    assert done.returncode == cli.OK, done.stdout + done.stderr
    lines = {line[6:26].strip(): line for line in done.stdout.splitlines()}
    assert all(line.startswith("OK") for line in lines.values())
    assert {"Python", "memory", "large arrays", "numpy", "keras", "devices"} <= lines.keys()
    assert "(1, 16, 40, 1)" in lines["Jacobian"]
    assert "central differences agree to" in lines["Jacobian"]
    assert "Traceback" not in done.stderr
