"""What was given to a layer stays with it through flattening, folding and lowering: settings, masks, palettes."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_mot.clustering import cluster_weights
from keras_mot.graph import flatten
from keras_mot.layers import attach, register_weights, transformed_weights, update_step
from keras_mot.layers.activation_quantizer import activation_quantizers
from keras_mot.quantization import INT4_WEIGHTS, quantize_model
from keras_mot.quantization.lowering.lowering import lower
from keras_mot.quantization.lowering.table import lowering_of, register_lowering
from keras_mot.sparsity import ConstantSparsity, prune_low_magnitude
from keras_mot.transforms import Codebook, FakeQuantize, Mask
from tests.quantization.test_coverage import OTHERS, RECURRENT, outputs, random_weights, self_attention

CLUSTERS = 5


def bits(model):
    """Dictionary from names of layers to the bits of their weights."""
    weights = transformed_weights(model)
    return {weight.owner.name: weight.transform_of(FakeQuantize).bits for weight in weights}


# Masks and palettes. What is masked is zero, and nothing else: so the values, moved by other means than the masks, say
# where the masks belong.

MOVED = {
    "separable": lambda: keras.Sequential([keras.Input((6, 6, 4)), layers.SeparableConv2D(8, 3, depth_multiplier=2)]),
    "separable, folded": lambda: keras.Sequential(
        [keras.Input((6, 6, 4)), layers.SeparableConv2D(8, 3, use_bias=False), layers.BatchNormalization()]
    ),
    "activation": lambda: keras.Sequential([keras.Input((6,)), layers.Dense(9, activation="silu")]),
    **{name: RECURRENT[name] for name in ("GRU", "GRU, reset before", "LSTM", "bidirectional", "stacked cells")},
    **{name: RECURRENT[name] for name in ("time-distributed", "LSTM, initial states")},
    **{name: OTHERS[name] for name in ("einsum", "einsum, to heads and back", "einsum, permuted")},
    **{name: OTHERS[name] for name in ("multi-head attention", "grouped attention")},
}


@pytest.mark.filterwarnings("ignore:Some shared values become the same integer")
@pytest.mark.parametrize("name", MOVED)
def test_masks_and_palettes_go_where_the_values_go(name):
    model = random_weights(MOVED[name]())
    pruned = prune_low_magnitude(model, ConstantSparsity(0.5, 0), include_depthwise=True)
    update_step(pruned, 0)
    given = cluster_weights(pruned, CLUSTERS, include_depthwise=True)
    before = transformed_weights(given)
    after = [weight for weight in transformed_weights(quantize_model(given)) if weight.transform_of(Mask)]
    size = sum(int(np.prod(weight.variable.shape)) for weight in before)
    assert sum(int(np.prod(weight.variable.shape)) for weight in after) == size
    assert sum(weight.transform_of(Mask).zeros() for weight in after) == sum(
        weight.transform_of(Mask).zeros() for weight in before
    )
    for weight in after:
        value, codebook = ops.convert_to_numpy(weight.variable), weight.transform_of(Codebook)
        np.testing.assert_array_equal(ops.convert_to_numpy(weight.transform_of(Mask).mask), value != 0)
        np.testing.assert_allclose(codebook.palette()[0][codebook.assignments()], value, rtol=1e-5, atol=1e-7)
        assert codebook.unique_values() <= CLUSTERS


def test_only_the_weights_that_had_a_mask_have_one():
    """One of two kernels of a GRU: the other is moved in the same way, and its parts have none."""
    model = random_weights(keras.Sequential([keras.Input((5, 4)), layers.GRU(3, reset_after=False, name="gru")]))
    mask = Mask(name="kernel_mask")
    attach(model.layers[0], {"cell/kernel": [mask]})
    kept = np.random.default_rng(0).integers(0, 2, (4, 9)).astype(bool)
    mask.assign(kept)
    (weight,) = [each for each in transformed_weights(quantize_model(model)) if each.transform_of(Mask)]
    assert weight.owner.name == "gru_input"
    np.testing.assert_array_equal(ops.convert_to_numpy(weight.transform_of(Mask).mask), kept)


@keras.saving.register_keras_serializable("test_lowering")
class Transposed(layers.Layer):
    """A dense layer that keeps its kernel by outputs, and doubles its results."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units

    def build(self, input_shape):
        """Creates the kernel."""
        self.matrix = self.add_weight(name="matrix", shape=(self.units, input_shape[-1]))

    def call(self, inputs):
        """The results."""
        return ops.matmul(inputs, ops.transpose(self.matrix)) * 2.0

    def get_config(self):
        """The constructor's arguments."""
        return {**super().get_config(), "units": self.units}


class Other(Transposed):
    """Computes something else."""

    def call(self, inputs):
        """The results."""
        return super().call(inputs) + 1.0


