"""Post-training quantization: the simulation is close to the float model, and the file computes what it does."""

import gc

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_mot
from keras_mot.export import LiteRTRunner, export_litert
from keras_mot.export.litert.litert_file import operator_codes, parse_model
from keras_mot.layers.activation_quantizer import ActivationQuantizer, activation_quantizers
from keras_mot.quantization import (
    FLOAT16,
    INT4_WEIGHTS,
    INT8,
    INT16X8,
    LeastSquares,
    MinMax,
    MovingAverage,
    Percentile,
    quantize_post_training,
    strip_quantization,
)
from keras_mot.quantization.estimators.fitting import Fitting
from keras_mot.quantization.estimators.ranges import SeenValues
from tests.quantization.models import images, small_network, with_random_statistics

only_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="the integer file is made in the same way on every backend"
)


def outputs(model, x):
    return model.predict(x, verbose=0)


def exported(quantized, x, path, **options):
    result = export_litert(quantized, path, **options)
    (received,) = LiteRTRunner(path).run(x).values()
    return result, received


def test_the_simulation_is_close_and_the_file_is_closer(tmp_path):
    model, x = small_network(), images()
    quantized = quantize_post_training(model, INT8, x)
    simulated = outputs(quantized, x)
    assert np.abs(simulated - outputs(model, x)).max() < 0.02
    result, received = exported(quantized, x, tmp_path / "model.tflite", strict=True)
    assert result.float_operators == ()
    steps = np.round(np.abs(received - simulated) * 256)
    assert steps.max() <= 1
    assert (steps == 0).mean() > 0.9


@only_tensorflow
@pytest.mark.parametrize(("scheme", "error"), [(INT8, 0.02), (INT16X8, 0.004), (INT4_WEIGHTS, 0.1)])
def test_schemes(scheme, error, tmp_path):
    model, x = small_network(), images()
    quantized = quantize_post_training(model, scheme, x)
    assert np.abs(outputs(quantized, x) - outputs(model, x)).max() < error
    result, received = exported(quantized, x, tmp_path / "model.tflite", strict=True)
    steps = np.abs(received - outputs(quantized, x)) / activation_quantizers(quantized)[-1].parameters().scale
    assert steps.max() < (4.5 if scheme.activation_bits == 16 else 1.5)
    assert result.weights == "integer"


def branch(join):
    inputs = keras.Input((8, 8, 4))
    a = layers.Conv2D(4, 1)(inputs)
    b = layers.Conv2D(4, 1, activation="relu")(inputs)
    return keras.Model(inputs, join([a, b]))


def chain(*parts, shape=(8, 8, 4)):
    return keras.Sequential([keras.Input(shape), *parts])


def with_slopes(prelu):
    model = chain(layers.Conv2D(4, 1), prelu)
    prelu.alpha.assign(np.random.default_rng(2).normal(0.2, 0.2, prelu.alpha.shape))
    return model


