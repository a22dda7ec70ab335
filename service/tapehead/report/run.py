"""The whole report: a model opened, asked, and told of in one file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from tapehead.errors import BadParameter
from tapehead.report import subject
from tapehead.report.inputs import Sequences, read_sequences
from tapehead.report.page import page
from tapehead.report.sections import answered, questions
from tapehead.version import VERSION


def write_report(
    model: str, source: str | None, out: Path, *, target: str | None = None, tell: Callable[[str], None] = print
) -> None:
    """Writes the report of a model about the sequences in `source` (the demo's models bring their own) to `out`.

    Each thing asked is told through `tell` as it is done.

    Raises:
        BadParameter: an argument means nothing that is there.
        TapeheadError: the model cannot be served, or the server not be reached.
        OSError: the file cannot be written.
    """
    _check_out(out)
    sequences = _sequences(model, source)
    with subject.opened(model) as opened:
        asked = [one for one in questions(opened, sequences, target) if one.operation in opened.operations]
        sections = []
        for at, question in enumerate(asked, start=1):
            tell(f"[{at}/{len(asked)}] {question.heading}")
            sections.append(answered(opened, sequences, question))
        refused = [one for one in sections if one.answer is None]
        if len(refused) == len(sections):
            raise BadParameter(refused[0].refused)
        out.write_text(page(opened.name, _about(source, sequences), sections), "utf-8")


def _check_out(out: Path) -> None:
    if out.is_dir() or not out.parent.is_dir():
        raise BadParameter(f"the report cannot be written to {str(out)!r}: no such folder, or it is one")


def _sequences(model: str, source: str | None) -> Sequences:
    if source is not None:
        return read_sequences(Path(source))
    found = subject.example(model)
    if found is None:
        raise BadParameter("name a file of input, .npy, .csv or .json: only the demo's models bring an example")
    return found


def _about(source: str | None, sequences: Sequences) -> str:
    given = sequences.inputs if isinstance(sequences.inputs, Mapping) else {"": sequences.inputs}
    shapes = ", ".join(f"{name} {list(np.shape(one))}".strip() for name, one in given.items())
    where = "the demo's example" if source is None else Path(source).name
    return f"Gradients on {where}, {shapes} (batch, timesteps, features). Made by Tapehead {VERSION}."
