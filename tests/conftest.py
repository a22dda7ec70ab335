"""What every test takes for granted: quiet libraries, repeatable examples, and which machines have what."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Fixtures for whoever names them.
from scripted import connect, server  # noqa: F401
from serving import small_folder, small_model, small_server  # noqa: F401

# Read by the libraries as they are imported, and inherited by the processes the tests start.
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_ENABLE_X64"] = "1"

# The same examples in every run; no deadline, because the first one of a shape compiles.
settings.register_profile(
    "repeatable", derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("repeatable")

_BROWSER = shutil.which(os.environ.get("TAPEHEAD_TEST_BROWSER", "chromium"))

ABSENT = {
    "browser": (not _BROWSER or importlib.util.find_spec("playwright") is None, "no Chromium, or no playwright, here"),
    "gpu": (not Path("/dev/nvidiactl").exists(), "no NVIDIA card here"),
    "container": ("TAPEHEAD_TEST_IMAGE" not in os.environ, "TAPEHEAD_TEST_IMAGE names no image"),
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for marker, (absent, reason) in ABSENT.items():
            if absent and item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))
