"""Which Tapehead this is."""

from importlib import metadata

try:
    VERSION = metadata.version("tapehead")
except metadata.PackageNotFoundError:  # a source tree that is not installed
    VERSION = "0+source"
