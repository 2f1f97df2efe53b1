"""What the outputs of a model lose when one layer alone is quantized, pruned, clustered or factorized."""

import contextlib
import warnings
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mot._arrays import numpy_value
from keras_mot._keras import compiled_call, no_gradients
from keras_mot._messages import describe
from keras_mot._numbers import is_number, is_whole, plain
from keras_mot._progress import progress_bar
from keras_mot._retracing import without_retracing_warnings
from keras_mot.analysis._layer_weights import LayerWeight, layer_weights, with_moments
from keras_mot.analysis._output_loss import decibels, make_measure
from keras_mot.analysis._quantized_sensitivity import activation_rows, quantized_rows
from keras_mot.analysis._weight_changes import changes
from keras_mot.analysis.sensitivity_report import Sensitivity, SensitivityRow
from keras_mot.graph.flat_copy import check_plain, flat_and_origins
from keras_mot.layers.activation_quantizer import is_quantized
from keras_mot.low_rank.approximation import approximations
from keras_mot.quantization.estimators.samples import Samples

_DEFAULTS = {
    "weight_bits": (8, 4),
    "activation_bits": (8,),
    "sparsity": (0.5, 0.75),
    "values": (16, 4),
    "rank": (0.5, 0.25),
}


def sensitivity(
    model: keras.Model,
    data: Any,
    *,
    weight_bits: int | Sequence[int] = (),
    activation_bits: int | Sequence[int] = (),
    sparsity: float | Sequence[float] = (),
    values: int | Sequence[int] = (),
    rank: float | Sequence[float] = (),
    loss: Any = None,
    estimate_below: float = 0.0,
    max_samples: int = 256,
    batch_size: int = 64,
    progress: bool | None = None,
) -> Sensitivity:
    """What the outputs of a model lose when one layer alone is changed, for each layer, technique and setting.

    Each kernel is changed in a copy of the model, without training, and the model is run: the compiled function stays
    the same. What the layer's own outputs lose, tr(E'HE) relative to tr(W'HW) for the error E of the kernel W and the
    second moments H of its inputs (Frantar et al., 2023, arXiv:2210.17323), is told beside. As long as it is small, the
    loss of the model is proportional to it: `estimate_below` spares the runs.

    Of a quantized model, it is told what each of its rounded weights and activations does alone, against the same model
    in floats: which layer to blame where the whole is bad. Weights that were rounded in the stored values, as by GPTQ,
    have lost what they lose before: pass the float model with `weight_bits`.

    Args:
        model: a trained float model of any kind whose graph can be read, or a quantized one. It is not changed.
        data: some hundred typical inputs in any of the forms that `Calibration` takes; with labels for a `loss`.
        weight_bits: bits of weights to try, below 8 rounded by `GPTQ`, as `quantize_post_training` does by default. Of
            each technique one setting or several; all five have some settings each if none at all is given.
        activation_bits: 8 or 16: bits of activations, of those that `quantize_post_training` rounds by default.
        sparsity: shares of zeros, of least magnitude. Depthwise kernels are left out here and in `values`, as by
            `prune_low_magnitude` and `cluster_weights`.
        values: numbers of values of a kernel.
        rank: shares of the kernel's parameters that stay with low rank.
        loss: what is measured. By default, the KL divergence of predicted probabilities (softmax, or one number of
            sigmoid), else the squared error of the outputs by their variance; "kl", the KL divergence of softmax over
            logits; or a Keras loss, its name (a crossentropy on logits, if outputs are), or a function of labels
            and outputs: the increase per sample.
        estimate_below: a share of the energy of a layer's outputs, such as 0.02. Where less is lost, the loss is
            estimated, from that of the one of these settings that is roughest; 0 runs all.
        max_samples: how many samples of the data are used.
        batch_size: how many samples are run at a time.
        progress: whether to show a progress bar; by default, if the output is a terminal.

    Returns:
        A `Sensitivity`: its rows, `worst()`, `to_json()`, `plot()`; it prints as a table.

    Raises:
        TypeError: if an argument is of the wrong type.
        ValueError: if the model is not built, carries masks or codebooks, or cannot be traced; if a setting is out of
            range, the data do not fit, or `loss` needs labels that they lack.

    Example:

    ```python
    found = sensitivity(model, x_train[:256], weight_bits=(4,), sparsity=(0.5, 0.8))
    print(found)
    keep = {row.layer: None for row in found.of("weight_bits") if row.loss > 0.01}
    ```
    """
    asked = {
        "weight_bits": weight_bits,
        "activation_bits": activation_bits,
        "sparsity": sparsity,
        "values": values,
        "rank": rank,
    }
    asked = _checked(asked, estimate_below)
    for name, value in (("max_samples", max_samples), ("batch_size", batch_size)):
        if not is_whole(value) or value < 1:
            raise ValueError(f"`{name}` should be a positive integer; received {describe(value)}.")
    if loss is not None and not isinstance(loss, str) and not callable(loss):
        raise TypeError(
            f"`loss` should be a Keras loss, its name, or a function of labels and outputs; received {describe(loss)}."
        )
    if isinstance(model, keras.Model) and is_quantized(model):
        samples = _samples(model, data, loss, max_samples, batch_size)
        return quantized_rows(model, *samples, loss)
    check_plain(model, "sensitivity")
    asked = asked or _DEFAULTS
    flat, origins = flat_and_origins(model)
    inputs, labels = _samples(flat, data, loss, max_samples, batch_size)
    with _quietly(), progress_bar(progress) as bar:
        runs = _Runs(flat, inputs, loss, labels)
        weights, skipped = layer_weights(flat, origins, model.name)
        task = bar.add_task("sensitivities", total=len(weights))
        rows = []
        for weight in with_moments(flat, weights, inputs):
            rows += _rows_of(runs, weight, asked, estimate_below)
            bar.advance(task)
        for bits in asked.get("activation_bits", ()):
            rows += activation_rows(model, bits, inputs, labels, loss)
    count = sum(len(keras.tree.flatten(batch)[0]) for batch in inputs)
    return Sensitivity(tuple(rows), runs.measure, count, skipped)


