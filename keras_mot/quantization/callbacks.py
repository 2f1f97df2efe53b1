"""What training shows of quantization: how ranges move in the logs, and each range and scale for TensorBoard."""

import keras
import numpy as np

from keras_mot._arrays import numpy_value
from keras_mot._keras import model_of
from keras_mot.layers import transformed_weights
from keras_mot.layers.activation_quantizer import activation_quantizers
from keras_mot.layers.summaries import TransformSummaries
from keras_mot.layers.updates import add_automatic_callback
from keras_mot.transforms import FakeQuantize


class ReportRanges(keras.callbacks.Callback):
    """Adds `range_change` to the logs of each epoch: how far the ranges of activations have moved in it.

    It is the mean over the ranges of what both ends moved by, as a share of the range. Near 0, they have settled; a
    range that has only come to be counts as 1. `fit` adds it by itself, before all other callbacks.
    """

    _known = ()

    def on_train_begin(self, logs=None):
        """Remembers where the ranges are."""
        self._known = _ranges(model_of(self))

    def on_epoch_end(self, epoch, logs=None):
        """Adds to the logs."""
        now = _ranges(self.model)
        if logs is not None and now:
            pairs = zip(self._known or [None] * len(now), now, strict=True)
            logs["range_change"] = float(np.mean([_change(before, after) for before, after in pairs]))
        self._known = now


def _ranges(model):
    return [each.clipping_range if each.is_settled else None for each in activation_quantizers(model)]


def _change(before, after):
    if before is None or after is None:
        return 0.0 if before is after else 1.0
    (low, high), (new_low, new_high) = before, after
    return min(1.0, (abs(new_low - low) + abs(new_high - high)) / max(new_high - new_low, 1e-12))


class QuantizationSummaries(TransformSummaries):
    """Writes the range of each activation, the mean scale of each weight, and the epoch's logs, for TensorBoard.

    Args:
        log_dir: directory of the event files; they are written to `log_dir/metrics`.
        update_freq: `"epoch"`, or a number of batches after which the values are also written, `"batch"` for each.
        **others: other arguments of `keras.callbacks.TensorBoard`, which have no effect, and are warned of.

    Raises:
        TypeError: if `TensorBoard` has no such argument.
        ValueError: if `log_dir` is not a non-empty path, or `update_freq` is something else.
        ImportError: if the package `tensorboard` is missing.

    Example:

    ```python
    quantized.compile("adam", "sparse_categorical_crossentropy")
    quantized.fit(x, y, callbacks=[QuantizationSummaries("logs")])
    ```
    """

    def values(self):
        """`range_low/NAME` and `range_high/NAME` of each activation, `scale/PATH` of each weight in integers."""
        found = {}
        for quantizer in activation_quantizers(self.model):
            if quantizer.is_settled:
                found[f"range_low/{quantizer.name}"], found[f"range_high/{quantizer.name}"] = quantizer.clipping_range
        for weight in transformed_weights(self.model):
            for transform in weight.transforms:
                if isinstance(transform, FakeQuantize):
                    scales = transform.scales(numpy_value(weight.value_before(transform)))
                    found[f"scale/{weight.path}"] = float(np.mean(numpy_value(scales)))
        return found


add_automatic_callback(lambda model: bool(activation_quantizers(model)), ReportRanges)
