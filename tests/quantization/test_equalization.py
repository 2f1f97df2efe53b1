"""Cross-layer equalization and bias correction: floats stay as they are, integers come nearer to them."""

import itertools

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_mot.graph import fold_batch_norm
from keras_mot.graph.kinds import register_kind
from keras_mot.layers import WeightAxes
from keras_mot.layers.activation_quantizer import activation_quantizers
from keras_mot.quantization import INT8, MinMax, QuantizationScheme, quantize_model, quantize_post_training
from keras_mot.quantization.algorithms.bias_correction import correct_biases
from keras_mot.quantization.algorithms.equalization import equalize, find_pairs
from keras_mot.quantization.estimators.calibrating import calibrate, squared_error
from keras_mot.quantization.estimators.passes import Passes
from keras_mot.quantization.simulation.simulation import simulate
from tests.quantization.models import images, small_network, with_random_statistics

PER_TENSOR = QuantizationScheme(per_channel=False)


def uneven(model):
    """The model, which computes the same with channels of very different size between two of its kernels."""
    depthwise, transposed = (model.get_layer(name) for name in ("depthwise", "transposed"))
    sizes = np.geomspace(0.01, 3.0, 12).astype("float32")
    depthwise.kernel.assign(ops.convert_to_numpy(depthwise.kernel) * sizes.reshape(6, 2))
    depthwise.bias.assign(ops.convert_to_numpy(depthwise.bias) * sizes)
    transposed.kernel.assign(ops.convert_to_numpy(transposed.kernel) / sizes)
    return model


def chain():
    """A chain of all kinds of layers that equalization goes across."""
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(6, 3, padding="same", use_bias=False, name="first"),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.DepthwiseConv2D(
                3, depth_multiplier=2, activation="relu", bias_initializer="normal", name="depthwise"
            ),
            layers.ZeroPadding2D(1),
            layers.Conv2DTranspose(5, 3, bias_initializer="normal", name="transposed"),
            layers.LeakyReLU(0.2),
            layers.MaxPooling2D(2),
            layers.Conv2D(4, 1, name="pointwise"),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(7, activation="relu", name="dense"),
            layers.Dense(3, activation="softmax", name="head"),
        ]
    )


def names(model):
    return [(pair.first.owner.name, pair.second.owner.name) for pair in find_pairs(model)]


def functional(model):
    return fold_batch_norm(keras.Model(model.inputs[0], model.call(model.inputs[0])))


def test_floats_stay_and_channels_reach_equally_far():
    model, x = uneven(with_random_statistics(chain())), images(8)
    folded = functional(model)
    chained = ["first", "depthwise", "transposed", "pointwise", "dense", "head"]
    assert sorted(names(folded)) == sorted(itertools.pairwise(chained))
    expected = folded.predict(x, verbose=0)
    assert equalize(folded) == 5
    np.testing.assert_allclose(folded.predict(x, verbose=0), expected, atol=1e-5)
    first, depthwise, transposed = (
        ops.convert_to_numpy(folded.get_layer(name).kernel) for name in ("first", "depthwise", "transposed")
    )
    made, read = np.abs(first).max((0, 1, 2)), np.abs(depthwise).max((0, 1, 3))
    np.testing.assert_allclose(made, read, rtol=0.02)
    np.testing.assert_allclose(np.abs(depthwise).max((0, 1)).reshape(-1), np.abs(transposed).max((0, 1, 2)), rtol=0.02)


def test_two_kernels_by_hand():
    """s = sqrt(r1 / r2): reaches of 8 and 2 meet at 4, and 1 and 4 at 2; a dead channel is left alone."""
    model = keras.Sequential([keras.Input((1,)), layers.Dense(3, "relu"), layers.Dense(1)])
    first, second = model.layers
    first.kernel.assign([[8.0, -1.0, 0.0]])
    first.bias.assign([2.0, 1.0, 5.0])
    second.kernel.assign([[2.0], [-4.0], [1.0]])
    flat = functional(model)
    equalize(flat)
    first, second = flat.layers[1:]
    np.testing.assert_allclose(ops.convert_to_numpy(first.kernel), [[4.0, -2.0, 0.0]], rtol=1e-5)
    np.testing.assert_allclose(ops.convert_to_numpy(first.bias), [1.0, 2.0, 5.0], rtol=1e-5)
    np.testing.assert_allclose(ops.convert_to_numpy(second.kernel), [[4.0], [-2.0], [1.0]], rtol=1e-5)


def branching(x):
    y = layers.Conv2D(4, 1, activation="relu")(x)
    return layers.Concatenate()([layers.Conv2D(2, 1)(y), y])


