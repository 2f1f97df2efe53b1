"""`keras.ops.dot_product_attention`, as users call it and as attention layers within their layers do."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_mot.export import export_litert
from keras_mot.graph.rewrite import flatten, operations_of
from keras_mot.quantization import INT8, MinMax, quantize_post_training
from keras_mot.quantization.lowering.lowering import lower

QUERIES, KEYS, HEADS = 6, 5, 4
ONE = np.eye(QUERIES, KEYS, dtype=bool)  # each position may look at one at least
ONE[-1, -1] = True
FORMS = {
    "plain": ({}, HEADS),
    "fewer heads": ({"scale": 0.3}, 2),
    "mask": ({"mask": (np.random.default_rng(1).random((1, 1, QUERIES, KEYS)) < 0.5) | ONE}, HEADS),
    "bias": (
        {"bias": np.random.default_rng(2).normal(size=(1, HEADS, QUERIES, KEYS)).astype("float32"), "is_causal": True},
        2,
    ),
}


def attending(arguments, heads):
    first, second = keras.Input((QUERIES, 8)), keras.Input((KEYS, 8))
    query = layers.Reshape((QUERIES, HEADS, 4))(layers.Dense(HEADS * 4)(first))
    key, value = (layers.Reshape((KEYS, heads, 4))(layers.Dense(heads * 4)(second)) for _ in range(2))
    mixed = ops.dot_product_attention(query, key, value, **arguments)
    return keras.Model([first, second], layers.Dense(3)(layers.Reshape((QUERIES, HEADS * 4))(mixed)))


def data(count=16):
    generator = np.random.default_rng(0)
    return [generator.normal(size=(count, length, 8)).astype("float32") for length in (QUERIES, KEYS)]


def outputs(model, x):
    return ops.convert_to_numpy(model(x, training=False))


@pytest.mark.parametrize("name", FORMS)
def test_it_is_broken_down_into_products_and_a_softmax(name):
    keras.utils.set_random_seed(0)
    model, x = attending(*FORMS[name]), data()
    lowered = lower(flatten(model)).model
    kinds = [type(operation).__name__ for operation in operations_of(lowered)]
    assert "DotProductAttention" not in kinds
    assert kinds.count("Matmul") == 2
    np.testing.assert_allclose(outputs(lowered, x), outputs(model, x), atol=1e-5)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the file is made in the same way on each backend")
def test_it_computes_in_integers(tmp_path):
    keras.utils.set_random_seed(0)
    model, x = attending(*FORMS["fewer heads"]), data()
    quantized = quantize_post_training(model, INT8, x, placement="integer", progress=False, estimator=MinMax())
    exported = export_litert(quantized, tmp_path / "model.tflite", strict=True)
    assert exported.float_operators == ()
    (received,) = keras.tree.flatten(exported.run(x))
    assert np.abs(received - outputs(model, x)).max() < 0.05 * np.abs(outputs(model, x)).max()
