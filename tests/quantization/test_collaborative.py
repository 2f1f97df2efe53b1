"""Masks, codebooks and quantization together: what one technique made, the next keeps, down to the file's integers.

TFMOT guesses masks from zeros and palettes from unique values; of its defects, each has a test here that shows that
keras-mot does not have it.
"""

import itertools
import warnings

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_mot
from keras_mot.analysis import tensor_stats
from keras_mot.clustering import ClusteringConfig, DifferentiableKMeans, cluster_weights, strip_clustering
from keras_mot.export import LiteRTRunner, export_litert
from keras_mot.layers import attach, transformed_weights, update_step
from keras_mot.quantization import (
    INT4_WEIGHTS,
    INT8,
    Calibration,
    Default8BitClusterPreserveQuantizeScheme,
    Default8BitPrunePreserveQuantizeScheme,
    MinMax,
    QuantizationScheme,
    quantize_annotate_model,
    quantize_apply,
    quantize_model,
    quantize_post_training,
    strip_quantization,
)
from keras_mot.sparsity import ConstantSparsity, prune_low_magnitude, strip_pruning
from keras_mot.transforms import Codebook, FakeQuantize, Mask
from tests.quantization.test_coverage import only_tensorflow

CLUSTERS, SPARSITY = 6, 0.5
# What is kept does not depend on how ranges are found, and searching for them takes most of the time.
QUICK = {"estimator": MinMax(), "equalize": False, "correct_biases": False}
KERNELS = 8  # of `network`: the separable convolution and the GRU have two each
LABELS = np.random.default_rng(4).integers(0, 3, 24)


def images():
    return np.random.default_rng(1).normal(size=(24, 8, 8, 3)).astype("float32")


def batch_norm(inputs, sign=1.0):
    """A trained batch normalization, as it is after training on data."""
    layer, generator = layers.BatchNormalization(), np.random.default_rng(inputs.shape[-1])
    outputs = layer(inputs)
    factors = generator.uniform(0.3, 2.0, inputs.shape[-1])
    factors[0] *= sign
    layer.gamma.assign(factors)
    layer.beta.assign(generator.normal(size=factors.shape) / 10)
    layer.moving_mean.assign(generator.normal(size=factors.shape) / 10)
    layer.moving_variance.assign(generator.uniform(0.1, 3.0, factors.shape))
    return outputs


def network(sign=1.0):
    """Layers that quantization leaves, folds, splits and unrolls."""
    inputs = keras.Input((8, 8, 3))
    x = layers.ReLU()(batch_norm(layers.Conv2D(8, 3, use_bias=False, name="conv")(inputs), sign))
    x = layers.ReLU()(batch_norm(layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x), sign))
    x = layers.ReLU()(batch_norm(layers.SeparableConv2D(8, 3, name="separable")(x), sign))
    x = layers.Conv2D(8, 1, activation="relu", name="pixels")(x)  # TFMOT#979: PCQAT zeroes those of one pixel
    x = layers.Reshape((2, 64))(x)
    x = layers.GRU(6, name="gru")(x)
    return keras.Model(inputs, layers.Dense(3, activation="softmax", name="dense")(x))


def transformed(kinds, model=None, clusters=CLUSTERS):
    model = network() if model is None else model
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if "mask" in kinds:
            model = prune_low_magnitude(model, ConstantSparsity(SPARSITY, 0), include_depthwise=True)
            update_step(model, 0)
        if "codebook" in kinds:
            model = cluster_weights(model, clusters, include_depthwise=True)
    return model


