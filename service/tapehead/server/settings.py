"""Every setting of the server: its name, its type, its default and what it is for, said once.

The command line makes its flags, and their `TAPEHEAD_…` twins in the environment, from `SETTINGS`; nothing here reads
either.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

_UNITS = {"": 1, "b": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30, "kb": 10**3, "mb": 10**6, "gb": 10**9}
_BYTES = re.compile(r"(\d{1,15}(?:\.\d{1,15})?)\s*([kmg]i?b|b?)")
_SECONDS = re.compile(r"\d{1,9}(\.\d{1,9})?")
_SHAPE = re.compile(r"([1-9]\d{0,5})x([1-9]\d{0,5})")
_WORDS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


def read_bytes(text: str) -> int:
    """A number of bytes: `1048576`, `1MiB`, `1.5 GB`.

    Raises:
        ValueError: it is none.
    """
    found = _BYTES.fullmatch(text.strip().lower())
    if found is None:
        raise ValueError(f"{text!r} is no number of bytes; write 1048576, 1MiB or 1.5GB")
    return int(float(found[1]) * _UNITS[found[2]])


def read_seconds(text: str) -> float:
    """A time in seconds, over zero.

    Raises:
        ValueError: it is none.
    """
    if not _SECONDS.fullmatch(text.strip()) or float(text) == 0:
        raise ValueError(f"{text!r} is no time in seconds; write a number over 0")
    return float(text)


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


def read_shapes(text: str) -> tuple[tuple[int, int], ...]:
    """Shapes as BATCHxTIMESTEPS with commas between, `1x32,16x100`; `off` for none.

    Raises:
        ValueError: one is none.
    """
    named = () if text.strip().lower() == "off" else read_names(text)
    found = [_SHAPE.fullmatch(name) for name in named]
    if None in found:
        raise ValueError(f"{text!r} will not do; write BATCHxTIMESTEPS, as 1x32, with commas between, or off")
    return tuple((int(one[1]), int(one[2])) for one in found if one is not None)


def whole(least: int, most: int = 10**9) -> Callable[[str], int]:
    """Reads whole numbers from `least` to `most`, and raises ValueError at others."""

    def read(text: str) -> int:
        if text.isdecimal() and len(text) <= 10 and least <= int(text) <= most:
            return int(text)
        raise ValueError(f"{text!r} will not do; write a whole number from {least} to {most}")

    return read


def one_of(*choices: str) -> Callable[[str], str]:
    """Reads one of the choices, and raises ValueError at other text."""

    def read(text: str) -> str:
        if text.lower() in choices:
            return text.lower()
        raise ValueError(f"{text!r} will not do; write one of {', '.join(choices)}")

    return read


def _setting(default: Any, read: Callable[[str], Any], doc: str, *, secret: bool = False) -> Any:
    return field(default=default, repr=not secret, metadata={"read": read, "doc": doc})


@dataclass(frozen=True)
class Settings:
    """How a server is to run. Sizes in bytes, times in seconds."""

    models_dir: str | None = _setting(None, str, "folder of models: <model>.keras or <model>/<version>/model.keras")
    host: str = _setting("127.0.0.1", str, "address to listen on")
    port: int = _setting(8000, whole(0, 65535), "port to listen on; 0 takes a free one")
    api_keys: tuple[str, ...] = _setting(
        (), read_names, "keys a request must bear one of, commas between; safer in the environment", secret=True
    )
    allow_anonymous: bool = _setting(
        False, read_bool, "let anyone who reaches the address ask, even one that is not loopback"
    )
    body_limit: int = _setting(256 * 2**20, read_bytes, "largest request body")
    answer_limit: int = _setting(2**30, read_bytes, "largest answer; a larger one is refused before any work")
    stream_threshold: int = _setting(32 * 2**20, read_bytes, "size from which an answer is sent while it is computed")
    deadline: float = _setting(60.0, read_seconds, "seconds a request has, unless it asks for fewer")
    graceful: float = _setting(30.0, read_seconds, "seconds the server has to finish what it took when it stops")
    keep_alive: float = _setting(65.0, read_seconds, "seconds an idle connection stays open")
    queue_limit: int = _setting(256, whole(1), "requests that may wait; one more is answered 429")
    batch_limit: int = _setting(16, whole(1), "requests that are alike and go to a device together")
    devices: tuple[str, ...] = _setting((), read_names, "devices to use, as gpu:0,gpu:1; by default every card")
    memory_budget: int | None = _setting(None, read_bytes, "bytes of weights kept on each device; by default a share")
    preload: bool = _setting(True, read_bool, "load every model at start, not each at its first request")
    warm_up: tuple[tuple[int, int], ...] = _setting(
        ((1, 32),), read_shapes, "shapes BATCHxTIMESTEPS at which a model is tried before it is ready; off for none"
    )
    logical_cpus: int = _setting(0, whole(0), "divide the processor into so many devices; 0 leaves it whole")
    cache_dir: str | None = _setting(None, str, "folder where compiled kernels are kept between starts")
    imports: tuple[str, ...] = _setting((), read_names, "modules to import first, for custom layers and cells")
    log_level: str = _setting("info", one_of("debug", "info", "warning", "error"), "how much is logged")


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