def lowered_transposed(lowering, layer, inputs):
    """A dense layer and a product."""
    dense = lowering.make(layer, "dense", lambda: layers.Dense(layer.units, use_bias=False, name=layer.name))
    outputs = dense(inputs)
    lowering.move(layer.matrix, dense.kernel, np.transpose)
    return outputs * 2.0


register_weights(Transposed, ["matrix"])
register_lowering(Transposed, lowered_transposed)


def test_a_layer_of_ones_own():
    model = keras.Sequential([keras.Input((4,)), Transposed(3, name="own"), layers.Dense(2, name="dense")])
    x = np.random.default_rng(0).standard_normal((8, 4)).astype("float32")
    np.testing.assert_allclose(outputs(lower(flatten(model)).model, x), outputs(model, x), atol=1e-6)
    pruned = prune_low_magnitude(model, ConstantSparsity(0.5, 0), overrides={"dense": None})
    update_step(pruned, 0)
    (before,) = transformed_weights(pruned)
    quantized = quantize_model(pruned, calibration_data=x, equalize=False, correct_biases=False)
    assert bits(quantized) == {"own": 8, "dense": 8}
    (after,) = transformed_weights(quantized.get_layer("own"))
    expected = ops.convert_to_numpy(before.transform_of(Mask).mask).T
    np.testing.assert_array_equal(ops.convert_to_numpy(after.transform_of(Mask).mask), expected)
    assert np.abs(outputs(quantized, x) - outputs(pruned, x)).max() < 0.05 * np.abs(outputs(pruned, x)).max()


def test_rows_are_for_what_computes_alike():
    assert lowering_of(Transposed(3)) is lowered_transposed
    assert lowering_of(Other(3)) is None
    with pytest.raises(TypeError, match=r"should be a subclass of .keras.layers.Layer.; received 'Dense'"):
        register_lowering("Dense", lowered_transposed)
    with pytest.raises(TypeError, match="should be a function of"):
        register_lowering(Transposed, "steps")


# Settings of layers within others.


def test_one_layer_of_bidirectional_in_floats():
    model = random_weights(
        keras.Sequential(
            [keras.Input((5, 4)), layers.Bidirectional(layers.LSTM(3, return_sequences=True), name="both")]
        )
    )
    x = np.random.default_rng(0).standard_normal((16, 5, 4)).astype("float32")
    backward = model.get_layer("both").backward_layer
    for selector in (backward, "backward_lstm"):
        quantized = quantize_model(model, overrides={selector: None})
        assert bits(quantized) == {"both_forward_input": 8, "both_forward_recurrent": 8}
        assert sum(isinstance(layer, layers.LSTM) for layer in quantized.layers) == 1
    quantized = quantize_model(model, calibration_data=x, overrides={backward: None}, equalize=False)
    difference = np.abs(outputs(quantized, x) - outputs(model, x))
    assert difference.max() < 0.05
    bits_of = bits(quantize_model(model, overrides={backward: INT4_WEIGHTS}))
    assert bits_of == {
        **{"both_forward_input": 8, "both_forward_recurrent": 8},
        **{"both_backward_input": 4, "both_backward_recurrent": 4},
    }


@pytest.mark.parametrize("merge", [None, "concat", "sum"])
def test_floats_within_bidirectional_compute_the_same(merge):
    inputs = keras.Input((5, 4))
    results = layers.Bidirectional(layers.GRU(3, return_state=True), merge_mode=merge)(inputs)
    model = random_weights(keras.Model(inputs, layers.Concatenate()(keras.tree.flatten(results))))
    x = np.random.default_rng(0).standard_normal((4, 5, 4)).astype("float32")
    lowered = lower(flatten(model), lambda layer: not layer.name.startswith("backward")).model
    assert sum(isinstance(layer, layers.GRU) for layer in lowered.layers) == 1
    np.testing.assert_allclose(outputs(lowered, x), outputs(model, x), atol=1e-5)


def test_a_layer_for_all_timesteps():
    dense = layers.Dense(3, name="inner")
    model = keras.Sequential(
        [keras.Input((5, 4)), layers.TimeDistributed(dense, name="all"), layers.Dense(2, name="d")]
    )
    for selector in (dense, "inner$"):
        assert bits(quantize_model(model, overrides={selector: None})) == {"d": 8}
        assert bits(quantize_model(model, overrides={selector: INT4_WEIGHTS})) == {"inner": 4, "d": 8}


