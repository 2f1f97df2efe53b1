"""Functions of each element, constants, borders and sizes of images: in the simulation, and in the file."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_mot._keras import producer_of
from keras_mot.export import LiteRTRunner, export_litert
from keras_mot.export.litert.litert_file import enum_name, operator_codes, parse_model
from keras_mot.graph.rewrite import flatten
from keras_mot.quantization import INT8, MinMax, quantize_post_training
from keras_mot.quantization.lowering.lowering import lower
from tests.quantization.test_coverage import only_tensorflow, outputs, random_weights

EXACT = {"equalize": False, "correct_biases": False, "estimator": MinMax()}  # nothing is cut off
POSITIONS = np.random.default_rng(1).normal(size=(4, 6)).astype("float32")
CHANNELS = np.array([0.4, -1.5, 0.2, 3.0, 0.01, 1.0], "float32")


@keras.saving.register_keras_serializable("tests")
def quick_gelu(x):
    return x * ops.sigmoid(1.702 * x)


def activation(name):
    return lambda x: layers.Activation(name)(x)


# Each of the results of a dense layer.
FUNCTIONS = {
    "relu, greatest": layers.ReLU(0.7),
    "relu, threshold": layers.ReLU(threshold=0.01),
    "relu, slope and greatest": layers.ReLU(0.7, negative_slope=0.1),
    "elu": layers.ELU(0.5),
    "clip": lambda x: ops.clip(x, -0.5, 0.8),
    "clip above 0": lambda x: ops.clip(x, 0.2, 0.9),
    **{
        name: activation(name)
        for name in ("hard_tanh", "log_softmax", "log_sigmoid", "softplus", "mish", "selu", "celu", "softsign")
    },
    "quick gelu": activation(quick_gelu),
    "exp": ops.exp,
    "log": lambda x: ops.log(ops.abs(x) + 0.5),
    "square root": lambda x: ops.sqrt(ops.abs(x) + 0.1),
    "inverse square root": lambda x: ops.rsqrt(ops.abs(x) + 0.5),
    "number over tensor": lambda x: 1.0 / (ops.abs(x) + 0.5),
    "power": lambda x: ops.power(ops.abs(x), 1.7),
    "power of a number": lambda x: ops.power(2.0, x),
    "square": lambda x: ops.power(x, 2),
    "rolled": lambda x: ops.roll(x, 1, axis=1),
    "constant matrix behind": lambda x: ops.matmul(x, ops.convert_to_tensor(POSITIONS.T)),
    "constant matrix before": lambda x: ops.matmul(ops.convert_to_tensor(POSITIONS[:, :4]), x),
    "cast": lambda x: ops.cast(x, "float32") * 0.5,
    "gated": lambda x: ops.nn.glu(x),
    "sum with a constant": lambda x: layers.Add()([x, CHANNELS[None, None]]),
    "maximum": lambda x: ops.maximum(x, 0.1),
    "where": lambda x: ops.where(x > 0.0, x, 0.1 * x),
    "mean and deviation": lambda x: (x / 2.0 - CHANNELS) / np.float32([1, 2, 3, 4, 5, 6]),
    "positions": lambda x: ops.subtract(ops.convert_to_tensor(POSITIONS), x),
    "mask": lambda x: x * (POSITIONS > 0).astype("float32"),
    "prelu": layers.PReLU(keras.initializers.RandomUniform(-0.5, 0.9, seed=1), shared_axes=[1]),
    "steep prelu": layers.PReLU(keras.initializers.RandomUniform(0.5, 1.9, seed=1), shared_axes=[1]),
}
SMALL = (6, 6, 3)
IMAGES = {
    "bilinear": lambda x: ops.image.resize(x, (12, 12)),
    "nearest": lambda x: ops.image.resize(x, (9, 9), interpolation="nearest"),
    "layer": layers.Resizing(12, 12),
    "cropped": layers.Resizing(4, 6, crop_to_aspect_ratio=True, interpolation="nearest"),
    "center": layers.CenterCrop(4, 4),
    "augmented": lambda x: layers.RandomContrast(0.3)(layers.RandomFlip()(x)),
    "border": lambda x: ops.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=0.3),
    "least border": lambda x: layers.MaxPooling2D(3, 2)(
        ops.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-np.inf)
    ),
    "swapped": lambda x: ops.flip(x, axis=-1) - CHANNELS[:3],
    "slopes": layers.PReLU(keras.initializers.RandomUniform(-0.5, 0.9, seed=1), shared_axes=[1, 2]),
}


def model_of(functions, shape, first):
    keras.utils.set_random_seed(2)
    inputs = keras.Input(shape)
    x = first(inputs)
    return random_weights(keras.Model(inputs, [function(x) for function in functions.values()]))


def quantized_pair(functions, shape, first):
    model = model_of(functions, shape, first)
    x = np.random.default_rng(4).standard_normal((40, *shape)).astype("float32")
    quantized = quantize_post_training(model, INT8, x, **EXACT, placement="integer")
    return model, quantized, x


@pytest.fixture(scope="module")
def elements():
    return quantized_pair(FUNCTIONS, (4, 5), layers.Dense(6))


@pytest.fixture(scope="module")
def images():
    return quantized_pair(IMAGES, SMALL, layers.Conv2D(3, 3, padding="same"))


def results(model, x):
    return [ops.convert_to_numpy(each) for each in model(x, training=False)]


@pytest.mark.parametrize("kind", ["elements", "images"])
def test_the_integer_form_is_near_the_float_model(kind, request):
    model, quantized, x = request.getfixturevalue(kind)
    names = FUNCTIONS if kind == "elements" else IMAGES
    lowered = results(lower(flatten(model)).model, x)
    for name, expected, same, received in zip(names, results(model, x), lowered, results(quantized, x), strict=True):
        np.testing.assert_allclose(same, expected, atol=2e-5, rtol=1e-4, err_msg=name)
        noise = np.sqrt(np.mean((received - expected) ** 2) / np.mean(expected**2))
        assert noise < 0.06, (name, noise)


@only_tensorflow
@pytest.mark.parametrize("kind", ["elements", "images"])
def test_the_file_computes_in_integers_what_the_model_says(kind, request, tmp_path):
    _, quantized, x = request.getfixturevalue(kind)
    names = FUNCTIONS if kind == "elements" else IMAGES
    exported = export_litert(quantized, tmp_path / "model.tflite", strict=True)
    assert exported.float_operators == ()
    received = LiteRTRunner(exported.path).run(x)
    assert set(received) == set(quantized.output_names)
    for name, output, tensor, expected in zip(
        names, quantized.output_names, quantized.outputs, results(quantized, x), strict=True
    ):
        assert received[output].shape == expected.shape
        steps = np.abs(received[output] - expected) / step_of(tensor)
        assert steps.max() < 1.1, name
        assert (steps > 0.1).mean() < 0.2, name
    file = parse_model(tmp_path / "model.tflite")
    kinds = {operator_name(file, operator) for operator in file.subgraphs[0].operators}
    assert not kinds & {"PRELU", "RELU_N1_TO_1", "RELU_0_TO_1", "POW"}


def step_of(tensor):
    operation = producer_of(tensor)
    while not hasattr(operation, "parameters"):  # what moves numbers
        tensor = operation._inbound_nodes[-1].arguments.keras_tensors[0]
        operation = producer_of(tensor)
    return operation.parameters().scale


def operator_name(file, operator):
    from ai_edge_litert import schema_py_generated as schema

    return enum_name(schema.BuiltinOperator, operator_codes(file)[operator.opcodeIndex])


@only_tensorflow
def test_clipping_costs_no_operator_behind_a_convolution(tmp_path):
    model = keras.Sequential([keras.Input(SMALL), layers.Conv2D(3, 3), layers.ReLU(0.4), layers.Conv2D(2, 3)])
    x = np.random.default_rng(4).standard_normal((16, *SMALL)).astype("float32")
    exported = export_litert(quantize_post_training(model, INT8, x), tmp_path / "model.tflite", strict=True)
    file = parse_model(exported.path)
    kinds = [operator_name(file, operator) for operator in file.subgraphs[0].operators]
    assert kinds == ["QUANTIZE", "CONV_2D", "CONV_2D", "DEQUANTIZE"]


@only_tensorflow
def test_places_and_comparisons(tmp_path):
    inputs = keras.Input((8,))
    x = layers.Dense(5)(inputs)
    ends = [ops.argmax(layers.Softmax()(x), axis=-1), ops.argmin(x, axis=-1), x > 0.03, ops.less_equal(0.03, x)]
    model = keras.Model(inputs, ends)
    samples = np.random.default_rng(4).standard_normal((64, 8)).astype("float32")
    quantized = quantize_post_training(model, INT8, samples, placement="integer")
    exported = export_litert(quantized, tmp_path / "model.tflite", strict=True)
    received = LiteRTRunner(exported.path).run(samples)
    for name, mine, exact in zip(
        quantized.output_names, results(quantized, samples), results(model, samples), strict=True
    ):
        np.testing.assert_array_equal(received[name], mine)
        assert np.mean(mine == exact) > 0.9
    in_floats = LiteRTRunner(export_litert(model, tmp_path / "floats.tflite").path).run(samples)
    np.testing.assert_array_equal(next(iter(in_floats.values())), results(model, samples)[0])


def test_a_number_with_more_axes_than_the_tensor_is_what_it_was():
    inputs = keras.Input((3,))
    model = keras.Model(inputs, ops.multiply(inputs, np.full((1, 1, 1), 3.0, "float32")))
    x = np.arange(6, dtype="float32").reshape(2, 3)
    np.testing.assert_array_equal(outputs(lower(flatten(model)).model, x), outputs(model, x))


def test_angles_of_many_periods_stay_in_floats():
    inputs = keras.Input((1,))
    angles = inputs * np.geomspace(1, 500, 8).astype("float32")
    x = layers.Concatenate()([ops.sin(angles), ops.cos(angles)])
    model = keras.Model(inputs, layers.Dense(4)(x))
    x = np.random.default_rng(4).random((64, 1)).astype("float32")
    quantized = quantize_post_training(model, INT8, x)
    expected, received = outputs(model, x), outputs(quantized, x)
    assert np.abs(received - expected).max() < 0.05 * np.abs(expected).max()


@only_tensorflow
def test_bytes_of_images_are_resized_and_scaled_in_the_file(tmp_path):
    mean, deviation = np.float32([120.0, 110.0, 100.0]), np.float32([60.0, 50.0, 70.0])
    inputs = keras.Input((8, 8, 3))
    x = layers.Resizing(6, 6)(layers.RandomFlip()(inputs))
    x = layers.Rescaling(1 / 127.5, -1)(x)
    x = layers.Conv2D(4, 3)(x)
    other = layers.Conv2D(4, 3, strides=2)((inputs[..., ::-1] - mean) / deviation)
    model = keras.Model(inputs, [layers.GlobalAveragePooling2D()(x), layers.GlobalAveragePooling2D()(other)])
    images = np.random.default_rng(4).integers(0, 256, (32, 8, 8, 3))
    quantized = quantize_post_training(model, INT8, images.astype("float32"), placement="integer")
    exported = export_litert(quantized, tmp_path / "model.tflite", strict=True, input_type="uint8")
    received = LiteRTRunner(exported.path).run(images.astype("uint8"))
    for name, expected in zip(quantized.output_names, results(model, images.astype("float32")), strict=True):
        assert np.abs(received[name] - expected).max() < 0.05 * np.abs(expected).max()


def settled(model):
    generator = np.random.default_rng(3)
    for variable in model.variables:
        if variable.name in ("moving_variance", "gamma"):
            variable.assign(generator.uniform(0.3, 2.0, variable.shape))
        if variable.name in ("moving_mean", "beta"):
            variable.assign(generator.normal(size=variable.shape))
    return model


def test_batch_normalization_goes_into_the_parts_of_a_concatenation():
    inputs = keras.Input(SMALL)
    parts = [layers.Conv2D(2, 3, use_bias=False)(inputs), layers.Conv2D(3, 3, activation="relu")(inputs)]
    x = layers.Activation("relu")(layers.BatchNormalization()(layers.Concatenate()(parts)))
    model = settled(keras.Model(inputs, layers.Flatten()(x)))
    x = np.random.default_rng(4).standard_normal((32, *SMALL)).astype("float32")
    quantized = quantize_post_training(model, INT8, x, **EXACT)
    expected, received = outputs(model, x), outputs(quantized, x)
    assert np.abs(received - expected).max() < 0.03 * np.abs(expected).max()
    # One convolution has taken its part over; the other is rectified first.
    assert sum(isinstance(layer, layers.DepthwiseConv2D) for layer in quantized.layers) == 1
    assert not any(isinstance(layer, layers.BatchNormalization) for layer in quantized.layers)


def test_a_concatenation_that_others_read_stays_before_its_batch_normalization():
    inputs = keras.Input(SMALL)
    joined = layers.Concatenate()([layers.Conv2D(2, 3)(inputs), layers.Conv2D(3, 3)(inputs)])
    model = settled(keras.Model(inputs, layers.Concatenate()([layers.BatchNormalization()(joined), joined])))
    x = np.random.default_rng(4).standard_normal((16, *SMALL)).astype("float32")
    quantized = quantize_post_training(model, INT8, x, **EXACT)
    expected, received = outputs(model, x), outputs(quantized, x)
    assert np.abs(received - expected).max() < 0.05 * np.abs(expected).max()
    assert sum(isinstance(layer, layers.DepthwiseConv2D) for layer in quantized.layers) == 1
