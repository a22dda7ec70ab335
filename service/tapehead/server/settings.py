"""Every setting of the server: its name, its type, its default and what it is for, said once.

The command line makes its flags, and their `TAPEHEAD_…` twins in the environment, from `SETTINGS`; nothing here reads
either.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

_UNITS = {"": 1, "b": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30, "kb": 10**3, "mb": 10**6, "gb": 10**9}
_LEVELS = ("debug", "info", "warning", "error")
_WORDS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


def read_bytes(text: str) -> int:
    """A number of bytes: `1048576`, `1MiB`, `1.5 GB`.

    Raises:
        ValueError: it cannot be read.
    """
    number = text.rstrip("BKMGIbkmgi ")
    unit = text[len(number) :].strip().lower()
    if unit not in _UNITS:
        raise ValueError(f"{text!r} is no number of bytes; write 1048576, 1MiB or 1.5GB")
    return int(float(number) * _UNITS[unit])


def read_bool(text: str) -> bool:
    """Yes or no: `1`, `true`, `yes`, `on` and their opposites.

    Raises:
        ValueError: it is neither.
    """
    if text.strip().lower() not in _WORDS:
        raise ValueError(f"{text!r} is neither yes nor no; write one of {', '.join(_WORDS)}")
    return _WORDS[text.strip().lower()]


def read_names(text: str) -> tuple[str, ...]:
    """Names with commas between."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def read_seconds(text: str) -> float:
    """A time in seconds, over zero.

    Raises:
        ValueError: it is no such number.
    """
    seconds = float(text)
    if not 0 < seconds < float("inf"):
        raise ValueError(f"{text!r} is no time in seconds; write a number over 0")
    return seconds


def read_port(text: str) -> int:
    """A TCP port; 0 takes any free one.

    Raises:
        ValueError: it is no port.
    """
    if not text.isdecimal() or int(text) > 65535:
        raise ValueError(f"{text!r} is no port; write a number from 0 to 65535")
    return int(text)


def read_count(text: str) -> int:
    """A whole number, at least 1.

    Raises:
        ValueError: it is no such number.
    """
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"{text!r} is no count; write a whole number, at least 1")
    return int(text)


def read_number(text: str) -> int:
    """A whole number, at least 0.

    Raises:
        ValueError: it is no such number.
    """
    if not text.isdecimal():
        raise ValueError(f"{text!r} is no whole number")
    return int(text)


def read_level(text: str) -> str:
    """How much is logged.

    Raises:
        ValueError: it is no such level.
    """
    if text.lower() not in _LEVELS:
        raise ValueError(f"{text!r} is no level; write one of {', '.join(_LEVELS)}")
    return text.lower()


def _setting(default: Any, read: Callable[[str], Any], doc: str, *, secret: bool = False) -> Any:
    return field(default=default, repr=not secret, metadata={"read": read, "doc": doc})


@dataclass(frozen=True)
class Settings:
    """How a server is to run. Sizes in bytes, times in seconds."""

    models_dir: str | None = _setting(None, str, "folder of models: <model>.keras or <model>/<version>/model.keras")
    host: str = _setting("127.0.0.1", str, "address to listen on")
    port: int = _setting(8000, read_port, "port to listen on; 0 takes a free one")
    api_keys: tuple[str, ...] = _setting(
        (), read_names, "keys a request must bear one of, commas between; safer in the environment", secret=True
    )
    allow_anonymous: bool = _setting(
        False, read_bool, "let anyone who reaches the address ask, even one that is not loopback"
    )
    body_limit: int = _setting(256 * 2**20, read_bytes, "largest request body")
    answer_limit: int = _setting(2**30, read_bytes, "largest answer; a larger one is refused before any work")
    deadline: float = _setting(60.0, read_seconds, "seconds a request has, unless it asks for fewer")
    graceful: float = _setting(30.0, read_seconds, "seconds the server has to finish what it took when it stops")
    keep_alive: float = _setting(65.0, read_seconds, "seconds an idle connection stays open")
    queue_limit: int = _setting(256, read_count, "requests that may wait; one more is answered 429")
    batch_limit: int = _setting(16, read_count, "requests that are alike and go to a device together")
    devices: tuple[str, ...] = _setting((), read_names, "devices to use, as gpu:0,gpu:1; by default every card")
    memory_budget: int | None = _setting(None, read_bytes, "bytes of weights kept on each device; by default a share")
    preload: bool = _setting(True, read_bool, "load every model at start, not each at its first request")
    logical_cpus: int = _setting(0, read_number, "divide the processor into so many devices; 0 leaves it whole")
    cache_dir: str | None = _setting(None, str, "folder where compiled kernels are kept between starts")
    imports: tuple[str, ...] = _setting((), read_names, "modules to import first, for custom layers and cells")
    log_level: str = _setting("info", read_level, ", ".join(_LEVELS))


@dataclass(frozen=True)
class Setting:
    """One setting, as the command line needs it. `read` turns text into the value and raises ValueError."""

    name: str
    read: Callable[[str], Any]
    default: Any
    doc: str

    @property
    def flag(self) -> str:
        """Its flag on the command line."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """Its twin in the environment."""
        return "TAPEHEAD_" + self.name.upper()

    @property
    def switch(self) -> bool:
        """Whether it is on or off, so that its flag needs no value."""
        return isinstance(self.default, bool)


SETTINGS: tuple[Setting, ...] = tuple(
    Setting(one.name, one.metadata["read"], one.default, one.metadata["doc"])
    for one in fields(Settings)
    if one.default is not MISSING
)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address of that name."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def refusal(settings: Settings) -> str | None:
    """Why a server must not be started so, in one line; None where it may."""
    if settings.api_keys or settings.allow_anonymous or is_loopback(settings.host):
        return None
    return (
        f"refusing to listen on {settings.host} without API keys, because other machines could then use this one: "
        f"set TAPEHEAD_API_KEYS, or pass --allow-anonymous if that is meant"
    )
