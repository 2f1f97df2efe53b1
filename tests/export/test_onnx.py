"""ONNX files: the integers of the quantized model, and what ONNX Runtime makes of them."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_mot.export.dependencies
from keras_mot import analysis
from keras_mot._arrays import numpy_value
from keras_mot._packages import is_installed
from keras_mot.cli import main
from keras_mot.export import OnnxRunner, export_onnx
from keras_mot.layers import transformed_weights
from keras_mot.layers.activation_quantizer import activation_quantizers
from keras_mot.quantization import INT8, INT16X8, quantize_post_training
from keras_mot.transforms import FakeQuantize
from tests.quantization.test_coverage import only_tensorflow

pytestmark = pytest.mark.skipif(
    not (is_installed("onnx") and is_installed("onnxruntime")), reason="needs the extra 'onnx' (onnx, onnxruntime)"
)
X = np.random.default_rng(0).standard_normal((64, 8, 8, 3)).astype("float32")


def network():
    keras.utils.set_random_seed(3)
    inputs = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(6, 3, padding="same", strides=2, activation="relu", name="conv")(inputs)
    x = layers.Add(name="sum")([x, layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)])
    x = layers.GlobalAveragePooling2D(name="mean")(x)
    return keras.Model(inputs, layers.Dense(5, activation="softmax", name="head")(x), name="network")


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A quantized model, and its export."""
    quantized = quantize_post_training(network(), INT8, X, placement="integer")
    return quantized, export_onnx(quantized, tmp_path_factory.mktemp("onnx") / "network.onnx")


def constants(path):
    import onnx

    return [onnx.numpy_helper.to_array(item) for item in onnx.load(path).graph.initializer]


def test_the_file_holds_the_integers_scales_and_zero_points_of_the_model(done):
    quantized, exported = done
    stored = constants(exported.path)
    for weight in transformed_weights(quantized):
        transform = weight.transform_of(FakeQuantize)
        integers, scales = transform.integers(numpy_value(weight.value_before(transform)))
        kept = [each for each in stored if each.dtype == np.int8 and each.size == integers.size]
        assert any(np.array_equal(np.sort(each, axis=None), np.sort(integers, axis=None)) for each in kept)
        assert any(each.size == scales.size and np.allclose(each.ravel(), scales.ravel(), rtol=1e-6) for each in stored)
    for quantizer in activation_quantizers(quantized):
        parameters = quantizer.parameters()
        assert any(each.shape == () and each == np.float32(parameters.scale) for each in stored if each.ndim == 0)
        assert any(each.dtype == np.uint8 and each == parameters.zero_point + 128 for each in stored if each.ndim == 0)


def test_onnx_runtime_computes_the_outputs_of_the_model(done):
    quantized, exported = done
    assert exported.batch_size is None
    expected = ops.convert_to_numpy(quantized(X, training=False))
    received = exported.run(X)
    assert np.mean(received.argmax(-1) == expected.argmax(-1)) >= 0.98
    assert np.mean(np.abs(received - expected) < 1.5 / 256) >= 0.99
    assert "agree" in exported.verification
    (alone,) = OnnxRunner(exported.path, optimized=False).run(X[:3]).values()
    assert np.abs(alone - expected[:3]).max() < 3 / 256


