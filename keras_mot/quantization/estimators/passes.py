"""Runs of a quantized model over data: compiled once, whatever is rounded in each.

Calibration compares many forms of one model: without rounding, with one activation rounded in this range or that, with
all. Which is run is said by arguments of one compiled function, so that no form is compiled by itself.
"""

import contextlib
import functools
import math
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mot import _torch
from keras_mot._keras import compiled_call, no_gradients
from keras_mot.data.arrays import part
from keras_mot.layers.activation_quantizer import activation_quantizers, intercepted
from keras_mot.layers.activation_rounding import rounded_if
from keras_mot.layers.transformed import transformed_weights
from keras_mot.layers.transformed_weight import evaluated_once
from keras_mot.quantization.estimators.ranges import rows_of, some_of
from keras_mot.second_order import freeing
from keras_mot.transforms import FakeQuantize

_FEW = 3  # batches


class Passes:
    """Runs a quantized model, whose ranges and biases may change between runs (weights: see `weights_changed`).

    Args:
        model: a functional model with activation quantizers. Nothing else than values of variables may change of it:
            limits of ranges are those of the first run.
    """

    def __init__(self, model: keras.Model):
        self.model = model
        self.quantizers = activation_quantizers(model)
        self._weights = transformed_weights(model)
        self._values = {}  # of the weights with transforms, by whether they are left in floats
        # The quantizers that calibration sets the ranges of, in the order of their calls; how many values of a sample.
        self._order = []
        self._first = None  # the number of samples of the first batch, and the shapes of one of its samples
        self._eager = functools.partial(self._run, functools.partial(model, training=False))
        if keras.backend.backend() == "torch":  # which compiles nothing
            self._eager = self._compiled = functools.partial(self._run, freeing(model))
        else:
            self._compiled = compiled_call(model, self._run)

    def watch(self, batches: Any):
        """Runs the model without rounding activations, and yields for each batch what its quantizers see.

        Results of operations with a fixed range are cut off at that: what comes after sees these limits. A product with
        a gate would otherwise get the range of its other factor, so that many results were halves of a step, which
        runtimes round in different ways.

        Args:
            batches: an iterable of inputs as the model takes them.

        Yields:
            List of (quantizer, extremes, values, size), one for each call of a quantizer without a fixed range: the
            arguments of `SeenValues.note`.
        """
        kernels = self._kernels()
        total = getattr(batches, "total", None) or (len(batches) if isinstance(batches, list) else math.inf)
        # What TensorFlow runs a few times only takes longer to be traced than to be run as it is. JAX compiles either.
        eager = keras.backend.backend() == "tensorflow" and total <= _FEW
        for batch in batches:
            size = len(keras.tree.flatten(batch)[0])
            _, seen = self._on_batch(batch, kernels, (), watching=True, eager=eager)
            yield [
                (quantizer, *_of_samples(size, extremes, values), length)
                for (quantizer, length), (extremes, values) in zip(self._order, seen, strict=True)
            ]

    def outputs(self, batches: list, rounding: Any = None, floats: bool = False) -> list[np.ndarray]:
        """The outputs of the model in inference: list of float64 arrays.

        Args:
            batches: list of inputs as the model takes them.
            rounding: the quantizers that round; `None` for all. The others hand on what they get.
            floats: whether weights are not rounded, or a list of those that are not.
        """
        kernels = self._mixed(floats) if isinstance(floats, list) else self._kernels(floats)
        rounding = self.quantizers if rounding is None else rounding
        results = [self._on_batch(batch, kernels, rounding)[0] for batch in batches]
        return [item for batch in results for item in keras.tree.flatten(batch)]

    def results(self, batches: list, floats: bool = False) -> list:
        """The same, where all round or nothing does: for each batch what the model returns, in its structure."""
        rounding = () if floats else self.quantizers
        return [self._on_batch(batch, self._kernels(floats), rounding)[0] for batch in batches]

    def weights_changed(self) -> None:
        """To be called when weights that are rounded have changed; biases may do so at any time."""
        self._values = {}

    def _kernels(self, floats=False):
        """The values of all weights with transforms, computed once for many runs."""
        if floats not in self._values:
            with without_rounding(self._weights) if floats else contextlib.nullcontext(), no_gradients():
                values = [weight.value_before(None) for weight in self._weights]
            # Tensors, where a weight as it is would be a variable of TensorFlow, for which all is compiled again.
            self._values[floats] = [ops.stop_gradient(value) for value in values]
        return self._values[floats]

    def _mixed(self, in_floats):
        """The same, some of them not rounded."""
        left = [any(weight is each for each in in_floats) for weight in self._weights]
        both = zip(left, self._kernels(True), self._kernels(False), strict=True)
        return [floats if is_left else rounded for is_left, floats, rounded in both]

    def _on_batch(self, batch, kernels, rounding, watching=False, eager=False):
        leaves = keras.tree.flatten(batch)
        size, shapes = len(leaves[0]), [leaf.shape[1:] for leaf in leaves]
        if self._first is None:
            self._first = size, shapes
        most, usual = self._first
        compiled = size <= most and shapes == usual  # other shapes would each be compiled anew
        if compiled and size < most and keras.backend.backend() != "torch":
            places = np.arange(most) % size  # what is repeated changes no extremes
            batch = part(batch, places)
        forms = _forms(self.quantizers, rounding, watching)
        with no_gradients():
            call = self._compiled if compiled and not eager else self._eager
            # TensorFlow traces twice, without and with what Python knows to be true: quicker than conditions.
            watching = np.array(watching) if keras.backend.backend() == "jax" else watching
            outputs, seen = call(kernels, forms, watching, batch)

        def array_of(item):
            item = np.asarray(ops.convert_to_numpy(item), "float64")
            return item[:size] if compiled and item.ndim and len(item) == most else item

        outputs = keras.tree.map_structure(array_of, outputs)
        if not (watching is True or np.any(watching)):
            return outputs, None
        return outputs, [tuple(np.asarray(ops.convert_to_numpy(item)) for item in each) for each in seen]

    def _run(self, call, kernels, forms, watching, inputs):
        forms = ops.unstack(forms) if keras.backend.backend() == "tensorflow" else forms
        form_of = {id(quantizer): forms[5 * place : 5 * place + 5] for place, quantizer in enumerate(self.quantizers)}
        order, seen = [], []
        samples = keras.tree.flatten(inputs)[0].shape[0]

        def step(quantizer, values, averages):
            if quantizer.fixed is None and not averages:
                rows = rows_of(ops.cast(values, "float32"), samples, ops)
                order.append((quantizer, rows.shape[1] or 0))
                seen.append(_seen_if(watching, rows))
            rounds, low, high, *ends = form_of[id(quantizer)]
            ends = ends if quantizer.fixed is not None and watching is not False else ()
            if watching is True:  # which goes with no rounding
                return ops.clip(values, *quantizer.fixed) if ends else values
            if keras.backend.backend() == "torch":
                return quantizer.rounded(values, averages) if rounds else values
            if quantizer.learned:
                return ops.where(rounds > 0, quantizer.rounded(values, averages), values)
            floats = ops.cast(values, "float32")
            return ops.cast(rounded_if(floats, rounds, low, high, ends, quantizer.grid, averages), values.dtype)

        known = {id(weight.variable): value for weight, value in zip(self._weights, kernels, strict=True)}
        with intercepted(step), evaluated_once(known):
            outputs = call(inputs)
        self._order = order
        return outputs, seen


