"""Calibration settings: what quantized models are fitted to, and how."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import keras

from keras_mot._config import Config
from keras_mot._messages import describe, nearest
from keras_mot._numbers import is_whole
from keras_mot.quantization.estimators.ranges import RangeEstimator


@keras.saving.register_keras_serializable("keras_mot")
@dataclasses.dataclass(frozen=True, eq=False)
class Calibration(Config):
    """Typical inputs, and what is decided by them: the clipping ranges of activations, and small changes to weights.

    The quantizing functions take it as `calibration_data`; data alone are short for `Calibration(data)`.

    Args:
        data: some hundred typical inputs, of all classes: an array, tensor, or structure of arrays as the model takes;
            a tuple of such inputs and their labels; an iterable of batches (of inputs, or of pairs of inputs and
            labels), such as a list, a `tf.data.Dataset`, a PyTorch `DataLoader` or a generator; or a function without
            arguments that yields samples, as `representative_dataset` of TensorFlow's converter is written: lists of an
            array for each input, or dictionaries by their names. `None`: ranges are left to training; in the stages of
            recipes, the recipe's own.
        estimator: how ranges follow from the values seen: `MinMax()`, `MeanMinMax()`, `MovingAverage()`,
            `Percentile()`, `LeastSquares()`, `Entropy()`, or your own `RangeEstimator`. By default, by place: for
            inputs and recurrent steps, the mean of the samples' extremes; for outputs, from the least to the greatest
            value; for all between, what nine of ten samples do not exceed on either side. At most a hundredth of the
            values is cut off on a side, and nothing with 16 bits.
        batch_size: how many samples of arrays are run at a time.
        equalize: whether the channels between layers are rescaled so that kernels use their integers evenly (Nagel et
            al., 2019, arXiv:1906.04721); by default, if channels share scales, and it halves the squared error of the
            outputs on 128 of the samples, against the float model. `True` needs no data.
        correct_biases: whether biases take back what rounding shifts the mean of a channel by (same paper); by
            default, if that halves the error.
        loss: a Keras loss, its name, or a function of labels and outputs to a number; the data needs labels then. Of
            the default, `MinMax`, `MeanMinMax`, `Percentile`, `LeastSquares` and `Entropy`, the estimator with the
            least mean loss in integers is chosen, on 2048 of the samples (ranges by the loss: Nahshan et al., 2021,
            "Loss Aware Post-training Quantization", arXiv:1911.07190); the default, if that may be by chance. Data
            that the model was not trained on tells more.
        progress: whether to show a progress bar; by default, if the output is a terminal.
        max_samples: how many samples of the data are used; by default all, or 4096 of data that do not tell how many
            there are (a generator, a dataset that repeats), with a warning if there are more.

    Raises:
        TypeError: if an argument is of the wrong type.
        ValueError: if one is out of range, or two contradict each other.

    Example:

    ```python
    calibration = Calibration(x_train[:500], estimator=MeanMinMax(), correct_biases=False)
    quantized = quantize_post_training(model, calibration_data=calibration)
    ```
    """

    data: Any = None
    estimator: RangeEstimator | None = None
    batch_size: int = 32
    equalize: bool | None = None
    correct_biases: bool | None = None
    loss: str | Callable | None = None
    progress: bool | None = None
    max_samples: int | None = None

    def __post_init__(self):
        if isinstance(self.data, Calibration):
            raise TypeError(
                "`data` should be inputs; received a `Calibration`: use `dataclasses.replace` to change it."
            )
        if self.estimator is not None and not isinstance(self.estimator, RangeEstimator):
            raise TypeError(
                f"`estimator` should be a `RangeEstimator`, such as `MinMax()`; received {describe(self.estimator)}."
            )
        if not is_whole(self.batch_size) or self.batch_size < 1:
            raise ValueError(f"`batch_size` should be a positive integer; received {describe(self.batch_size)}.")
        most = self.max_samples
        if most is not None and (not is_whole(most) or most < 1):
            raise ValueError(f"`max_samples` should be a positive integer, or `None`; received {describe(most)}.")
        for name in ("equalize", "correct_biases"):
            if getattr(self, name) is not None and not isinstance(getattr(self, name), bool):
                raise TypeError(
                    f"`{name}` should be True, False, or None to see what helps; received "
                    f"{describe(getattr(self, name))}."
                )
        if self.loss is not None and not (isinstance(self.loss, str) or callable(self.loss)):
            raise TypeError(
                f"`loss` should be a Keras loss or its name, or a function; received {describe(self.loss)}."
            )
        if isinstance(self.loss, str):
            keras.losses.get(self.loss)
        if self.loss is not None and self.estimator is not None:
            raise ValueError("`loss` chooses the estimator: give one of `loss` and `estimator`.")

    def __eq__(self, other):
        if not isinstance(other, Calibration):
            return NotImplemented
        return self.data is other.data and self._decisions() == other._decisions()

    def __hash__(self):
        return hash((id(self.data), *self._decisions()))

    def _decisions(self):
        """All but the data, which are equal only if they are the same."""
        return tuple(getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "data")

    def __repr__(self):
        shown = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        changed = {name: value for name, value in shown.items() if name != "data" and value != _DEFAULTS[name]}
        data = [] if self.data is None else [describe(self.data)]
        return f"Calibration({', '.join([*data, *(f'{name}={value!r}' for name, value in changed.items())])})"


_DEFAULTS = {field.name: field.default for field in dataclasses.fields(Calibration)}


def calibration_of(data: Any, settings: Mapping[str, Any], function: str) -> Calibration:
    """The `Calibration` that the arguments of a quantizing function come to.

    Args:
        data: its `calibration_data`: a `Calibration`, or data alone.
        settings: its other keyword arguments: fields of `Calibration`, as they were written before that existed.
        function: its name, for messages.

    Raises:
        TypeError: if a setting is none of `Calibration`, or stands beside one.
    """
    known = [name for name in _DEFAULTS if name != "data"]
    for name in settings:
        if name not in known:
            others = ("scheme", "calibration_data", "selected", "overrides", "batch_norm_steps", "target", *known)
            raise TypeError(
                f"`{function}` has no argument '{name}'.{nearest(name, others)} How calibration goes is said by "
                f"`Calibration`: {', '.join(known)}."
            )
    if not isinstance(data, Calibration):
        return Calibration(data, **settings)
    if settings:
        raise TypeError(
            f"`{function}` was given a `Calibration`, and beside it {', '.join(f'`{name}`' for name in settings)}: "
            "write that into the `Calibration`."
        )
    return data
