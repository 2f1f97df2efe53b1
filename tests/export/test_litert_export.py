"""Exports that succeed: what the runtime computes from the file is what the Keras model computes."""

import export_custom_layers
import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from export_helpers import zero_smallest

import keras_mot
from keras_mot.export import LiteRTRunner, export_litert
from keras_mot.quantization import FLOAT16

only_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="the conversion is the same on every backend"
)


def run_signature(path, **inputs):
    """Runs a file through the runtime's own interface."""
    return Interpreter(model_path=str(path)).get_signature_runner()(**inputs)


def call(model, inputs):
    outputs = model(inputs, training=False)
    return keras.tree.map_structure(keras.ops.convert_to_numpy, outputs)


def test_file_computes_what_the_model_computes(two_inputs, two_input_data):
    received = run_signature(two_inputs.result.path, **two_input_data)
    expected = call(two_inputs.model, two_input_data)
    assert set(received) == {"value", "probability"}
    for name in expected:
        np.testing.assert_allclose(received[name], expected[name], atol=1e-5)


def test_result_states_what_was_written(two_inputs):
    result = two_inputs.result
    assert result.bytes == result.path.stat().st_size
    assert result.weights == "float32"
    assert result.sparse_encoding is True
    assert result.batch_size is None
    assert 0 <= result.max_abs_error < 1e-5
    assert result.engine.startswith("tensorflow")
    assert set(result.input_names) == {"features", "ids"}
    assert str(result.bytes // 1000) in str(result)
    assert "sparse encoding: yes" in str(result)
    assert [path.name for path in result.path.parent.iterdir()] == ["model.tflite"]


def test_custom_layer_and_recurrent_layer(tmp_path):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((7, 3)), export_custom_layers.Doubling(), keras.layers.GRU(4), keras.layers.Dense(2)]
    )
    result = export_litert(model, tmp_path / "gru.tflite")
    assert result.batch_size == 1
    assert "recurrent layers usually do not take, fails: The model uses TensorList" in result.batch_reason
    x = np.random.default_rng(0).standard_normal((1, 7, 3)).astype("float32")
    received = run_signature(result.path, **{result.input_names[0]: x})[result.output_names[0]]
    np.testing.assert_allclose(received, call(model, x), atol=1e-5)


@only_tensorflow
@pytest.mark.parametrize(
    "layer",
    [
        keras.layers.LSTM(3),
        keras.layers.SimpleRNN(3),
        keras.layers.Bidirectional(keras.layers.LSTM(3, return_sequences=True)),
    ],
    ids=lambda layer: layer.name,
)
def test_recurrent_layers_run_with_batch_one(layer, tmp_path):
    model = keras.Sequential([keras.Input((5, 4)), layer])
    result = export_litert(model, tmp_path / "model.tflite")
    x = np.random.default_rng(0).standard_normal((1, 5, 4)).astype("float32")
    received = run_signature(result.path, **{result.input_names[0]: x})[result.output_names[0]]
    np.testing.assert_allclose(received, call(model, x), atol=1e-5)


@only_tensorflow
def test_open_batch_dimension_takes_any_batch(small_model, tmp_path):
    result = export_litert(small_model, tmp_path / "model.tflite")
    x = np.ones((9, 6), "float32")
    received = run_signature(result.path, **{result.input_names[0]: x})[result.output_names[0]]
    assert received.shape == (9, 2)


@only_tensorflow
def test_batch_size_is_kept(small_model, tmp_path):
    result = export_litert(small_model, tmp_path / "model.tflite", batch_size=4)
    assert result.batch_size == 4
    details = Interpreter(model_path=str(result.path)).get_input_details()
    assert details[0]["shape_signature"].tolist() == [4, 6]


