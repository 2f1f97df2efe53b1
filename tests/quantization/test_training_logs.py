"""What training shows of quantization: in the logs, for loggers in any order, and for TensorBoard."""

import csv

import keras
import numpy as np
import pytest
from keras import layers

from keras_mot.layers.activation_quantizer import activation_quantizers
from keras_mot.quantization import QuantizationSummaries, quantize_model

X = np.random.default_rng(0).normal(size=(32, 6)).astype("float32")
Y = (X.sum(1) > 0).astype("int32")


@pytest.fixture(scope="module")
def model():
    return keras.Sequential([keras.Input((6,)), layers.Dense(5, "relu"), layers.Dense(2, "softmax")])


def quantized(model, data):
    result = quantize_model(model, calibration_data=data)
    result.compile(keras.optimizers.Adam(1e-2), "sparse_categorical_crossentropy")
    return result


def ranges(model):
    return np.array([each.clipping_range for each in activation_quantizers(model)])


class Ranges(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.seen = []

    def on_epoch_end(self, epoch, logs=None):
        assert "range_change" in logs
        self.seen.append(ranges(self.model))


def test_the_movement_of_ranges_is_in_the_logs(model, tmp_path):
    trained = quantized(model, X / 2)
    first, logger = Ranges(), keras.callbacks.CSVLogger(tmp_path / "log.csv")
    start = ranges(trained)
    history = trained.fit(X, Y, epochs=2, batch_size=8, verbose=0, callbacks=[first, logger]).history
    expected = []
    for before, after in zip([start, *first.seen], first.seen, strict=False):
        moved = np.abs(after - before).sum(1) / (after[:, 1] - after[:, 0])
        expected.append(np.minimum(moved, 1).mean())
    assert expected[0] > 0.001
    assert history["range_change"] == pytest.approx(expected, rel=1e-3)
    with open(tmp_path / "log.csv", newline="") as file:
        assert [float(row["range_change"]) for row in csv.DictReader(file)] == pytest.approx(expected, rel=1e-3)


def test_ranges_that_come_to_be_and_tensorboard(model, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trained = quantized(model, None)
    new = np.mean([not each.is_settled for each in activation_quantizers(trained)])
    assert new > 0.5  # that of softmax is known
    history = trained.fit(X, Y, batch_size=8, verbose=0, callbacks=[QuantizationSummaries(tmp_path)]).history
    assert history["range_change"] == [new]
    events = EventAccumulator(str(tmp_path / "metrics")).Reload()
    tags = events.Tags()["scalars"]
    assert events.Scalars("epoch_range_change")[0].value == pytest.approx(new)
    assert sum(tag.startswith("scale/") for tag in tags) == 2
    for quantizer in activation_quantizers(trained):
        written = [events.Scalars(f"range_{end}/{quantizer.name}")[0].value for end in ("low", "high")]
        assert written == pytest.approx(quantizer.clipping_range)
