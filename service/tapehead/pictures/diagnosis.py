"""A diagnosis on one sheet: the verdict in words, and below it the numbers it rests on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tapehead.pictures.panel import Array, Panel
from tapehead.pictures.sheet import Sheet, Shown

_MOST_FINDINGS, _MOST_LAYERS = 4, 12
_HEALTHY = "healthy"


def diagnose(shown: Shown) -> Sheet:
    """The verdict on every recurrent layer in words, and the pictures of the one with most to tell.

    That is the first whose verdict is not healthy, else the first; `layer` in the question picks another.
    """
    verdicts: Mapping[str, str] = shown.meta.get("verdict", {})
    layers = list(verdicts) or sorted({name.partition(":")[0] for name in shown.tensors})
    layer = next((one for one in layers if verdicts.get(one, _HEALTHY) != _HEALTHY), layers[0])
    words = Panel(np.zeros(0), (), "verdict", words=tuple(_words(shown.meta, verdicts, layer)))
    note = [f"pictures of {layer}, one of {len(layers)} layers"] if len(layers) > 1 else [layer]
    return Sheet([("words", words), *_panels(shown, layer)], note, columns=2)


def _words(meta: Mapping[str, Any], verdicts: Mapping[str, str], layer: str) -> Iterator[str]:
    said = [f"{one}: {verdict.replace('_', ' ')}" for one, verdict in verdicts.items()]
    more = f" and {len(said) - _MOST_LAYERS} more layers" if len(said) > _MOST_LAYERS else ""
    yield ", ".join(said[:_MOST_LAYERS]) + more
    findings = sorted(meta.get("findings", ()), key=lambda found: found.get("layer") != layer)
    for found in findings[:_MOST_FINDINGS]:
        yield f"• {found['layer']}, {found['severity']}: {found['meaning']} {found['advice']}"
    if len(findings) > _MOST_FINDINGS:
        yield f"and {len(findings) - _MOST_FINDINGS} more findings in the answer itself"


def _panels(shown: Shown, layer: str) -> Iterator[tuple[str, Panel]]:
    for part, make in _PARTS.items():
        tensor = shown.tensors.get(f"{layer}:{part}")
        if tensor is not None and np.size(tensor):
            yield make(shown, layer, np.asarray(tensor))


def _influence(shown: Shown, layer: str, tensor: Array) -> tuple[str, Panel]:  # noqa: ARG001  # one signature for all
    others = np.delete(tensor, shown.row, axis=0)[:32]
    quantity = "‖d h[T] / d h[t]‖"
    faint = others if len(others) else None
    return "norms", Panel(tensor[shown.row], ("timestep",), quantity, title=quantity, magnitude=True, faint=faint)


def _local(shown: Shown, layer: str, tensor: Array) -> tuple[str, Panel]:
    """Singular values of the local Jacobian over time, and its spectral radius."""
    values = tensor[shown.row]
    named = {"largest singular value": values[:, 0], "middle singular value": values[:, values.shape[1] // 2]}
    radius = shown.tensors.get(f"{layer}:spectral_radius")
    if radius is not None:
        named["spectral radius"] = np.asarray(radius)[shown.row]
    labels = {"number": list(named)}
    quantity = "local Jacobian, one step"
    made = Panel(np.stack(list(named.values())), ("number", "timestep"), quantity, labels, magnitude=True)
    return "lines", replace(made, mark=1.0)


def _lyapunov(shown: Shown, layer: str, tensor: Array) -> tuple[str, Panel]:  # noqa: ARG001  # one signature for all
    others = np.delete(tensor, shown.row, axis=0)[:32]
    made = Panel(tensor[shown.row], ("exponent",), "Lyapunov exponent, per timestep")
    return "exponents", replace(made, faint=others if len(others) else None)


def _saturation(shown: Shown, layer: str, tensor: Array) -> tuple[str, Panel]:
    gates = _named(shown.meta, "gates", layer, len(tensor), "gate")
    return "saturation", Panel(tensor, ("gate", "timestep", "side"), "share of the gate's units", {"gate": gates})


def _weights(shown: Shown, layer: str, tensor: Array) -> tuple[str, Panel]:
    names = _named(shown.meta, "weights", layer, len(tensor), "weight")
    quantity = "norm of the gradient by timestep"
    return "lines", Panel(tensor, ("weight", "timestep"), quantity, {"weight": names}, magnitude=True)


def _named(meta: Mapping[str, Any], what: str, layer: str, count: int, word: str) -> Sequence[str]:
    names: Sequence[str] = meta.get(what, {}).get(layer, ())
    return names if len(names) == count else [f"{word} {n}" for n in range(count)]


_PARTS = {
    "influence": _influence,
    "singular_values": _local,
    "saturation": _saturation,
    "lyapunov": _lyapunov,
    "weight_gradients": _weights,
}