MODELS = {
    "dense": lambda: chain(layers.Dense(5), shape=(7,)),
    "dense on sequences": lambda: chain(layers.Dense(5, activation="relu"), shape=(6, 7)),
    "conv1d": lambda: chain(layers.Conv1D(5, 3, activation="relu"), layers.MaxPooling1D(2), shape=(12, 7)),
    "causal conv1d": lambda: chain(layers.Conv1D(5, 3, padding="causal", dilation_rate=2), shape=(12, 7)),
    "strided conv": lambda: chain(layers.Conv2D(5, 3, strides=2, padding="same")),
    "dilated conv": lambda: chain(layers.Conv2D(5, 3, dilation_rate=2)),
    "depthwise": lambda: chain(layers.DepthwiseConv2D(3, depth_multiplier=2)),
    "separable": lambda: chain(layers.SeparableConv2D(5, 3, depth_multiplier=2, activation="tanh")),
    "separable1d": lambda: chain(layers.SeparableConv1D(5, 3), shape=(12, 7)),
    "conv2d transpose": lambda: chain(layers.Conv2DTranspose(5, 3, strides=2, padding="same")),
    "batch norm after dense": lambda: chain(layers.Dense(5), layers.BatchNormalization(), shape=(7,)),
    "batch norm first": lambda: chain(layers.BatchNormalization(), layers.Conv2D(5, 3)),
    "batch norm after pooling": lambda: chain(layers.MaxPooling2D(2), layers.BatchNormalization(), layers.Conv2D(3, 1)),
    "batch norm of a vector": lambda: chain(layers.Dense(5, "relu"), layers.BatchNormalization(), shape=(7,)),
    "batch norm of a sequence": lambda: chain(
        layers.Conv1D(5, 3, activation="relu"), layers.BatchNormalization(), shape=(9, 4)
    ),
    "rescaling": lambda: chain(layers.Rescaling(0.5, -1.0), layers.Conv2D(5, 3)),
    "add": lambda: branch(layers.Add()),
    "add, relu": lambda: branch(lambda pair: layers.ReLU()(layers.Add()(pair))),
    "subtract": lambda: branch(layers.Subtract()),
    "multiply": lambda: branch(layers.Multiply()),
    "maximum": lambda: branch(layers.Maximum()),
    "minimum": lambda: branch(layers.Minimum()),
    "average": lambda: branch(layers.Average()),
    "concatenate": lambda: branch(layers.Concatenate()),
    "add of three": lambda: branch(lambda pair: layers.Add()([*pair, pair[0]])),
    "operators": lambda: branch(lambda pair: (pair[0] + 3.0) * pair[1] - 0.5),
    "mean operation": lambda: branch(lambda pair: ops.mean(pair[0] + pair[1], axis=(1, 2))),
    "slices": lambda: branch(lambda pair: layers.Concatenate()([pair[0][:, 1:, :, :2], pair[1][:, :-1, :, 2:]])),
    "pooling": lambda: chain(
        layers.Conv2D(5, 1), layers.AveragePooling2D(3, padding="same"), layers.GlobalMaxPooling2D()
    ),
    "flatten": lambda: chain(layers.Conv2D(2, 3), layers.Flatten(), layers.Dropout(0.5), layers.Dense(3)),
    "paddings": lambda: chain(layers.ZeroPadding2D(2), layers.Conv2D(3, 3), layers.Cropping2D(1)),
    "up-sampling": lambda: chain(layers.Conv2D(3, 1), layers.UpSampling2D(2), layers.Conv2D(2, 1)),
    "bilinear up-sampling": lambda: chain(layers.Conv2D(3, 1), layers.UpSampling2D(2, interpolation="bilinear")),
    "permute": lambda: chain(layers.Permute((3, 1, 2)), layers.Reshape((4, 64)), layers.Dense(3)),
    **{
        name: lambda name=name: chain(layers.Conv2D(4, 1, activation=name))
        for name in (
            "relu",
            "relu6",
            "leaky_relu",
            "elu",
            "gelu",
            "silu",
            "hard_silu",
            "hard_sigmoid",
            "sigmoid",
            "tanh",
        )
    },
    "softmax": lambda: chain(layers.Dense(5, activation="softmax"), shape=(7,)),
    "relu with a slope": lambda: chain(layers.Conv2D(4, 1), layers.ReLU(negative_slope=0.1)),
    "prelu": lambda: with_slopes(layers.PReLU()),
    "prelu for channels": lambda: with_slopes(layers.PReLU(shared_axes=[1, 2])),
    "nested": lambda: chain(
        chain(layers.Conv2D(4, 3), layers.BatchNormalization()), layers.ReLU(), layers.Flatten(), layers.Dense(2)
    ),
}


@only_tensorflow
@pytest.mark.parametrize("name", MODELS)
def test_coverage(name, tmp_path):
    """Everything between input and output is computed in integers, and as simulated."""
    model = with_random_statistics(MODELS[name]())
    x = np.random.default_rng(1).standard_normal((40, *model.input_shape[1:])).astype("float32")
    quantized = quantize_post_training(model, INT8, x, estimator=MinMax())
    expected, simulated = outputs(model, x), outputs(quantized, x)
    assert np.abs(simulated - expected).max() < 0.06 * np.abs(expected).max() + 0.02
    _, received = exported(quantized, x, tmp_path / "model.tflite", strict=True)
    steps = np.abs(received - simulated) / activation_quantizers(quantized)[-1].parameters().scale
    assert steps.max() < 2.1
    assert (steps < 1.1).mean() > 0.99


