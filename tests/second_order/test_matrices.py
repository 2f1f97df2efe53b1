"""Kernels as matrices: what a layer computes is the product of its inputs' rows and its kernel's matrices."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_mot.graph import register_kind
from keras_mot.layers import WeightAxes
from keras_mot.second_order import gather_moments, matrices_of, thinned
from keras_mot.sparsity import ConstantSparsity, prune_low_magnitude, strip_pruning, update_pruning_step


@keras.saving.register_keras_serializable("second_order_tests")
class Turned(layers.Layer):
    """A dense layer whose matrix lies the other way round."""

    def build(self, shape):
        self.matrix = self.add_weight(shape=(5, shape[-1]), name="matrix")

    def call(self, inputs):
        return ops.matmul(inputs, ops.transpose(self.matrix))


register_kind(Turned, layers.Dense, kernel="matrix", axes=WeightAxes(inputs=(1,), outputs=(0,)), bias=None)

IMAGE, SERIES, VOLUME = (9, 8, 6), (11, 6), (5, 6, 4, 2)
CASES = {
    "dense": (lambda: layers.Dense(5), (7,)),
    "dense on sequences": (lambda: layers.Dense(5), SERIES),
    "own": (Turned, SERIES),
    "einsum": (lambda: layers.EinsumDense("abc,cde->abde", (None, 3, 4)), SERIES),
    "einsum of two axes": (lambda: layers.EinsumDense("abcd,cde->abe", (None, 4)), IMAGE),
    "einsum with dots": (lambda: layers.EinsumDense("...c,cd->...d", (11, 4)), SERIES),
    "einsum in groups": (lambda: layers.EinsumDense("abc,bcd->abd", (11, 4)), SERIES),
    "conv1d causal": (lambda: layers.Conv1D(4, 3, padding="causal", dilation_rate=2), SERIES),
    "conv2d": (lambda: layers.Conv2D(4, 3), IMAGE),
    "conv2d same": (lambda: layers.Conv2D(4, (3, 2), strides=2, padding="same"), IMAGE),
    "conv2d dilated": (lambda: layers.Conv2D(4, 3, dilation_rate=(2, 1), padding="same"), IMAGE),
    "conv3d": (lambda: layers.Conv3D(3, 2, strides=(1, 2, 1)), VOLUME),
    "depthwise": (lambda: layers.DepthwiseConv2D(3, strides=2, padding="same"), IMAGE),
    "depthwise multiplied": (lambda: layers.DepthwiseConv1D(3, depth_multiplier=2), SERIES),
    "separable": (lambda: layers.SeparableConv2D(4, 3, depth_multiplier=2, padding="same"), IMAGE),
    "transposed": (lambda: layers.Conv2DTranspose(4, 3, strides=2, padding="same"), IMAGE),
    "transposed valid": (lambda: layers.Conv2DTranspose(4, (2, 3), strides=(3, 2)), IMAGE),
    "transposed 1d": (lambda: layers.Conv1DTranspose(4, 4, strides=2, padding="same"), SERIES),
}
# Grouped convolutions of three axes and the like are not computed by every backend on CPUs.
if keras.backend.backend() != "tensorflow":
    CASES["conv2d in groups"] = (lambda: layers.Conv2D(4, 3, groups=2, padding="same"), IMAGE)


@pytest.mark.parametrize("case", CASES)
def test_rows_times_matrices_are_the_outputs(case):
    make, shape = CASES[case]
    layer, inputs = make(), np.random.default_rng(0).normal(size=(3, *shape)).astype("float32")
    outputs = ops.convert_to_numpy(layer(inputs))
    weight = matrices_of(layer)[-1]
    matrices = weight.to_matrices(ops.convert_to_numpy(weight.variable))
    rows = weight.rows_of(inputs)
    assert (rows.shape[0], rows.shape[2], matrices.shape[2]) == weight.shape
    product = rows @ matrices  # groups, positions, columns
    expected = outputs
    if case == "einsum in groups":
        expected = np.moveaxis(outputs, 1, 0)
        product = product.reshape(expected.shape)
    elif weight.shape[0] > 1:
        product = np.moveaxis(product, 0, 1)
    np.testing.assert_allclose(product.reshape(expected.shape), expected, atol=2e-5)


@pytest.mark.parametrize("case", CASES)
def test_some_positions_are_some_of_all_rows(case):
    """The same for two models that are looked at side by side, whatever their values, and others in the next batch."""
    make, shape = CASES[case]
    layer, inputs = make(), np.random.default_rng(0).normal(size=(3, *shape)).astype("float32")
    layer(inputs)
    for weight in matrices_of(layer):
        rows = weight.rows_of(inputs)
        most = rows.shape[1] - 1
        first, second = (thinned(weight, 2, for_each=0, least=2 * most) for _ in range(2))
        picked = [
            np.sort(np.random.default_rng([batch, most + 1]).choice(most + 1, most, replace=False)) for batch in (0, 1)
        ]
        for chosen in picked:
            np.testing.assert_array_equal(first.rows_of(inputs), rows[:, chosen])
            np.testing.assert_allclose(second.rows_of(2 * inputs), 2 * rows[:, chosen], rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(thinned(weight, 2).rows_of(inputs), rows)  # so few are all needed


def test_a_depthwise_kernel_needs_fewer_rows():
    """65,536 for each channel would say no more of nine numbers."""
    layer, inputs = layers.DepthwiseConv1D(3), np.zeros((1, 20_000, 2), "float32")
    layer(inputs)
    assert thinned(matrices_of(layer)[0], 1).rows_of(inputs).shape == (2, 16_384, 3)
    whole = layers.Conv1D(2, 3)
    whole(inputs)
    assert thinned(matrices_of(whole)[0], 1).rows_of(inputs).shape == (1, 19_998, 6)


@pytest.mark.parametrize("case", CASES)
def test_matrices_go_back_into_the_kernel(case):
    make, shape = CASES[case]
    layer = make()
    layer.build((None, *shape))
    for weight in matrices_of(layer):
        kernel = np.random.default_rng(0).normal(size=weight.variable.shape)
        back = weight.from_matrices(weight.to_matrices(kernel), np.zeros_like(kernel))
        np.testing.assert_array_equal(back, kernel)


def test_scales_of_channels_broadcast():
    layer = layers.Conv2D(4, 3, groups=2)
    layer.build((None, *IMAGE))
    (weight,) = matrices_of(layer)
    scales = weight.to_matrices(np.arange(4.0).reshape(1, 1, 1, 4))
    np.testing.assert_array_equal(scales[:, 0], [[0, 1], [2, 3]])


CELLS = {
    "simple": lambda: layers.SimpleRNN(4, return_sequences=True),
    "lstm": lambda: layers.LSTM(4),
    "gru": lambda: layers.GRU(4),
    "gru, reset before": lambda: layers.GRU(4, reset_after=False, return_sequences=True),
    "stacked": lambda: layers.RNN([layers.LSTMCell(4), layers.GRUCell(3)]),
    "both ways": lambda: layers.Bidirectional(layers.SimpleRNN(4)),
    "convolutions": lambda: layers.ConvLSTM1D(2, 3, padding="same"),
}


@pytest.mark.parametrize("case", CELLS)
def test_the_inputs_of_cells_are_seen(case):
    shape = (2, 6, 3) if case == "convolutions" else (2, 3)
    model = keras.Sequential([keras.Input(shape), CELLS[case](), layers.Flatten(), layers.Dense(2)])
    inputs = np.random.default_rng(0).normal(size=(5, *shape)).astype("float32")
    weights = [each for layer in model._flatten_layers() for each in matrices_of(layer)]
    assert len(weights) == {"stacked": 5, "both ways": 5, "gru, reset before": 4}.get(case, 3)
    moments = gather_moments(model, weights, [inputs[:2], inputs[2:]])
    for weight, seen in zip(weights, moments, strict=True):
        # Keras calls stacked cells once more, on the first timestep.
        steps = {"stacked": 3, "convolutions": 2 * 6}.get(case, 2)
        assert seen.count == 5 * (1 if weight.layer is model.layers[-1] else steps)
        assert np.all(np.linalg.eigvalsh(seen.second) > -1e-5)
    if case in ("convolutions", "stacked"):
        return
    flat = inputs.reshape(-1, 3)
    np.testing.assert_allclose(moments[0].second[0], flat.T @ flat, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("case", ["simple", "gru, reset before"])
def test_states_are_those_of_the_cell(case):
    layer = CELLS[case]()
    inputs = np.random.default_rng(0).normal(size=(5, 4, 3)).astype("float32")
    outputs = ops.convert_to_numpy(layer(inputs))
    model = keras.Sequential([keras.Input((4, 3)), layer])
    weights = matrices_of(layer.cell)
    moments = gather_moments(model, weights, [inputs])
    states = outputs[:, :-1].reshape(-1, 4)  # of the first step: zeros
    np.testing.assert_allclose(moments[1].second[0], states.T @ states, rtol=1e-4, atol=1e-4)


def test_candidates_see_the_state_that_was_reset():
    cell = layers.GRUCell(4, reset_after=False, use_bias=False)
    rng = np.random.default_rng(0)
    inputs, state = rng.normal(size=(6, 3)).astype("float32"), rng.normal(size=(6, 4)).astype("float32")
    cell.build((6, 3))
    kernel, recurrent = (ops.convert_to_numpy(each) for each in (cell.kernel, cell.recurrent_kernel))
    reset = 1 / (1 + np.exp(-(inputs @ kernel[:, 4:8] + state @ recurrent[:, 4:8])))
    *_, candidate = matrices_of(cell)
    assert candidate.shape == (1, 4, 4)
    np.testing.assert_allclose(candidate.rows_of(inputs, [state])[0], reset * state, atol=1e-5)


def test_layers_without_kernels_have_none():
    assert matrices_of(layers.ReLU()) == []
    norm = layers.BatchNormalization()
    norm.build((None, 4))
    assert matrices_of(norm) == []


def test_the_pointwise_kernel_sees_what_the_masked_depthwise_one_makes():
    layer = layers.SeparableConv2D(4, 3, use_bias=False)
    model = keras.Sequential([keras.Input(IMAGE), layer])
    pruned = prune_low_magnitude(model, ConstantSparsity(0.5), include_depthwise=True)
    update_pruning_step(pruned, steps=0)
    inputs = np.random.default_rng(0).normal(size=(3, *IMAGE)).astype("float32")
    outputs = ops.convert_to_numpy(pruned(inputs))
    pointwise = matrices_of(pruned.layers[0])[1]
    masked = ops.convert_to_numpy(strip_pruning(pruned).layers[0].pointwise_kernel)
    product = pointwise.rows_of(inputs) @ pointwise.to_matrices(masked)
    np.testing.assert_allclose(product.reshape(outputs.shape), outputs, atol=2e-5)
