"""Weight gradients asked of the engine as a server asks them, and small networks to ask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import keras
import numpy as np
from keras import layers

import architectures
from tapehead.engine import OPERATIONS, Model
from tapehead.operations import Plan, Request, Result, check

SERIES = np.random.default_rng(7).normal(size=(4, 5, 2))
NUMBERS = np.random.default_rng(8).normal(size=(4, 5, 3))


@cache
def model_of(name: str) -> Model:
    """An architecture of the tests, live."""
    return Model(architectures.build(name), name, live=True)


def asked(model: Model, inputs: Any, **parameters: Any) -> Result:
    """The answer of the engine to a checked request."""
    given = {name: parameters.pop(name) for name in ("lengths", "initial_states") if name in parameters}
    lengths = {"": np.asarray(given["lengths"])} if "lengths" in given else None
    named = inputs if isinstance(inputs, Mapping) else {"": inputs}
    request, plans = check(
        model.card, "weight_gradients", Request(named, lengths, given.get("initial_states", {}), parameters)
    )
    result = OPERATIONS["weight_gradients"](model, request)
    assert_as_planned(result, plans)
    return result


def assert_as_planned(result: Result, plans: Sequence[Plan]) -> None:
    """Every tensor has the shape, axes and dtype that were foretold; those not answered are of disconnected weights."""
    foretold = {plan.name: plan for plan in plans}
    for name, tensor in result.tensors.items():
        plan = foretold.pop(name)
        assert result.axes[name] == plan.axes, name
        assert tensor.dtype == plan.dtype
        assert all(n in (None, m) for n, m in zip(plan.shape, tensor.shape, strict=True)), (name, tensor.shape)
    assert {name.partition(":")[0] for name in foretold} <= set(result.meta["disconnected"])


def small(outputs: int = 3, *, sequences: bool = False, activation: str | None = None, mask: bool = False) -> Any:
    """A float32 network of one recurrent layer."""
    series = keras.Input((None, 2), name="series")
    read = layers.Masking(name="masking")(series) if mask else series
    states = layers.SimpleRNN(3, name="rnn", return_sequences=sequences)(read)
    model = keras.Model(series, layers.Dense(outputs, activation=activation, name="head")(states))
    return architectures.with_random_weights(model)
