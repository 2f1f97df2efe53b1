"""Constants of angles stay in float32 in files of float16 weights."""

import keras
import numpy as np
from keras import layers, ops

from keras_mot.export import LiteRTRunner, export_litert
from keras_mot.export.litert.litert_file import parameters, parse_model
from tests.quantization.test_coverage import only_tensorflow

SPEEDS = np.array([1.0, 3.7, 17.3, 91.1, 633.7], "float32")


def embedding(units=64):
    """A sinusoidal embedding of a time, shifted by constants of its own, and a dense layer."""
    time = keras.Input((1,))
    angles = ops.concatenate([time * SPEEDS, time * SPEEDS[::-1] + 0.3], axis=-1)
    x = ops.concatenate([ops.sin(angles), ops.cos(angles)], axis=-1)
    return keras.Model(time, layers.Dense(units, name="behind")(x))


def types(path):
    return {tensor.name: (tensor.dtype, tensor.values.size) for tensor in parameters(parse_model(path))}


@only_tensorflow
def test_angles_are_as_exact_as_in_floats(tmp_path):
    model = embedding()
    x = np.linspace(0.0, 1.0, 40, dtype="float32").reshape(-1, 1)
    expected = model.predict(x, verbose=0)
    export_litert(model, tmp_path / "model.tflite", weights="float16", tolerance=2e-3)
    (received,) = LiteRTRunner(tmp_path / "model.tflite").run(x).values()
    np.testing.assert_allclose(received, expected, atol=2e-3 * np.abs(expected).max())
    found = list(types(tmp_path / "model.tflite").values())
    assert ("float16", 20 * 64) in found  # the kernel behind them is of half the size
    assert sorted(size for kind, size in found if kind == "float32") == [1, 5, 5]


@only_tensorflow
def test_large_kernels_before_a_sine_are_halves(tmp_path):
    coordinates = keras.Input((2,))
    x = layers.Dense(80, activation=ops.sin, name="first")(coordinates)
    x = layers.Dense(80, activation=ops.sin, name="second")(x)
    model = keras.Model(coordinates, layers.Dense(3)(x))
    export_litert(model, tmp_path / "model.tflite", weights="float16")
    found = list(types(tmp_path / "model.tflite").values())
    assert ("float32", 2 * 80) in found
    assert ("float16", 80 * 80) in found


@only_tensorflow
def test_other_files_stay_as_they_are(tmp_path):
    inputs = keras.Input((6,))
    model = keras.Model(inputs, layers.Dense(30)(ops.tanh(inputs * np.arange(6.0, dtype="float32"))))
    export_litert(model, tmp_path / "model.tflite", weights="float16")
    assert ("float16", 180) in types(tmp_path / "model.tflite").values()
