"""Layers called with more than their inputs: `training` changes nothing, masks and the like are never lost."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_mot.export import LiteRTRunner, export_litert
from keras_mot.graph import flatten, operations_of, trace
from keras_mot.graph.arguments import deciding_arguments
from keras_mot.layers.activation_quantizer import ActivationQuantizer
from keras_mot.quantization import quantize_model, quantize_post_training
from keras_mot.quantization.lowering.lowering import lower
from tests.quantization.models import compiled, images, small_network
from tests.quantization.test_coverage import OTHERS, RECURRENT, data, only_tensorflow, outputs, random_weights

KINDS = {**RECURRENT, **OTHERS, "convolutions": small_network}


def nested(model, training):
    """The model as one layer of another, as in transfer learning."""
    (tensor,) = model.inputs
    inputs = keras.Input(tensor.shape[1:], dtype=tensor.dtype)
    return keras.Model(inputs, model(inputs, training=training))


def called(model, training):
    """The same layers, each called with `training`."""

    def given(layer):
        return {"training": training} if isinstance(layer, layers.Layer) else {}

    return keras.models.clone_model(
        model if not isinstance(model, keras.Sequential) else model._functional,
        clone_function=lambda layer: layer,
        call_function=lambda layer, *args, **kwargs: layer(*args, **{**kwargs, **given(layer)}),
    )


def kinds(model):
    return [type(operation).__name__ for operation in operations_of(model)]


@pytest.mark.parametrize("name", KINDS)
def test_training_is_no_obstacle(name):
    model = random_weights(KINDS[name]())
    expected = kinds(lower(flatten(model))[0])
    x = data(model, 4)
    for form in (nested(model, False), nested(model, None), called(model, False), called(model, None)):
        lowered = lower(flatten(form))[0]
        assert kinds(lowered) == expected
        np.testing.assert_allclose(outputs(lowered, x), outputs(model, x), atol=2e-5, rtol=1e-4)


def test_transfer_learning(tmp_path):
    base = small_network()
    base.trainable = False
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, layers.Dense(4, activation="softmax")(base(inputs, training=False)))
    x = images()
    quantized = quantize_post_training(model, calibration_data=x)
    assert np.abs(outputs(quantized, x) - outputs(model, x)).max() < 0.05
    trained = compiled(quantize_model(model, calibration_data=x))
    trained.fit(x, np.arange(len(x)) % 4, epochs=1, verbose=0)
    assert not export_litert(trained, tmp_path / "model.tflite", strict=True).float_operators


class Head(keras.Model):
    """A model whose `call` takes nothing but inputs."""

    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(2)

    def build(self, input_shape):
        """Knows its input."""
        self.dense.build(input_shape)

    def call(self, inputs):
        """Features."""
        return self.dense(inputs)


def test_subclassed_models_that_take_no_training_argument():
    inputs = keras.Input((3,))
    model = keras.Model(inputs, Head()(inputs, training=False))
    x = np.ones((2, 3), "float32")
    np.testing.assert_allclose(outputs(trace(model), x), outputs(model, x), rtol=1e-6)


def on_sequences(function):
    """A model of token ids, of which 0 is none: `function` of their vectors, which carry a mask."""
    inputs = keras.Input((5,), dtype="int32")
    return keras.Model(inputs, function(layers.Dense(4)(layers.Embedding(10, 4, mask_zero=True)(inputs))))


def attended(x, **arguments):
    return layers.MultiHeadAttention(2, 4)(x, x, **arguments)


def scored(x):
    return layers.Concatenate()(layers.Attention()([x, x], return_attention_scores=True, training=False))


def in_another(x):
    inner = keras.Sequential([keras.Input((5, 4)), layers.Dense(4), layers.LSTM(3)])
    return inner(x, training=False)


def in_another_with_a_mask(x):
    inner = keras.Sequential([keras.Input((5, 4)), layers.Dense(4), layers.LSTM(3)])
    return layers.Concatenate()([inner(x, mask=ops.ones_like(x[:, :, 0], dtype="bool")), inner(x)])


ONE_OUT = np.array([1.0, 1.0, 0.0, 1.0], "float32")
# What follows a mask or another argument, and in which layer's place there are no steps; `None` if there are some.
MASKED = {
    "recurrent": (lambda x: layers.LSTM(3)(x, training=False), None),
    "behind a dense layer": (lambda x: layers.GRU(3)(layers.Dense(3)(x), training=False), None),
    "behind batch normalization": (
        lambda x: layers.GRU(3)(layers.BatchNormalization()(x, training=False), training=False),
        None,
    ),
    "behind addition": (lambda x: layers.GRU(3)(layers.Add()([x, x, x]), training=False), None),
    "behind an activation": (lambda x: layers.GRU(3)(layers.Activation("silu")(x), training=False), None),
    "bidirectional": (lambda x: layers.Bidirectional(layers.LSTM(3))(x, training=False), None),
    "time-distributed": (
        lambda x: layers.GRU(2)(layers.TimeDistributed(layers.Dense(3))(x, training=False), training=False),
        "TimeDistributed",
    ),
    "averages": (lambda x: layers.GlobalAveragePooling1D()(layers.Dense(3)(x)), "GlobalAveragePooling1D"),
    "softmax": (lambda x: layers.Softmax(axis=1)(layers.Dense(1)(x), mask=x[:, :, :1] > 0), "Softmax"),
    "softmax, masked": (lambda x: layers.Softmax()(layers.Dense(4)(x), mask=ops.ones_like(x) * ONE_OUT), None),
    "softmax, masked, axes": (lambda x: layers.Softmax([2])(layers.Dense(4)(x), mask=ops.ones_like(x) * ONE_OUT), None),
    "softmax, masked, first axis": (
        lambda x: layers.Softmax(1)(layers.Dense(4)(x), mask=ops.ones_like(x) * ONE_OUT[[2, 0, 0, 0, 0], None]),
        "Softmax",
    ),
    "attention": (lambda x: layers.Attention()([x, x]), None),
    "attention, causal": (lambda x: layers.Attention()([x * 1.0, x * 2.0], use_causal_mask=True), None),
    "attention, scores": (scored, "Attention"),
    "multi-head attention": (lambda x: attended(x, training=False), None),
    "multi-head attention, causal": (lambda x: attended(x * 1.0, use_causal_mask=True), None),
    "multi-head attention, mask": (
        lambda x: attended(x * 1.0, attention_mask=ops.ones_like(x[:, :, :1], dtype="bool")),
        None,
    ),
    "multi-head attention, scores": (
        lambda x: layers.Dense(2)(attended(x * 1.0, return_attention_scores=True)[1]),
        "MultiHeadAttention",
    ),
    "nested": (in_another, None),
    "nested, with a mask of its own": (in_another_with_a_mask, None),
}


@pytest.mark.parametrize("name", MASKED)
def test_what_changes_the_result_is_not_lost(name):
    function, kind = MASKED[name]
    model = random_weights(on_sequences(function))
    x = np.random.default_rng(2).integers(0, 4, (20, 5)).astype("int32")
    x[:, 0] = 1  # no sequence is empty
    lowered = lower(flatten(model))[0]
    assert kind is None or kind in kinds(lowered)
    np.testing.assert_allclose(outputs(lowered, x), outputs(model, x), atol=2e-5, rtol=1e-4)
    quantized = quantize_post_training(model, calibration_data=x)
    assert kind is None or kind in kinds(quantized)
    assert np.abs(outputs(quantized, x) - outputs(model, x)).max() < 0.08 * np.abs(outputs(model, x)).max()


@only_tensorflow
@pytest.mark.parametrize(
    "name",
    [
        *("behind a dense layer", "multi-head attention", "averages"),
        *("softmax, masked", "softmax, masked, axes", "softmax, masked, first axis"),
    ],
)
def test_masks_are_in_the_file(name, tmp_path):
    model = random_weights(on_sequences(lambda x: layers.Dense(2)(MASKED[name][0](x))))
    x = np.random.default_rng(2).integers(0, 4, (20, 5)).astype("int32")
    x[:, 0] = 1
    quantized = quantize_post_training(model, calibration_data=x)
    result = export_litert(quantized, tmp_path / "model.tflite", verification_data=x)
    assert bool(result.float_operators) == (name != "behind a dense layer")
    (received,) = LiteRTRunner(result.path).run(x).values()
    assert np.abs(received - outputs(model, x)).max() < 0.08 * np.abs(outputs(model, x)).max()


def test_losses_of_sequences_stay_masked():
    model = on_sequences(lambda x: layers.Dense(3, activation="softmax")(layers.Dense(4)(x)))
    x = np.array([[1, 2, 0, 0, 0], [3, 1, 2, 2, 0]], "int32")
    quantized = quantize_model(model, calibration_data=x)
    y = np.zeros((2, 5), "int32")
    losses = [compiled(each).evaluate(x, y, verbose=0)[0] for each in (model, quantized)]
    assert losses[1] == pytest.approx(losses[0], rel=0.05)
    assert quantized(x)._keras_mask is not None


def test_arguments_that_say_nothing_decide_nothing():
    layer, x = layers.Attention(), keras.Input((5, 4))
    explicit = {"training": False, "mask": [None, None], "use_causal_mask": False}
    assert list(deciding_arguments(layer, ([x, x],), explicit)) == ["inputs"]
    assert list(deciding_arguments(layer, (), {"inputs": [x, x], "use_causal_mask": True})) == [
        "inputs",
        "use_causal_mask",
    ]
    assert list(deciding_arguments(ActivationQuantizer(), (x,), {"training": True})) == ["inputs"]


@pytest.mark.parametrize("how", ["where", "add"])
def test_scores_that_a_mask_leaves_out_take_no_integers(how):
    """Masks as people write them: a number in the place of minus infinity must not be within the range."""
    inputs, kept = keras.Input((5, 4)), keras.Input((5,), dtype="int32")
    scores, mask = layers.Dense(5)(inputs), ops.expand_dims(kept, 1)
    scores = ops.where(mask > 0, scores, -1e9) if how == "where" else scores + (1 - ops.cast(mask, "float32")) * -1e9
    model = random_weights(keras.Model([inputs, kept], layers.Dense(3)(ops.softmax(scores))))
    generator = np.random.default_rng(0)
    x = [generator.normal(size=(40, 5, 4)).astype("float32"), generator.integers(0, 2, (40, 5)).astype("int32")]
    x[1][:, 0] = 1
    quantized = quantize_post_training(model, calibration_data=x)
    assert np.abs(outputs(quantized, x) - outputs(model, x)).max() < 0.08 * np.abs(outputs(model, x)).max()
