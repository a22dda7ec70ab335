"""A folder of model files -> the names and versions that are served from it. Imports no TensorFlow.

    MODELS_DIR/<model>/<version>/model.keras     version: 1, 2, 3 …
    MODELS_DIR/<model>.keras                     version 1

Everything else in the folder is left alone. Only what is found by looking through the folder has a name, so that
no name in a request can reach outside of it; a link that leads outside is not followed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from tapehead.worker.protocol import ModelRef

MODEL_FILE = "model.keras"
SUFFIX = ".keras"

Versions = Mapping[int, ModelRef]


class Repository:
    """The models in one folder.

    Raises:
        NotADirectoryError: there is no such folder.
    """

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder).resolve()
        if not self._folder.is_dir():
            raise NotADirectoryError(f"{folder} is not a folder; models are served from MODELS_DIR/<model>.keras")

    def __repr__(self) -> str:
        return f"<Repository {self._folder}>"

    def scan(self) -> dict[str, Versions]:
        """What is in the folder now, by name and version; `<model>/1/model.keras` goes before `<model>.keras`."""
        found: dict[str, dict[int, ModelRef]] = {}
        for name, version, file in (*self._single_files(), *self._versioned_files()):
            if (ref := self._ref(name, version, file)) is not None:
                found.setdefault(name, {})[version] = ref
        return dict(sorted(found.items()))

    def _single_files(self) -> Iterator[tuple[str, int, Path]]:
        for entry in _entries(self._folder):
            if entry.suffix == SUFFIX:
                yield entry.stem, 1, entry

    def _versioned_files(self) -> Iterator[tuple[str, int, Path]]:
        for entry in _entries(self._folder):
            for version in _entries(entry):
                if _is_version(version.name):
                    yield entry.name, int(version.name), version / MODEL_FILE

    def _ref(self, name: str, version: int, file: Path) -> ModelRef | None:
        try:
            real = file.resolve(strict=True)
            stat = real.stat()
        except (OSError, RuntimeError):  # gone since the folder was read, unreadable, or a loop of links
            return None
        if not real.is_file() or not real.is_relative_to(self._folder):
            return None
        return ModelRef(name, version, str(real), stat.st_mtime_ns, stat.st_size)


def _entries(folder: Path) -> list[Path]:
    try:
        return [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    except OSError:
        return []


def _is_version(name: str) -> bool:
    return name.isascii() and name.isdecimal() and not name.startswith("0")