@only_tensorflow
def test_a_relu_of_what_others_read_too_is_a_conversion(tmp_path):
    """LiteRT's integer kernel of RELU takes 25 times as long."""
    inputs = keras.Input((8, 8, 4))
    x = layers.Conv2D(4, 1)(inputs)
    model = keras.Model(inputs, layers.Add()([layers.Conv2D(3, 1)(layers.ReLU()(x)), layers.Conv2D(3, 1)(x)]))
    data = images(channels=4)
    quantized = quantize_post_training(model, INT8, data)
    _, received = exported(quantized, data, tmp_path / "model.tflite", strict=True)
    steps = np.abs(received - outputs(quantized, data)) / activation_quantizers(quantized)[-1].parameters().scale
    assert steps.max() < 1.1
    file = parse_model(tmp_path / "model.tflite")
    kinds = [operator_codes(file)[operator.opcodeIndex] for operator in file.subgraphs[0].operators]
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    assert schema.BuiltinOperator.RELU not in kinds
    assert kinds.count(schema.BuiltinOperator.QUANTIZE) == 2  # of the input, and this


def test_a_shared_layer_stays_one(rng):
    shared = layers.Dense(5, activation="relu", name="shared")
    a, b = keras.Input((5,)), keras.Input((5,))
    model = keras.Model([a, b], layers.Add()([shared(shared(a)), shared(b)]))
    x = [rng.standard_normal((20, 5)).astype("float32") for _ in range(2)]
    quantized = quantize_post_training(model, INT8, x)
    assert sum(type(layer).__name__.endswith("Dense") for layer in quantized.layers) == 1
    assert np.abs(outputs(quantized, x) - outputs(model, x)).max() < 0.1


def test_what_has_no_integer_form_stays_in_floats_and_is_reported(tmp_path):
    model = chain(layers.Conv2D(4, 3), layers.LayerNormalization(), layers.Conv2D(2, 1))
    x = images(channels=4)
    quantized = quantize_post_training(model, INT8, x)
    result, received = exported(quantized, x, tmp_path / "model.tflite")
    assert result.float_operators
    assert {"CONV_2D"}.isdisjoint(name for name, _, _ in result.float_operators)
    assert "in floats: 2 MEAN, " in str(result)
    assert np.abs(received - outputs(quantized, x)).max() < 0.05
    older = (tmp_path / "model.tflite").read_bytes()
    with pytest.raises(ValueError, match=r"not all of .* can be computed in integers"):
        export_litert(quantized, tmp_path / "model.tflite", strict=True)
    assert (tmp_path / "model.tflite").read_bytes() == older


@only_tensorflow
@pytest.mark.parametrize(("kind", "other"), [("int8", "uint8"), ("uint8", "int8")])
def test_integer_inputs_and_outputs(kind, other, tmp_path):
    model, x = small_network(), images()
    quantized = quantize_post_training(model, INT8, x)
    _, received = exported(quantized, x, tmp_path / "model.tflite", input_type=kind, output_type=other)
    runner = LiteRTRunner(tmp_path / "model.tflite")
    assert (runner.inputs[0].dtype, runner.outputs[0].dtype) == (kind, other)
    assert np.abs(received - outputs(quantized, x)).max() < 1.5 / 256


@only_tensorflow
def test_each_channel_of_a_depthwise_kernel_has_a_scale():
    """TFMOT quantizes depthwise kernels per tensor: a channel 100 times smaller keeps 1 % of the steps."""
    model = chain(layers.DepthwiseConv2D(3, name="depthwise"))
    kernel = np.array(ops.convert_to_numpy(model.layers[0].kernel))
    kernel[:, :, 0] *= 0.01
    model.layers[0].kernel.assign(kernel)
    plain = strip_quantization(quantize_post_training(model, INT8, images(channels=4)))
    used = ops.convert_to_numpy(plain.get_layer("depthwise").kernel)
    assert np.abs(used - kernel)[:, :, 0].max() < 0.005 * np.abs(kernel[:, :, 0]).max()


