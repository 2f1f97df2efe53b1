"""Fourier transforms of two axes, as in FNet, in files for plain LiteRT."""

import keras
import numpy as np
from keras import layers, ops

from keras_mot.export import LiteRTRunner, export_litert
from tests.quantization.test_coverage import only_tensorflow


class Mixing(layers.Layer):
    """Both parts of the transform of complex numbers."""

    def call(self, x):
        real, imaginary = ops.fft2((x, x * 0.5))
        again, _ = ops.fft2((real, ops.zeros_like(real)))
        return ops.concatenate([real, imaginary, again / 35.0], axis=-1)


@only_tensorflow
def test_a_transform_of_two_axes(tmp_path):
    inputs = keras.Input((5, 7))
    model = keras.Model(inputs, Mixing()(inputs))
    export = export_litert(model, tmp_path / "model.tflite")
    assert export.batch_size is None
    x = np.random.default_rng(0).standard_normal((3, 5, 7)).astype("float32")
    (found,) = LiteRTRunner(tmp_path / "model.tflite").run(x).values()
    expected = np.fft.fft2(x * (1 + 0.5j))
    np.testing.assert_allclose(found[..., :7], expected.real, atol=1e-4)
    np.testing.assert_allclose(found[..., 7:14], expected.imag, atol=1e-4)
    np.testing.assert_allclose(found, model.predict(x, verbose=0), atol=1e-4)
