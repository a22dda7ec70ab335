"""What a report is of: a model file, a folder, a served model, or one that ships with Tapehead."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import tapehead
from tapehead.demo import models_folder
from tapehead.demo.studies import STUDIES
from tapehead.errors import BadParameter
from tapehead.report.inputs import Sequences

Model = tapehead.Model[tapehead.Answer]

_SERVED = re.compile(r"(?P<url>https?://.+?)/v2/models/(?P<name>[^/]+)(/versions/(?P<version>\d+))?/?")


@contextmanager
def opened(subject: str) -> Iterator[Model]:
    """The model that MODEL means, for as long as the block lasts.

    A URL ends in /v2/models/NAME; a path is a .keras file, a folder with one model, or a model's folder of versions;
    any other word is one of the demo's models.

    Raises:
        BadParameter: it means none, or several.
        TapeheadError: it cannot be served.
    """
    served = _SERVED.fullmatch(subject)
    if served is not None:
        version = None if served["version"] is None else int(served["version"])
        with tapehead.Client(served["url"]) as client:
            yield client.model(served["name"], version)
        return
    if subject.startswith(("http://", "https://")):
        raise BadParameter(f"{subject!r} names no model; write it as http://127.0.0.1:8000/v2/models/NAME")
    with tempfile.TemporaryDirectory(prefix="tapehead-") as folder:
        name, file = _found(subject)
        shutil.copy(file, Path(folder, f"{name}.keras"))
        with tapehead.Client(models=folder) as client:
            yield client.model(name)


def example(subject: str) -> Sequences | None:
    """The demo's example input, where `subject` is one of its models."""
    if subject not in STUDIES or Path(subject).exists():
        return None
    study = STUDIES[subject]()
    return Sequences(
        study.inputs[-1:], targets=study.targets[-1:], times=tuple(study.times[-1].tolist()), features=study.features
    )


def _found(subject: str) -> tuple[str, Path]:
    """The name of a model on this machine, and its file."""
    path = Path(subject)
    if path.is_dir():
        return _in_folder(path)
    if path.is_file():
        if path.suffix != ".keras":
            raise BadParameter(f"{subject!r} is no .keras file; save the model with model.save('{path.stem}.keras')")
        return path.stem, path
    if subject in STUDIES:
        import tapehead.demo.cells  # noqa: F401  registers the cell that a model names

        return subject, models_folder() / f"{subject}.keras"
    raise BadParameter(f"there is no file or folder {subject!r}; the demo's models are {', '.join(STUDIES)}")


def _in_folder(folder: Path) -> tuple[str, Path]:
    """The one model of a folder: its only .keras file, or its highest version."""
    versions = sorted((int(one.name), one / "model.keras") for one in folder.iterdir() if one.name.isdecimal())
    if versions and versions[-1][1].is_file():
        return folder.resolve().name, versions[-1][1]
    files = sorted(folder.glob("*.keras"))
    if len(files) == 1:
        return files[0].stem, files[0]
    names = ", ".join(file.name for file in files[:8]) or "none"
    raise BadParameter(f"{str(folder)!r} holds {len(files)} .keras files ({names}); name one of them")