def test_conv1d_has_a_scale_for_each_channel():
    model = chain(layers.Conv1D(5, 3, name="conv"), shape=(12, 4))
    quantized = quantize_post_training(model, INT8, np.ones((4, 12, 4), "float32"))
    (reach,) = [v for v in quantized.get_layer("conv").variables if v.name == "reach"]
    assert reach.shape == (1, 1, 5)


@pytest.mark.parametrize("estimator", [MinMax(), MovingAverage(0.5), Percentile(99.0)])
def test_estimators(estimator, rng):
    values = rng.standard_normal((4000, 4)).astype("float32")
    values[0, 0] = 50.0  # an outlier that only min-max should follow
    model = chain(layers.Dense(2), shape=(4,))
    quantized = quantize_post_training(model, INT8, values, estimator=estimator, batch_size=100)
    low, high = activation_quantizers(quantized)[0].parameters().range
    assert low == pytest.approx(values.min(), rel=0.4)
    limits = {MinMax: (49, 51), MovingAverage: (2.5, 5), Percentile: (2, 3.5)}[type(estimator)]
    assert limits[0] < high < limits[1]


def test_least_squares_against_the_definition(rng):
    """No other cut of both sides has a smaller error, up to the bins."""
    values = rng.standard_normal(20000).astype("float32") ** 3
    seen = SeenValues(steps=15)
    for batch in np.split(np.sort(np.abs(values)) * np.sign(values), 10):  # its histogram grows with the batches
        seen.add(batch)
    values = np.sort(np.abs(values)) * np.sign(values)

    def error(low, high):
        scale = (high - low) / 15
        return float(
            ((np.clip(np.round(values / scale), round(low / scale), round(high / scale)) * scale - values) ** 2).mean()
        )

    chosen = LeastSquares().range(seen)
    limits = seen.limits
    best = min(error(limits[0] * share, limits[1] * share) for share in np.linspace(0.2, 1, 50))
    assert error(*chosen) < 1.1 * best
    assert error(*chosen) < 0.6 * error(*limits)


@pytest.mark.parametrize("kind", ["array", "list of batches", "pairs", "generator", "dataset", "loader", "tensors"])
def test_kinds_of_calibration_data(kind):
    model, x = chain(layers.Conv2D(2, 3), shape=(8, 8, 3)), images(32)
    batches = [x[:16], x[16:]]
    data = {
        "array": x,
        "list of batches": list(batches),
        "pairs": [(batch, np.zeros(16)) for batch in batches],
        "generator": (batch for batch in batches),
        "tensors": [ops.convert_to_tensor(batch) for batch in batches],
    }.get(kind)
    if kind == "loader":
        torch = pytest.importorskip("torch")
        data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.from_numpy(x)), batch_size=16)
    if kind == "dataset":
        tf = pytest.importorskip("tensorflow")
        data = tf.data.Dataset.from_tensor_slices((x, np.zeros(32))).batch(16)
    quantized = quantize_post_training(model, INT8, data)
    low, high = activation_quantizers(quantized)[0].parameters().range
    assert (low, high) == pytest.approx((x.min(), x.max()), abs=0.03)


def test_ranges_are_the_datas_own_and_hold_zero():
    model = chain(layers.Dense(2), shape=(3,))
    quantized = quantize_post_training(model, INT8, np.full((4, 3), 5.0, "float32"))
    parameters = activation_quantizers(quantized)[0].parameters()
    assert parameters.zero_point == -128
    assert parameters.range == pytest.approx((0.0, 5.0))