def trained(model, steps=2):
    model.compile(keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy", jit_compile=False)
    model.fit(images(), LABELS, epochs=steps, batch_size=12, verbose=0)
    return model


def integers_of(model):
    """Dictionary from the paths of quantized weights to their integers."""
    found = {}
    for weight in transformed_weights(model):
        transform = weight.transform_of(FakeQuantize)
        value = ops.convert_to_numpy(weight.value_before(transform))
        found[weight.path] = transform.integers(value)[0]
    return found


def check(model, kinds, masked):
    """Asserts that in integers every masked weight is zero, and that there are few values, but not zero alone."""
    integers, zeros = integers_of(model), 0
    assert len(integers) == KERNELS
    assert min(len(np.unique(item)) for item in integers.values()) > 2
    for weight in transformed_weights(model) if "mask" in kinds else ():
        kept = np.asarray(ops.convert_to_numpy(weight.transform_of(Mask).mask), bool)
        assert not integers[weight.path][~kept].any()
        zeros += (~kept).sum()
    assert zeros == masked
    if "codebook" in kinds:
        assert max(len(np.unique(item)) for item in integers.values()) <= CLUSTERS


def masked_weights(model, kinds):
    return sum(weight.transform_of(Mask).zeros() for weight in transformed_weights(model) if "mask" in kinds)


@pytest.mark.parametrize(
    ("kinds", "function"),
    [
        (("mask",), quantize_model),
        (("codebook",), quantize_post_training),
        (("mask", "codebook"), quantize_model),
    ],
)
def test_what_was_made_is_kept(kinds, function, tmp_path):
    """PQAT, CQAT, PCQAT, and the same after training: through training, saving, loading and stripping."""
    given = transformed(kinds)
    masked = masked_weights(given, kinds)
    expected = keras_mot.layers.strip(keras_mot.layers.copy_model(given)).predict(images(), verbose=0)
    quantized = function(given, calibration_data=images(), **QUICK)
    np.testing.assert_allclose(quantized.predict(images(), verbose=0), expected, atol=0.05)
    check(quantized, kinds, masked)
    trained(quantized, 1)
    check(quantized, kinds, masked)
    quantized.save(tmp_path / "middle.keras")
    loaded = keras.models.load_model(tmp_path / "middle.keras")
    loaded.fit(images(), LABELS, verbose=0)  # TFMOT forgets PQAT here, and the zeros drift
    check(loaded, kinds, masked)
    plain = strip_quantization(loaded)
    zeros = sum((ops.convert_to_numpy(item) == 0).sum() for item in plain.weights if len(item.shape) > 1)
    assert zeros >= masked


@only_tensorflow
@pytest.mark.parametrize(
    ("kinds", "function", "scheme"),
    [
        (("mask",), quantize_model, INT8),
        (("codebook",), quantize_model, INT4_WEIGHTS),
        (("mask", "codebook"), quantize_model, INT8),
        (("mask",), quantize_post_training, INT8),
        (("mask", "codebook"), quantize_post_training, INT8),
    ],
)
def test_the_integer_file_keeps_it(kinds, function, scheme, tmp_path):
    """TFMOT's files have up to 69 values where the model has 16, for each channel has a scale of its own."""
    given = transformed(kinds)
    quantized = function(given, scheme, calibration_data=images(), **QUICK)
    if function is quantize_model:
        trained(quantized, 1)
    check(quantized, kinds, masked_weights(given, kinds))
    export_litert(quantized, tmp_path / "model.tflite", verification_data=images()[:4])
    kernels = [item for item in tensor_stats(tmp_path / "model.tflite") if item.dtype in ("int8", "int4")]
    kernels = [item for item in kernels if len(item.shape) > 1]
    # The file has these integers: tensor by tensor as many zeros.
    zeros = sorted(int((item == 0).sum()) for item in integers_of(quantized).values())
    assert sorted(item.zeros for item in kernels) == zeros
    if "codebook" in kinds:
        assert max(item.unique_values for item in kernels) <= CLUSTERS
    (received,) = LiteRTRunner(tmp_path / "model.tflite").run(images()).values()
    np.testing.assert_allclose(received, quantized.predict(images(), verbose=0), atol=3 / 256)


def test_state_is_carried_and_not_guessed():
    """A weight that is zero by chance is no masked one, and may change."""
    dense = layers.Dense(2, use_bias=False)
    model = keras.Sequential([keras.Input((3,)), dense])
    dense.kernel.assign([[0.0, 2.0], [1.0, 0.5], [3.0, 0.25]])
    mask = Mask(name="kernel_mask")
    attach(dense, {"kernel": [mask]})
    mask.assign([[1, 1], [0, 1], [1, 0]])
    (weight,) = transformed_weights(quantize_model(model, calibration_data=np.eye(3, dtype="float32")))
    np.testing.assert_array_equal(ops.convert_to_numpy(weight.transform_of(Mask).mask), [[1, 1], [0, 1], [1, 0]])


def test_batch_norm_is_a_factor_of_scales():
    """Kernels keep the size that they were trained with, which is what optimizers want."""
    model = network()
    kernel = ops.convert_to_numpy(model.get_layer("conv").kernel)
    quantized = quantize_model(model, calibration_data=images(), batch_norm_steps=0)
    (weight,) = transformed_weights(quantized.get_layer("conv"))
    np.testing.assert_allclose(ops.convert_to_numpy(weight.variable), kernel, rtol=1e-5)
    transform = weight.transform_of(FakeQuantize)
    factors = transform.factors_of()
    assert factors.shape == (1, 1, 1, 8)
    assert np.ptp(factors) > 0.1
    integers, scale = transform.integers(kernel)
    np.testing.assert_allclose(integers * scale, ops.convert_to_numpy(weight.frozen_value()), rtol=1e-6)
    np.testing.assert_allclose(integers * scale / factors, kernel, atol=np.abs(kernel).max() / 127)


def test_weights_without_masks_get_none():
    """A weight whose value is like a label, in a layer that was left alone."""
    model = keras.Sequential([keras.Input((3,)), layers.Dense(4, name="pruned"), layers.Dense(2, name="plain")])
    kernel = np.full((4, 2), 0.5, "float32")
    kernel[1, 1] = 2.3125
    model.get_layer("plain").kernel.assign(kernel)
    pruned = prune_low_magnitude(model, ConstantSparsity(0.5, 0), overrides={"plain": None})
    update_step(pruned, 0)
    quantized = quantize_model(pruned, calibration_data=np.eye(3, dtype="float32"))
    masked = [weight.path for weight in transformed_weights(quantized) if weight.transform_of(Mask)]
    assert len(masked) == 1
    assert "pruned" in masked[0]


def test_channels_that_batch_norm_switches_off():
    inputs = keras.Input((4, 4, 2))
    normalization = layers.BatchNormalization()
    model = keras.Model(inputs, layers.ReLU()(normalization(layers.Conv2D(3, 1, use_bias=False, name="conv")(inputs))))
    normalization.gamma.assign([1.0, 0.0, 2.0])
    normalization.beta.assign([0.0, 0.5, 0.1])
    x = np.random.default_rng(0).normal(size=(8, 4, 4, 2)).astype("float32")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.filterwarnings("ignore", message=".*whose weights are clustered")
        clustered = cluster_weights(model, 3)
        quantized = quantize_model(clustered, calibration_data=Calibration(x, estimator=MinMax()))
    outputs = quantized.predict(x, verbose=0)
    np.testing.assert_allclose(outputs[..., 1], 0.5, atol=0.02)
    np.testing.assert_allclose(outputs, keras_mot.layers.strip(clustered).predict(x, verbose=0), atol=0.05)
    assert len(np.unique(next(iter(integers_of(quantized).values()))[..., [0, 2]])) <= 3


def test_masks_and_codebooks_of_different_hosts():
    """The mask belongs to the configuration of the dense layer, and the codebook comes through the layer around it."""
    dense = layers.Dense(4, name="dense")
    dense.build((None, 3))
    dense = prune_low_magnitude(dense, ConstantSparsity(0.5, 0))
    model = keras.Sequential([keras.Input((5, 3)), layers.TimeDistributed(dense)])
    update_step(model, 0)
    clustered = cluster_weights(model, 3)
    x = np.random.default_rng(0).normal(size=(2, 5, 3)).astype("float32")
    expected = x @ ops.convert_to_numpy(transformed_weights(clustered)[0].effective_value())
    np.testing.assert_allclose(clustered.predict(x, verbose=0), expected, atol=1e-5)
    assert len(np.unique(expected)) > 1
    copied = keras_mot.layers.copy_model(clustered)
    np.testing.assert_allclose(copied.predict(x, verbose=0), expected, atol=1e-5)


@pytest.mark.parametrize(("values", "integers"), [([-1.0, 0.0, 0.002, 1.0], 3), ([-1.0, 0.0, 0.02, 1.0], 4)])
def test_values_that_become_one_integer(values, integers):
    """What one scale for a whole weight costs, where it costs something."""
    dense = layers.Dense(4, use_bias=False, name="dense")
    model = keras.Sequential([keras.Input((4,)), dense])
    dense.kernel.assign(np.tile(values, (4, 1)))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        quantized = quantize_model(cluster_weights(model, 4), calibration_data=np.eye(4, dtype="float32"))
    assert len(np.unique(next(iter(integers_of(quantized).values())))) == integers
    messages = [str(item.message) for item in caught if "become the same integer" in str(item.message)]
    assert len(messages) == (integers < 4)
    assert all(f"'dense/kernel' (4 values, {integers} integers)" in message for message in messages)


def test_zeros_of_a_mask_are_no_values_that_are_lost():
    """A codebook that has the value 0 for what is pruned has the other values for the rest."""
    keras.utils.set_random_seed(2)
    x = np.random.default_rng(0).normal(size=(16, 16)).astype("float32")
    pruned = prune_low_magnitude(keras.Sequential([keras.Input((16,)), layers.Dense(8)]), ConstantSparsity(0.5, 0))
    update_step(pruned, 0)
    clustered = cluster_weights(pruned, 6)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*become the same integer")
        quantized = quantize_model(clustered, calibration_data=x)
    assert len(np.unique(next(iter(integers_of(quantized).values())))) == 6


def test_preserving_what_is_there_already():
    with pytest.raises(ValueError, match="masks and codebooks are kept in any case"):
        quantize_model(transformed(("mask",)), QuantizationScheme(preserve_sparsity=True))
    with pytest.raises(ValueError, match="belong to the scheme of the whole model"):
        quantize_model(network(), overrides={"conv": QuantizationScheme(preserve_clusters=True)})


def test_negative_factors_make_new_values():
    """No positive scale turns the signs of a channel around: the values are chosen anew, and a warning says so."""
    given = transformed(("mask", "codebook"), network(sign=-1.0))
    with pytest.warns(
        UserWarning, match="shared values of 'conv' are chosen anew: a batch normalization with negative"
    ):
        quantized = quantize_model(given, calibration_data=images())
    integers = integers_of(quantized)
    assert max(len(np.unique(item)) for item in integers.values()) <= CLUSTERS
    plain = keras_mot.layers.strip(given)
    close = np.abs(quantized.predict(images(), verbose=0) - plain.predict(images(), verbose=0))
    assert close.max() < 0.2


def test_values_of_channels():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        given = cluster_weights(
            network(), 3, cluster_per_channel=True, overrides={"depthwise": None, "separable": None, "gru": None}
        )
    quantized = trained(quantize_model(given, calibration_data=images(), **QUICK), 1)
    integers = integers_of(quantized)
    kernel = next(item for path, item in integers.items() if "conv" in path and item.shape == (3, 3, 3, 8))
    assert max(len(np.unique(channel)) for channel in kernel.reshape(-1, 8).T) <= 3
    assert len(np.unique(kernel)) > 3


def test_soft_codebooks_become_hard_ones():
    model = keras.Sequential([keras.Input((12,)), layers.Dense(8), layers.Dense(3)])
    soft = cluster_weights(model, ClusteringConfig(4, method=DifferentiableKMeans()))
    quantized = quantize_model(soft, calibration_data=np.ones((4, 12), "float32"))
    weights = transformed_weights(quantized)
    assert all(type(weight.transform_of(Codebook)) is Codebook for weight in weights)
    expected = strip_clustering(soft).layers[0].kernel
    frozen = ops.convert_to_numpy(weights[0].frozen_value())
    np.testing.assert_allclose(frozen, ops.convert_to_numpy(expected), atol=np.abs(frozen).max() / 200)


def test_layers_in_floats_keep_masks_too():
    given = transformed(("mask",))
    quantized = trained(quantize_model(given, calibration_data=images(), overrides={"gru": None}, **QUICK), 1)
    weights = transformed_weights(quantized.get_layer("gru"))
    assert len(weights) == 2
    for weight in weights:
        assert not weight.transform_of(FakeQuantize)
        value = ops.convert_to_numpy(weight.frozen_value())
        assert (value == 0).sum() == weight.transform_of(Mask).zeros() == round(value.size * SPARSITY)


def test_one_layer_without_zeros_changes_nothing_for_the_others():
    """In TFMOT's PCQAT one dense layer switches sparsity off for all later ones."""
    model = network()
    given = prune_low_magnitude(model, ConstantSparsity(SPARSITY, 0), overrides={"conv": None}, include_depthwise=True)
    update_step(given, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        stripped = strip_clustering(cluster_weights(given, CLUSTERS, include_depthwise=True))
    scheme = Default8BitClusterPreserveQuantizeScheme(preserve_sparsity=True)
    quantized = trained(quantize_apply(quantize_annotate_model(stripped), scheme, calibration_data=images()), 1)
    integers = integers_of(quantized)
    kept = [path for path, item in integers.items() if (item == 0).mean() > SPARSITY - 0.06]
    assert len(kept) == len(integers) - 1
    assert max(len(np.unique(item)) for item in integers.values()) <= CLUSTERS


def test_read_off_a_stripped_model():
    """TFMOT's names, for models that lost their masks and codebooks when they were stripped."""
    pruned = strip_pruning(transformed(("mask",)))
    kernels = [item for item in pruned.weights if len(item.shape) > 1 and "bias" not in item.path]
    zeros = sum((ops.convert_to_numpy(item) == 0).sum() for item in kernels)
    for scheme in (Default8BitPrunePreserveQuantizeScheme(), INT8):
        quantized = trained(quantize_model(pruned, scheme, calibration_data=images(), **QUICK), 4)
        left = sum((item == 0).sum() for item in integers_of(quantized).values())
        assert (left >= zeros) == scheme.preserve_sparsity
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        channels = cluster_weights(
            pruned, 3, cluster_per_channel=True, overrides={"depthwise": None, "separable": None}
        )
    scheme = QuantizationScheme(preserve_clusters=True, preserve_sparsity=True)
    quantized = quantize_post_training(strip_clustering(channels), scheme, images())
    (weight,) = transformed_weights(quantized.get_layer("dense"))
    assert weight.transform_of(Codebook).per_channel or weight.transform_of(Codebook).number_of_clusters <= 9
    combine = keras_mot.experimental.combine
    assert combine.Default8BitPrunePreserveQuantizeScheme().preserve_sparsity


@pytest.mark.parametrize(
    ("scheme", "message"),
    [
        (QuantizationScheme(preserve_sparsity=True), "no weight of 'functional.*' has a zero"),
        (QuantizationScheme(preserve_clusters=True), "no weight of 'functional.*' has shared values"),
    ],
)
def test_nothing_to_read_off(scheme, message):
    inputs = keras.Input((40,))
    model = keras.Model(inputs, layers.Dense(40)(inputs), name="functional")
    model.layers[1].kernel.assign(np.random.default_rng(0).normal(size=(40, 40)))
    with pytest.warns(UserWarning, match=message):
        quantize_model(model, scheme)


MAKERS = {
    "mask": lambda: Mask(name="kernel_mask"),
    "codebook": lambda: Codebook(4, preserve_zeros=True, name="kernel_codebook"),
    "quantization": lambda: FakeQuantize(per_channel=False, name="kernel_quantize"),
}
ORDERS = [order for length in (1, 2, 3) for order in itertools.permutations(MAKERS, length)]


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
def test_all_orders(order, tmp_path):
    """What may follow what is declared by each transform; legal stacks train, are saved, loaded and stripped."""
    model = keras.Sequential([keras.Input((6,)), layers.Dense(5, name="dense")])
    stack = [MAKERS[kind]() for kind in order]
    places = [list(MAKERS).index(kind) for kind in order]
    if places != sorted(places):
        with pytest.raises(ValueError, match=r"Prune (first, then cluster, then quantize|and cluster first)"):
            attach(model.layers[0], {"kernel": stack})
        assert not transformed_weights(model)
        return
    kernel = ops.convert_to_numpy(model.layers[0].kernel)
    attach(model.layers[0], {"kernel": stack})
    kept = np.abs(kernel) > np.median(np.abs(kernel))
    for transform in stack:
        if isinstance(transform, Mask):
            transform.assign(kept)
        if isinstance(transform, Codebook):
            palette = np.array([0.0, 0.3, -0.3, 0.6], "float32")
            values = kernel * kept if "mask" in order else kernel
            transform.assign(palette, np.abs(values[..., None] - palette).argmin(-1))
    model.compile("sgd", "mse", jit_compile=False)
    x = np.random.default_rng(0).normal(size=(8, 6)).astype("float32")
    model.fit(x, np.zeros((8, 5)), verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-6)
    expected = model.predict(x, verbose=0)
    plain = keras_mot.layers.strip(loaded)
    np.testing.assert_allclose(plain.predict(x, verbose=0), expected, atol=1e-6)
    stripped = ops.convert_to_numpy(plain.layers[0].kernel)
    if "mask" in order:
        assert not stripped[~kept].any()
    if "codebook" in order:
        assert len(np.unique(stripped)) <= 4
    if keras.backend.backend() == "tensorflow":
        export_litert(plain, tmp_path / "model.tflite", verification_data=x)
        (kernel,) = [item for item in tensor_stats(tmp_path / "model.tflite") if len(item.shape) > 1]
        assert kernel.unique_values == len(np.unique(stripped))
        assert kernel.zeros == (stripped == 0).sum()


def test_copies_of_stacks_keep_the_order_of_variables():
    """Masks attached to all weights of a layer, and then codebooks: a rebuilt layer has whole stacks, one by one."""
    model = keras.Sequential([keras.Input((4, 3)), layers.LSTM(5)])
    both = transformed(("mask", "codebook"), model)
    copy = keras_mot.layers.copy_model(both)
    assert [item.path for item in copy.variables] == [item.path for item in both.variables]
    for mine, theirs in zip(copy.variables, both.variables, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(mine), ops.convert_to_numpy(theirs))