@contextlib.contextmanager
def without_rounding(weights):
    """Context in which the transforms of some weights do not round."""
    transforms = [weight.transform_of(FakeQuantize) for weight in weights]
    transforms = [transform for transform in transforms if transform is not None]
    for transform in transforms:
        transform.rounds = False
    try:
        yield
    finally:
        for transform in transforms:
            transform.rounds = True


def _forms(quantizers, rounding, watching):
    """Five numbers of each quantizer: whether it rounds, its range, and where results are cut off if it does not."""
    forms = []
    for quantizer in quantizers:
        fixed = quantizer.fixed if watching and quantizer.fixed is not None else (-math.inf, math.inf)
        rounds = any(quantizer is each for each in rounding)
        forms += [rounds, *quantizer.nudged_range(), *fixed]
    forms = np.array(forms, "float32")
    # Reading places of an array would be compiled for each of them by JAX, and be one operation for TensorFlow.
    return list(forms) if keras.backend.backend() == "jax" else forms


def _seen_if(flag, rows):
    """The extremes of each row, and some values, if a flag is set; zeros of the same shapes otherwise."""

    def seen():
        if keras.backend.backend() == "torch":
            return _torch.extremes_of_rows(rows), some_of(rows)
        return ops.stack([ops.min(rows, axis=1), ops.max(rows, axis=1)]), some_of(rows)

    if isinstance(flag, bool):
        return seen() if flag else None
    return ops.cond(flag, seen, lambda: (ops.zeros((2, rows.shape[0])), ops.zeros(some_of(rows).shape)))


def _of_samples(size, extremes, values):
    """Without the samples that a batch has been filled up with."""
    return (extremes[:, :size], values[:size]) if len(values) > size else (extremes, values)
