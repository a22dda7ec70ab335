"""A callback that looks at the gradients while a model is trained."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tapehead.keras.records import GradientRecord, decay, hypotenuse, together

HEALTHY = "healthy"
_WHOLE = ":whole"

_FEW = {"steps": 8, "exponents": 2}
"""What a diagnosis while training takes of its dearest parts: spectra at so many timesteps, so many exponents."""


class GradientWarning(UserWarning):
    """A layer's gradients turn bad while it is trained."""


class GradientMonitor(keras.callbacks.Callback):
    """Records, every so many batches of `fit`, the gradients of a probe: by layer, by gate and by timestep.

        monitor = GradientMonitor(x[:32], y[:32], every=100, file="gradients.jsonl")
        model.fit(x, y, callbacks=[monitor])
        monitor.history[-1].answer.plot()

    Keras shows no batches to a callback, so the probe is given: some samples that stay the same, which makes the
    records comparable. The model is used as it is, its weights at that step; it runs as in `predict`. The first record
    is of step 0, before any training, the last of the last step.

    Args:
        inputs: the probe, as a client takes inputs: an array, a map by input name, or a list of sequences.
        targets: its targets, likewise.
        every: how many batches lie between two records.
        loss: a loss of Keras's by name, or one for each output; by default the one the model is compiled with.
        of: one number a sample whose gradient is taken instead of a loss's, as `outputs[0]`; then without targets.
        lengths: the sequences' lengths, where `inputs` are padded.
        initial_states: states to start from, by their points' names.
        file: where to write a line of JSON for each record; `tapehead.Answer.load_lines` reads it.
        verdicts: whether to ask for a diagnosis of each recurrent layer at each record, and to warn when it turns bad.

    Attributes:
        history: the records so far, oldest first.
        seconds: what the records took in all.

    Raises (as training begins):
        BadRequest: the probe does not fit the model, or the model is compiled without a loss.
        UnsupportedModel: the model has no graph of layers.
    """

    def __init__(
        self,
        inputs: Any,
        targets: Any = None,
        *,
        every: int = 100,
        loss: str | Mapping[str, str] | None = None,
        of: str | None = None,
        lengths: Any = None,
        initial_states: Mapping[str, Any] | None = None,
        file: str | os.PathLike[str] | None = None,
        verdicts: bool = True,
    ) -> None:
        super().__init__()
        if every < 1:
            raise ValueError(f"every is {every}; it must be at least 1 batch")
        self.every, self.verdicts = every, verdicts
        self.file = None if file is None else Path(file)
        self.history: list[GradientRecord] = []
        self.seconds = 0.0
        self._probe = inputs, lengths, initial_states
        self._asked = {"targets": targets, "loss": loss, "of": of}
        self._watched: Any = None
        self._step, self._epoch, self._batch = 0, 0, -1

    def on_train_begin(self, logs: Any = None) -> None:  # noqa: ARG002 - Keras's signature, here and below
        """Opens the model, and records the gradients before training."""
        # A door upwards: who only registers our cells needs no engine.
        from tapehead.engine import Model

        if self._watched is None or self._watched.handed is not self.model:
            self._watched = Model(self.model, self.model.name, live=True)
        if self.file is not None and not self.history:
            self.file.write_text("")
        self._record()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
        """Counts epochs."""
        self._epoch, self._batch = epoch, -1

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002
        """Records where enough batches have passed; one call may be of several (`steps_per_execution`)."""
        before = self._step
        self._step, self._batch = self._step + batch - self._batch, batch
        if self._step // self.every > before // self.every:
            self._record()

    def on_train_end(self, logs: Any = None) -> None:  # noqa: ARG002
        """Records the gradients after training."""
        if self.history[-1].step < self._step:
            self._record()

    def _record(self) -> None:
        began = time.perf_counter()
        with _own_precision():
            record = _recorded(self._watched, self._probe, self._asked, self._step, self._epoch, verdicts=self.verdicts)
        before = self.history[-1] if self.history else None
        self.history.append(record)
        if self.file is not None:
            with self.file.open("ab") as lines:
                lines.write(record.answer.line())
        self.seconds += time.perf_counter() - began
        _warn(before, record)


@contextmanager
def _own_precision() -> Iterator[None]:
    """Leaves TensorFloat-32 as training has it: the engine switches it off for itself."""
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)


