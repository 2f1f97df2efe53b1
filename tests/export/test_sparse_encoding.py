"""Files in sparse encoding are those that TensorFlow's converter writes."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_mot.export import LiteRTRunner, export_litert
from keras_mot.export.litert.litert_file import parameters, parse_model
from keras_mot.export.litert.sparse.encoding import encode

pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the file is the same on every backend")


def network(share=0.9):
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(16, 3, padding="same", activation="relu"),
            layers.DepthwiseConv2D(3),
            layers.Conv2D(32, 1),
            layers.Flatten(),
            layers.Dense(70, activation="relu"),
            layers.Dense(10),
        ]
    )
    generator = np.random.default_rng(0)
    for weight in model.weights:
        values = generator.standard_normal(weight.shape).astype("float32")
        if len(weight.shape) > 1:
            values[generator.random(weight.shape) < share] = 0.0
        weight.assign(values)
    return model


def both_ways(model, weights):
    """The dense file, ours in sparse encoding, and the converter's."""
    from keras_mot.export.litert.engines import in_process as engine
    from keras_mot.export.litert.engines.conversion import ConversionRequest
    from keras_mot.export.litert.signature import read_signature

    request, signature = ConversionRequest(weights, (None,), True, True), read_signature(model, None)
    conversion = engine.convert_in_process(model, signature, request)
    return conversion.dense, conversion.sparse, engine._convert_by_itself(model, signature, request, None, True)[0]


@pytest.mark.parametrize("weights", ["float32", "float16"])
def test_the_same_as_the_converter(weights):
    dense, ours, theirs = both_ways(network(), weights)
    assert len(ours) < 0.4 * len(dense)
    assert 0.9 * len(theirs) < len(ours) <= len(theirs)
    pairs = [{tensor.name: tensor for tensor in parameters(parse_model(content))} for content in (ours, theirs)]
    sparse = [{name for name, tensor in each.items() if tensor.sparse_encoding} for each in pairs]
    assert sparse[0] == sparse[1]
    assert len(sparse[0]) == 5
    for name in sparse[0]:
        np.testing.assert_array_equal(pairs[0][name].values, pairs[1][name].values)
    x = np.random.default_rng(1).standard_normal((3, 8, 8, 3)).astype("float32")
    outputs = [next(iter(LiteRTRunner(content).run(x).values())) for content in (dense, ours, theirs)]
    np.testing.assert_array_equal(outputs[0], outputs[1])
    np.testing.assert_array_equal(outputs[0], outputs[2])


def test_weights_with_few_zeros_stay_dense():
    dense, ours, _ = both_ways(network(0.2), "float32")
    assert ours == dense


def test_what_is_zero_in_blocks_is_left_to_the_converter(tmp_path):
    model = keras.Sequential([keras.Input((64,)), layers.Dense(64)])
    kernel = np.random.default_rng(0).standard_normal((64, 64)).astype("float32")
    kernel[np.random.default_rng(1).random(16).repeat(4) < 0.8] = 0.0
    model.layers[0].kernel.assign(kernel)
    dense, ours, theirs = both_ways(model, "float32")
    assert encode(dense) is None
    assert ours == theirs
    assert export_litert(model, tmp_path / "model.tflite").sparse_encoding


def test_a_kernel_that_two_read():
    inputs = keras.Input((16,))
    shared = layers.Dense(16)
    model = keras.Model(inputs, shared(layers.ReLU()(shared(inputs))))
    kernel = np.random.default_rng(0).standard_normal((16, 16)).astype("float32")
    kernel[np.random.default_rng(1).random((16, 16)) < 0.8] = 0.0
    shared.kernel.assign(kernel)
    dense, ours, _ = both_ways(model, "float32")
    assert sum(tensor.sparse_encoding for tensor in parameters(parse_model(ours))) == 1
    x = np.random.default_rng(2).standard_normal((3, 16)).astype("float32")
    np.testing.assert_array_equal(*(next(iter(LiteRTRunner(content).run(x).values())) for content in (dense, ours)))