@only_tensorflow
def test_model_with_its_own_batch_size(tmp_path):
    model = keras.Sequential([keras.Input(batch_shape=(2, 6)), keras.layers.Dense(3)])
    result = export_litert(model, tmp_path / "model.tflite")
    assert (result.batch_size, result.batch_reason) == (2, "the model prescribes it")
    with pytest.raises(ValueError, match="prescribes a batch size of 2"):
        export_litert(model, tmp_path / "other.tflite", batch_size=3)


@only_tensorflow
def test_float16_weights_halve_the_file(tmp_path):
    model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(256), keras.layers.Dense(10)])
    full = export_litert(model, tmp_path / "full.tflite")
    half = export_litert(model, tmp_path / "half.tflite", weights=FLOAT16)
    count = 64 * 256 + 256 + 256 * 10 + 10
    assert full.bytes - half.bytes == pytest.approx(2 * count, rel=0.05)
    assert 0 < half.max_abs_error < 2e-2


@only_tensorflow
def test_int8_weights_quarter_the_file(tmp_path):
    """Dynamic range quantization: no data, float activations."""
    model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(256, activation="relu"), keras.layers.Dense(3)])
    whole = export_litert(model, tmp_path / "whole.tflite")
    small = export_litert(model, tmp_path / "small.tflite", weights="int8")
    assert small.bytes < 0.36 * whole.bytes
    assert small.weights == "int8"
    assert 0 < small.max_abs_error < 0.1
    assert LiteRTRunner(small.path).inputs[0].dtype == "float32"
    with pytest.raises(ValueError, match="is for float weights"):
        export_litert(model, tmp_path / "sparse.tflite", weights="int8", sparse_encoding=True)


@only_tensorflow
@pytest.mark.parametrize("weights", ["float32", "float16"])
def test_sparse_encoding_makes_the_file_smaller(weights, tmp_path):
    model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(256), keras.layers.Dense(10)])
    zero_smallest(model, 0.9)
    dense = export_litert(model, tmp_path / "a.tflite", weights=weights, sparse_encoding=False)
    sparse = export_litert(model, tmp_path / "b.tflite", weights=weights)
    insisted = export_litert(model, tmp_path / "c.tflite", weights=weights, sparse_encoding=True)
    assert sparse.sparse_encoding
    assert not dense.sparse_encoding
    assert sparse.bytes == insisted.bytes < 0.45 * dense.bytes
    x = np.random.default_rng(0).standard_normal((3, 64)).astype("float32")
    outputs = [run_signature(r.path, **{r.input_names[0]: x})[r.output_names[0]] for r in (dense, sparse)]
    np.testing.assert_allclose(*outputs, atol=1e-5)


@only_tensorflow
def test_dense_model_is_not_encoded_sparsely(small_model, tmp_path):
    result = export_litert(small_model, tmp_path / "model.tflite")
    assert not result.sparse_encoding
    assert result.sparse_reason == "no weight has enough zeros"


@only_tensorflow
def test_batch_normalization_is_folded(tmp_path):
    model = keras.Sequential(
        [keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3, use_bias=False), keras.layers.BatchNormalization()]
    )
    result = export_litert(model, tmp_path / "model.tflite")
    names = {operator["op_name"] for operator in Interpreter(model_path=str(result.path))._get_ops_details()}
    assert names - {"DELEGATE"} == {"CONV_2D"}


@only_tensorflow
def test_mixed_precision_model_is_exported_in_full_precision(tmp_path):
    layers = [keras.layers.Dense(8, activation="relu", dtype="mixed_float16"), keras.layers.Dense(3)]
    model = keras.Sequential([keras.Input((6,)), *layers])
    result = export_litert(model, tmp_path / "model.tflite")
    assert result.max_abs_error < 1e-5
    assert model.layers[0].dtype_policy.name == "mixed_float16"


