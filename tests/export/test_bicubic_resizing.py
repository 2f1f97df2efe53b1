"""Bicubic resizing in files for plain LiteRT."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_mot.export import export_litert
from tests.quantization.test_coverage import only_tensorflow

X = np.random.default_rng(0).standard_normal((4, 6, 9, 3)).astype("float32")


@only_tensorflow
@pytest.mark.parametrize("size", [(11, 5), (6, 30)])
def test_bicubic_resizing_is_exported(size, tmp_path):
    inputs = keras.Input(X.shape[1:])
    x = ops.image.resize(inputs, size, interpolation="bicubic")
    model = keras.Model(inputs, x + ops.image.resize(2.0 * inputs, size, interpolation="bicubic"))
    export = export_litert(model, tmp_path / "model.tflite")
    assert export.batch_size is None
    np.testing.assert_allclose(export.run(X), model.predict(X, verbose=0), atol=1e-4)
