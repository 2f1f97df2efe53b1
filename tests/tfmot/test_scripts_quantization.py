"""Scripts in the style of TFMOT's guides and examples of quantization-aware training, alone and combined."""

import contextlib
import io

import keras
import numpy as np
import pytest
from keras import layers

import keras_mot as tfmot
from keras_mot.data.typical_samples import remembered
from keras_mot.layers import transformed_weights
from keras_mot.quantization import INT8
from keras_mot.quantization.simulation.sources import sources_of
from tests.tfmot.small import baseline, digits, kernels, only_tensorflow, results_of, trained

pytestmark = only_tensorflow  # quantization itself is tested on all backends elsewhere

quantize_annotate_layer = tfmot.quantization.keras.quantize_annotate_layer
quantize_annotate_model = tfmot.quantization.keras.quantize_annotate_model
quantize_apply = tfmot.quantization.keras.quantize_apply
quantize_model = tfmot.quantization.keras.quantize_model
combine = tfmot.experimental.combine


def converted(model, images):
    """What TensorFlow's own converter makes of a model, as scripts call it: the operators, outputs, and int8 arrays."""
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    with contextlib.redirect_stdout(io.StringIO()):
        content = converter.convert()
    interpreter = tf.lite.Interpreter(
        model_content=content, experimental_op_resolver_type=tf.lite.experimental.OpResolverType.BUILTIN_REF
    )
    interpreter.allocate_tensors()
    places = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]
    outputs = []
    for image in images:
        interpreter.set_tensor(places[0], image[None].astype(np.float32))
        interpreter.invoke()
        outputs.append(interpreter.get_tensor(places[1])[0])
    details = interpreter.get_tensor_details()
    operators = {each["op_name"] for each in interpreter._get_ops_details()}
    wide = [each for each in details if len(each["shape"]) > 1 and each["shape"][0] > 1 and each["dtype"] == np.int8]
    return operators, np.array(outputs), [interpreter.get_tensor(each["index"]) for each in wide]


def test_guide_of_a_first_model(tmp_path):
    """Quantizes a whole model, trains it, saves it in the old format, and converts it with TensorFlow's converter."""
    images, labels = digits()
    quantized = trained(quantize_model(baseline()), images, labels, epochs=2, validation_split=0.1)
    expected = results_of(quantized, images[:16])
    quantized.save(tmp_path / "model.h5")
    with tfmot.quantization.keras.quantize_scope():
        loaded = keras.models.load_model(tmp_path / "model.h5")
    np.testing.assert_allclose(results_of(loaded, images[:16]), expected, atol=1e-6)
    operators, outputs, weights = converted(loaded, images[:16])
    assert len(weights) == 2
    assert {"QUANTIZE", "CONV_2D", "FULLY_CONNECTED", "DEQUANTIZE"} <= operators
    assert np.abs(outputs - expected).max() <= 1.01 / 256


def apply_to_dense(layer):
    return quantize_annotate_layer(layer) if isinstance(layer, layers.Dense) else layer


@pytest.mark.filterwarnings("ignore:Do not pass an `input_shape`")
def test_guide_of_annotating():
    """By a clone function, by hand in a functional and in a sequential model; a prefix for names, which layers keep."""
    by_clone = quantize_apply(keras.models.clone_model(baseline(), clone_function=apply_to_dense))
    inputs = keras.Input((20,))
    outputs = layers.Flatten()(quantize_annotate_layer(layers.Dense(10, name="dense"))(inputs))
    functional = quantize_apply(keras.Model(inputs, outputs))
    annotated = keras.Sequential(
        [quantize_annotate_layer(layers.Dense(20, input_shape=(20,), name="dense")), layers.Flatten()]
    )
    with pytest.warns(UserWarning, match="'q_'` has no effect: layers keep the names"):
        sequential = quantize_apply(annotated, quantized_layer_name_prefix="q_")
    for model in (by_clone, functional, sequential):
        (weight,) = transformed_weights(model)
        assert weight.owner.name.startswith("dense")
    with pytest.warns(UserWarning, match="'my_'` has no effect"):
        named = quantize_model(baseline(), "my_")
    assert len(transformed_weights(named)) == 2


def test_schemes_by_name():
    keras_room = tfmot.quantization.keras
    assert keras_room.default_8bit.Default8BitQuantizeScheme() == INT8
    assert not keras_room.default_8bit.Default8BitQuantizeScheme(disable_per_axis=True).per_channel
    scheme = keras_room.experimental.default_n_bit.DefaultNBitQuantizeScheme(num_bits_weight=4, num_bits_activation=16)
    assert (scheme.weight_bits, scheme.activation_bits, scheme.per_channel) == (4, 16, True)
    with pytest.raises(ValueError, match=r"No integer kernel has activations of 4 bits.*`QuantizeConfig`"):
        keras_room.experimental.default_n_bit.DefaultNBitQuantizeScheme(num_bits_activation=4)