def test_the_given_model_is_not_changed():
    model, x = small_network(), images()
    before = [ops.convert_to_numpy(value).copy() for value in model.variables]
    expected = outputs(model, x)
    quantized = quantize_post_training(model, INT8, x)
    for variable in quantized.variables:
        variable.assign(np.zeros(variable.shape))
    for value, variable in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(value, ops.convert_to_numpy(variable))
    np.testing.assert_allclose(outputs(model, x), expected, atol=1e-6)


def test_it_is_saved_loaded_and_stripped(tmp_path):
    model, x = small_network(), images()
    quantized = quantize_post_training(model, INT8, x)
    quantized.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(outputs(loaded, x), outputs(quantized, x), atol=1e-6)
    plain = strip_quantization(loaded)
    assert not any(type(layer).__module__.startswith("keras_mot") for layer in plain._flatten_layers())
    assert not any(isinstance(layer, ActivationQuantizer) for layer in plain.layers)
    assert np.abs(outputs(plain, x) - outputs(model, x)).max() < 0.02


NAN = np.full((4, 8, 8, 4), np.nan, "float32")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "needs `calibration_data`"),
        (np.zeros((0, 8, 8, 4), "float32"), "is empty"),
        ([], "is empty"),
        (np.zeros((4, 9, 8, 4), "float32"), r"does not fit the model's inputs.*\(None, 8, 8, 4\)"),
        ([images(4, channels=4), NAN], r"Batch 1 of the calibration data .* NaN or infinite"),
        (lambda: None, "should yield inputs; it returned None"),
    ],
)
def test_wrong_calibration_data(data, message):
    model = chain(layers.Conv2D(2, 3))
    with pytest.raises((ValueError, TypeError), match=message):
        quantize_post_training(model, INT8, data)


def broken():
    model = chain(layers.Conv2D(2, 3))
    model.layers[0].kernel.assign(ops.full(model.layers[0].kernel.shape, np.nan))
    return model


class Subclassed(keras.Model):
    """A model without a graph."""

    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(2)

    def build(self, input_shape):
        self.dense.build(input_shape)

    def call(self, inputs):
        """Its only layer, or nothing."""
        return self.dense(inputs) if float(keras.ops.max(inputs)) > 0 else inputs


def subclassed():
    model = Subclassed()
    model(np.zeros((1, 3), "float32"))
    return model


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: "model", "expects a Keras 3 model"),
        (lambda: keras.Sequential([layers.Dense(3)]), "not built|no weights"),
        (lambda: chain(layers.MaxPooling2D(2)), "nothing to quantize"),
        (lambda: quantize_post_training(chain(layers.Conv2D(2, 3)), INT8, images(4, channels=4)), "quantized already"),
        (broken, "NaN or infinite"),
        (subclassed, "cannot be traced"),
    ],
)
def test_wrong_models(build, message):
    with pytest.raises((ValueError, TypeError), match=message):
        quantize_post_training(build(), INT8, images(4, channels=4))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scheme": "int8"}, "`scheme` should be"),
        ({"scheme": FLOAT16}, r"export_litert\(model, path, weights='float16'\)"),
        ({"estimator": 3}, "`estimator` should be"),
        ({"selected": 3}, "function"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(TypeError, match=message):
        quantize_post_training(chain(layers.Conv2D(2, 3)), calibration_data=images(4, channels=4), **settings)


@keras.saving.register_keras_serializable("tests")
class Tripled(layers.Dense):
    """A dense layer that does more."""

    def call(self, inputs):
        """Three times what a dense layer returns."""
        return super().call(inputs) * 3.0


def near(quantized, model, data, share=0.1):
    expected, received = (np.asarray(keras.ops.convert_to_numpy(each(data))) for each in (model, quantized))
    assert np.abs(expected - received).max() < share * np.abs(expected).max()


def vectors(*shape):
    return np.random.default_rng(3).standard_normal(shape).astype("float32")


def test_a_subclass_is_taken_for_what_its_own_call_computes():
    model = keras.Sequential([keras.Input((8,)), Tripled(6, activation="tanh"), layers.Dense(2)])
    quantized = quantize_post_training(model, calibration_data=vectors(64, 8))
    assert not any(isinstance(layer, Tripled) for layer in quantized.layers)
    near(quantized, model, vectors(64, 8))


def test_integers_are_not_rounded():
    inputs = keras.Input((4,), dtype="int32")
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(layers.Embedding(300, 3)(inputs + 1))))
    data = np.random.default_rng(0).integers(0, 299, (64, 4))
    near(quantize_post_training(model, calibration_data=data), model, data)


