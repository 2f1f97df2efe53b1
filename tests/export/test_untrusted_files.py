"""`.tflite` files from elsewhere: whatever they hold, they end no process and raise a ValueError that names them."""

import math
import struct

import numpy as np
import pytest

import keras_mot
from keras_mot.analysis import measure, tensor_stats
from keras_mot.export import LiteRTRunner
from keras_mot.export.litert import isolation, runner
from keras_mot.export.litert.flatbuffer import verify
from keras_mot.export.litert.interpreter import LocalInterpreter
from keras_mot.export.litert.isolation import RemoteInterpreter, open_interpreter, trust
from keras_mot.export.litert.litert_file import pack_model, parse_model

pytestmark = pytest.mark.backend_independent


def sparse_tensor(graph):
    return next(tensor for tensor in graph.tensors if tensor.sparsity is not None)


def compressed_level(graph):
    return next(level for level in sparse_tensor(graph).sparsity.dimMetadata if level.format == 1)


def operator_with_weights(graph):
    return next(operator for operator in graph.operators if len(operator.inputs) == 3)


def with_quantization(graph, scale):
    tensor = next(tensor for tensor in graph.tensors if tensor.quantization is not None)
    tensor.quantization.scale = np.array([scale], np.float32)


def shorten_traversal(model, graph):
    sparse_tensor(graph).sparsity.traversalOrder = np.zeros(1, np.int32)


def drop_levels(model, graph):
    sparse_tensor(graph).sparsity.dimMetadata = None


def drop_segments(model, graph):
    compressed_level(graph).arraySegments = None


def reverse_segments(model, graph):
    values = compressed_level(graph).arraySegments.values
    compressed_level(graph).arraySegments.values = values[::-1].copy()


def raise_index(model, graph):
    values = np.array(compressed_level(graph).arrayIndices.values)
    values[0] = 255
    compressed_level(graph).arrayIndices.values = values


def change_dense_size(model, graph):
    level = next(level for level in sparse_tensor(graph).sparsity.dimMetadata if level.format == 0)
    level.denseSize = 2**31 - 1


def enlarge_shape(model, graph):
    sparse_tensor(graph).shape = np.array([2**31 - 1, 2**31 - 1], np.int32)


def enlarge_activation(model, graph):
    graph.tensors[operator_with_weights(graph).outputs[0]].shape = np.array([2**30, 64], np.int32)


def enlarge_open_shape(model, graph):
    tensor = graph.tensors[graph.inputs[0]]
    tensor.shapeSignature = np.array([-1, 2**31 - 1], np.int32)


def negative_shape(model, graph):
    graph.tensors[0].shape = np.array([-1, 3], np.int32)