@only_tensorflow
def test_list_inputs_and_outputs_keep_their_order(tmp_path):
    second, first = keras.Input((3,), name="z"), keras.Input((3,), name="a")
    difference = keras.layers.Subtract(name="difference")([second, first])
    total = keras.layers.Add(name="total")([second, first])
    model = keras.Model([second, first], [total, difference])
    result = export_litert(model, tmp_path / "model.tflite")
    assert result.input_names == ("z", "a")
    assert result.output_names == ("total", "difference")
    z, a = np.full((1, 3), 5.0, "float32"), np.full((1, 3), 2.0, "float32")
    received = run_signature(result.path, z=z, a=a)
    assert received["total"].ravel().tolist() == [7.0] * 3
    assert received["difference"].ravel().tolist() == [3.0] * 3


def attention(x):
    x = keras.layers.LayerNormalization()(x + keras.layers.MultiHeadAttention(2, 4)(x, x))
    return keras.layers.Dense(3, activation="gelu")(x)


def convolution_1d(x):
    return keras.layers.MaxPooling1D(2)(keras.layers.Conv1D(4, 3, padding="causal", dilation_rate=2)(x))


def silu(x):
    return keras.layers.Dense(3, activation="silu")(x)


def nested(x):
    inner = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4, activation="relu")])
    return keras.layers.TimeDistributed(inner)(x)


@only_tensorflow
@pytest.mark.parametrize("build", [attention, convolution_1d, silu, nested])
def test_layers_of_many_kinds(build, tmp_path):
    inputs = keras.Input((8, 6), name="x")
    model = keras.Model(inputs, build(inputs))
    result = export_litert(model, tmp_path / "model.tflite")
    x = np.random.default_rng(0).standard_normal((2, 8, 6)).astype("float32")
    received = run_signature(result.path, x=x)[result.output_names[0]]
    np.testing.assert_allclose(received, call(model, x), atol=1e-5)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.embedding = keras.layers.Embedding(10, 4)
        self.dense = keras.layers.Dense(2)

    def call(self, ids):
        return self.dense(keras.ops.mean(self.embedding(ids), axis=1))


@only_tensorflow
def test_subclassed_model_with_input_signature(tmp_path):
    model = Subclassed()
    model(np.zeros((1, 5), "int32"))
    signature = keras.InputSpec(shape=(None, 5), dtype="int32")
    result = export_litert(model, tmp_path / "model.tflite", input_signature=signature)
    ids = np.array([[1, 2, 3, 4, 5], [9, 9, 9, 9, 9]], "int32")
    received = run_signature(result.path, **{result.input_names[0]: ids})[result.output_names[0]]
    np.testing.assert_allclose(received, call(model, ids), atol=1e-6)


@only_tensorflow
def test_subclassed_model_remembers_its_input_shape(tmp_path):
    class Plain(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(2)

        def call(self, x):
            return self.dense(x)

    model = Plain()
    model(np.zeros((3, 5), "float32"))
    result = export_litert(model, tmp_path / "model.tflite")
    details = Interpreter(model_path=str(result.path)).get_input_details()
    assert details[0]["shape_signature"].tolist() == [-1, 5]


def downsampling(*head):
    """Images of any size, of which five convolutions without padding and strides of two leave the sixtieth part."""
    steps = [keras.layers.Conv2D(2, 3, strides=2) for _ in range(5)]
    return keras.Sequential([keras.Input((None, None, 3)), *steps, *head])


OPEN_SIZES = {
    "padded": lambda: keras.Sequential([keras.Input((None, None, 3)), keras.layers.Conv2D(2, 3, padding="same")]),
    "valid": lambda: keras.Sequential([keras.Input((None, None, 3)), keras.layers.Conv2D(2, 3)]),
    "downsampling": downsampling,
    "downsampling and pooling": lambda: downsampling(keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2)),
    "sequences": lambda: keras.Sequential([keras.Input((None, 3)), keras.layers.Conv1D(2, 20)]),
}


