"""A diagnosis on one sheet: the verdict in words, and below it the numbers it rests on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tapehead.pictures.panel import MOST_FAINT, Array, Panel
from tapehead.pictures.sheet import Sheet, Shown

_MOST_FINDINGS, _MOST_LAYERS = 3, 12
_HEALTHY, _ASIDE = "healthy", "info"


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
    findings = sorted(meta.get("findings", ()), key=lambda one: (one["severity"] == _ASIDE, one["layer"] != layer))
    told = [one for one in findings if one["severity"] != _ASIDE][:_MOST_FINDINGS]
    for one in told:
        yield f"• {one['layer']}, {one['severity']}: {one['meaning']} {one['advice']}"
    if len(findings) > len(told):
        yield f"Further findings in the answer: {len(findings) - len(told)}."


def _panels(shown: Shown, layer: str) -> Iterator[tuple[str, Panel]]:
    for part, make in _PARTS.items():
        tensor = shown.tensors.get(f"{layer}:{part}")
        if tensor is not None and np.size(tensor):
            yield make(shown, layer, np.asarray(tensor))


def _influence(shown: Shown, layer: str, tensor: Array) -> tuple[str, Panel]:
    """What is left of a state's influence on the last hidden state, and the share of it that hardly counts."""
    several = shown.tensors.get(f"{layer}:state_influence")
    values = tensor if several is None else np.asarray(several)
    quantity = "‖∂h_T/∂h_t‖" if several is None else "‖∂h_T/∂s_t‖, s all states"
    backward = layer.endswith("backward")
    made = Panel(values[shown.row], ("backward.timestep" if backward else "timestep",), quantity, magnitude=True)
    faint = shown.meta.get("thresholds", {}).get("faint")
    last = made.values[made.values > 0]
    mark = faint * float(last[0 if backward else -1]) if faint and last.size else None
    return "norms", replace(made, faint=_others(values, shown.row), mark=mark, marked=f"{faint or 0:g} of the last")


def _local(shown: Shown, layer: str, tensor: Array) -> tuple[str, Panel]:
    """Singular values of the local Jacobian over time, and its spectral radius."""
    values = tensor[shown.row]
    named = {"largest singular value": values[:, 0], "middle singular value": values[:, values.shape[1] // 2]}
    radius = shown.tensors.get(f"{layer}:spectral_radius")
    if radius is not None:
        named["spectral radius"] = np.asarray(radius)[shown.row]
    made = Panel(np.stack(list(named.values())), ("number", "timestep"), "local Jacobian, one step", magnitude=True)
    at = shown.meta.get("jacobian_timesteps", {}).get(layer)
    return "lines", replace(made, labels={"number": list(named)}, mark=1.0, at=None if at is None else np.asarray(at))


def _lyapunov(shown: Shown, layer: str, tensor: Array) -> tuple[str, Panel]:  # noqa: ARG001  # one signature for all
    made = Panel(tensor[shown.row], ("exponent",), "Lyapunov exponent, per timestep")
    return "exponents", replace(made, faint=_others(tensor, shown.row))


def _saturation(shown: Shown, layer: str, tensor: Array) -> tuple[str, Panel]:
    gates = _named(shown.meta, "gates", layer, len(tensor), "gate")
    return "saturation", Panel(tensor, ("gate", "timestep", "side"), "share of the gate's units", {"gate": gates})


def _weights(shown: Shown, layer: str, tensor: Array) -> tuple[str, Panel]:
    names = _named(shown.meta, "weights", layer, len(tensor), "weight")
    quantity = "norm of the gradient by timestep"
    return "lines", Panel(tensor, ("weight", "timestep"), quantity, {"weight": names}, magnitude=True)


def _others(tensor: Array, row: int) -> Array | None:
    others = np.delete(tensor, row, axis=0)[:MOST_FAINT]
    return others if len(others) else None


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