def test_images_of_bytes():
    inputs = keras.Input((6, 6, 3), dtype="uint8")
    model = keras.Model(inputs, layers.Flatten()(layers.Conv2D(2, 3)(layers.Rescaling(1 / 255)(inputs))))
    data = np.random.default_rng(0).integers(0, 256, (16, 6, 6, 3)).astype("uint8")
    near(quantize_post_training(model, calibration_data=data), model, data)


def two_inputs():
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    return keras.Model([b, a], layers.Dense(2)(layers.Concatenate()([layers.Dense(4)(a), layers.Dense(4)(b)])))


@pytest.mark.parametrize("labelled", [False, True])
def test_several_inputs_by_name_and_with_labels(labelled):
    model, a, b = two_inputs(), vectors(32, 4), 100 * vectors(32, 4)
    data = [((b, a), np.zeros(32))] if labelled else {"a": a, "b": b}
    quantized = quantize_post_training(model, calibration_data=data)
    near(quantized, model, [b, a])
    with pytest.raises(ValueError, match="a dictionary of these names"):
        quantize_post_training(model, calibration_data={"a": a, "c": b})
    with pytest.raises(ValueError, match="different numbers of samples"):
        quantize_post_training(model, calibration_data=[[b, a[:5]]])


def test_batches_of_different_lengths():
    model = keras.Sequential(
        [keras.Input((None, 3)), layers.Conv1D(4, 2), layers.GlobalMaxPooling1D(), layers.Dense(2)]
    )
    quantized = quantize_post_training(model, calibration_data=[vectors(4, length, 3) for length in (5, 7)])
    near(quantized, model, vectors(4, 5, 3), 0.2)


def test_a_dead_layer_is_exported(tmp_path):
    dead = keras.initializers.Constant(-100.0)
    model = keras.Sequential(
        [keras.Input((8,)), layers.Dense(8, "relu", bias_initializer=dead), layers.Dense(4, "relu"), layers.Dense(2)]
    )
    quantized = quantize_post_training(model, calibration_data=vectors(48, 8))
    assert not export_litert(quantized, tmp_path / "model.tflite").float_operators


def test_a_pruned_channel_keeps_its_bias(tmp_path):
    model = keras.Sequential([keras.Input((8,)), layers.Dense(4, "relu"), layers.Dense(2)])
    kernel = 1e-3 * vectors(8, 4)
    kernel[:, 1] = 0.0
    model.layers[0].set_weights([kernel, np.array([0.0, 0.37, 0.0, 0.0])])
    quantized = quantize_post_training(model, calibration_data=vectors(48, 8))
    near(quantized, model, vectors(48, 8))
    assert not export_litert(quantized, tmp_path / "model.tflite").float_operators


def test_a_bias_leaves_room_for_the_sum(tmp_path):
    model = keras.Sequential([keras.Input((8,)), layers.Dense(4, bias_initializer=keras.initializers.Constant(1e7))])
    quantized = quantize_post_training(model, calibration_data=vectors(48, 8))
    assert export_litert(quantized, tmp_path / "model.tflite").max_abs_error < 1e5


@pytest.mark.parametrize("scale", [1e-8, 1e8])
def test_units_do_not_matter(scale):
    model = keras.Sequential([keras.Input((8,)), layers.Dense(4, "relu"), layers.Dense(2)])
    data = scale * vectors(64, 8)
    near(quantize_post_training(model, calibration_data=data), model, data)


def test_frozen_layers_stay_frozen():
    model = chain(layers.SeparableConv2D(3, 3, trainable=False), layers.Rescaling(2.0), layers.Conv2D(2, 3))
    quantized = quantize_post_training(model, calibration_data=images(8, channels=4))
    assert [weight.shape[-1] for weight in quantized.trainable_weights] == [2, 2]