@only_tensorflow
@pytest.mark.parametrize("name", OPEN_SIZES)
def test_open_dimensions_other_than_the_batch(name, tmp_path):
    model = OPEN_SIZES[name]()
    result = export_litert(model, tmp_path / "model.tflite")
    assert 0 <= result.max_abs_error < 1e-5
    runner = LiteRTRunner(result.path)
    assert None in runner.inputs[0].shape[1:]
    for size in (70, 100):
        x = np.random.default_rng(0).standard_normal((2, *(size if n is None else n for n in model.input_shape[1:])))
        (received,) = runner.run(x.astype("float32")).values()
        np.testing.assert_allclose(received, call(model, x), atol=1e-5)
    assert keras_mot.analysis.measure({"file": result})["file"].bytes == result.bytes


@only_tensorflow
def test_no_open_size_fits(tmp_path):
    layers = [keras.layers.Conv2D(1, 1, strides=16), keras.layers.Conv2D(1, 1, strides=16), keras.layers.Conv2D(1, 4)]
    model = keras.Sequential([keras.Input((None, None, 1)), *layers])
    with pytest.raises(ValueError, match=r"leaves dimensions of its inputs open.*Pass `verification_data`"):
        export_litert(model, tmp_path / "model.tflite")
    data = np.ones((1, 1024, 1024, 1), "float32")
    assert export_litert(model, tmp_path / "model.tflite", verification_data=data).max_abs_error < 1e-5


@only_tensorflow
def test_verification_data_and_no_verification(small_model, tmp_path):
    data = np.random.default_rng(0).standard_normal((40, 6)).astype("float32")
    checked = export_litert(small_model, tmp_path / "a.tflite", verification_data=data)
    unchecked = export_litert(small_model, tmp_path / "b.tflite", verify=False)
    assert checked.max_abs_error is not None
    assert unchecked.max_abs_error is None
    assert "not verified" in str(unchecked)


@only_tensorflow
def test_nothing_is_printed(small_model, tmp_path, capfd):
    export_litert(small_model, tmp_path / "model.tflite")
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "Bidirectional"])
def test_recurrent_layers_with_dropout(kind, tmp_path):
    """They draw random numbers in inference too."""
    if keras.backend.backend() != "tensorflow":
        pytest.skip("the same conversion, in a child")
    layer = (keras.layers.GRU if kind == "GRU" else keras.layers.LSTM)(4, dropout=0.25, recurrent_dropout=0.25)
    if kind == "Bidirectional":
        layer = keras.layers.Bidirectional(layer)
    model = keras.Sequential([keras.Input((6, 3)), layer, keras.layers.Dense(2)])
    assert export_litert(model, tmp_path / "model.tflite").max_abs_error < 1e-4


@only_tensorflow
def test_a_loss_within_the_model_is_left_out(tmp_path):
    """The loops of the loss cannot be frozen by TensorFlow, and no output depends on them."""
    x, labels = keras.Input((5, 3), name="x"), keras.Input((2,), name="labels")
    outputs = export_custom_layers.AddedLoss()(labels, keras.layers.Dense(4)(x))
    result = export_litert(keras.Model([x, labels], outputs), tmp_path / "model.tflite")
    assert result.max_abs_error < 1e-4
    assert set(result.input_names) == {"x", "labels"}


@only_tensorflow
@pytest.mark.parametrize("padding", ["valid", "same"])
def test_pooling_of_volumes(padding, tmp_path):
    """Its runtime has no kernel for it; two of images do the same."""
    inputs = keras.Input((5, 6, 4, 2))
    largest = keras.layers.MaxPooling3D(2, padding=padding)(inputs)
    mean = keras.layers.AveragePooling3D((3, 2, 1), (2, 2, 1), padding=padding)(inputs)
    model = keras.Model(inputs, [largest, keras.layers.Conv3D(2, 1)(mean)])
    result = export_litert(model, tmp_path / "model.tflite")
    assert result.max_abs_error < 1e-5
    assert result.batch_size is None