def _recorded(
    watched: Any, probe: tuple[Any, Any, Any], asked: Mapping[str, Any], step: int, epoch: int, *, verdicts: bool
) -> GradientRecord:
    """The record of the model as it is now."""
    from tapehead.client.answers import Answer
    from tapehead.engine import OPERATIONS

    by = ("gate", "timestep")
    result = _answered(watched, "weight_gradients", probe, {**asked, "by": by}, wholes=True)
    tensors = {name: norm for name, norm in result.tensors.items() if not name.endswith(_WHOLE)}
    norms = {name: hypotenuse(list(np.atleast_1d(result.tensors[name + _WHOLE]))) for name in tensors}
    layers = {layer: float(norm) for layer, norm in together(norms).items()}
    diagnosis: Mapping[str, Any] = {}
    if verdicts and "diagnose" in OPERATIONS and watched.card.recurrent:
        diagnosis = _answered(watched, "diagnose", probe, _FEW).meta
    meta = {
        **result.meta,
        "step": step,
        "epoch": epoch,
        "weights": {weight: float(norm) for weight, norm in norms.items()},
        "layers": layers,
        "decay": _decays(watched, tensors, result.axes),
        "verdict": dict(diagnosis.get("verdict", {})),
        "findings": list(diagnosis.get("findings", ())),
    }
    kept = {name: value for name, value in asked.items() if isinstance(value, str)}
    about = {"operation": "weight_gradients", "by": list(by), **kept}
    axes = {name: result.axes[name] for name in tensors}
    answer = Answer(watched.card.name, watched.card.version, tensors, axes, meta, about)
    return record_of(answer)


def record_of(answer: Any) -> GradientRecord:
    """The record that an answer of a monitor's file holds."""
    meta = answer.meta
    # JSON has no NaN: there it is a text, as an infinity is.
    weights, layers = ({one: float(norm) for one, norm in meta[name].items()} for name in ("weights", "layers"))
    parts = {name: meta[name] for name in ("step", "epoch", "decay", "verdict")}
    return GradientRecord(loss=float(meta["loss_value"]), answer=answer, weights=weights, layers=layers, **parts)


def _answered(
    watched: Any, operation: str, probe: tuple[Any, Any, Any], asked: Mapping[str, Any], **options: Any
) -> Any:
    from tapehead.client.inputs import make_request
    from tapehead.engine import OPERATIONS
    from tapehead.operations import check

    request, _ = check(watched.card, operation, make_request(*probe, asked))
    return OPERATIONS[operation](watched, request, **options)


def _decays(watched: Any, tensors: Mapping[str, Any], axes: Mapping[str, tuple[str, ...]]) -> dict[str, float | None]:
    """The decay of each recurrent layer or cell, over all of its weights and gates."""
    timed = {
        weight: norm if axes[weight] == ("timestep",) else hypotenuse(list(norm))
        for weight, norm in tensors.items()
        if "timestep" in axes[weight]
    }
    backward = [
        name.partition(".call.")[0] for name, info in watched.card.recurrent.items() if info["direction"] == "backward"
    ]
    return {
        layer: decay(norms, backward=any(f"{layer}.".startswith(f"{one}.") for one in backward))
        for layer, norms in together(timed).items()
    }


def _warn(before: GradientRecord | None, record: GradientRecord) -> None:
    """Says which layers' verdicts have turned bad since the record before, and which gradients are no longer finite."""
    verdicts, norms = ({}, {}) if before is None else (before.verdict, before.layers)
    findings = record.answer.meta["findings"]
    for layer, verdict in record.verdict.items():
        if verdict not in (HEALTHY, verdicts.get(layer)):
            own = [finding for finding in findings if finding["layer"] == layer]
            first = next((one for one in own if one["kind"] == verdict), own[0] if own else {})
            why = " ".join(str(first[part]) for part in ("meaning", "advice") if part in first)
            warnings.warn(f"step {record.step}: {layer} is {verdict}. {why}".rstrip(), GradientWarning, stacklevel=2)
    now = [layer for layer, norm in record.layers.items() if not np.isfinite(norm)]
    wrong = [layer for layer in now if np.isfinite(norms.get(layer, 0.0))]
    if wrong:
        told = f"step {record.step}: the gradients of {', '.join(wrong)} are not finite"
        warnings.warn(told, GradientWarning, stacklevel=2)
