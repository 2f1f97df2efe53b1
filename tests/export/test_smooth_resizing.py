"""Bicubic, Lanczos and antialiased resizing in files for plain LiteRT."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_mot.export import export_litert
from tests.quantization.test_coverage import only_tensorflow

X = np.random.default_rng(0).standard_normal((4, 6, 9, 3)).astype("float32")


@only_tensorflow
@pytest.mark.parametrize(
    ("size", "options"),
    [
        ((11, 5), {"interpolation": "bicubic"}),
        ((6, 30), {"interpolation": "bicubic"}),
        ((11, 5), {"interpolation": "lanczos3"}),
        ((3, 20), {"interpolation": "lanczos5", "antialias": True}),
        ((3, 4), {"interpolation": "bilinear", "antialias": True}),
    ],
)
def test_resizing_is_exported(size, options, tmp_path):
    inputs = keras.Input(X.shape[1:])
    x = ops.image.resize(inputs, size, **options)
    model = keras.Model(inputs, x + ops.image.resize(2.0 * inputs, size, **options))
    export = export_litert(model, tmp_path / "model.tflite")
    assert export.batch_size is None
    np.testing.assert_allclose(export.run(X), model.predict(X, verbose=0), atol=1e-4)
