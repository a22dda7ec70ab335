"""Makes the pictures of the README and the documents anew: `python -m docs.pictures [--out FOLDER] [NAME …]`.

Those of the demo's models are asked here; those of the tutorial come from its own code, run from its page.
"""

from __future__ import annotations

import argparse
import io
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

import tapehead
from tapehead.client.models import Model
from tapehead.demo import models_folder
from tapehead.demo.studies import STUDIES, Study
from tapehead.pictures import png

HERE = Path(__file__).parent
IMAGES = HERE / "images"
TUTORIAL = HERE / "tutorial.md"
_RUN = re.compile(r"^```python run\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SHOWN = re.compile(r"images/(tutorial-([a-z]+))\.png")
_GATES = [f"lstm.{gate}" for gate in ("input_gate", "forget_gate", "cell_candidate", "output_gate")]

Ask = Callable[[Model[tapehead.Answer], Study], tapehead.Answer]


@dataclass(frozen=True)
class Picture:
    """One picture: which model is asked what, and how the answer is drawn."""

    model: str
    ask: Ask
    labels: Mapping[str, str] = field(default_factory=dict)


# Labels: an axis of the answer -> what of the study stands along it.
PICTURES: Mapping[str, Picture] = {
    "saliency": Picture(
        "co2", lambda m, s: m.saliency(s.inputs[-1:], target="outputs[0]"), {"timestep": "times", "feature": "features"}
    ),
    "jacobian": Picture(
        "sunspots", lambda m, s: m.jacobian(s.inputs[-1:], of="lstm.h[-1]", wrt="inputs"), {"wrt.timestep": "times"}
    ),
    "norms": Picture(
        "sunspots",
        lambda m, s: m.jacobian(s.inputs[-5:], of="lstm.h[-1]", wrt="lstm.h", reduce="norm"),
        {"wrt.timestep": "times"},
    ),
    "norm_map": Picture(
        "sunspots", lambda m, s: m.jacobian(s.inputs[-1:], of="lstm.h", wrt="lstm.h", reduce="norm")
    ),
    "pair": Picture("sunspots", lambda m, s: m.jacobian(s.inputs[-1:], of="lstm.h[-1]", wrt="lstm.h[-2]")),
    "spectrum": Picture(
        "sunspots",
        lambda m, s: m.jacobian(s.inputs[-1:], of="lstm.h[:]", wrt="lstm.h[:]", lag=1, reduce="singular_values"),
    ),
    "gates": Picture("sunspots", lambda m, s: m.states(s.inputs[-1:], points=_GATES), {"timestep": "times"}),
    "states": Picture("co2", lambda m, s: m.states(s.inputs[-1:]), {"timestep": "times"}),
    "weight_gradients": Picture(
        "sunspots",
        lambda m, s: m.weight_gradients(s.inputs[-32:], targets=s.targets[-32:], by=["gate", "timestep"]),
    ),
    "weights": Picture("co2", lambda m, s: m.weight_gradients(s.inputs[-32:], targets=s.targets[-32:], values=True)),
    "diagnose": Picture("sunspots", lambda m, s: m.diagnose(s.inputs[-8:])),
    "outputs": Picture("co2", lambda m, s: m.infer(s.inputs[-1:])),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Makes the pictures that are named, all by default, and tells each file."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    parser = argparse.ArgumentParser(prog="python -m docs.pictures", description="Make the documents' pictures anew.")
    names = [*PICTURES, *tutorial_names()]
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which of {', '.join(names)}; all by default")
    parser.add_argument("--out", type=Path, default=IMAGES, help="folder for the .png files")
    given = parser.parse_args(arguments)
    unknown = sorted(set(given.names) - set(names))
    if unknown:
        parser.error(f"no picture {unknown[0]!r}; there are {', '.join(names)}")
    given.out.mkdir(parents=True, exist_ok=True)
    for name, image in made(given.names or names):
        path = given.out / f"{name}.png"
        _few_colours(image).save(path, optimize=True)
        print(f"{path}  {path.stat().st_size / 1024:.0f} KB")


def made(names: Sequence[str]) -> list[tuple[str, bytes]]:
    """The pictures of these names, as the bytes of PNG files."""
    found = _of_the_demo([name for name in names if name in PICTURES])
    shown = [name for name in names if name in tutorial_names()]
    return found + (_of_the_tutorial(shown) if shown else [])


def _few_colours(image: bytes) -> Image.Image:
    """A picture in 256 colours: as good to look at, and a third of the bytes to keep with the code."""
    return Image.open(io.BytesIO(image)).convert("RGB").quantize(256, dither=Image.Dither.NONE)


def tutorial_names() -> list[str]:
    """The pictures that the tutorial shows."""
    text = TUTORIAL.read_text("utf-8") if TUTORIAL.exists() else ""
    return list(dict.fromkeys(name for name, _ in _SHOWN.findall(text)))


def _of_the_demo(names: Sequence[str]) -> list[tuple[str, bytes]]:
    import tapehead.demo.cells  # registers the cell that a model names

    found = []
    with tapehead.Client(models=models_folder()) as client:
        for name in names:
            one = PICTURES[name]
            study = STUDIES[one.model]()
            along = {"times": study.times[-1].tolist(), "features": list(study.features)}
            labels = {axis: along[what] for axis, what in one.labels.items()}
            found.append((name, png(one.ask(client.model(one.model), study).plot(labels=labels))))
    return found


def _of_the_tutorial(names: Sequence[str]) -> list[tuple[str, bytes]]:
    """Runs the tutorial's code as its page has it; a picture `tutorial-NAME` is the answer that it calls NAME."""
    values: dict[str, Any] = {"__name__": "__main__"}
    for code in _RUN.findall(TUTORIAL.read_text("utf-8")):
        exec(compile(code, str(TUTORIAL), "exec"), values)
    return [(name, png(values[name.partition("-")[2]].plot())) for name in names]


if __name__ == "__main__":
    main()