def cut_buffer(model, graph):
    buffer = model.buffers[sparse_tensor(graph).buffer]
    buffer.data = buffer.data[: len(buffer.data) // 2]


def wrong_tensor(model, graph):
    operator_with_weights(graph).inputs = np.array([0, 1, 10_000], np.int32)


def wrong_code(model, graph):
    graph.operators[0].opcodeIndex = 10_000


def wrong_signature(model, graph):
    model.signatureDefs[0].outputs[0].tensorIndex = 10_000


def wrong_metadata(model, graph):
    model.metadata[0].buffer = 10_000


def no_outputs(model, graph):
    graph.outputs = np.array([10_000], np.int32)


TAMPERING = {
    shorten_traversal: "sparsity goes through the dimensions",
    drop_levels: "in 0 levels",
    drop_segments: "has 0 segments",
    reverse_segments: "segments that do not follow each other",
    raise_index: "indices outside of a dimension",
    change_dense_size: "a level of 2147483647 where its shape has",
    enlarge_shape: "would take 18,446,744,056,529,682,436 bytes",
    enlarge_activation: "would take 274,877,906,944 bytes",
    enlarge_open_shape: "would take 8,589,934,588 bytes",
    negative_shape: "negative sizes",
    cut_buffer: "are there",
    wrong_tensor: "a tensor of an operator is number 10000",
    wrong_code: "the code of an operator is number 10000",
    wrong_signature: "a tensor of a signature is number 10000",
    wrong_metadata: "the buffer of metadata is number 10000",
    no_outputs: "an input or output of the graph is number 10000",
}


@pytest.mark.parametrize("tamper", TAMPERING, ids=lambda function: function.__name__)
def test_what_a_file_says_is_checked(tamper, two_inputs, tmp_path):
    model = parse_model(two_inputs.result.path)
    tamper(model, model.subgraphs[0])
    path = tmp_path / "tampered.tflite"
    path.write_bytes(pack_model(model))
    for use in (tensor_stats, LiteRTRunner, lambda path: measure(path, progress=False)):
        with pytest.raises(ValueError, match=rf"tampered\.tflite.*{TAMPERING[tamper]}"):
            use(path)


@pytest.mark.parametrize("scale", [math.nan, math.inf, -1.0])
def test_scales_are_checked(scale, two_inputs):
    model = parse_model(two_inputs.result.path)
    with_quantization(model.subgraphs[0], scale)
    with pytest.raises(ValueError, match="a scale that is negative or not finite"):
        parse_model(pack_model(model))


def test_offsets_that_lead_out_of_the_file_are_found(two_inputs):
    """Each number of the tables is replaced by ones that lead before the file, behind it, or to a table of no size."""
    content = two_inputs.result.path.read_bytes()
    refused = 0
    for place in range(len(content) - 800, len(content) - 4, 4):
        for number in (0x7FFFFFFF, 0xFFFFFFFF, 0x80000000, len(content)):
            damaged = bytearray(content)
            struct.pack_into("<I", damaged, place, number)
            try:
                parse_model(bytes(damaged))
            except ValueError as error:
                assert "the given bytes" in str(error)  # noqa: PT017
                refused += 1
    assert refused > 200


def test_text_that_is_no_text(two_inputs):
    content = two_inputs.result.path.read_bytes()
    with pytest.raises(ValueError, match="is not UTF-8"):
        parse_model(content.replace(b"features", b"featur\xff\xfe"))


def test_a_small_file_of_many_tables_is_refused():
    """A vector of references to one graph, which holds a vector of references to one tensor: 4,000 x 4,000 tensors."""
    count = 4000
    model_vtable, list_vtable, empty_vtable = 8, 18, 24
    model, graphs = 28, 36
    graph = graphs + 4 + 4 * count
    tensors = graph + 8
    tensor = tensors + 4 + 4 * count

    def table(place, vtable, field=None, target=0):
        return struct.pack("<i", place - vtable) + (b"" if field is None else struct.pack("<I", target - place - 4))

    def vector(place, target):
        return struct.pack("<I", count) + b"".join(
            struct.pack("<I", target - entry) for entry in range(place + 4, place + 4 + 4 * count, 4)
        )

    content = struct.pack("<I", model) + b"TFL3"
    content += struct.pack("<HHHHH", 10, 8, 0, 0, 4)  # the model's third field, its graphs, is at 4
    content += struct.pack("<HHH", 6, 8, 4) + struct.pack("<HH", 4, 4)  # a graph's first field, its tensors, is at 4
    content += table(model, model_vtable, 2, graphs) + vector(graphs, graph)
    content += table(graph, list_vtable, 0, tensors) + vector(tensors, tensor) + table(tensor, empty_vtable)
    with pytest.raises(ValueError, match="more tables than"):
        verify(content)


def test_reading_runs_nothing(two_inputs, tmp_path, monkeypatch):
    path = elsewhere(two_inputs, tmp_path)
    expected = measure(two_inputs.result, latency_runs=0, progress=False).measurements[0]

    def refuse(*arguments):
        raise AssertionError("the file was run")

    monkeypatch.setattr(runner, "open_interpreter", refuse)
    assert measure(path, latency_runs=0, progress=False).measurements[0].tensors == expected.tensors
    assert tensor_stats(path) == expected.tensors
    assert keras_mot.analysis.sparsity(path) == expected.sparsity


def elsewhere(two_inputs, tmp_path):
    """The file, changed by a name so that this process has not exported it."""
    model = parse_model(two_inputs.result.path)
    model.description = b"from elsewhere"
    path = tmp_path / "elsewhere.tflite"
    path.write_bytes(pack_model(model))
    return path


def test_files_from_elsewhere_run_in_a_child_and_exports_do_not(two_inputs, two_input_data, tmp_path):
    own = LiteRTRunner(two_inputs.result.path)
    foreign = LiteRTRunner(elsewhere(two_inputs, tmp_path))
    assert isinstance(own._interpreter, LocalInterpreter)
    assert isinstance(foreign._interpreter, RemoteInterpreter)
    assert (foreign.inputs, foreign.outputs) == (own.inputs, own.outputs)
    expected = own.run(two_input_data)
    for name, values in foreign.run(two_input_data).items():
        np.testing.assert_array_equal(values, expected[name])
        assert values.dtype == expected[name].dtype
    foreign.set_inputs(two_input_data)
    assert 0 < foreign.timed_invoke() < 1
    with pytest.raises(ValueError, match="same number of samples"):
        foreign.run({"features": two_input_data["features"][:2], "ids": two_input_data["ids"]})


def test_inner_values_come_from_the_child_too(two_inputs, two_input_data, tmp_path):
    values = []
    for path in (two_inputs.result.path, elsewhere(two_inputs, tmp_path)):
        runner = LiteRTRunner(path, kernels="reference")
        runner.set_inputs(two_input_data)
        runner.invoke()
        values.append(runner.inner_values())
    assert values[0].keys() == values[1].keys()
    for name, expected in values[0].items():
        np.testing.assert_array_equal(values[1][name], expected)


def test_measured_in_the_child(two_inputs, tmp_path):
    subjects = {"own": two_inputs.result, "foreign": elsewhere(two_inputs, tmp_path)}
    report = measure(subjects, latency_runs=5, progress=False)
    assert 0 < report["foreign"].latency_ms < 100
    assert report["foreign"].tensors == report["own"].tensors


def test_what_ends_the_child_is_an_error(two_inputs, two_input_data, tmp_path):
    runner = LiteRTRunner(elsewhere(two_inputs, tmp_path))
    runner._interpreter._process._child.kill()
    for _ in range(2):
        with pytest.raises(ValueError, match=r"cannot run '.*elsewhere\.tflite': it ended the process that ran it"):
            runner.run(two_input_data)


@pytest.mark.parametrize("missing", [1, 2, 3])
def test_operators_without_their_inputs_end_no_process(missing, two_inputs, two_input_data, tmp_path):
    """What the runtime makes of them depends on what lies in memory behind the list of inputs: often its end."""
    model = parse_model(elsewhere(two_inputs, tmp_path))
    for operator in model.subgraphs[0].operators:
        operator.inputs = operator.inputs[: max(0, len(operator.inputs) - missing)]
    path = tmp_path / "without_inputs.tflite"
    path.write_bytes(pack_model(model))
    with pytest.raises(ValueError, match=r"without_inputs\.tflite"):
        LiteRTRunner(path).run(two_input_data)


def test_files_that_take_too_long(two_inputs, tmp_path, monkeypatch):
    path = elsewhere(two_inputs, tmp_path)
    monkeypatch.setenv("KERAS_MOT_RUN_SECONDS", "0.001")
    with pytest.raises(ValueError, match=r"takes more than 0\.001 seconds for a sample. Set KERAS_MOT_RUN_SECONDS"):
        LiteRTRunner(path)
    monkeypatch.setenv("KERAS_MOT_RUN_SECONDS", "soon")
    with pytest.raises(ValueError, match="KERAS_MOT_RUN_SECONDS should be a number of seconds"):
        LiteRTRunner(path)


def test_trust_goes_by_content(two_inputs, tmp_path, monkeypatch):
    monkeypatch.setattr(isolation, "_trusted", set())
    content = two_inputs.result.path.read_bytes()
    assert isinstance(open_interpreter(content, 1, "default"), RemoteInterpreter)
    trust(content)
    assert isinstance(open_interpreter(content, 1, "default"), LocalInterpreter)
    assert isinstance(open_interpreter(content + b"\0", 1, "default"), RemoteInterpreter)
