"""Which kinds of picture suit an answer: by what its numbers are, and by the axes they lie on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from tapehead.pictures.panel import Array, Panel, is_time, one_sample, over_time, panel
from tapehead.pictures.sheet import MOST_PANELS, Sheet, Shown

# (what the numbers are, the axes that are left of one sample) -> kinds of picture, one below the other. Where there are
# several tensors each has the last of its kinds alone. "t" is an axis of timesteps, "u" any other, "s" singular values.
TABLE: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("values", ""): ("bars",),
    ("values", "u"): ("bars",),
    ("values", "uu"): ("heatmap",),
    ("values", "t"): ("bars",),
    ("values", "tu"): ("heatmap",),
    ("values", "tt"): ("heatmap",),
    ("derivatives", ""): ("bars",),
    ("derivatives", "u"): ("bars",),
    ("derivatives", "uu"): ("heatmap",),
    ("derivatives", "t"): ("bars", "norms"),
    ("derivatives", "tu"): ("heatmap", "norms"),
    ("derivatives", "tt"): ("norm_map",),
    ("norms", ""): ("bars",),
    ("norms", "t"): ("norms",),
    ("norms", "tt"): ("norm_map",),
    ("spectra", "s"): ("spectrum",),
    ("spectra", "ts"): ("spectrum", "lines"),
    ("spectra", "tts"): ("norm_map",),
}

DERIVATIVES = frozenset({"jacobian", "check", "vjp", "jvp", "hvp", "saliency"})
REDUCED: Mapping[str, str] = {"norm": "norms", "spectral_norm": "norms", "singular_values": "spectra"}

# operation, or saliency's method -> what its numbers are
QUANTITIES: Mapping[str, str] = {
    "jacobian": "d {of} / d {wrt}",
    "check": "d {of} / d {wrt}, by differences",
    "vjp": "cotangent · d {of} / d {wrt}",
    "jvp": "d {of} / d {wrt} · tangent",
    "hvp": "d² {of} / d {wrt}² · tangent",
    "gradient": "gradient of {target}, per unit of {wrt}",
    "gradient_x_input": "gradient × input, in units of {target}",
    "integrated_gradients": "integrated gradients, in units of {target}",
    "saliency": "{method} of {target}",
}
REDUCTIONS: Mapping[str, str] = {
    "norm": "norm of {}",
    "spectral_norm": "largest singular value of {}",
    "singular_values": "singular values of {}",
    "sum": "{}, summed over units",
}


def by_axes(shown: Shown) -> Sheet:
    """Every tensor in the pictures that its axes ask for. One number a sample beside others goes into the title."""
    beside = {
        name: float(tensor[shown.row])
        for name, tensor in shown.tensors.items()
        if len(shown.tensors) > 1 and tuple(shown.axes[name]) == ("batch",)
    }
    names = [name for name in shown.tensors if name not in beside]
    panels = [one for name in names[:MOST_PANELS] for one in pictures_of(shown, name, alone=len(names) == 1)]
    notes = [f"{MOST_PANELS} of {len(names)} tensors"] if len(names) > MOST_PANELS else []
    return Sheet(panels, [*notes, *(f"{name.replace('_', ' ')} {value:.3g}" for name, value in beside.items())])


def pictures_of(shown: Shown, name: str, *, alone: bool = True) -> list[tuple[str, Panel]]:
    """One tensor's panels, each with its kind: all that suit it, or where it is not `alone` the one that tells most."""
    kinds = TABLE[what(shown, name)]
    return [(kind, _MAKE.get(kind, _entries)(shown, name)) for kind in (kinds if alone else kinds[-1:])]


def what(shown: Shown, name: str) -> tuple[str, str]:
    """The row of the table that a tensor belongs to."""
    _, axes = one_sample(shown.tensors[name], shown.axes[name], shown.row)
    times = "t" * min(2, sum(map(is_time, axes)))
    derivative = "derivatives" if shown.meta.get("operation") in DERIVATIVES else "values"
    kind = REDUCED.get(str(shown.meta.get("reduce")), derivative)
    if kind == "spectra" and "singular_value" in axes:
        return kind, f"{times}s"
    others = sum(not is_time(axis) for axis in axes)
    if kind in ("norms", "spectra"):
        return "norms", times
    return kind, times + "u" * min(others, 2 - len(times))


