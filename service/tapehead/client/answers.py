"""What comes back: tensors with the names of their axes, kept, drawn, and carried on from."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tapehead.errors import BadParameter
from tapehead.operations import Plan, Result, title
from tapehead.operations.request import Array
from tapehead.wire.messages import JSON, Reply, decode_reply, encode_reply

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LABEL = "tapehead.json"


@dataclass(frozen=True, eq=False, repr=False)
class Answer:
    """An answer of a model.

    `tensors` are read-only arrays by name, `axes` the names of each one's axes ("batch", "of.unit", "wrt.timestep"),
    `meta` how it was computed, `asked` the operation and its parameters (arrays left out). The tensors of a dry run are
    `Plan`s: shape (None where only the model can tell a length), dtype and bytes, and no numbers.
    """

    model: str
    version: int
    tensors: Mapping[str, Any]
    axes: Mapping[str, tuple[str, ...]]
    meta: Mapping[str, Any]
    asked: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, reply: Reply, asked: Mapping[str, Any]) -> Answer:
        """The answer that a reply holds."""
        result = reply.result
        tensors = {**result.tensors, **{plan.name: plan for plan in result.plans}}
        return cls(reply.model, reply.version, tensors, result.axes, result.meta, asked)

    @property
    def value(self) -> Array:
        """The tensor named `value`, or else the only one.

        Raises:
            BadParameter: there are several, or none was computed.
        """
        arrays = self._computed
        if "value" in arrays:
            return arrays["value"]
        if len(arrays) == 1:
            return next(iter(arrays.values()))
        raise BadParameter(f"this answer holds the tensors {list(arrays)}: take one from .tensors")

    @property
    def final_states(self) -> dict[str, Array]:
        """The final states, named as the initial states that carry on from them.

        Raises:
            BadParameter: the answer holds none.
        """
        ends = {name: array for name, array in self._computed.items() if name.endswith(".final")}
        if not ends:
            raise BadParameter("this answer holds no final states: ask for states(…, final_states=True)")
        return {name.removesuffix(".final") + ".initial": array for name, array in ends.items()}

    @property
    def title(self) -> str:
        """What was asked, in a line: `sunspots: jacobian of lstm.h[-1] wrt inputs`."""
        return title(self.model, self.asked)

    def plot(self, **options: Any) -> Figure:
        """The answer as a matplotlib figure; `row` picks the sample, `labels` name an axis' entries.

        In a notebook it shows itself; `figure.savefig("answer.png")` keeps it. What kind of picture it is depends on
        the operation and the axes: docs/pictures.md shows each.

        Raises:
            BadParameter: there is nothing in the answer that can be drawn.
            ImportError: matplotlib is not installed.
        """
        # A door upwards: only who plots needs the pictures and matplotlib.
        try:
            from tapehead.pictures import NoPicture, picture
        except ModuleNotFoundError as error:
            raise ImportError(f"{error}: to draw an answer, pip install 'tapehead[plot]'") from error

        meta = {**self.asked, **self.meta}
        try:
            return picture(tensors=self._computed, axes=self.axes, meta=meta, title=self.title, **options)
        except NoPicture as error:
            raise BadParameter(str(error)) from error

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes an .npz file, which `np.load` reads too: each tensor by its name, the rest in one JSON member."""
        arrays = self._computed
        label = Result({}, self.axes, {**self.meta, "asked": dict(self.asked)})
        with zipfile.ZipFile(path, "w") as file:
            file.writestr(_LABEL, bytes(encode_reply(label, self.model, self.version, JSON)))
            for name, array in arrays.items():
                with file.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)

    def line(self) -> bytes:
        """The answer as one line of JSON, its end included."""
        label = {**self.meta, "asked": dict(self.asked)}
        return bytes(encode_reply(Result(self._computed, self.axes, label), self.model, self.version, JSON)) + b"\n"

    @classmethod
    def load_lines(cls, path: str | os.PathLike[str]) -> list[Answer]:
        """The answers that stand as lines in a file, as a `tapehead.keras.GradientMonitor` writes them.

        Raises:
            MalformedBody: a line is none.
            OSError: the file cannot be read.
        """
        return [cls._labelled(decode_reply(line, JSON)) for line in Path(path).read_bytes().splitlines() if line]

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Answer:
        """The answer that `save` wrote.

        Raises:
            BadParameter: the file holds no answer.
            OSError: it cannot be read.
        """
        with zipfile.ZipFile(path) as file:
            if _LABEL not in file.namelist():
                raise BadParameter(f"{Path(path)} holds no answer of Tapehead: it has no member {_LABEL}")
            reply = decode_reply(file.read(_LABEL), JSON)
            names = [name.removesuffix(".npy") for name in file.namelist() if name != _LABEL]
            tensors = {name: _read(file, name) for name in names}
        return cls._labelled(replace(reply, result=replace(reply.result, tensors=tensors)))

    @classmethod
    def _labelled(cls, reply: Reply) -> Answer:
        """The answer of a reply whose meta holds what was asked."""
        meta = dict(reply.result.meta)
        asked = meta.pop("asked", {})
        return cls.of(replace(reply, result=replace(reply.result, meta=meta)), asked)

    def __repr__(self) -> str:
        rows = [
            f"  {name}: {tensor.dtype.name} {tensor.shape} [{', '.join(self.axes.get(name, ()))}]"
            for name, tensor in self.tensors.items()
        ]
        dry = f"  not computed, a dry run: {self.meta.get('bytes', 0):,} bytes by the route {self.meta.get('route')}"
        return "\n".join([f"<Answer {self.title}", *rows, *([dry] if self._is_dry else [])]) + ">"

    @property
    def _is_dry(self) -> bool:
        return any(isinstance(tensor, Plan) for tensor in self.tensors.values())

    @property
    def _computed(self) -> Mapping[str, Array]:
        if self._is_dry:
            raise BadParameter("a dry run computes no numbers, only their shape, dtype and bytes: leave dry_run out")
        return self.tensors


def _read(file: zipfile.ZipFile, name: str) -> Array:
    with file.open(f"{name}.npy") as member:
        array: Array = np.lib.format.read_array(member, allow_pickle=False)
    array.flags.writeable = False
    return array
