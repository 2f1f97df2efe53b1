"""Operations of masks: whole numbers, and new axes where sizes are open."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_mot.export import LiteRTRunner, export_litert
from tests.quantization.test_coverage import only_tensorflow


class Masked(layers.Layer):
    def call(self, x, indices):
        mask = ops.cast(indices > 2, "int32")
        distances = ops.cast(ops.abs(indices - 3), "float32")[..., None]
        signs = ops.cast(ops.sign(indices - 3), "float32")[..., None]
        return x * ops.cast(mask[:, None, :, None][:, 0], "float32") * distances + signs


@only_tensorflow
@pytest.mark.parametrize("length", [None, 6])
def test_masks_of_whole_numbers(tmp_path, length):
    indices = keras.Input((length,), dtype="int32")
    outputs = Masked()(layers.Embedding(10, 4)(indices), indices)
    model = keras.Model(indices, outputs)
    export = export_litert(model, tmp_path / "model.tflite")
    assert export.batch_size is None
    x = np.random.default_rng(0).integers(0, 10, (5, 6)).astype("int32")
    (found,) = LiteRTRunner(tmp_path / "model.tflite").run(x).values()
    np.testing.assert_allclose(found, model.predict(x, verbose=0), atol=1e-6)


class Axes(layers.Layer):
    def call(self, x):
        return x[:, None, ..., None, None] + x[:, None, :, :, None, None]


@only_tensorflow
def test_new_axes_before_and_behind_others(tmp_path):
    inputs = keras.Input((None, 3))
    model = keras.Model(inputs, Axes()(inputs))
    export_litert(model, tmp_path / "model.tflite")
    x = np.random.default_rng(0).standard_normal((2, 4, 3)).astype("float32")
    (found,) = LiteRTRunner(tmp_path / "model.tflite").run(x).values()
    assert found.shape == (2, 1, 4, 3, 1, 1)
    np.testing.assert_allclose(found, model.predict(x, verbose=0), atol=1e-6)
