"""Which layers and operations compute in integers: in the simulation, in the file, and what stays in floats."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_mot.export import LiteRTRunner, export_litert
from keras_mot.export.litert.litert_file import parse_model
from keras_mot.graph.rewrite import flatten
from keras_mot.layers.activation_quantizer import ActivationQuantizer, activation_quantizers
from keras_mot.layers.transformed import plain_class
from keras_mot.quantization import INT8, INT16X8, Calibration, MinMax, quantize_model, quantize_post_training
from keras_mot.quantization.lowering.lowering import lower
from tests.quantization.models import compiled

only_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="the integer file is made in the same way on every backend"
)
SEQUENCE = (5, 4)


def chain(*parts, shape=SEQUENCE):
    return keras.Sequential([keras.Input(shape), *parts])


def functional(function, shape=SEQUENCE, dtype="float32"):
    inputs = keras.Input(shape, dtype=dtype)
    return keras.Model(inputs, function(inputs))


def pair(function):
    """`function` of the results of two dense layers."""
    return functional(lambda x: function(layers.Dense(6)(x), layers.Dense(6)(x)))


def after_dense(function):
    return functional(lambda x: function(layers.Dense(6)(x)))


def heads(x):
    return ops.reshape(x, (-1, x.shape[1], 2, x.shape[2] // 2))


def self_attention(layer, shape=SEQUENCE):
    return functional(lambda x: layers.Dense(3)(layer(x, x)), shape)


def encoder_decoder():
    inputs = keras.Input(SEQUENCE)
    _, *states = layers.LSTM(3, return_state=True)(inputs)
    outputs = layers.LSTM(3, return_sequences=True)(inputs, initial_state=states)
    return keras.Model(inputs, layers.Dense(2)(layers.Flatten()(outputs)))


RECURRENT = {
    "GRU": lambda: chain(layers.GRU(3)),
    "GRU, sequences": lambda: chain(layers.GRU(3, return_sequences=True, use_bias=False)),
    "GRU, reset before": lambda: chain(layers.GRU(3, reset_after=False, go_backwards=True)),
    "GRU, other activations": lambda: chain(layers.GRU(3, "relu", recurrent_activation="hard_sigmoid")),
    "LSTM": lambda: chain(layers.LSTM(3)),
    "LSTM, sequences": lambda: chain(layers.LSTM(3, return_sequences=True, go_backwards=True, dropout=0.2)),
    "LSTM, states": lambda: functional(lambda x: layers.Concatenate()(layers.LSTM(3, return_state=True)(x))),
    "LSTM, initial states": encoder_decoder,
    "SimpleRNN": lambda: chain(layers.SimpleRNN(3)),
    "two layers": lambda: chain(layers.GRU(3, return_sequences=True), layers.LSTM(3)),
    "bidirectional": lambda: chain(layers.Bidirectional(layers.LSTM(3, return_sequences=True))),
    "bidirectional, sum": lambda: chain(layers.Bidirectional(layers.GRU(3), merge_mode="sum")),
    "bidirectional, average": lambda: chain(layers.Bidirectional(layers.GRU(3), merge_mode="ave")),
    "cell": lambda: chain(layers.RNN(layers.GRUCell(3))),
    "stacked cells": lambda: chain(
        layers.RNN([layers.GRUCell(3), layers.LSTMCell(2)], return_sequences=True, go_backwards=True)
    ),
    "time-distributed": lambda: chain(layers.TimeDistributed(layers.Dense(3, "relu")), layers.GRU(2)),
    "time-distributed convolution": lambda: chain(
        layers.TimeDistributed(layers.Conv2D(2, 3)), layers.TimeDistributed(layers.Flatten()), shape=(3, 5, 5, 2)
    ),
}
OTHERS = {
    "additive attention": lambda: pair(lambda a, b: layers.AdditiveAttention()([a, b])),
    "embedding": lambda: functional(lambda x: layers.Conv1D(3, 2)(layers.Embedding(10, 4)(x)), (5,), "int32"),
    "einsum": lambda: chain(layers.EinsumDense("abc,cd->abd", (None, 3), bias_axes="d", activation="relu")),
    "einsum, to heads and back": lambda: chain(
        layers.EinsumDense("abc,cde->abde", (None, 2, 3), bias_axes="de"),
        layers.EinsumDense("abde,dec->abc", (None, 4), bias_axes="c"),
    ),
    "einsum, permuted": lambda: chain(layers.EinsumDense("abc,bd->adc", (6, None), bias_axes="d")),
    "attention": lambda: pair(lambda a, b: layers.Attention()([a, b])),
    "attention with a scale": lambda: pair(lambda a, b: layers.Attention(use_scale=True)([a, b])),
    "multi-head attention": lambda: self_attention(layers.MultiHeadAttention(2, 4, dropout=0.1)),
    "attention over an image": lambda: self_attention(layers.MultiHeadAttention(2, 4), (2, 3, 4)),
    "attention along one axis": lambda: self_attention(layers.MultiHeadAttention(2, 4, attention_axes=1), (3, 2, 4)),
    "softmax along the first axis": lambda: after_dense(lambda x: ops.softmax(x, axis=1)),
    "softmax over two axes": lambda: after_dense(layers.Softmax((1, 2))),
    "3D convolution": lambda: chain(
        *(layers.Conv3D(3, 2, activation="relu"), layers.MaxPooling3D((1, 2, 2)), layers.BatchNormalization()),
        *(layers.Conv3D(2, (3, 2, 1), 2, "same", dilation_rate=1), layers.GlobalAveragePooling3D(), layers.Dense(2)),
        shape=(5, 6, 6, 2),
    ),
    "3D, other ways": lambda: chain(
        *(layers.Conv3D(2, 2, dilation_rate=2, padding="same"), layers.UpSampling3D((1, 2, 2))),
        *(layers.ZeroPadding3D(1), layers.Cropping3D((1, 0, 1)), layers.AveragePooling3D(2, padding="same")),
        *(layers.GlobalMaxPooling3D(keepdims=True), layers.Flatten(), layers.Dense(3)),
        shape=(3, 3, 3, 2),
    ),
    "grouped attention": lambda: self_attention(layers.GroupQueryAttention(4, 4, 2)),
    "dot": lambda: pair(lambda a, b: layers.Dot(axes=2)([a, b])),
    "matrix product": lambda: pair(lambda a, b: ops.matmul(a, ops.swapaxes(b, 1, 2))),
    "division": lambda: after_dense(lambda x: x / 3.0),
    "negative": lambda: after_dense(lambda x: -x),
    "square": lambda: after_dense(ops.square),
    "absolute": lambda: after_dense(ops.abs),
    "moments": lambda: after_dense(lambda x: ops.concatenate(ops.moments(x, axes=1, keepdims=True), axis=1)),
    "moments of a sample": lambda: after_dense(lambda x: ops.stack(ops.moments(x, axes=(1, 2)), axis=1)),
    "quotient of tensors": lambda: pair(lambda a, b: a / (b * b + 1.0)),
    "categories": lambda: functional(
        lambda x: layers.Conv1D(3, 2)(layers.CategoryEncoding(10, output_mode="one_hot")(x)), (5,), "int32"
    ),
    "one channel": lambda: chain(layers.BatchNormalization(), layers.Conv2D(3, 2), shape=(5, 5, 1)),
    "einsum of an array": lambda: after_dense(
        lambda x: ops.einsum("aecd,abcd->acbe", np.linspace(-1, 1, 24, dtype="f").reshape(1, 4, 2, 3), heads(x))
    ),
    "Fourier transform": lambda: after_dense(lambda x: ops.concatenate(ops.fft2((x, ops.zeros_like(x))), axis=-1)),
    "places along an axis": lambda: after_dense(
        lambda x: ops.take_along_axis(x, np.array([[[0, -1], [2, 2], [1, 0], [5, 3], [4, 4]]]), axis=-1)
    ),
    "sum": lambda: after_dense(lambda x: ops.sum(x, axis=1)),
    "largest": lambda: after_dense(lambda x: ops.max(x, axis=1)),
    "padding": lambda: after_dense(lambda x: ops.pad(x, ((0, 0), (1, 2), (0, 0)))),
    "stack": lambda: pair(lambda a, b: ops.stack([a, b], axis=1)),
    "split": lambda: after_dense(lambda x: ops.concatenate(ops.split(x, 2, axis=-1), axis=1)),
    "take": lambda: after_dense(lambda x: ops.take(x, [0, 2], axis=1)),
    "repeat": lambda: after_dense(lambda x: ops.repeat(x, 2, axis=1)),
    "resizing": lambda: chain(
        layers.Conv2D(2, 1), layers.Resizing(9, 9), layers.Conv2D(2, 1), layers.Flatten(), shape=(5, 5, 2)
    ),
    "flip": lambda: after_dense(lambda x: ops.flip(x, axis=1)),
    "tile": lambda: after_dense(lambda x: ops.tile(x, (1, 2, 1))),
    "smallest": lambda: after_dense(lambda x: ops.min(x, axis=1)),
    "repeated vector": lambda: chain(layers.Dense(3), layers.Identity(), layers.RepeatVector(4), shape=(5,)),
    "depthwise 1D": lambda: chain(layers.DepthwiseConv1D(3, depth_multiplier=2, activation="relu")),
    "1D pooling": lambda: chain(
        layers.Conv1D(3, 2), layers.AveragePooling1D(2), layers.GlobalMaxPooling1D(keepdims=True), layers.Dense(2)
    ),
    "global pooling": lambda: chain(layers.Conv1D(3, 2), layers.GlobalAveragePooling1D(keepdims=True)),
    "1D steps": lambda: chain(
        *(layers.Conv1D(3, 1), layers.UpSampling1D(2), layers.ZeroPadding1D(1), layers.Cropping1D(1)),
        layers.Conv1DTranspose(2, 2),
    ),
}
FLOATS = {
    "layer normalization": (lambda: after_dense(layers.LayerNormalization()), "RSQRT"),
    "a running sum": (lambda: after_dense(lambda x: ops.cumsum(x, axis=1)), "CUMSUM"),
    "division by a tensor": (lambda: pair(lambda a, b: a / (b * b + 1.0)), "DIV"),
    "any number of timesteps": (lambda: chain(layers.LSTM(3), layers.Dense(2), shape=(None, 4)), "WHILE"),
    "3D convolution the other way": (
        lambda: chain(layers.Dense(3), layers.Conv3DTranspose(2, 2), layers.Dense(2), shape=(3, 3, 3, 2)),
        "CONV_3D_TRANSPOSE",
    ),
    "other normalizations": (
        lambda: after_dense(
            lambda x: layers.UnitNormalization()(layers.RMSNormalization()(layers.GroupNormalization(2)(x)))
        ),
        "RSQRT",
    ),
    "recurrent convolution": (
        lambda: chain(layers.ConvLSTM1D(2, 2), layers.Flatten(), layers.Dense(2), shape=(3, 6, 2)),
        "WHILE",
    ),
}


def random_weights(model):
    generator = np.random.default_rng(3)
    for weight in model.trainable_weights:
        weight.assign(ops.convert_to_numpy(weight) + generator.normal(0, 0.1, weight.shape))
    return model


def data(model, count=40):
    generator = np.random.default_rng(4)
    shape = [5 if size is None else size for size in model.input_shape[1:]]
    if "int" in str(model.inputs[0].dtype):
        return generator.integers(1, 10, (count, *shape)).astype("int32")
    return generator.standard_normal((count, *shape)).astype("float32")


def outputs(model, x):
    return ops.convert_to_numpy(model(x, training=False))


@pytest.mark.parametrize("name", [*RECURRENT, *OTHERS])
def test_lowering_keeps_the_function(name):
    model = random_weights({**RECURRENT, **OTHERS}[name]())
    x = data(model)
    lowered = lower(flatten(model))[0]
    np.testing.assert_allclose(outputs(lowered, x), outputs(model, x), atol=2e-5, rtol=1e-4)
    assert not any(isinstance(layer, (layers.RNN, layers.EinsumDense)) for layer in lowered.layers)


@only_tensorflow
@pytest.mark.parametrize("name", [*RECURRENT, *OTHERS])
def test_nothing_is_in_floats(name, tmp_path):
    quantized, expected, simulated, received = through_a_file(name, INT8, tmp_path / "model.tflite")
    assert np.abs(simulated - expected).max() < 0.08 * np.abs(expected).max()
    steps = np.abs(received - simulated) / last_scale(quantized)
    assert steps.max() < 4.1  # softmax kernels compute in fixed point
    assert (steps < 0.1).mean() > (0.5 if "attention" in name else 0.9)


def through_a_file(name, scheme, path):
    """A quantized model, and the outputs of the float model, of itself and of its file, which has no floats inside."""
    model = random_weights({**RECURRENT, **OTHERS}[name]())
    x = data(model)
    # Nothing is cut off: what is compared is what is computed.
    quantized = quantize_post_training(model, scheme, Calibration(x, estimator=MinMax()), placement="integer")
    export_litert(quantized, path, strict=True)
    (received,) = LiteRTRunner(path).run(x).values()
    return quantized, outputs(model, x), outputs(quantized, x), received


def last_scale(model):
    tensor = model.outputs[0]
    while not isinstance(tensor._keras_history.operation, ActivationQuantizer):
        operation, node, _ = tensor._keras_history
        tensor = operation._inbound_nodes[node].arguments.keras_tensors[0]
    return tensor._keras_history.operation.parameters().scale


@only_tensorflow
@pytest.mark.parametrize("name", ["GRU", "LSTM", "embedding", "multi-head attention"])
def test_16_bits(name, tmp_path):
    _, expected, simulated, received = through_a_file(name, INT16X8, tmp_path / "model.tflite")
    assert np.abs(simulated - expected).max() < 0.02 * np.abs(expected).max()
    assert np.abs(received - simulated).max() < 0.003 * np.abs(expected).max()


@only_tensorflow
@pytest.mark.parametrize("name", FLOATS)
def test_what_stays_in_floats_is_reported(name, tmp_path):
    build, operator = FLOATS[name]
    model = random_weights(build())
    x = data(model)
    quantized = quantize_post_training(model, INT8, x)
    result = export_litert(quantized, tmp_path / "model.tflite")
    reasons = {kind: reason for kind, _, reason in result.float_operators}
    assert operator in reasons
    assert "FULLY_CONNECTED" not in reasons
    if operator == "WHILE":
        assert "fixed number of timesteps" in reasons[operator]
    (received,) = LiteRTRunner(tmp_path / "model.tflite").run(x).values()
    np.testing.assert_allclose(received, outputs(quantized, x), atol=0.05)


@only_tensorflow
def test_a_recurrent_kernel_is_stored_once(tmp_path):
    model = chain(layers.GRU(16), shape=(8, 4))
    quantized = quantize_post_training(model, INT8, data(model))
    export_litert(quantized, tmp_path / "model.tflite")
    sizes = [len(buffer.data) for buffer in parse_model(tmp_path / "model.tflite").buffers if buffer.data is not None]
    assert sizes.count(16 * 48) == 1
    assert sum(sizes) < 16 * 48 + 4 * 48 + 2 * 4 * 48 + 200


def test_timesteps_share_their_grids():
    model = chain(layers.LSTM(3), shape=(7, 4))
    quantized = quantize_post_training(model, INT8, data(model))
    assert len(activation_quantizers(quantized)) < 15
    assert max(quantizer.calls for quantizer in activation_quantizers(quantized)) == 8  # the first state, too


def test_a_shared_range_follows_the_extremes_of_all_calls():
    quantizer = ActivationQuantizer(calls=4)
    for _ in range(200):
        for reach in (1.0, 3.0, 2.0, 0.5):
            quantizer(ops.convert_to_tensor(np.array([-reach, 2 * reach], "float32")), training=True)
    low, high = quantizer.parameters().range
    assert -3.05 < low < -2.2
    assert 4.4 < high < 6.1


def test_a_range_keeps_its_limits():
    quantizer = ActivationQuantizer(limits=(-4.0, 4.0))
    quantizer.set_range(-20.0, 3.0)
    low, high = quantizer.parameters().range
    assert (low, high) == pytest.approx((-4.0, 3.0), abs=0.03)
    values = ops.convert_to_numpy(quantizer(ops.convert_to_tensor(np.array([-9.0, 9.0], "float32"))))
    np.testing.assert_allclose(values, [low, high], atol=1e-5)


@pytest.mark.parametrize("calibrated", [True, False])
def test_a_recurrent_model_is_trained(calibrated):
    model = random_weights(chain(layers.GRU(4), layers.Dense(3, activation="softmax")))
    x = data(model, 64)
    y = np.random.default_rng(5).integers(0, 3, 64)
    quantized = compiled(quantize_model(model, INT8, calibration_data=x if calibrated else None), 1e-2)
    kernels = [ops.convert_to_numpy(weight).copy() for weight in quantized.trainable_weights]
    first = quantized.evaluate(x, y, verbose=0)[0]
    quantized.fit(x, y, batch_size=16, epochs=8, verbose=0)
    assert quantized.evaluate(x, y, verbose=0)[0] < first
    for before, weight in zip(kernels, quantized.trainable_weights, strict=True):
        assert np.isfinite(ops.convert_to_numpy(weight)).all()
        assert weight.path.endswith("bias") or np.abs(ops.convert_to_numpy(weight) - before).max() > 1e-4
    assert all(quantizer.has_range for quantizer in activation_quantizers(quantized))


def test_indices_in_floats_are_not_rounded():
    model = chain(layers.Embedding(200, 3), layers.Flatten(), layers.Dense(2), shape=(4,))
    data = np.random.default_rng(0).integers(0, 200, (64, 4)).astype("float32")
    quantized = quantize_post_training(model, calibration_data=data)
    expected, received = (ops.convert_to_numpy(each(data)) for each in (model, quantized))
    assert np.abs(expected - received).max() < 0.1 * np.abs(expected).max()


@only_tensorflow
def test_categories_that_there_are_not_have_zeros(tmp_path):
    model = chain(layers.CategoryEncoding(4, output_mode="one_hot"), layers.Dense(3), shape=(1,))
    x = np.array([[0], [1], [2], [3]] * 10, "float32")
    quantized = quantize_post_training(model, INT8, x, placement="integer")
    result = export_litert(quantized, tmp_path / "model.tflite")
    assert "ONE_HOT" not in {kind for kind, _, _ in result.float_operators}
    odd = np.array([[2], [-1], [4], [90], [0]], "float32")
    received = result.run(odd)
    bias = ops.convert_to_numpy(model.layers[-1].bias)
    np.testing.assert_allclose(received[1:4], np.tile(bias, (3, 1)), atol=0.02)
    np.testing.assert_allclose(received, outputs(quantized, odd), atol=0.02)
    assert np.abs(received[0] - bias).max() > 0.1


def test_a_single_channel_takes_a_product_and_a_sum():
    model = random_weights(OTHERS["one channel"]())
    quantized = quantize_post_training(model, INT8, data(model))
    assert [plain_class(layer) for layer in quantized.layers if hasattr(layer, "kernel")] == [layers.Conv2D]
