"""What data decide of a model with dynamic ranges: the integers of its weights, and that it still is of use."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mot._keras import no_gradients
from keras_mot._warnings import warn
from keras_mot.data.typical_samples import remember
from keras_mot.quantization.algorithms.rounding_in_order import round_in_order, weights_to_round
from keras_mot.quantization.estimators.calibrating import in_floats
from keras_mot.quantization.estimators.samples import Recorded, Samples

_LEAST = 10.0  # dB


def fit_dynamic(simulation: keras.Model, fitting: Any) -> None:
    """Rounds by data what is to be rounded so, in place; without data, there is nothing to do.

    Warns if the model computes something else than in floats then.

    Args:
        simulation: the model.
        fitting: the `Fitting`.

    Raises:
        TypeError: if its data are no data.
        ValueError: if there is no batch, its shapes do not fit the model, or inputs of a layer are not finite.
    """
    if fitting.data is None:
        return
    asked = fitting.calibration
    samples = Samples(simulation, asked.data, asked.batch_size, False, asked.max_samples)
    remember(simulation, samples.head[0])
    if weights_to_round(simulation):
        samples = Recorded(samples)
        for _ in samples:  # all are gone through, so that those that are kept are of all
            pass
        round_in_order(simulation, samples.seen, asked.correct_biases is not False, asked.progress)
    if not fitting.trained:
        _warn_if_useless(simulation, samples.head)


def _warn_if_useless(simulation, batches):
    with in_floats(simulation):
        expected = _outputs(simulation, batches)
    received = _outputs(simulation, batches)
    for name, wanted, found in zip(simulation.output_names, expected, received, strict=True):
        signal, noise = float(np.var(wanted)), float(np.mean((found - wanted) ** 2))
        if noise > 0 and 10 * np.log10(max(signal, 1e-30) / noise) < _LEAST:
            warn(
                f"'{simulation.name}' with weights of so few bits is of little use: on the calibration data, output "
                f"'{name}' is {10 * np.log10(max(signal, 1e-30) / noise):.1f} dB above its difference from the float "
                "model's. More bits, blocks (`block_size=32`), or layers with more bits or in floats (`overrides`) "
                "bring it nearer."
            )


def _outputs(model, batches):
    """The outputs on all batches: a float64 array for each."""
    found = []
    with no_gradients():
        for batch in batches:
            outputs = keras.tree.flatten(model(keras.tree.map_structure(ops.convert_to_tensor, batch), training=False))
            found.append([np.asarray(ops.convert_to_numpy(each), "float64").ravel() for each in outputs])
    return [np.concatenate(each) for each in zip(*found, strict=True)]
