"""What calibration data decides: ranges, and whether equalized kernels and corrected biases help."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_mot._arrays import numpy_value
from keras_mot._memory import free_discarded
from keras_mot.data.arrays import joined, part
from keras_mot.data.typical_samples import remember
from keras_mot.layers.activation_quantizer import activation_quantizers
from keras_mot.layers.transformed import transformed_weights
from keras_mot.quantization.algorithms.bias_correction import correct_biases
from keras_mot.quantization.algorithms.equalization import equalize, find_pairs
from keras_mot.quantization.algorithms.rounding_in_order import round_in_order, weights_to_round
from keras_mot.quantization.calibration import Calibration
from keras_mot.quantization.estimators.calibrating import (
    avoid_ties,
    calibrate,
    calibrate_by_extremes,
    observe,
    set_by_place,
    set_ranges,
    squared_error,
)
from keras_mot.quantization.estimators.fidelity import warn_if_useless
from keras_mot.quantization.estimators.loss_aware import batch_losses, check_loss, keep_best
from keras_mot.quantization.estimators.passes import Passes, without_rounding
from keras_mot.quantization.estimators.ranges import (
    Entropy,
    LeastSquares,
    MeanMinMax,
    MinMax,
    Percentile,
)
from keras_mot.quantization.estimators.samples import Recorded, Samples
from keras_mot.quantization.simulation.weights import fit_scales
from keras_mot.transforms import FakeQuantize

_CORRECTED_ON = 64
_ESTIMATORS = (None, MinMax(), MeanMinMax(), Percentile(), LeastSquares(), Entropy())  # that a loss chooses from
# A change is kept if it leaves at most this share of the squared error: on DS-CNN-S with 4-bit weights, bias correction
# left 0.6 of it, and accuracy fell by two points.
_WORTH = 0.5
_AS_GOOD = 0.02  # how much larger the loss of a model may be that is no worse by the user's own measure


@dataclasses.dataclass(frozen=True)
class Fitting:
    """How a quantized model is fitted to data.

    Args:
        calibration: the data, if there are any, and what they decide.
        trained: whether the model is going to be trained.
    """

    calibration: Calibration
    trained: bool = False

    def __post_init__(self):
        if self.calibration.correct_biases and self.data is None:
            raise ValueError("`correct_biases=True` needs `calibration_data`: some dozen typical inputs.")

    @property
    def data(self):
        """The calibration data, or `None` for none."""
        return self.calibration.data

    def run(self, simulation: keras.Model, name_of: Callable[[Any], str] = lambda operation: operation.name) -> None:
        """Sets the ranges of a quantized model, equalizes its kernels and corrects its biases, in place.

        Args:
            simulation: the model.
            name_of: function from one of its operations to the name of that of the user's model, for messages.

        Warns if the model computes something else than in floats then.

        Raises:
            TypeError: if `data` is no data.
            ValueError: if there is no batch, its shapes do not fit the model, or it makes an activation NaN or
                infinite.
        """
        if self.data is None and any(quantizer.learned for quantizer in activation_quantizers(simulation)):
            raise ValueError("`learned_scales` need `calibration_data`: the ranges that training starts from.")
        if self.data is not None:
            self._fit_to_data(simulation, name_of)
        elif self.calibration.equalize:
            _equalize_and_fit(simulation)

    def _fit_to_data(self, simulation, name_of):
        asked = self.calibration
        samples = Samples(simulation, asked.data, asked.batch_size, asked.loss is not None, asked.max_samples)
        remember(simulation, samples.head[0])
        passes = Passes(simulation)
        if asked.loss is not None:
            check_loss(passes, samples.labelled, asked.loss)
            loss_in_floats = batch_losses(passes, samples.labelled, asked.loss, floats=True).mean()
        calibrated = functools.partial(_calibrate, passes, estimator=asked.estimator)
        if asked.equalize is None and _shares_scales(simulation) and find_pairs(simulation):
            calibrated(samples.head, progress=False)

            def equalize_and_calibrate():
                _equalize_and_fit(simulation)
                passes.weights_changed()
                calibrated(samples.head, progress=False)

            _where_it_helps(passes, samples.head, equalize_and_calibrate)
        elif asked.equalize:
            _equalize_and_fit(simulation)
            passes.weights_changed()
        by_data = weights_to_round(simulation)
        if by_data:
            samples = Recorded(samples)
            passes.weights_changed()
        # Ranges are those of weights in floats: once rounded by data, layers return nearly the same.
        with without_rounding(by_data):
            if asked.loss is None:
                calibrated(samples, progress=asked.progress)
                avoid_ties(simulation, samples.head[0])
            else:
                self._choose_estimator(passes, samples)
        expected = passes.outputs(samples.head, rounding=(), floats=True)  # before any bias moves
        if by_data:
            passes.weights_changed()  # before, so that its kernels are not in memory beside what rounding needs
            free_discarded(simulation)
            round_in_order(simulation, samples.seen, asked.correct_biases is not False, asked.progress)
        if asked.correct_biases is None:
            outputs = _where_it_helps(passes, samples.head, lambda: _correct(simulation, samples.head), expected)
        else:
            if asked.correct_biases and not by_data:
                _correct(simulation, samples.head)
            outputs = expected, passes.outputs(samples.head)

        def as_good():  # ranges that the loss chose may clip outputs, for the better
            loss = batch_losses(passes, samples.labelled, asked.loss).mean()
            return loss - loss_in_floats <= _AS_GOOD * abs(loss_in_floats)

        excuse = None if asked.loss is None else as_good
        warn_if_useless(passes, samples.head, *outputs, name_of, self.trained, excuse)

    def _choose_estimator(self, passes, samples):
        seen = observe(passes.model, samples, self.calibration.progress)

        def set_by(estimator):
            if estimator is None:
                set_by_place(passes.model, seen)
            else:
                set_ranges(seen, estimator)
            avoid_ties(passes.model, samples.head[0])

        choices = [functools.partial(set_by, estimator) for estimator in _ESTIMATORS]
        keep_best(passes.model, choices, lambda: batch_losses(passes, samples.labelled, self.calibration.loss))


def _calibrate(passes, samples, estimator, progress):
    if estimator is None or isinstance(estimator, (MinMax, MeanMinMax)):
        calibrate_by_extremes(passes, samples, estimator, progress)
    else:
        calibrate(passes.model, samples, estimator, progress)


def _shares_scales(simulation):
    """Whether channels of a kernel share a scale, so that the small ones have few of the integers.

    With a scale for each channel, equalization never left less than half of the error in what was measured.
    """
    transforms = [weight.transform_of(FakeQuantize) for weight in transformed_weights(simulation)]
    return any(transform is not None and not transform.per_channel for transform in transforms)


def _where_it_helps(passes, batches, change, expected=None):
    """Changes a model, and takes the change back if the outputs are not much nearer to those of the float model.

    Args:
        passes: the `Passes` of the model.
        batches: list of inputs as the model takes them.
        change: function without arguments.
        expected: the outputs of the float model, if biases are no longer as they were in it.

    Returns:
        The outputs of the float model, and those of what the model is now.
    """
    expected = passes.outputs(batches, rounding=(), floats=True) if expected is None else expected
    values = _values(passes.model)
    before = passes.outputs(batches)
    change()
    after = passes.outputs(batches)
    if squared_error(after, expected) < _WORTH * squared_error(before, expected):
        return expected, after
    _restore(passes.model, values)
    passes.weights_changed()
    return expected, before


def _correct(simulation, batches):
    correct_biases(simulation, _first(simulation, batches, _CORRECTED_ON))


def _equalize_and_fit(simulation):
    """Equalizes the kernels of a quantized model, and fits their scales again."""
    equalize(simulation)
    fit_scales(simulation)


def _first(model, batches, count):
    """The first samples of some batches as one batch; the first batch, if only some size or shape will do."""
    shapes = {tuple(tuple(leaf.shape[1:]) for leaf in keras.tree.flatten(batch)) for batch in batches}
    if model.inputs[0].shape[0] is not None or len(shapes) > 1:
        return batches[0]
    return part(joined(batches), slice(count))


def _values(model):
    return [np.array(numpy_value(variable)) for variable in model.variables]


def _restore(model, values):
    for variable, value in zip(model.variables, values, strict=True):
        variable.assign(value)