def quantity(shown: Shown, name: str) -> str:
    """What the numbers of a tensor are."""
    asked = shown.meta
    given = {key: value for key, value in asked.items() if isinstance(value, str)}
    words = {"method": "gradient", "wrt": "inputs", **given, **sides(shown, name)}
    operation = words.get("operation", "")
    pattern = QUANTITIES.get(words["method"] if operation == "saliency" else operation) or QUANTITIES.get(operation)
    try:
        said = pattern.format_map(words) if pattern else name
    except KeyError:
        return name
    said = REDUCTIONS.get(str(asked.get("reduce")), "{}").format(said)
    return said if asked.get("lag") is None else f"{said}, lag {asked['lag']}"


def sides(shown: Shown, name: str) -> dict[str, str]:
    """The points on both sides of a derivative: from a tensor named "of / wrt", else from what was asked."""
    if " / " in name:
        return dict(zip(("of", "wrt"), name.split(" / ", 1), strict=True))
    return {side: shown.meta[side] for side in ("of", "wrt") if isinstance(shown.meta.get(side), str)}


def _words(shown: Shown, name: str) -> dict[str, Any]:
    return {"row": shown.row, "sides": sides(shown, name), "labels": shown.labels}


def _entries(shown: Shown, name: str) -> Panel:
    """The tensor on its two axes that tell most."""
    valid = None if shown.valid is None else shown.valid[shown.row]
    magnitude = what(shown, name)[0] in ("norms", "spectra")
    given = (shown.tensors[name], shown.axes[name], quantity(shown, name))
    made = panel(*given, valid=valid, magnitude=magnitude, **_words(shown, name))
    return replace(made, diverging=shown.meta.get("operation") in DERIVATIVES)


def _norms(shown: Shown, name: str) -> Panel:
    """The tensor's size over its timesteps; a decay is fitted where those are what is differentiated by."""
    magnitude = what(shown, name)[0] == "norms"
    given = (shown.tensors[name], shown.axes[name], quantity(shown, name))
    made = over_time(*given, valid=shown.valid, magnitude=magnitude, **_words(shown, name))
    through = shown.meta.get("operation") != "jvp" and shown.meta.get("lag") is None
    return replace(made, fitted=through)


def _norm_map(shown: Shown, name: str) -> Panel:
    """The tensor's size at each pair of timesteps."""
    made = _largest(_entries(shown, name)) if what(shown, name)[1] == "tts" else _entries(shown, name)
    if made.magnitude:
        return made
    return replace(made, values=np.abs(made.values), quantity=f"absolute value of {made.quantity}", magnitude=True)


def _largest(made: Panel) -> Panel:
    return replace(made, quantity=made.quantity.replace("singular values", "norm of the singular values"))


def _spectrum(shown: Shown, name: str) -> Panel:
    values, axes = _of_row(shown, name)
    made = Panel(values, tuple(axes), quantity(shown, name), shown.labels, sides(shown, name), magnitude=True)
    return made if values.ndim > 1 else replace(made, values=values[None], axes=("timestep", *axes))


def _extremes(shown: Shown, name: str) -> Panel:
    """The largest, the middle and the smallest singular value of each timestep."""
    values, axes = _of_row(shown, name)
    ranks = {"largest": 0, "middle": values.shape[1] // 2, "smallest": values.shape[1] - 1}
    kept = {word: rank for word, rank in ranks.items() if word == "largest" or rank > 0}
    labels = {**shown.labels, "singular_value": list(kept)}
    shares = values[:, list(kept.values())].T
    return Panel(
        shares, ("singular_value", axes[0]), quantity(shown, name), labels, sides(shown, name), magnitude=True
    )


def _of_row(shown: Shown, name: str) -> tuple[Array, list[str]]:
    """One sample's numbers; padding has none."""
    values, axes = one_sample(shown.tensors[name], shown.axes[name], shown.row)
    valid = None if shown.valid is None else np.asarray(shown.valid[shown.row])
    if valid is not None and is_time(axes[0]) and len(valid) == len(values):
        values = np.where(valid[:, None], values, np.nan)
    return values, axes


_MAKE: Mapping[str, Callable[[Shown, str], Panel]] = {
    "norms": _norms,
    "norm_map": _norm_map,
    "spectrum": _spectrum,
    "lines": _extremes,
}