@pytest.mark.parametrize(
    "between",
    [
        lambda x: layers.Conv2D(4, 1, activation="relu6")(x),
        lambda x: layers.ReLU(6.0)(layers.Conv2D(4, 1)(x)),
        lambda x: layers.Conv2D(4, 1, activation="tanh")(x),
        lambda x: layers.Permute((3, 1, 2))(layers.Conv2D(4, 1)(x)),
        lambda x: layers.Add()([layers.Conv2D(3, 1)(x), x]),
        branching,
    ],
)
def test_what_is_no_pair(between):
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, layers.Conv2D(2, 1, name="last")(between(inputs)))
    assert "last" not in {second for _, second in names(model)}
    assert equalize(model) == 0


@keras.saving.register_keras_serializable("tests.equalization")
class Transposed(layers.Layer):
    """A dense layer whose kernel is (outputs, inputs)."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units

    def build(self, input_shape):
        """Creates the weights."""
        self.matrix = self.add_weight(shape=(self.units, input_shape[-1]), name="matrix")
        self.offset = self.add_weight(shape=(self.units,), name="offset")

    def call(self, inputs):
        """The product, and the offset."""
        return ops.matmul(inputs, ops.transpose(self.matrix)) + self.offset

    def get_config(self):
        """The configuration."""
        return {**super().get_config(), "units": self.units}


register_kind(Transposed, layers.Dense, kernel="matrix", bias="offset", axes=WeightAxes(inputs=(1,), outputs=(0,)))


def test_a_layer_of_ones_own_by_hand():
    """Reaches of 8 and 2 meet at 4, whichever axis of a kernel numbers the channels."""
    first, second = Transposed(2), Transposed(1)
    model = keras.Sequential([keras.Input((1,)), first, layers.ReLU(), second])
    first.matrix.assign([[8.0], [-1.0]])
    first.offset.assign([2.0, 1.0])
    second.matrix.assign([[2.0, -4.0]])
    flat = functional(model)
    assert equalize(flat) == 1
    first, _, second = flat.layers[1:]
    np.testing.assert_allclose(ops.convert_to_numpy(first.matrix), [[4.0], [-2.0]], rtol=1e-5)
    np.testing.assert_allclose(ops.convert_to_numpy(first.offset), [1.0, 2.0], rtol=1e-5)
    np.testing.assert_allclose(ops.convert_to_numpy(second.matrix), [[4.0, -2.0]], rtol=1e-5)


def test_a_shared_layer_is_no_pair():
    shared = layers.Dense(3, activation="relu")
    inputs = keras.Input((3,))
    assert not find_pairs(keras.Model(inputs, layers.Dense(2)(shared(shared(inputs)))))


def error_of(model, x, **options):
    quantized = quantize_post_training(model, PER_TENSOR, x, estimator=MinMax(), **options)
    return float(((quantized.predict(x, verbose=0) - model.predict(x, verbose=0)) ** 2).sum())


def test_uneven_channels_profit_with_one_scale_for_all():
    model, x = uneven(with_random_statistics(chain())), images()
    plain = error_of(model, x, equalize=False, correct_biases=False)
    assert error_of(model, x, equalize=True, correct_biases=False) < 0.5 * plain
    assert error_of(model, x, correct_biases=False) < 0.5 * plain  # found by itself


def test_what_does_not_help_is_undone():
    """Channels as even as they can be: nothing may change."""
    model, x = small_network(), images()
    plain = quantize_post_training(model, INT8, x, estimator=MinMax(), equalize=False, correct_biases=False)
    chosen = quantize_post_training(model, INT8, x, estimator=MinMax())
    errors = [((one.predict(x, verbose=0) - model.predict(x, verbose=0)) ** 2).sum() for one in (plain, chosen)]
    assert errors[1] <= 1.01 * errors[0]


def test_corrected_means_are_those_of_the_float_model():
    """By the definition: after correction, each channel of a layer without a successor has the mean that it had."""
    model = uneven(with_random_statistics(chain()))
    headless = keras.Model(model.inputs[0], model.get_layer("pointwise").output)
    x = images(32)
    simulation, *_ = simulate(headless, PER_TENSOR)
    calibrate(simulation, [x], MinMax())
    passes = Passes(simulation)
    (expected,) = passes.outputs([x], rounding=(), floats=True)
    np.testing.assert_allclose(expected, headless.predict(x, verbose=0), atol=1e-4)
    before = squared_error(passes.outputs([x]), [expected])
    assert correct_biases(simulation, x) == 4
    (received,) = passes.outputs([x])
    step = activation_quantizers(simulation)[-1].parameters().scale
    np.testing.assert_allclose(received.mean((0, 1, 2)), expected.mean((0, 1, 2)), atol=0.1 * step)
    assert squared_error([received], [expected]) < before


def test_settings():
    model, x = chain(), images(8)
    with pytest.raises(TypeError, match="`equalize` should be True, False, or None"):
        quantize_post_training(model, INT8, x, equalize="yes")
    with pytest.raises(ValueError, match=r"`correct_biases=True` needs `calibration_data`"):
        quantize_model(model, correct_biases=True)
    equal = quantize_model(model, PER_TENSOR, equalize=True)
    np.testing.assert_allclose(equal.predict(x, verbose=0), model.predict(x, verbose=0), atol=0.02)
