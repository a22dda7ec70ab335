"""The page at `/`: files for a browser, served as they lie here. No framework, no build step, no network.

    index.html     the page's frame
    style.css      how it looks
    main.js        puts the parts together
    …              one small ES module for each part; each says at its top what it is for

Plotly's script comes from the installed `plotly` package, which ships it.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tapehead.errors import UnknownPath

INDEX = "index.html"
PLOTLY = "plotly.js"

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'self'",
        "style-src 'self' 'unsafe-inline'",  # Plotly sets style elements and attributes of its own
        "img-src 'self' data: blob:",  # and draws heat maps as data:, exports as blob:
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)

_TYPES: Mapping[str, str] = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_LARGE = 2**16


@dataclass(frozen=True)
class File:
    """One file of the page. `zipped` is its body in gzip, where that is worth it."""

    body: bytes
    zipped: bytes | None
    media: str
    tag: str


def names() -> Mapping[str, Path]:
    """The files of the page by name; nothing else can be had."""
    here = Path(__file__).parent
    own = {path.name: path for path in sorted(here.iterdir()) if path.suffix in _TYPES}
    found = importlib.util.find_spec("plotly")
    if found is None or found.origin is None:
        return own
    return {**own, PLOTLY: Path(found.origin).parent / "package_data" / "plotly.min.js"}


def file(name: str) -> File:
    """One file, read anew where it has changed.

    Raises:
        UnknownPath: the page has none of that name, or the `plotly` package is not installed.
    """
    path = names().get(name)
    if path is None:
        said = ": pip install 'tapehead[server]' brings the plotly package" if name == PLOTLY else ""
        raise UnknownPath(f"the page has no file {name!r}{said}")
    return _read(path, path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _read(path: Path, _modified: int) -> File:
    body = path.read_bytes()
    zipped = gzip.compress(body, 6, mtime=0) if len(body) > _LARGE else None
    return File(body, zipped, _TYPES[path.suffix], f'"{hashlib.sha256(body).hexdigest()[:32]}"')