def test_all_convolutions_are_fused(done, tmp_path):
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(tmp_path / "optimized.onnx"), 3
    onnxruntime.InferenceSession(str(done[1].path), options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
    assert kinds.count("QLinearConv") == 2
    assert "Conv" not in kinds
    assert "Gemm" not in kinds


def chain(*parts, shape=(6, 4)):
    return keras.Sequential([keras.Input(shape), *parts])


def encoder():
    inputs = keras.Input((6, 4))
    x = layers.MultiHeadAttention(2, 3)(inputs, inputs)
    x = layers.LayerNormalization()(layers.Add()([x, inputs]))
    return keras.Model(inputs, layers.Dense(2)(layers.Dense(5, "gelu")(x)))


MODELS = {
    "convolutions of sequences": lambda: chain(layers.Conv1D(3, 2, activation="relu6"), layers.MaxPooling1D(2)),
    "the other way": lambda: chain(layers.Conv2DTranspose(3, 3, 2, "same"), layers.UpSampling2D(2), shape=(5, 5, 2)),
    "averages": lambda: chain(layers.AveragePooling2D(2, padding="same"), layers.Conv2D(3, 2), shape=(5, 5, 2)),
    "recurrent": lambda: chain(layers.GRU(3), layers.Dense(2)),
    "encoder": encoder,
    "activations": lambda: chain(layers.Dense(5), layers.LeakyReLU(), layers.Dense(3, "silu"), layers.PReLU()),
    "moves": lambda: chain(
        layers.Permute((2, 1)), layers.ZeroPadding1D(1), layers.Cropping1D((1, 0)), layers.Flatten()
    ),
}


@only_tensorflow
@pytest.mark.parametrize("quantized", [False, True], ids=["floats", "integers"])
@pytest.mark.parametrize("name", MODELS)
def test_kinds_of_layers(name, quantized, tmp_path):
    keras.utils.set_random_seed(1)
    model = MODELS[name]()
    if name == "recurrent" and not quantized:
        with pytest.raises(ValueError, match=r"no translation of WHILE \(for"):
            export_onnx(model, tmp_path / "model.onnx")
        assert not (tmp_path / "model.onnx").exists()
        return
    x = np.random.default_rng(2).standard_normal((32, *model.input_shape[1:])).astype("float32")
    if quantized and not model.weights:
        pytest.skip("nothing to quantize")
    if quantized:
        model = keras.Sequential([keras.Input(model.input_shape[1:]), layers.Dense(model.input_shape[-1]), model])
        model = quantize_post_training(model, INT8, x, placement="integer")
    exported = export_onnx(model, tmp_path / "model.onnx", verification_data=x)
    expected = ops.convert_to_numpy(model(x, training=False))
    error = np.abs(exported.run(x) - expected)
    largest = np.abs(expected).max()
    assert np.mean(error <= (0.03 if quantized else 1e-4) * largest) > 0.98


@only_tensorflow
def test_activations_of_16_bits(tmp_path):
    quantized = quantize_post_training(network(), INT16X8, X)
    exported = export_onnx(quantized, tmp_path / "model.onnx", verification_data=X)
    expected = ops.convert_to_numpy(quantized(X, training=False))
    np.testing.assert_allclose(exported.run(X), expected, atol=1e-3)


def test_files_are_measured_and_inspected(done, capsys):
    _, exported = done
    report = analysis.measure(exported.path, latency_runs=2, progress=False)
    row = report[exported.path.name]
    assert row.kind == "onnx"
    assert row.bytes == exported.bytes
    assert row.latency_ms > 0
    assert sum(tensor.size for tensor in row.tensors if tensor.dtype == "int8") == 3 * 9 * 6 + 9 * 6 + 6 * 5
    assert main(["inspect", str(exported.path)]) == 0
    assert "int8" in capsys.readouterr().out


def test_damaged_files_are_refused(done, tmp_path):
    path = tmp_path / "damaged.onnx"
    path.write_bytes(done[1].path.read_bytes()[:400])
    with pytest.raises(ValueError, match=r"damaged\.onnx"):
        OnnxRunner(path)
    with pytest.raises(ValueError, match=r"damaged\.onnx"):
        analysis.measure(path, latency_runs=0, progress=False)


def test_inputs_are_checked(done):
    runner = OnnxRunner(done[1].path)
    with pytest.raises(ValueError, match="has another shape"):
        runner.run(X[:, :4])
    with pytest.raises(ValueError, match="takes 1 input"):
        runner.run([X, X])
    with pytest.raises(ValueError, match="`num_threads`"):
        OnnxRunner(done[1].path, num_threads=0)


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    known = keras_mot.export.dependencies.is_installed
    monkeypatch.setattr(keras_mot.export.dependencies, "is_installed", lambda name: name != "onnx" and known(name))
    with pytest.raises(ImportError, match="pip install onnx"):
        export_onnx(network(), tmp_path / "model.onnx")
    with pytest.raises(ValueError, match="a LiteRT file"):
        export_onnx(network(), tmp_path / "model.tflite")


@only_tensorflow
def test_the_command_line(done, tmp_path, capsys):
    quantized, exported = done
    saved, path = tmp_path / "quantized.keras", tmp_path / "written.onnx"
    quantized.save(saved)
    assert main(["export", str(saved), "-o", str(path), "--input-type", "int8"]) == 2
    assert "`--input-type` is for `.tflite` files" in capsys.readouterr().err
    assert main(["export", str(saved), "-o", str(path)]) == 0
    np.testing.assert_array_equal(OnnxRunner(path).run(X)["head"], exported.run(X))