def test_fixed_ranges_at_both_ends():
    images, _ = digits(16)
    quantized = quantize_model(baseline(), calibration_data=images, equalize=False, correct_biases=False)
    fixed = tfmot.quantization.keras.fix_input_output_range(quantized, input_max=2.0, output_min=-1.0)
    ends = [each.parameters().range for each in fixed.layers if hasattr(each, "clipping_range")]
    assert ends[0] == pytest.approx((0.0, 2.0), abs=0.01)
    assert ends[-1] == pytest.approx((-1.0, 1.0), abs=0.01)
    for name, kernel in kernels(quantized).items():
        np.testing.assert_array_equal(kernels(fixed)[name], kernel)
    np.testing.assert_array_equal(remembered(fixed), remembered(quantized))
    assert sources_of(fixed) == sources_of(quantized) != {}
    with pytest.raises(ValueError, match="integers of \\[8\\] bits"):
        tfmot.quantization.keras.fix_input_output_range(quantized, num_bits=4)
    with pytest.raises(TypeError, match="expects a quantized model"):
        tfmot.quantization.keras.fix_input_output_range(baseline())


@pytest.fixture(scope="module")
def sparse():
    """A pruned and stripped model."""
    keras.utils.set_random_seed(7)
    pruned = tfmot.sparsity.keras.prune_low_magnitude(baseline(), tfmot.sparsity.keras.ConstantSparsity(0.5, 0))
    tfmot.update_step(pruned, 0)
    return tfmot.sparsity.keras.strip_pruning(pruned)


def test_guide_of_pruning_and_quantization(sparse):
    images, labels = digits()
    annotated = quantize_annotate_model(sparse)
    scheme = combine.Default8BitPrunePreserveQuantizeScheme()
    quantized = trained(quantize_apply(annotated, scheme), images, labels)
    plain = tfmot.quantization.strip_quantization(quantized)
    assert [float((kernel == 0).mean()) >= 0.5 for kernel in kernels(plain).values()] == [True, True]


@pytest.mark.parametrize("per_channel", [False, True])
def test_guide_of_clustering_and_quantization(per_channel):
    """Few values for each channel are few even where a channel has nine weights only."""
    images, labels = digits()
    clustered = tfmot.clustering.keras.cluster_weights(
        baseline(), number_of_clusters=8, cluster_per_channel=per_channel
    )
    stripped = tfmot.clustering.keras.strip_clustering(clustered)
    before = {name: len(np.unique(kernel)) for name, kernel in kernels(stripped).items()}
    scheme = combine.Default8BitClusterPreserveQuantizeScheme()
    quantized = trained(quantize_apply(quantize_annotate_model(stripped), scheme), images, labels)
    visible = combine.strip_clustering_cqat(quantized)
    assert {name: len(np.unique(kernel)) for name, kernel in kernels(visible).items()} == before
    np.testing.assert_allclose(results_of(visible, images), results_of(quantized, images), atol=1e-6)


def test_guide_of_all_three(sparse):
    """Zeros and shared values are kept, and are in the converted file."""
    images, labels = digits()
    clustered = tfmot.clustering.keras.cluster_weights(sparse, 8, preserve_sparsity=True)
    stripped = tfmot.clustering.keras.strip_clustering(clustered)
    scheme = combine.Default8BitClusterPreserveQuantizeScheme(preserve_sparsity=True)
    quantized = trained(quantize_apply(quantize_annotate_model(stripped), scheme), images, labels)
    operators, outputs, weights = converted(combine.strip_clustering_cqat(quantized), images[:8])
    assert "GATHER" not in operators
    assert [float((weight == 0).mean()) >= 0.5 for weight in weights] == [True, True]
    assert np.abs(outputs - results_of(quantized, images[:8])).max() < 0.02


def test_schemes_that_find_nothing_to_keep():
    """A scheme that keeps clusters, on a dense model: it is trained as any other, and this is said."""
    with pytest.warns(UserWarning, match="no weight of .* has shared values: it is trained as without"):
        quantized = quantize_apply(
            quantize_annotate_model(baseline()), combine.Default8BitClusterPreserveQuantizeScheme()
        )
    assert len(transformed_weights(quantized)) == 2
    with pytest.raises(ValueError, match="has no shared values"):
        combine.strip_clustering_cqat(quantized)


def test_shared_values_that_are_too_many_are_named():
    inputs = keras.Input((40,))
    model = keras.Model(inputs, layers.Dense(40, name="wide")(inputs))
    values = np.linspace(-1, 1, 300)
    model.layers[1].kernel.assign(np.resize(values, (40, 40)).T.copy())
    with pytest.warns(UserWarning, match=r"shared values of 'wide/kernel' \(300 different values\) are not kept"):
        quantize_model(model, combine.Default8BitClusterPreserveQuantizeScheme(preserve_sparsity=False))