class _Runs:
    """A flat model and what it computes on some inputs; values of its variables may change between runs."""

    def __init__(self, model, inputs, loss, labels):
        self._call, self._inputs = compiled_call(model), inputs
        self.expected = self.outputs()
        self.measure, self.loss_of = make_measure(self.expected, loss, labels)

    def outputs(self):
        """The outputs for all samples: list of float64 arrays, one for each output."""
        with no_gradients():
            batches = [keras.tree.flatten(self._call(batch)) for batch in self._inputs]
        return [
            np.concatenate([np.asarray(ops.convert_to_numpy(ops.cast(item, "float32")), "float64") for item in output])
            for output in zip(*batches, strict=True)
        ]


def _rows_of(runs, weight: LayerWeight, asked, estimate_below):
    """The rows of one kernel."""
    stored = np.array(numpy_value(weight.variable))
    kernel = stored.astype("float32")
    low_rank = {}
    if "rank" in asked and weight.is_sole:
        low_rank = approximations(weight.layer, asked["rank"], weight.mean_moments())
    chosen = {name: found for name, found in asked.items() if not weight.depthwise or name == "weight_bits"}
    rows, trusted = [], {}
    try:
        found = list(changes(kernel, weight.axes, chosen, low_rank.get, weight.integers))
        errors = [weight.error(each.kernel - kernel) for each in found]
        for change, error in reversed(list(zip(found, errors, strict=True))):  # the roughest of each technique first
            known = trusted.get(change.technique)
            if known is not None:
                loss, noise = (value * error / known[0] for value in known[1:])
                decibel = -10 * np.log10(noise) if noise > 0 else None
            else:
                weight.variable.assign(change.kernel.astype(stored.dtype).reshape(stored.shape))
                received = runs.outputs()
                loss, decibel = runs.loss_of(received), decibels(runs.expected, received)
                if error is not None and 0 < error < estimate_below:
                    trusted[change.technique] = error, loss, 0.0 if decibel is None else 10 ** (-decibel / 10)
            rows.append(
                SensitivityRow(
                    *(weight.path, change.technique, change.setting, float(loss)),
                    None if decibel is None else float(decibel),
                    error,
                    kernel.size,
                    change.bytes_saved,
                    estimated=known is not None,
                    kernel=weight.kernel,
                )
            )
    finally:
        weight.variable.assign(stored)
    return rows[::-1]


def _samples(model, data, loss, max_samples, batch_size):
    """The inputs as a list of batches, and the labels as one array or structure, or `None`."""
    labelled = loss is not None and loss != "kl"
    samples = Samples(model, data, batch_size, labelled, max_samples)
    if not labelled:
        return list(samples), None
    inputs, labels = zip(*samples.labelled, strict=True)
    together = keras.tree.map_structure(lambda *parts: np.concatenate([np.asarray(part) for part in parts]), *labels)
    return list(inputs), together


def _checked(asked, estimate_below):
    """The settings of the techniques that were asked for."""
    allowed = {
        "weight_bits": ("integers from 2 to 16", lambda value: is_whole(value) and 2 <= value <= 16),
        "activation_bits": ("8 or 16", lambda value: value in (8, 16)),
        "sparsity": ("shares from 0 to below 1", lambda value: 0 <= value < 1),
        "values": ("integers of at least 2", lambda value: is_whole(value) and value >= 2),
        "rank": ("shares from above 0 to below 1", lambda value: 0 < value < 1),
    }
    asked = {name: (settings,) if is_number(settings) else settings for name, settings in asked.items()}
    for name, settings in asked.items():
        what, test = allowed[name]
        right = isinstance(settings, list | tuple) and all(is_number(value) and test(value) for value in settings)
        if not right:
            raise ValueError(f"`{name}` should be a tuple of {what}; received {describe(settings)}.")
    if not is_number(estimate_below) or not 0 <= estimate_below <= 1:
        raise ValueError(f"`estimate_below` should be a share from 0 to 1; received {describe(estimate_below)}.")
    return {name: tuple(map(plain, settings)) for name, settings in asked.items() if len(settings)}


@contextlib.contextmanager
def _quietly():
    """Without the warnings of the techniques that are tried: what they do is what is measured."""
    with warnings.catch_warnings(), without_retracing_warnings():
        warnings.simplefilter("ignore")
        yield
