"""Makes the demo's models anew: `python -m tapehead.demo.train [--out FOLDER] [MODEL …]`.

Seeds are fixed and operations deterministic: the same TensorFlow on the same kind of machine makes the same weights to
the bit. Elsewhere rounding differs and training spreads it; docs/demo.md tells what was measured.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tapehead.demo import models_folder
from tapehead.demo.progress import Bar
from tapehead.demo.studies import STUDIES, Study, rmse

if TYPE_CHECKING:
    import keras


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains the models that are named (all by default) and writes one file each, telling how good they are."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    parser = argparse.ArgumentParser(prog="python -m tapehead.demo.train", description="Make the demo's models anew.")
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"which of {', '.join(STUDIES)}; all by default")
    parser.add_argument("--out", type=Path, default=models_folder(), help="folder for the .keras files")
    given = parser.parse_args(arguments)
    unknown = sorted(set(given.models) - set(STUDIES))
    if unknown:
        parser.error(f"no model {unknown[0]!r}; there are {', '.join(STUDIES)}")
    given.out.mkdir(parents=True, exist_ok=True)
    for name in given.models or STUDIES:
        study, start = STUDIES[name](), time.perf_counter()
        model = trained(study)
        path = given.out / f"{name}.keras"
        model.save(path)
        print(f"{path}  {path.stat().st_size / 1024:.0f} KB, {time.perf_counter() - start:.0f} s")
        print(quality(study, model))


def trained(study: Study) -> keras.Model:
    """The study's model, trained on what it may learn from, in the series' own units and compiled with its loss."""
    import keras
    import tensorflow as tf

    from tapehead.demo.networks import NETWORKS, in_own_units, untrained

    network = NETWORKS[study.model]
    tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(network.seed)
    model = untrained(study.model)
    inputs, targets = study.inputs[study.learnt] / network.features, study.targets[study.learnt] / network.answer
    weights = None if study.weights is None else study.weights[study.learnt] * study.weights.shape[1]
    batch = 32
    steps = network.epochs * -(-len(inputs) // batch)
    rate = keras.optimizers.schedules.CosineDecay(network.learning_rate, steps)
    model.compile(keras.optimizers.AdamW(rate, weight_decay=0.1), loss="mse")
    with Bar(study.model, network.epochs) as bar:
        tell = keras.callbacks.LambdaCallback(on_epoch_end=lambda _, logs: bar.step(f"loss {logs['loss']:.4f}"))
        model.fit(
            inputs, targets, sample_weight=weights, batch_size=batch, epochs=network.epochs, verbose=0, callbacks=[tell]
        )
    in_own_units(model, network)
    model.compile(optimizer="sgd", loss="mse")
    return model


def quality(study: Study, model: keras.Model) -> str:
    """A table of root mean square errors, of the model and of the simple forecasts it has to beat."""
    forecasts = {"this model": model.predict_on_batch(study.inputs), **study.rivals}
    head = f"  {f'error in {study.unit} (root mean square)':<44}{'learnt from':>14}{'held out':>14}\n"
    return head + "\n".join(
        f"  {name:<44}{rmse(study, values, study.learnt):>14.2f}{rmse(study, values, study.held_out):>14.2f}"
        for name, values in forecasts.items()
    )


if __name__ == "__main__":
    main()
