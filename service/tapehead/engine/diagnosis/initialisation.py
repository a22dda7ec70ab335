"""The initialisation check: the variance of the entries of ∂h_t/∂h_{t-1}, times the units, against theory.

A step passes a cotangent v on as J^T v. Where the n x n entries of J have mean 0 and variance s / n, the mean of
‖J^T v‖² is s ‖v‖²: gradients keep their size for s = 1, and halve their square at every step for s = 1/2.

Where the hidden state goes once through one square kernel W and one activation φ, J = W diag(φ') or diag(φ') W, and s
is n Var(W) times the mean of φ'². Initialisers say the first (Glorot and Bengio 2010: 1 for a square kernel; He et al.
2015: 2); the second is 1 for a linear unit, and 1/2 for a relu whose inputs are as often positive as negative (He et
al. 2015).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from tapehead.engine.diagnosis.subject import Subject
from tapehead.engine.rules.any_cell import AnyCellRule
from tapehead.engine.rules.simple_rnn import SimpleRNNRule
from tapehead.operations.request import Array

_SLOPES: Mapping[str, float] = {"linear": 1.0, "relu": 0.5}
"""The mean square of an activation's slope, where inputs are as often positive as negative."""
_STEPS = 8
"""How many steps' Jacobians are held against a kernel to see whether that is all they are made of."""
_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Initialisation:
    """The variance times the units: `found`, and `theory` where there is one; `why` says which, or why none."""

    found: float
    theory: float | None
    why: str


def initialisation(subject: Subject, jacobians: Array) -> Initialisation | None:
    """From the local Jacobians of all states, (matrices, size, size), all finite; None where there are none."""
    if not len(jacobians):
        return None
    own = jacobians[:, subject.block, subject.block].astype(np.float64)
    theory, why = _theory(subject.rule, own)
    with np.errstate(over="ignore"):
        return Initialisation(float(own.var() * own.shape[-1]), theory, why)


def _theory(rule: Any, jacobians: Array) -> tuple[float | None, str]:
    if not jacobians.any():
        return None, "Every entry is 0: a relu's slope is 0 where the state is, as it is from zero states on"
    if isinstance(rule, SimpleRNNRule):
        return _product(rule.cell.recurrent_initializer, rule.cell.activation, rule.cell.units)
    if isinstance(rule, AnyCellRule):
        return _of_any_cell(rule.cell, jacobians)
    return None, f"No theory: no closed form is known for the gated step of a {rule.kind}"


def _of_any_cell(cell: Any, jacobians: Array) -> tuple[float | None, str]:
    """Only where the Jacobians themselves show that the step is one kernel and one activation with known slopes."""
    units, activation = jacobians.shape[-1], getattr(cell, "activation", None)
    slope_values = _SLOPE_VALUES.get(_name(activation))
    kernels = [(kernel, initializer) for kernel, initializer in _kernels(cell) if kernel.shape == (units, units)]
    if slope_values is not None:
        for kernel, initializer in kernels:
            if _made_of(jacobians[:_STEPS], np.asarray(kernel, np.float64).T, slope_values):
                return _product(initializer, activation, units)
    return None, f"No theory: a {type(cell).__name__} does not step by one kernel and one activation of known slopes"


_SLOPE_VALUES: Mapping[str, tuple[float, ...]] = {"linear": (1.0,), "relu": (0.0, 1.0)}


def _made_of(jacobians: Array, kernel: Array, slopes: tuple[float, ...]) -> bool:
    """Whether every entry is the kernel's times one of the slopes."""
    scale = np.abs(kernel).max()
    distances = [np.abs(jacobians - slope * kernel) for slope in slopes]
    return bool(scale > 0 and np.min(distances, axis=0).max() <= _TOLERANCE * scale)


def _kernels(cell: Any) -> Iterator[tuple[Any, Any]]:
    """The kernels of a cell and of its sublayers, each with its initialiser."""
    for layer in getattr(cell, "_flatten_layers", list)():
        for name, initializer in _INITIALIZED.items():
            if getattr(layer, name, None) is not None:
                yield getattr(layer, name), getattr(layer, initializer, None)


_INITIALIZED = {"kernel": "kernel_initializer", "recurrent_kernel": "recurrent_initializer"}


def _product(initializer: Any, activation: Any, units: int) -> tuple[float | None, str]:
    kernel, slope = _kernel_variance(initializer, units), _SLOPES.get(_name(activation))
    called = f"{type(initializer).__name__} and {_name(activation)}"
    if kernel is None:
        return None, f"No theory for the initialiser of {called}"
    if slope is None:
        return None, f"No theory for {called}: its slopes depend on its inputs; a linear unit's variance is {kernel:g}"
    return kernel * slope, f"{called}: {kernel:g} of the kernel times {slope:g} of the slopes squared"


def _kernel_variance(initializer: Any, units: int) -> float | None:
    """n Var(W) of a square kernel as drawn; None where the initialiser is not known."""
    for kind, variance in _VARIANCES.items():
        if isinstance(initializer, kind):
            return float(variance(initializer, units))
    return None


_INITIALIZERS = keras.initializers
_VARIANCES: Mapping[type, Callable[[Any, int], float]] = {
    # Glorot's, He's and LeCun's are of this kind; of a square kernel fan in and fan out are the same.
    _INITIALIZERS.VarianceScaling: lambda one, _: one.scale,
    _INITIALIZERS.Orthogonal: lambda one, _: one.gain**2,
    _INITIALIZERS.Identity: lambda one, units: one.gain**2 * (1 - 1 / units),
    _INITIALIZERS.RandomNormal: lambda one, units: units * one.stddev**2,
    _INITIALIZERS.RandomUniform: lambda one, units: units * (one.maxval - one.minval) ** 2 / 12,
    _INITIALIZERS.Zeros: lambda *_: 0.0,
}


def _name(activation: Any) -> str:
    return str(getattr(activation, "__name__", type(activation).__name__))
