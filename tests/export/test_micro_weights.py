"""Compressed weights for microcontrollers: files that TFLM decodes, what they compute, and their arenas."""

import copy
import functools
import json

import keras
import numpy as np
import pytest
from keras import layers

import keras_mot
import keras_mot.export.litert.micro.weights.rewriting
from keras_mot._packages import is_installed
from keras_mot.cli import main
from keras_mot.clustering import ClusteringConfig, cluster_weights
from keras_mot.export import (
    ExportVerificationError,
    LiteRTRunner,
    MicroRunner,
    export_litert,
    write_micro_sources,
)
from keras_mot.export.litert.exporting import _arena_of
from keras_mot.export.litert.litert_file import pack_model, parameters, parse_model
from keras_mot.export.litert.micro.weights.choice import choose
from keras_mot.export.litert.micro.weights.encodings import Encoded, encodings
from keras_mot.export.litert.micro.weights.reading import with_decoded_weights
from keras_mot.export.litert.micro.weights.rewriting import candidates, with_encoded
from keras_mot.quantization import INT8, quantize_post_training

in_tflm = pytest.mark.skipif(not is_installed("tflite_micro"), reason="needs the extra 'micro' (tflite-micro)")
X = np.random.default_rng(0).standard_normal((32, 8, 8, 3)).astype("float32")


def network():
    keras.utils.set_random_seed(3)
    inputs = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(32, 3, activation="relu", name="conv")(inputs)
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, activation="relu", name="depthwise")(x)
    x = layers.Conv2DTranspose(8, 3, name="up")(x)
    return keras.Model(inputs, layers.Dense(10, name="head")(layers.Flatten()(x)), name="network")


@pytest.fixture(scope="module")
def quantized():
    """A model with 4 values in each kernel, quantized."""
    return quantize_post_training(cluster_weights(network(), 4, include_depthwise=True), INT8, X, target="micro")


