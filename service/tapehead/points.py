"""The grammar of points: the text that names a tensor inside a model, parsed once into a value.

    point    = name [ "[" entry { "," entry } "]" ]
    name     = segment { ( "." | "/" ) segment }
    segment  = letters, digits, "_" and "-"  |  '"' anything '"'      (a quote inside is written twice)
    entry    = integer  |  [integer] ":" [integer] [ ":" [integer] ]  |  "..."  |  "argmax"

What a name means is for the model to say; here is only how it is written. Client and server share this module.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from types import EllipsisType

from tapehead.errors import BadParameter, UnknownPoint

Entry = int | slice | EllipsisType | str
ARGMAX = "argmax"

_BARE = re.compile(r"[A-Za-z0-9_\-]+")
_QUOTED = re.compile(r'"((?:[^"]|"")+)"')
_SPACE = re.compile(r"\s*")
_INTEGER = re.compile(r"[+-]?\d{1,18}")


@dataclass(frozen=True)
class Point:
    """A tensor in a model: the canonical text of its name, and the index into it (the batch axis left out)."""

    name: str
    index: tuple[Entry, ...] = ()

    def __str__(self) -> str:
        return self.name + (f"[{', '.join(map(_entry_text, self.index))}]" if self.index else "")

    def __hash__(self) -> int:
        return hash(str(self))


def quoted(segment: str) -> str:
    """One segment of a name as it is written: in double quotes where it holds other than letters, digits, _ and -."""
    return segment if _BARE.fullmatch(segment) else '"' + segment.replace('"', '""') + '"'


def parse(text: str) -> Point:
    """The point that `text` names.

    Raises:
        UnknownPoint: the name cannot be read; the message points at the character.
        BadParameter: the index cannot be read.
    """
    if not isinstance(text, str):
        raise BadParameter(f"a point is text such as 'lstm.h[-1]', not {type(text).__name__}")
    reader = _Reader(text)
    name = reader.name()
    index = reader.index() if reader.peek() == "[" else ()
    if reader.peek():
        raise reader.wrong("the end of the point, '.', '/' or '['")
    return Point(name, index)


class _Reader:
    """Reads one point from left to right."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.error: type[UnknownPoint] | type[BadParameter] = UnknownPoint

    def peek(self) -> str:
        self.at = _SPACE.match(self.text, self.at).end()  # type: ignore[union-attr]
        return self.text[self.at : self.at + 1]

    def take(self, pattern: re.Pattern[str]) -> str | None:
        found = pattern.match(self.text, self.at)
        if found is None:
            return None
        self.at = found.end()
        return found.group()

    def wrong(self, wanted: str) -> UnknownPoint | BadParameter:
        shown, caret = self.text[:200], " " * min(self.at, 200) + "^"
        came = repr(self.text[self.at]) if self.at < len(self.text) else "the end"
        return self.error(f"the point cannot be read: expected {wanted}, found {came}\n  {shown}\n  {caret}")

    def name(self) -> str:
        written = self.segment()
        while (separator := self.peek()) in (".", "/") and separator:
            self.at += 1
            written += separator + self.segment()
        return written

    def segment(self) -> str:
        if self.peek() == '"':
            found = self.take(_QUOTED)
            if found is None:
                raise self.wrong("a name in double quotes")
            return quoted(found[1:-1].replace('""', '"'))
        found = self.take(_BARE)
        if found is None:
            raise self.wrong("a name (letters, digits, _, -, or anything in double quotes)")
        return found

    def index(self) -> tuple[Entry, ...]:
        self.error = BadParameter
        entries: list[Entry] = []
        self.at += 1
        while True:
            entries.append(self.entry())
            if self.peek() == "]":
                self.at += 1
                break
            if self.peek() != ",":
                raise self.wrong("',' or ']'")
            self.at += 1
        if sum(entry is ... for entry in entries) > 1:
            raise self.error(f"'...' can stand only once in an index, in {self.text!r}")
        if ARGMAX in entries and len(entries) > 1:
            raise self.error(f"'argmax' stands alone in its index, in {self.text!r}")
        return tuple(entries)

    def entry(self) -> Entry:
        self.peek()
        if self.text.startswith("...", self.at):
            self.at += 3
            return ...
        if self.text.startswith(ARGMAX, self.at):
            self.at += len(ARGMAX)
            return ARGMAX
        bounds = [self.integer()]
        while self.peek() == ":" and len(bounds) < 3:
            self.at += 1
            bounds.append(self.integer())
        if len(bounds) > 1:
            if bounds[2:] == [0]:
                raise self.error(f"a slice's step cannot be 0, in {self.text!r}")
            return slice(*bounds)
        if bounds[0] is None:
            raise self.wrong("an integer, a slice, '...' or 'argmax'")
        return bounds[0]

    def integer(self) -> int | None:
        self.peek()
        found = self.take(_INTEGER)
        return None if found is None else int(found)


def _entry_text(entry: Entry) -> str:
    if isinstance(entry, slice):
        text = f"{_bound(entry.start)}:{_bound(entry.stop)}"
        return text if entry.step is None else f"{text}:{entry.step}"
    return "..." if entry is ... else str(entry)


def _bound(bound: int | None) -> str:
    return "" if bound is None else str(bound)