def stateful():
    return keras.Sequential([keras.Input(batch_shape=(4, 3, 2)), layers.GRU(2, stateful=True), layers.Dense(2)])


def half():
    return keras.Sequential([keras.Input((8,)), layers.Dense(2, dtype="float16")])


def with_lora():
    model = keras.Sequential([keras.Input((8,)), layers.Dense(2)])
    model.layers[0].enable_lora(1)
    return model


@pytest.mark.parametrize(
    ("build", "message"),
    [(stateful, "stateful"), (half, "float16"), (with_lora, "LoRA")],
    ids=["state", "half", "lora"],
)
def test_layers_that_cannot_be_quantized(build, message):
    with pytest.raises(ValueError, match=message):
        quantize_post_training(build(), calibration_data=vectors(4, 8))


@pytest.mark.parametrize("estimator", [None, MinMax()])
def test_ranges_in_which_values_lie_halfway(estimator, tmp_path):
    """Images of 256 shades between -1 and 1: with 0 among the numbers of the range, each is between two of them."""
    generator = np.random.default_rng(0)
    shades = generator.integers(0, 256, (64, 6, 6, 3))
    model = keras.Sequential([keras.Input((6, 6, 3)), layers.Conv2D(4, 3), layers.Flatten(), layers.Dense(3)])
    x = (shades / 127.5 - 1).astype("float32")
    quantized = quantize_post_training(model, INT8, x, estimator=estimator)
    quantizer = activation_quantizers(quantized)[0]
    assert quantizer.parameters().range == pytest.approx((-128 / 127, 1.0), rel=1e-3)
    steps = x / quantizer.parameters().scale
    assert np.mean(np.abs(np.abs(steps - np.floor(steps)) - 0.5) < 1e-3) < 0.01
    if keras.backend.backend() == "tensorflow":
        export_litert(quantized, tmp_path / "model.tflite")
        (received,) = LiteRTRunner(tmp_path / "model.tflite").run(x).values()
        assert np.mean(received == quantized.predict(x, verbose=0)) > 0.99
    exact = quantize_post_training(model, INT8, (shades / 255).astype("float32"), estimator=estimator)
    assert activation_quantizers(exact)[0].parameters().range == pytest.approx((0.0, 1.0))


def test_infinite_outputs_do_not_cut_ranges():
    """The search for ranges compares outputs, and the difference of two infinite ones is no number."""
    inputs = keras.Input((6,))
    model = keras.Model(inputs, ops.log(ops.relu(layers.Dense(4)(inputs))))
    x = np.random.default_rng(0).standard_normal((64, 6)).astype("float32")
    with (
        np.errstate(invalid="ignore"),
        pytest.raises(ValueError, match=r"floats: `overrides=\{'log': None\}`"),
    ):
        quantize_post_training(model, INT8, x, correct_biases=False)
    with np.errstate(invalid="ignore"):
        quantized = quantize_post_training(model, INT8, x, correct_biases=False, overrides={"^log$": None})
    assert activation_quantizers(quantized)[0].parameters().range == pytest.approx((x.min(), x.max()), rel=0.02)


def test_models_in_between_are_not_kept(monkeypatch):
    """Their weights would take as much memory as the model's, several times."""
    monkeypatch.setattr(keras_mot._memory, "_LARGE", 0)
    inputs = keras.Input((8, 8, 2))
    x = keras.layers.Conv2D(3, 3, name="conv_in_between")(inputs)
    x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(x)))
    alive = []
    run = Fitting.run

    def counted(self, simulation, *names):
        found = [each for each in gc.get_objects() if issubclass(type(each), keras.layers.Conv2D)]
        alive.append(sum(each.name == "conv_in_between" for each in found))
        return run(self, simulation, *names)

    monkeypatch.setattr(Fitting, "run", counted)
    quantize_post_training(model, calibration_data=np.random.default_rng(0).normal(size=(8, 8, 8, 2)).astype("float32"))
    assert alive == [2]  # the given one and the quantized one