@pytest.fixture(scope="module")
def dense(quantized, tmp_path_factory):
    """Its file with dense weights, which is not run in TFLM."""
    return export_litert(quantized, tmp_path_factory.mktemp("dense") / "dense.tflite", verify=False)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The file of a model that is not clustered: the channels of its convolutions have scales of their own."""
    model = quantize_post_training(network(), INT8, X, target="micro")
    return export_litert(model, tmp_path_factory.mktemp("plain") / "plain.tflite", verify=False)


@pytest.fixture(scope="module")
def small(quantized, tmp_path_factory):
    """Its file with compressed weights."""
    return export_litert(quantized, tmp_path_factory.mktemp("small") / "small.tflite", compress_weights="auto")


@in_tflm
def test_the_file_is_smaller_and_computes_the_same(small, dense):
    assert small.bytes < small.dense_bytes == dense.bytes
    assert {each.name.split("/")[0] for each in small.compressed_weights} == {"conv", "depthwise", "up", "head"}
    assert "100.00% equal in TFLM" in small.verification
    assert "TFLM_DECODE" in small.operators
    assert small.operators == MicroRunner(small.path).operators
    assert all(each.bytes < each.dense_bytes for each in small.compressed_weights)
    assert "head/kernel: look-up table of 4, " in str(small)
    with pytest.MonkeyPatch.context() as patch:  # each place of the file is read
        patch.setattr(keras_mot.export.litert.micro.weights.rewriting, "_WORTHWHILE_SAVING", -1.0)
        content = dense.path.read_bytes()
        received = MicroRunner(with_encoded(content, candidates(content))).run_integers(X)
    for name, expected in MicroRunner(dense.path).run_integers(X).items():
        np.testing.assert_array_equal(MicroRunner(small.path).run_integers(X)[name], expected)
        np.testing.assert_array_equal(received[name], expected)
    np.testing.assert_array_equal(small.run(X[:3]), dense.run(X[:3]))


@pytest.mark.backend_independent
@in_tflm
@pytest.mark.parametrize("method", ["look-up table of", "look-up tables of", "bit mask", "Huffman"])
@pytest.mark.parametrize("values", [2, 5, 9, 33, 65, 200])
def test_tflm_decodes_every_encoding(method, values, plain, monkeypatch):
    """Kernels of so many values in each channel, in the form of each encoding that has them, beside dense ones."""
    levels = np.rint(np.linspace(-127, 127, values))
    model = parse_model(plain.path)
    for tensor in model.subgraphs[0].tensors:
        data = model.buffers[tensor.buffer].data
        if data is not None and tensor.name.endswith(b"kernel"):
            nearest = np.abs(np.asarray(data).view("int8")[:, None] - levels).argmin(axis=1)
            model.buffers[tensor.buffer].data = levels[nearest].astype("int8").view("uint8")
    content = pack_model(model)

    def only(values, channels):
        chosen = [each for each in encodings(values, channels) if each.method.startswith(method)]
        return chosen or [Encoded("none", bytes(10**6), b"")]

    monkeypatch.setattr(keras_mot.export.litert.micro.weights.rewriting, "encodings", only)
    monkeypatch.setattr(keras_mot.export.litert.micro.weights.rewriting, "_WORTHWHILE_SAVING", -10.0)
    monkeypatch.setattr(keras_mot.export.litert.micro.weights.rewriting, "_BYTES_OF_AN_OPERATOR", -(10**5))
    found = candidates(content)
    # Of 200 values, tables hold those of a channel that has no more than 128 places.
    assert len(found) == (4 if values <= 128 else {"look-up table of": 0, "look-up tables of": 2}.get(method, 4))
    (expected,) = MicroRunner(content).run_integers(X[:4]).values()
    (received,) = MicroRunner(with_encoded(content, found)).run_integers(X[:4]).values()
    np.testing.assert_array_equal(received, expected)
    assert len(np.unique(expected)) > 1


@pytest.mark.backend_independent
@in_tflm
def test_values_of_each_channel_become_a_table_of_each_channel(tmp_path):
    keras.utils.set_random_seed(6)
    inputs = keras.Input((6, 6, 16))
    x = layers.Conv2D(16, 3, name="conv")(inputs)
    model = keras.Model(inputs, layers.DepthwiseConv2D(4, name="depthwise")(x))
    data = np.random.default_rng(2).standard_normal((16, 6, 6, 16)).astype("float32")
    clustered = cluster_weights(model, ClusteringConfig(3, per_channel=True), include_depthwise=True)
    quantized = quantize_post_training(clustered, INT8, data, target="micro")
    exported = export_litert(quantized, tmp_path / "channels.tflite", compress_weights="auto")
    methods = {each.name: each.method for each in exported.compressed_weights}
    assert methods["conv/kernel"] == "look-up tables of 3, one a channel"
    assert "100.00% equal in TFLM" in exported.verification


@pytest.mark.backend_independent
@in_tflm
def test_weights_are_read_as_they_were(small, dense):
    model, how = with_decoded_weights(parse_model(small.path))
    received = {tensor.name: tensor for tensor in parameters(model, how)}
    expected = {tensor.name: tensor for tensor in parameters(parse_model(dense.path))}
    assert set(received) == set(expected)
    for name, tensor in expected.items():
        np.testing.assert_array_equal(received[name].values, tensor.values)
    assert {name for name, tensor in received.items() if tensor.encoding} == {w.name for w in small.compressed_weights}
    scales = [
        {t.name: t.quantization for t in parsed.subgraphs[0].tensors} for parsed in (model, parse_model(dense.path))
    ]
    for name in (b"conv/bias", b"depthwise/bias"):
        np.testing.assert_allclose(scales[0][name].scale, scales[1][name].scale, rtol=1e-6)
    (result,) = MicroRunner(pack_model(model)).run_integers(X[:4]).values()
    np.testing.assert_array_equal(result, MicroRunner(dense.path).run_integers(X[:4]).popitem()[1])


@pytest.mark.backend_independent
@in_tflm
def test_measuring_and_inspecting(small, capsys):
    report = keras_mot.analysis.measure(small.path, data=(X, np.arange(32) % 10), latency_runs=3, progress=False)
    row = report[small.path.name]
    assert row.latency_ms is None
    assert row.bytes == small.bytes
    assert row.metric == np.mean(MicroRunner(small.path).run(X)["head"].argmax(-1) == np.arange(32) % 10)
    by_name = {tensor.name: tensor for tensor in row.tensors}
    assert by_name["head/kernel"].unique_values == 4
    assert by_name["head/kernel"].encoding == "look-up table"
    assert by_name["conv/kernel"].stored_bytes < by_name["conv/kernel"].bytes
    assert keras_mot.analysis.sparsity(small) == row.sparsity
    assert main(["inspect", str(small.path), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert {tensor["name"]: tensor["encoding"] for tensor in shown["tensors"]}["up/kernel"] == "look-up table"
    assert main(["inspect", str(small.path)]) == 0
    assert "compressed for TFLM" in capsys.readouterr().out


@pytest.mark.backend_independent
@in_tflm
def test_litert_refuses_it_and_says_why(small, quantized):
    with pytest.raises(ValueError, match=r"compressed weights, which only .*TFLM.*MicroRunner.*compress_weights=False"):
        LiteRTRunner(small.path)


@pytest.mark.backend_independent
@in_tflm
def test_a_limited_arena(quantized, small, dense, tmp_path):
    content = dense.path.read_bytes()
    arena_of = functools.cache(_arena_of)
    needed, least = small.arena_bytes, arena_of(content)
    assert least < needed
    found = [choose(content, True, each, arena_of, "it") for each in (needed, needed - 1, (needed + least) // 2, least)]
    for file, limit in zip(found, (needed, needed - 1, (needed + least) // 2, least), strict=True):
        assert arena_of(file.content) <= limit
    sizes = [len(file.content) for file in found]
    assert sizes == sorted(sizes)
    assert sizes[0] == small.bytes
    assert sizes[0] < sizes[1] < sizes[-1] <= len(content)
    assert found[0].weights == small.compressed_weights
    (left,) = {each.name for each in found[0].weights} - {each.name for each in found[1].weights}
    assert f"'{left}' stays dense for `arena_limit`" in found[1].reason
    assert choose(content, False, least, arena_of, "it").content == content
    with pytest.raises(ValueError, match=rf"'it' needs an arena of {least:,} bytes with no weights.*{least - 1:,}"):
        choose(content, False, least - 1, arena_of, "it")
    path = tmp_path / "limited.tflite"
    exported = export_litert(quantized, path, compress_weights="auto", arena_limit=needed - 1)
    assert (exported.bytes, exported.arena_bytes) == (sizes[1], arena_of(found[1].content))
    before = path.read_bytes()
    with pytest.raises(ValueError, match=rf"'network' needs an arena of {least:,} bytes"):
        export_litert(quantized, path, compress_weights="auto", arena_limit=least - 1)
    assert path.read_bytes() == before


@pytest.mark.backend_independent
@in_tflm
def test_what_saves_little_stays_dense(tmp_path):
    model = quantize_post_training(network(), INT8, X, target="micro")
    assert len(np.unique(model.get_layer("head").kernel)) > 1000
    exported = export_litert(model, tmp_path / "little.tflite", compress_weights="auto")
    assert exported.compressed_weights == ()
    assert exported.bytes == exported.dense_bytes
    assert "5 %" in exported.compression_reason
    assert "'head/kernel'" in exported.compression_reason
    assert "TFLM_DECODE" not in exported.operators


@in_tflm
def test_a_kernel_that_is_read_often_is_decoded_once(tmp_path):
    keras.utils.set_random_seed(4)
    clips = np.random.default_rng(1).standard_normal((32, 6, 4)).astype("float32")
    model = keras.Sequential(
        [keras.Input((6, 4)), layers.SimpleRNN(32, name="recurrent"), layers.Dense(3, name="head")]
    )
    model = quantize_post_training(cluster_weights(model, 4), INT8, clips, target="micro")
    exported = export_litert(model, tmp_path / "recurrent.tflite", compress_weights="auto")
    names = {each.name for each in exported.compressed_weights}
    assert any("recurrent" in name for name in names)
    codes, graph = parse_model(exported.path).operatorCodes, parse_model(exported.path).subgraphs[0]
    decodes = [op for op in graph.operators if codes[op.opcodeIndex].customCode == b"TFLM_DECODE"]
    assert len(decodes) == len(names)


@pytest.mark.backend_independent
@in_tflm
def test_what_tensors_share_is_stored_once_or_stays(tmp_path):
    """Two layers with one kernel; and a kernel that is read as numbers, too."""
    inputs = keras.Input((8, 8, 16))
    x = layers.Conv2D(16, 1, name="first", use_bias=False)(inputs)
    model = keras.Model(inputs, layers.Conv2D(16, 1, name="second", use_bias=False)(x))
    data = np.random.default_rng(2).standard_normal((16, 8, 8, 16)).astype("float32")
    quantized = quantize_post_training(cluster_weights(model, 4), INT8, data, target="micro")
    parsed = parse_model(export_litert(quantized, tmp_path / "two.tflite", verify=False).path)
    tensors = {tensor.name: tensor for tensor in parsed.subgraphs[0].tensors}
    kernels = [tensors[b"first/kernel"], tensors[b"second/kernel"]]
    parsed.buffers[kernels[1].buffer].data = parsed.buffers[kernels[0].buffer].data
    apart = pack_model(parsed)
    kernels[1].buffer = kernels[0].buffer
    together = pack_model(parsed)
    encoded = [with_encoded(content, candidates(content)) for content in (apart, together)]
    assert len(candidates(together)) == 2
    assert len(encoded[0]) == len(encoded[1])
    code = candidates(together)[0].encoded
    assert encoded[1].count(code.data) == encoded[1].count(code.beside) == 1
    results = [next(iter(MicroRunner(each).run_integers(data).values())) for each in (apart, *encoded)]
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])
    other = copy.copy(kernels[0])
    other.name = b"numbers"
    parsed.subgraphs[0].tensors.append(other)
    assert candidates(pack_model(parsed)) == []


@pytest.mark.backend_independent
@in_tflm
def test_a_file_that_computes_something_else_is_not_written(quantized, tmp_path, monkeypatch):
    def wrong(values, channels):
        return encodings(np.roll(values, 1), channels)

    monkeypatch.setattr(keras_mot.export.litert.micro.weights.rewriting, "encodings", wrong)
    with pytest.raises(ExportVerificationError, match=r"With compressed weights, .* of the values of output 'head'"):
        export_litert(quantized, tmp_path / "wrong.tflite", compress_weights="auto")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.backend_independent
def test_it_can_be_written_where_tflm_is_missing(quantized, tmp_path, monkeypatch):
    known = keras_mot.export.dependencies.is_installed
    monkeypatch.setattr(
        keras_mot.export.dependencies, "is_installed", lambda name: name != "tflite_micro" and known(name)
    )
    exported = export_litert(quantized, tmp_path / "model.tflite", compress_weights="auto", verify=False)
    assert exported.compressed_weights
    assert keras_mot.analysis.sparsity(exported) < 0.5
    with pytest.raises(ImportError, match="pip install tflite-micro"):
        export_litert(quantized, tmp_path / "other.tflite", arena_limit=100_000, verify=False)
    with pytest.raises(ImportError, match="pip install tflite-micro"):
        write_micro_sources(exported, tmp_path / "sources")


@pytest.mark.backend_independent
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"compress_weights": True}, ValueError, "must be 'auto' or False"),
        ({"compress_weights": "huffman"}, ValueError, "must be 'auto' or False"),
        ({"compress_weights": 1}, ValueError, "must be 'auto' or False"),
        ({"arena_limit": 0}, ValueError, "must be 1 or more"),
        ({"arena_limit": True}, TypeError, "a number of bytes"),
        ({"arena_limit": 1e5}, TypeError, "a number of bytes"),
    ],
)
def test_options_that_are_none(options, error, message, quantized, tmp_path):
    with pytest.raises(error, match=message):
        export_litert(quantized, tmp_path / "model.tflite", **options)


@pytest.mark.parametrize("options", [{"compress_weights": "auto"}, {"arena_limit": 1000}])
def test_other_targets_are_refused(options, tmp_path):
    with pytest.raises(
        ValueError, match=r"is for microcontrollers: quantize the model with `target='micro'`.*'litert'"
    ):
        export_litert(network(), tmp_path / "model.tflite", **options)


def damaged(small, change):
    model = parse_model(small.path)
    graph = model.subgraphs[0]
    operator = next(op for op in graph.operators if model.operatorCodes[op.opcodeIndex].customCode)
    change(model, graph, operator)
    return pack_model(model)


def _one_input(model, graph, operator):
    operator.inputs = operator.inputs[:1]


def _no_tensors(model, graph, operator):
    operator.inputs = np.array([-1, -1], "int32")


def _other_kind(model, graph, operator):
    buffer = model.buffers[graph.tensors[int(operator.inputs[1])].buffer]
    buffer.data = np.concatenate([np.array([9], "uint8"), buffer.data[1:]])


def _no_data(model, graph, operator):
    graph.tensors[int(operator.inputs[0])].buffer = 0


def _larger(model, graph, operator):
    tensor = graph.tensors[int(operator.outputs[0])]
    tensor.shape = np.array([2**15, 2**15], "int32")


@pytest.mark.backend_independent
@in_tflm
@pytest.mark.parametrize("change", [_one_input, _no_tensors, _other_kind, _no_data, _larger])
def test_damaged_files_are_refused(change, small, tmp_path):
    path = tmp_path / "damaged.tflite"
    path.write_bytes(damaged(small, change))
    with pytest.raises(ValueError, match=r"decode"):
        keras_mot.analysis.tensor_stats(path)
    assert main(["inspect", str(path)]) == 2


@in_tflm
def test_the_command_line(tmp_path, capsys, quantized):
    model, path = tmp_path / "model.keras", tmp_path / "device 1.tflite"
    quantized.save(model)
    options = ["--compress-weights", "auto", "--arena-limit", "200kB", "--c-sources", str(tmp_path / "firmware")]
    assert main(["export", str(model), "-o", str(path), *options]) == 0
    shown = capsys.readouterr().out
    assert "compressed weights: instead of" in shown
    assert "device_1.cc, device_1.h and device_1_main.cc" in shown
    assert sorted(each.name for each in (tmp_path / "firmware").iterdir()) == [
        "device_1.cc",
        "device_1.h",
        "device_1_main.cc",
    ]
    network().save(tmp_path / "float.keras")
    assert main(["export", str(tmp_path / "float.keras"), "-o", str(tmp_path / "f.tflite"), "--c-sources", "c"]) == 2
    assert "quantize the model with `--target micro`" in capsys.readouterr().err
    assert not (tmp_path / "f.tflite").exists()
    for folder, message in ((model, "is a file; expected a folder"), (tmp_path / "no" / "folder", "does not exist")):
        assert main(["export", str(model), "-o", str(path), "--c-sources", str(folder)]) == 2
        assert message in capsys.readouterr().err
    assert main(["export", str(model), "-o", str(path), "--arena-limit", "100"]) == 2
    assert "needs an arena of" in capsys.readouterr().err
    for option in (["--compress-weights", "auto"], ["--arena-limit", "1000"], ["--c-sources", str(tmp_path / "c")]):
        assert main(["export", str(model), "-o", str(tmp_path / "model.onnx"), *option]) == 2
        assert f"`{option[0]}` is for `.tflite` files" in capsys.readouterr().err
