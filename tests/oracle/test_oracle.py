"""The oracle agrees with Keras before anything else is compared with it."""

from __future__ import annotations

import jax
import numpy as np
import pytest

import architectures
from oracle.agreement import assert_agree
from oracle.cases import case, case_with_lengths, differences, some
from oracle.graph import input_names
from oracle.oracle import Oracle

SAME = 1e-12
OWN_DIFFERENCES = 1e-8


@pytest.mark.parametrize("name", some(architectures.ARCHITECTURES))
def test_outputs_are_those_of_keras(name: str) -> None:
    here = case(name)
    arrays = [here.inputs[n] for n in input_names(here.model)]
    expected = here.model(arrays if len(arrays) > 1 else arrays[0], training=False)  # `predict` would round to float32
    expected = expected if isinstance(expected, list | tuple) else [expected]
    for output, point in zip(expected, here.outputs, strict=True):
        assert_agree(here.answer.value(point), np.asarray(output), point, SAME)


@pytest.mark.parametrize("name", some(architectures.ARCHITECTURES))
def test_derivatives_are_central_differences_of_keras_own_cells(name: str) -> None:
    """All points, with respect to all that a Keras cell can be handed; gates are inside it."""
    answer, stepped = case(name).answer, differences(name)
    for of, blocks in stepped.blocks.items():
        assert_agree(answer.values[of], stepped.values[of], of, SAME)
        for wrt, block in blocks.items():
            size = max(1.0, float(np.abs(block).max()))
            assert np.abs(answer.blocks[of][wrt] - block).max() <= OWN_DIFFERENCES * size, f"{of} / {wrt}"


@pytest.mark.parametrize("name", ["lstm", "gru", "gru_reset_before"])
def test_a_gate_moves_what_is_computed_from_it(name: str) -> None:
    """With the definitions by hand: h' = o tanh(c'), and h' = z h + (1 - z) n with n inside a tanh."""
    here = case(name).answer
    of, units = ("lstm", 3) if name == "lstm" else ("gru", 3)
    eye = np.eye(units)
    if name == "lstm":
        expected = eye * np.tanh(here.value("lstm.c[2]"))[:, :, None]
        assert_agree(here.jacobian("lstm.h[2]", "lstm.output_gate[2]"), expected, "h / o", SAME)
    else:
        expected = eye * (here.value("gru.h[1]") - here.value("gru.candidate[2]"))[:, :, None]
        assert_agree(here.jacobian("gru.h[2]", "gru.update_gate[2]"), expected, "h / z", SAME)
        assert np.abs(here.jacobian(f"{of}.candidate[2]", f"{of}.reset_gate[2]")).max() > 0


def test_numpy_evaluates_what_jax_would_have_compiled() -> None:
    here = case("masked_stack")
    oracle = Oracle(here.model)
    row = {"inputs": {"series": here.inputs["series"][2]}, "initial": {}}
    nudge = {"series": np.zeros((5, 2))}
    compiled, _ = jax.jit(jax.jacfwd(oracle._forward, has_aux=True))(nudge, row)
    assert_agree(here.answer.blocks["head"]["series"][2], np.asarray(compiled["head"]["series"]), "", SAME)


def test_a_sequence_with_a_length_does_not_see_its_padding() -> None:
    here = case_with_lengths("bidirectional_concat")
    answer = here.answer
    assert not answer.jacobian("outputs", "inputs")[1][:, 3:].any()
    np.testing.assert_array_equal(answer.value("bi.forward.h[4]"), answer.value("bi.forward.h[-1]"))
    np.testing.assert_array_equal(answer.value("bi.backward.h[4]")[1:], 0.0 * answer.value("bi.backward.h[4]")[1:])
    identity = np.stack([np.eye(2)] * 2)
    np.testing.assert_array_equal(answer.jacobian("bi.backward.h[4]", "bi.backward.h.initial")[1:], identity)
    np.testing.assert_array_equal(answer.jacobian("bi.forward.h[4]", "bi.forward.h[-1]"), np.stack([np.eye(2)] * 3))
    assert not answer.jacobian("bi.forward.h[4]", "bi.forward.h[4]")[1:].any()
