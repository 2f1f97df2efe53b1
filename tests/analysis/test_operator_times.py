"""The times of single operators: which there are, what files they are measured in, and what cannot be timed."""

import keras
import numpy as np
import pytest

from keras_mot.analysis import operator_times
from keras_mot.export import LiteRTRunner, export_litert
from keras_mot.export.litert.integers.operators import named_operators
from keras_mot.export.litert.litert_file import parse_model
from keras_mot.export.litert.single_operators import kind_of, repeated, why_not_alone
from keras_mot.quantization import INT8, quantize_post_training

pytestmark = pytest.mark.backend_independent

DATA = np.random.default_rng(0).normal(size=(32, 8, 8, 4)).astype("float32")


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    convolution = {"filters": 4, "kernel_size": 3, "padding": "same", "activation": "relu"}
    return keras.Sequential(
        [
            keras.Input((8, 8, 4)),
            keras.layers.Conv2D(**convolution, name="first"),
            keras.layers.Conv2D(**convolution, name="second"),
            keras.layers.Flatten(name="flat"),
            keras.layers.Dense(3, activation="softmax", name="classes"),
        ]
    )


@pytest.fixture(scope="module")
def exports(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("times")
    quantized = quantize_post_training(model, INT8, DATA, placement="integer", progress=False)
    return {name: export_litert(each, folder / f"{name}.tflite") for name, each in (("f", model), ("i", quantized))}


@pytest.mark.parametrize(("name", "kind"), [("f", "float32"), ("i", "int8")])
def test_every_operator_has_a_time(exports, name, kind):
    rows = operator_times(exports[name], runs=2)
    assert len(rows) == len(parse_model(exports[name].path).subgraphs[0].operators)
    assert [row.layer for row in rows if row.operator == "CONV_2D"] == ["first", "second"]
    assert {row.computes for row in rows if row.operator in ("CONV_2D", "FULLY_CONNECTED")} == {kind}
    assert all(row.milliseconds > 0 and not row.reason for row in rows if row.operator != "SHAPE"), rows
    first, second = (row.milliseconds for row in rows if row.operator == "CONV_2D")
    assert first == second  # they differ in their values alone, and are timed once


def test_a_file_of_one_operator_computes_what_the_operator_does(exports):
    file = parse_model(exports["i"].path)
    graph, _, operator = next(each for each in named_operators(file) if each[1] == "FULLY_CONNECTED")
    content = repeated(file, graph, operator, 3)
    runner = LiteRTRunner(content)
    assert len(runner.inputs) == 1
    assert len(runner.outputs) == 3
    x = np.random.default_rng(1).normal(size=(1, *runner.inputs[0].shape[1:])).astype("float32")
    one, *others = runner.run(x).values()
    assert all(np.array_equal(one, other) for other in others)
    weight = [graph.tensors[index] for index in operator.inputs][1]
    kernel = np.asarray(file.buffers[weight.buffer].data).view("int8").reshape(weight.shape).astype("float32")
    scales = np.asarray(weight.quantization.scale).reshape(-1, 1)
    low, high = np.sort(runner.outputs[0].in_floats(np.array([-128, 127], "int8")))
    inputs = runner.inputs[0]
    rounded = inputs.in_floats(np.clip(np.round(x / inputs.quantization[0]) + inputs.quantization[1], -128, 127))
    assert np.abs(one - np.clip(rounded @ (kernel * scales).T, low, high)).max() <= 2 * (high - low) / 255


def test_a_file_from_elsewhere_runs_in_other_processes(exports, tmp_path):
    content = bytearray(exports["f"].path.read_bytes())
    position = content.index(b"classes")
    content[position : position + 7] = b"Classes"  # another file, which was not made here
    (tmp_path / "other.tflite").write_bytes(content)
    rows = operator_times(tmp_path / "other.tflite", runs=1)
    assert [row.operator for row in rows] == [row.operator for row in operator_times(exports["f"], runs=1)]
    assert all(row.milliseconds for row in rows if row.operator == "CONV_2D")


def test_what_cannot_run_by_itself(exports):
    file = parse_model(exports["f"].path)
    graph, _, operator = next(each for each in named_operators(file) if each[1] == "CONV_2D")
    assert not why_not_alone(graph, operator)
    known = kind_of(file, graph, operator)
    graph.tensors[operator.inputs[0]].shapeSignature = np.array([-1, -1, 8, 4])
    assert why_not_alone(graph, operator) == "its sizes are open"
    graph.tensors[operator.inputs[0]].shape = np.array([1, 4, 8, 4])
    assert kind_of(file, graph, operator) != known


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"runs": 0}, ValueError, "`runs` should be at least 1"),
        ({"num_threads": 1.5}, TypeError, "`num_threads` should be an integer"),
    ],
)
def test_bad_settings(exports, arguments, error, message):
    with pytest.raises(error, match=message):
        operator_times(exports["f"], **arguments)


def test_an_open_batch_that_is_joined_with_positions(tmp_path):
    """As attention does: files have one sample's rows, and an open size."""
    inputs = keras.Input((6, 8))
    model = keras.Model(inputs, keras.layers.MultiHeadAttention(2, 4)(inputs, inputs))
    x = np.random.default_rng(0).normal(size=(16, 6, 8)).astype("float32")
    quantized = quantize_post_training(model, INT8, x, placement="integer", progress=False)
    rows = operator_times(export_litert(quantized, tmp_path / "model.tflite", verify=False), runs=1)
    assert [row for row in rows if row.operator in ("RESHAPE", "FULLY_CONNECTED") and row.reason] == []


def test_other_files(model, tmp_path):
    model.save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match="is a saved Keras model"):
        operator_times(tmp_path / "model.keras")
    with pytest.raises(ValueError, match="There is no file"):
        operator_times("nothing.tflite")
    (tmp_path / "model.onnx").write_bytes(bytes(64))
    with pytest.raises(ValueError, match="Not a "):
        operator_times(tmp_path / "model.onnx")
    with pytest.raises(TypeError, match="Expected the path of a"):
        operator_times(model)
