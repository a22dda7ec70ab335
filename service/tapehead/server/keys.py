"""Who may ask: API keys, and what a server without keys still refuses."""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Mapping
from urllib.parse import SplitResult, urlsplit

from tapehead.errors import Unauthorized
from tapehead.server.settings import Settings, is_loopback

OPEN_PATHS = frozenset({"/v2/health/live", "/v2/health/ready", "/"})
OPEN_FOLDER = "/page/"
"""The page and its files hold nothing of a model; what the page asks bears the key that its user gives it."""


def admit(settings: Settings, path: str, headers: Mapping[str, str]) -> None:
    """Lets a request in, or refuses it. Health and the page's own files need no key.

    Raises:
        Unauthorized: a key is needed and none of those known came.
    """
    if path in OPEN_PATHS or path.startswith(OPEN_FOLDER):
        return
    if settings.api_keys:
        _check_key(settings.api_keys, headers.get("authorization", ""))
    else:
        _check_origin(settings, headers)


def _check_key(keys: Iterable[str], authorization: str) -> None:
    scheme, _, given = authorization.partition(" ")
    if scheme.lower() != "bearer" or not given.strip():
        raise Unauthorized("this server needs an API key: send the header 'Authorization: Bearer <key>'")
    # Every key is compared, whichever fits, so that the time taken tells nothing. Starlette reads headers as Latin-1.
    fits = [hmac.compare_digest(given.strip().encode("latin-1"), key.encode()) for key in keys]
    if not any(fits):
        raise Unauthorized("the API key is none that this server knows")


def _check_origin(settings: Settings, headers: Mapping[str, str]) -> None:
    """Refuses what a web page of another site sends: its visitor's browser reaches addresses that the site cannot."""
    origin = headers.get("origin")
    if origin is None:
        return
    site = _site(origin)
    if is_loopback(site.hostname or "") or (settings.allow_anonymous and site.netloc == headers.get("host")):
        return
    raise Unauthorized(f"a web page of {origin} may not use this server, which has no API keys to tell its users by")


def _site(origin: str) -> SplitResult:
    try:
        return urlsplit(origin)
    except ValueError:
        return urlsplit("")
