"""Layers by the names of the tensors of a file alone."""

import types

import pytest

from keras_mot.export.litert.layer_names import LayerNames

pytestmark = pytest.mark.backend_independent


def names(*labels):
    return LayerNames(types.SimpleNamespace(tensors=[types.SimpleNamespace(name=label.encode()) for label in labels]))


@pytest.mark.parametrize(
    ("label", "layer"),
    [
        ("conv_quantizer", "conv"),
        ("conv_quantizer_1:2", "conv"),
        ("conv_quantizer_int", "conv"),
        ("model_1/conv_2_quantizer_1/FakeQuantWithMinMaxArgs1_float", "conv_2"),
        ("model_1/conv_1/convolution;model_1/relu_1/Relu", "conv"),
        ("model/conv_1/convolution", "conv_1"),
        ("outer_1/inner_1/conv_1/BiasAdd", "inner/conv"),
        ("model_1/second_1/Gelu/mul_2", "second"),
        ("model_1/second_gelu_table_0_1/Pow_integers", "second_gelu"),
        ("serving_default_images:0", "images"),
        ("serving_default_two_words:0_int", "two_words"),
        ("PartitionedCall:0", "PartitionedCall:0"),
        ("", ""),
        ("/", "/"),
    ],
)
def test_a_name_tells_the_layer(label, layer):
    assert names(label).of_tensor(label) == layer


def test_numbers_of_known_layers_stay():
    assert names("dense_1/kernel").of_tensor("model_1/dense_1/MatMul") == "dense_1"
    assert names("dense/kernel").of_tensor("model_1/dense_1/MatMul") == "dense"


def test_an_operator_is_of_the_layer_of_its_weights_or_else_of_its_result_or_input():
    labels = ("conv_quantizer", "head/kernel", "StatefulPartitionedCall:0")
    weighted = types.SimpleNamespace(inputs=[0, 1, -1], outputs=[2])
    assert names(*labels).of(weighted) == "head"
    assert names(*labels).of(types.SimpleNamespace(inputs=[0], outputs=[2])) == "conv"
    assert names(*labels).of(types.SimpleNamespace(inputs=None, outputs=[2])) == "StatefulPartitionedCall:0"