def test_a_model_for_all_timesteps():
    inner = keras.Sequential(
        [
            keras.Input((6, 6, 3)),
            *(layers.Conv2D(4, 3, name="conv"), layers.BatchNormalization(), layers.ReLU()),
            *(layers.GlobalAveragePooling2D(), layers.Dense(5, activation="silu", name="head")),
        ]
    )
    model = keras.Sequential([keras.Input((4, 6, 6, 3)), layers.TimeDistributed(inner), layers.Dense(2, name="head")])
    x = np.random.default_rng(0).standard_normal((8, 4, 6, 6, 3)).astype("float32")
    random_weights(model)
    lowered = lower(flatten(model)).model
    np.testing.assert_allclose(outputs(lowered, x), outputs(model, x), atol=1e-5)
    assert not any(isinstance(layer, layers.TimeDistributed) for layer in lowered.layers)
    known = {"conv": 8, "batch_normalization": 8, "head": 8, "head_1": 8}
    assert set(bits(quantize_model(model)).values()) == set(known.values())
    conv = inner.get_layer("conv")
    quantized = quantize_model(model, calibration_data=x, overrides={conv: INT4_WEIGHTS}, equalize=False)
    assert sorted(bits(quantized).values()) == [4, 8, 8, 8]
    assert bits(quantized)["conv"] == 4
    assert len(bits(quantize_model(model, overrides={inner: None}))) == 1
    pruned = prune_low_magnitude(model, ConstantSparsity(0.5, 0))
    update_step(pruned, 0)
    zeros = [weight.transform_of(Mask) for weight in transformed_weights(quantize_model(pruned))]
    assert sorted(mask.zeros() for mask in zeros if mask is not None) == [5, 10, 54]


def test_operations_of_a_model_for_all_timesteps():
    """They have no settings of their own, but those of the layer around: they compute in integers."""
    inputs = keras.Input((6,))
    inner = keras.Model(inputs, ops.square(layers.Dense(5, name="first")(inputs)) * 2.0)
    model = keras.Sequential([keras.Input((4, 6)), layers.TimeDistributed(inner), layers.Dense(2, name="top")])
    quantized = quantize_model(model)
    assert bits(quantized) == {"first": 8, "top": 8}
    rounded = len(activation_quantizers(quantized))
    assert rounded == 5  # the input, the first layer, the square, its double, and the last layer
    assert not any("in_floats" in layer.name for layer in quantized.layers)


def test_a_projection_of_attention():
    model = random_weights(self_attention(layers.MultiHeadAttention(2, 4, name="mha")))
    x = np.random.default_rng(0).standard_normal((16, 5, 4)).astype("float32")
    attention = model.get_layer("mha")
    others = {"mha_query": 8, "mha_key": 8, "mha_output": 8, model.layers[-1].name: 8}
    assert bits(quantize_model(model, overrides={attention.value_dense: None})) == others
    quantized = quantize_model(
        model, calibration_data=x, overrides={attention.value_dense: INT4_WEIGHTS}, equalize=False, correct_biases=False
    )
    assert bits(quantized) == {**others, "mha_value": 4}


def test_a_selector_of_what_is_no_layer_by_itself():
    """A cell is not broken down by itself: no settings of its own are taken, and none is lost in silence."""
    model = keras.Sequential([keras.Input((5, 4)), layers.LSTM(3, name="rnn")])
    with pytest.raises(ValueError, match="No layer matches <LSTMCell"):
        quantize_model(model, overrides={model.layers[0].cell: None})


# Layers that stand in several places.


def test_a_layer_of_two_nested_models():
    shared = layers.Dense(6, name="shared")

    def branch(name):
        inputs = keras.Input((6,))
        return keras.Model(inputs, layers.Dense(6, name=f"{name}_top")(shared(inputs)), name=name)

    inputs = keras.Input((6,))
    model = keras.Model(inputs, layers.Add()([branch("left")(inputs), branch("right")(inputs)]))
    assert bits(quantize_model(model, overrides={"shared": None})) == {"left_top": 8, "right_top": 8}
    expected = {"shared": 4, "left_top": 8, "right_top": 8}
    quantized = quantize_model(model, overrides={shared: INT4_WEIGHTS})
    assert bits(quantized) == expected
    assert [layer.name for layer in quantized.layers].count("shared") == 1


def test_a_nested_model_called_twice():
    inner = keras.Sequential(
        [keras.Input((6,)), layers.Dense(6, name="first"), layers.Dense(6, activation="silu", name="second")]
    )
    inputs = keras.Input((6,))
    model = random_weights(keras.Model(inputs, layers.Dense(2, name="top")(inner(inner(inputs)))))
    expected = {"first": 8, "second": 4, "top": 8}
    assert bits(quantize_model(model, overrides={"second": INT4_WEIGHTS})) == expected
    assert bits(quantize_model(model, overrides={inner: None})) == {"top": 8}
    pruned = prune_low_magnitude(model, ConstantSparsity(0.5, 0))
    update_step(pruned, 0)
    weights = transformed_weights(quantize_model(pruned))
    assert [weight.transform_of(Mask).zeros() for weight in weights] == [18, 18, 6]
    x = np.random.default_rng(0).standard_normal((8, 6)).astype("float32")
    np.testing.assert_allclose(outputs(lower(flatten(model)).model, x), outputs(model, x), atol=1e-5)
