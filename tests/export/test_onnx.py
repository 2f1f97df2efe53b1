"""ONNX files: the integers of the quantized model, and what ONNX Runtime makes of them."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_mot.export.dependencies
import keras_mot.export.onnx.exporting
from keras_mot import analysis
from keras_mot._arrays import numpy_value
from keras_mot._packages import is_installed
from keras_mot.cli import main
from keras_mot.export import ExportVerificationError, OnnxRunner, OpenVINORunner, export_litert, export_onnx
from keras_mot.export.litert.litert_file import parse_model
from keras_mot.export.onnx.operators import TABLE
from keras_mot.export.onnx.translation import Translation
from keras_mot.export.onnx.windows import fused
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


def test_openvino_proves_files_too(done, tmp_path):
    pytest.importorskip("openvino", reason="the extra 'openvino'")
    quantized, exported = done
    runner = OpenVINORunner(exported.path)
    assert [(each.name, each.shape, each.dtype) for each in runner.inputs] == [("image", (None, 8, 8, 3), "float32")]
    expected = ops.convert_to_numpy(quantized(X, training=False))
    received = runner.run(X)["head"]
    assert np.mean(np.abs(received - expected) < 1.5 / 256) >= 0.98
    np.testing.assert_array_equal(runner.run({"image": X[:5]})["head"], received[:5])
    runner.set_inputs(X[:1])
    assert runner.timed_invoke() > 0
    again = export_onnx(quantized, tmp_path / "network.onnx", runtime="openvino")
    assert again.path.read_bytes() == exported.path.read_bytes()
    assert "agree" in again.verification
    assert "runtime: openvino" in str(again)
    np.testing.assert_array_equal(again.run(X), received)
    with pytest.raises(ValueError, match="OpenVINO cannot load"):
        OpenVINORunner(exported.path.read_bytes()[:400])


def test_a_second_runtime_is_optional(done, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="`runtime` must be one of onnxruntime, openvino"):
        export_onnx(done[0], tmp_path / "model.onnx", runtime="tensorrt")
    known = keras_mot.export.dependencies.is_installed
    monkeypatch.setattr(keras_mot.export.dependencies, "is_installed", lambda name: name != "openvino" and known(name))
    for call in (
        lambda: OpenVINORunner(done[1].path),
        lambda: export_onnx(done[0], tmp_path / "a.onnx", runtime="openvino"),
    ):
        with pytest.raises(ImportError, match="pip install openvino"):
            call()


def chain(*parts, shape=(6, 4)):
    return keras.Sequential([keras.Input(shape), *parts])


def encoder():
    inputs = keras.Input((6, 4))
    x = layers.MultiHeadAttention(2, 3)(inputs, inputs)
    x = layers.LayerNormalization()(layers.Add()([x, inputs]))
    return keras.Model(inputs, layers.Dense(2)(layers.Dense(5, "gelu")(x)))


def indices():
    inputs = keras.Input((6, 4))
    chosen = ops.one_hot(ops.argmax(inputs, axis=-1) - 1, 4)  # -1 is none of them
    return keras.Model(inputs, layers.Dense(2)(ops.concatenate([chosen, inputs + ops.zeros_like(inputs)], axis=-1)))


MODELS = {
    "windows with holes": lambda: chain(
        layers.Conv2D(3, 3, padding="same", dilation_rate=2),
        layers.Conv2D(2, (2, 3), dilation_rate=(1, 2)),
        shape=(7, 9, 2),
    ),
    "indices": indices,
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


@only_tensorflow
def test_two_roundings_that_follow_each_other_stay_two(tmp_path):
    """ONNX Runtime would make one of them, on a grid of its own."""
    keras.utils.set_random_seed(5)
    cut = [layers.Conv2D(6, 3, padding="same"), layers.MaxPooling2D(2), layers.ReLU(), layers.Conv2D(4, 1)]
    quantized = quantize_post_training(chain(*cut, shape=(8, 8, 3)), INT8, X, placement="integer")
    exported = export_onnx(quantized, tmp_path / "model.onnx", verify=False)
    plain = OnnxRunner(exported.path, optimized=False).run(X)
    step = quantized.layers[-1].parameters().scale
    for name, values in OnnxRunner(exported.path).run(X).items():
        assert np.mean(np.abs(values - plain[name]) < step / 2) > 0.98


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


def tables_of_images():
    """With as many rows and columns as channels, so that a wrong order of axes has a shape that fits."""
    inputs = keras.Input((4, 4, 4))
    x = layers.Conv2D(4, 3, padding="same", activation="softplus")(inputs)
    x = layers.MaxPooling2D(2, 1, padding="same")(x)
    x = layers.Activation("mish")(layers.Conv2D(4, 1)(x))
    return keras.Model(inputs, layers.Activation("selu")(layers.Conv2D(4, 3, padding="same")(x)))


@only_tensorflow
@pytest.mark.parametrize(
    "build",
    [tables_of_images, lambda: chain(layers.Dense(4, "softplus"), layers.Dense(6, "mish"), shape=(6, 4))],
    ids=["images", "sequences"],
)
def test_tables_of_functions(build, tmp_path):
    keras.utils.set_random_seed(7)
    model = build()
    x = np.random.default_rng(3).standard_normal((32, *model.input_shape[1:])).astype("float32")
    quantized = quantize_post_training(model, INT8, x, placement="integer")
    exported = export_onnx(quantized, tmp_path / "model.onnx", verify=False)
    assert len([each for each in constants(exported.path) if each.shape == (256,)]) >= 2
    expected = ops.convert_to_numpy(quantized(x, training=False))
    step = quantized.layers[-1].parameters().scale
    assert np.mean(np.abs(exported.run(x) - expected) < 1.5 * step) > 0.98


@only_tensorflow
def test_outputs_that_are_called_like_inputs(tmp_path):
    keras.utils.set_random_seed(8)
    first, second = keras.Input((6,), name="image"), keras.Input((3,), name="more")
    hidden = layers.Dense(4, "relu")(layers.Concatenate()([first, second]))
    model = keras.Model([first, second], {"image": layers.Dense(6)(hidden), "more_1": layers.Dense(2)(hidden)})
    x = [np.random.default_rng(4).standard_normal((9, size)).astype("float32") for size in (6, 3)]
    exported = export_onnx(model, tmp_path / "model.onnx", verification_data=x)
    assert exported.input_names == ("image", "more")
    assert exported.output_names == ("image_1", "more_1")
    expected, received = model(x, training=False), exported.run(x)
    assert set(received) == {"image", "more_1"}
    for name, values in received.items():
        np.testing.assert_allclose(values, ops.convert_to_numpy(expected[name]), atol=1e-5)
    by_name = OnnxRunner(exported.path).run({"more": x[1], "image": x[0]})
    np.testing.assert_array_equal(by_name["image_1"], received["image"])


@only_tensorflow
@pytest.mark.parametrize("kind", ["nearest", "bilinear"])
@pytest.mark.parametrize("size", [14, 31])
def test_images_of_another_size(kind, size, tmp_path):
    """7 times what float32 has for 31 / 7 is less than 31."""
    model = chain(layers.Resizing(size, size, interpolation=kind), shape=(7, 7, 2))
    x = np.random.default_rng(5).standard_normal((5, 7, 7, 2)).astype("float32")
    for batch_size in (None, 5):
        exported = export_onnx(model, tmp_path / "model.onnx", verification_data=x, batch_size=batch_size)
        np.testing.assert_allclose(exported.run(x), ops.convert_to_numpy(model(x)), atol=1e-5)


@only_tensorflow
def test_probabilities_next_to_nothing(tmp_path, monkeypatch):
    """What kernels make of numbers near 0 is judged by log odds, as in LiteRT files."""
    weights = {"kernel_initializer": keras.initializers.Constant(0.3)}
    model = chain(
        layers.Dense(1, "sigmoid", bias_initializer=keras.initializers.Constant(-11.5), **weights), shape=(3,)
    )
    x = np.random.default_rng(6).standard_normal((64, 3)).astype("float32")
    exported = export_onnx(model, tmp_path / "model.onnx", verification_data=x)
    assert exported.max_abs_error < 2e-7
    monkeypatch.setattr(keras_mot.export.onnx.exporting, "outputs_are_probabilities", lambda model: [False])
    with pytest.raises(ExportVerificationError, match="of its values are within"):
        export_onnx(model, tmp_path / "model.onnx", verification_data=x)


def test_constants_keep_their_scales(done, tmp_path):
    """Kernels with a scale for each channel, and biases, wherever they are read as numbers."""
    exported = export_litert(done[0], tmp_path / "network.tflite", verify=False)
    translation = Translation(parse_model(exported.path))
    kinds = set()
    for index, tensor in enumerate(translation.graph.tensors):
        found = translation.scales(index)
        if found is None or translation.constant(index) is None or translation.grid(index) is not None:
            continue
        kinds.add((translation.type_of(index), int(tensor.quantization.quantizedDimension)))
        read = translation.onnx.numpy_helper.to_array(translation.initializers[translation.read(index)])
        for channel, scale in enumerate(found[0]):
            place = (slice(None),) * tensor.quantization.quantizedDimension + (channel,)
            np.testing.assert_allclose(read[place], translation.constant(index)[place] * scale, rtol=1e-6)
    assert kinds >= {("INT8", 0), ("INT8", 3), ("INT32", 0)}


@only_tensorflow
def test_what_fails_leaves_the_file_that_is_there(tmp_path, monkeypatch):
    import onnx

    path = tmp_path / "model.onnx"
    path.write_bytes(b"older")

    def refuse(*args, **kwargs):
        raise onnx.checker.ValidationError("it does not like it")

    with pytest.raises(ExportVerificationError):
        export_onnx(network(), path, verification_data=X, tolerance=1e-12)
    monkeypatch.setattr(onnx.checker, "check_model", refuse)
    with pytest.raises(ValueError, match=r"'network' cannot be written as one ONNX file: .*does not like"):
        export_onnx(network(), path)
    monkeypatch.setitem(TABLE, "CONV_2D", lambda *args: {}[4])
    with pytest.raises(ValueError, match=r"cannot write CONV_2D, which computes '.*': KeyError: 4"):
        export_onnx(network(), path)
    assert path.read_bytes() == b"older"


def test_data_are_checked_before_anything_is_converted(tmp_path, monkeypatch):
    def convert(*args, **kwargs):
        raise AssertionError("it was converted")

    monkeypatch.setattr(keras_mot.export.onnx.exporting, "export_litert", convert)
    with pytest.raises(ValueError, match="another shape than the model's input"):
        export_onnx(network(), tmp_path / "model.onnx", verification_data=X[:, :4])


def test_other_activations_in_the_same_step_are_refused():
    with pytest.raises(ValueError, match="activation 4 of LiteRT"):
        fused(None, "value", 4, 0)


def made(kind, path):
    """A file that turns an input of a type into float32."""
    import onnx

    helper, types = onnx.helper, onnx.TensorProto
    graph = helper.make_graph(
        [helper.make_node("Cast", ["x"], ["y"], to=types.FLOAT)],
        "made",
        [helper.make_tensor_value_info("x", getattr(types, kind), ["batch", 3])],
        [helper.make_tensor_value_info("y", types.FLOAT, ["batch", 3])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.mark.parametrize(
    "kind", ["DOUBLE", "FLOAT16", "INT8", "UINT8", "INT16", "UINT16", "INT32", "UINT32", "INT64", "UINT64", "BOOL"]
)
def test_files_of_other_types(kind, tmp_path):
    path = made(kind, tmp_path / "made.onnx")
    values = np.array([[0, 1, 1], [1, 0, 0]], "int64")
    np.testing.assert_array_equal(OnnxRunner(path).run(values)["y"], values)
    row = analysis.measure(path, latency_runs=1, progress=False)["made.onnx"]
    assert row.latency_ms > 0


def test_files_of_types_that_numpy_lacks(tmp_path):
    with pytest.raises(ValueError, match=r"made\.onnx.*'x' is of type tensor\(bfloat16\)"):
        OnnxRunner(made("BFLOAT16", tmp_path / "made.onnx"))
