"""Compressed weights for microcontrollers: encodings, files that TFLM decodes, their arenas, and C++ of them."""

import copy
import functools
import heapq
import itertools
import json
import shutil
import subprocess

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
from keras_mot.export.litert.micro.sources import _method
from keras_mot.export.litert.micro.weights import huffman
from keras_mot.export.litert.micro.weights.choice import choose
from keras_mot.export.litert.micro.weights.encodings import Channels, Encoded, decoded, encodings
from keras_mot.export.litert.micro.weights.reading import with_decoded_weights
from keras_mot.export.litert.micro.weights.rewriting import candidates, with_encoded
from keras_mot.quantization import INT8, quantize_post_training
from keras_mot.targets import MICRO

in_tflm = pytest.mark.skipif(not is_installed("tflite_micro"), reason="needs the extra 'micro' (tflite-micro)")
compiler = shutil.which("g++") or shutil.which("clang++")
in_cpp = pytest.mark.skipif(compiler is None, reason="needs a C++ compiler (g++ or clang++)")
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


def arrays():
    generator = np.random.default_rng(5)
    bell = np.clip(np.rint(generator.standard_normal((40, 50)) * 30), -127, 127)
    yield "one value", np.full((3, 3), 7), Channels()
    yield "one number", np.array([[-128]]), Channels()
    yield "two values", generator.integers(0, 2, (5, 7)) - 1, Channels()
    yield "all values", generator.integers(-128, 128, (16, 64)), Channels()
    yield "a bell", bell, Channels()
    yield "mostly zeros", np.where(generator.random((40, 50)) < 0.9, 0, bell), Channels()
    yield "128 values", generator.permutation(np.arange(1280) % 128 - 64), Channels()
    yield "zeros that are others", np.where(generator.random((4, 50)) < 0.7, 3, bell[:4]), Channels(zero=3)
    own = np.stack([generator.choice(generator.integers(-128, 128, 3), 50) for _ in range(12)])
    yield "few values in each row", own, Channels(12, 0)
    yield "few values in each column", own.T, Channels(12, 1)
    yield "skewed", np.repeat(np.arange(20) - 10, 2 ** np.arange(20) // 64 + 1), Channels()


ARRAYS = [pytest.param(values.astype("int8"), channels, id=name) for name, values, channels in arrays()]


@pytest.mark.backend_independent
@pytest.mark.parametrize(("values", "channels"), ARRAYS)
def test_what_is_encoded_is_decoded(values, channels):
    found = encodings(values, channels)
    assert {"Huffman"} < {each.method for each in found}
    for each in found:
        received = decoded(each.data, each.beside, values.shape, np.dtype("int8"), channels)
        np.testing.assert_array_equal(received, values, err_msg=each.method)


@pytest.mark.backend_independent
@pytest.mark.parametrize(("values", "channels"), ARRAYS)
def test_the_tables_are_read_bit_by_bit(values, channels):
    """As TFLM reads them: some bits, an entry, bits given back or another table; and no word behind the last one."""
    code = huffman.encode(values)
    bits = "".join(f"{byte:08b}" for byte in code.bits)
    tables = np.frombuffer(code.tables, "<u2").tolist()
    at, received = 0, []
    for _ in range(values.size):
        start, width = 0, code.first_bits
        while True:
            assert at + width <= len(bits)
            entry = tables[start + int(bits[at : at + width], 2)]
            if entry & 0x8000:
                break
            start, at = start + int(bits[at : at + width], 2) + (entry & 0x7FF), at + width
            width = (entry >> 11 & 15) + 1
        at += entry >> 11 & 15
        received.append(entry & 0xFF)
    np.testing.assert_array_equal(np.array(received, "uint8").view("int8"), values.ravel())
    assert len(bits) % 32 == 0
    assert len(bits) - at < 32 + 8


def huffman_bits(counts):
    """The bits of all codes together, by Huffman's own algorithm."""
    heap, total = [int(count) for count in counts], 0
    heapq.heapify(heap)
    while len(heap) > 1:
        both = heapq.heappop(heap) + heapq.heappop(heap)
        total += both
        heapq.heappush(heap, both)
    return total


@pytest.mark.backend_independent
@pytest.mark.parametrize("count", [2, 3, 17, 100, 256])
def test_codes_are_as_short_as_huffmans(count):
    counts = np.random.default_rng(count).integers(1, 1000, count)
    found = list(huffman.code_lengths(counts, 15))
    totals = [int(lengths @ counts) for lengths in found]
    assert totals == sorted(totals, reverse=True)
    assert totals[-1] == huffman_bits(counts)
    assert all(np.sum(2.0**-lengths) == 1 for lengths in found)


@pytest.mark.backend_independent
def test_codes_of_limited_length_are_the_shortest_of_that_length():
    counts = np.array([1, 1, 2, 5, 20])
    by_limit = {int(lengths.max()): int(lengths @ counts) for lengths in huffman.code_lengths(counts, 4)}
    for limit, total in by_limit.items():
        choices = itertools.product(range(1, limit + 1), repeat=5)
        assert total == min(np.dot(each, counts) for each in choices if np.sum(2.0 ** -np.array(each)) <= 1)
    assert set(by_limit) == {3, 4}


@pytest.mark.backend_independent
@pytest.mark.parametrize(("values", "channels"), ARRAYS)
def test_damaged_encodings_are_errors_or_other_values(values, channels):
    generator = np.random.default_rng(1)
    for each in encodings(values, channels):
        for part in ("data", "beside"):
            content = bytearray(getattr(each, part))
            for size in {0, len(content) // 2, len(content)}:
                damaged = bytearray(content[:size])
                for place in generator.integers(0, max(size, 1), 3 if size else 0):
                    damaged[place] ^= 1 << int(generator.integers(8))
                parts = {"data": each.data, "beside": each.beside, part: bytes(damaged)}
                try:
                    received = decoded(parts["data"], parts["beside"], values.shape, np.dtype("int8"), channels)
                except ValueError:
                    continue
                assert received.shape == values.shape


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
    assert "more stays dense for `arena_limit`" in found[1].reason
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


@pytest.mark.backend_independent
@in_tflm
@in_cpp
def test_the_array_compiles_to_the_file(small, tmp_path):
    sources = write_micro_sources(small, tmp_path / "firmware", "keywords")
    assert [path.name for path in (sources.header, sources.source, sources.program)] == [
        "keywords.h",
        "keywords.cc",
        "keywords_main.cc",
    ]
    assert (sources.operators, sources.arena_bytes) == (small.operators, small.arena_bytes)
    check = tmp_path / "check.cc"
    check.write_text(
        '#include "keywords.h"\n#include <cstdio>\n'
        "int main() {\n  std::fwrite(keywords_tflite, 1, keywords_tflite_bytes, stdout);\n"
        "  return reinterpret_cast<unsigned long>(keywords_tflite) % 16;\n}\n"
    )
    options = ["-std=c++17", "-Wall", "-Wextra", "-Werror", "-I", str(sources.header.parent)]
    subprocess.run([compiler, *options, str(check), str(sources.source), "-o", str(tmp_path / "check")], check=True)
    written = subprocess.run([str(tmp_path / "check")], check=True, capture_output=True).stdout
    assert written == small.path.read_bytes()


_STANDS_FOR_TFLM = """\
#include <cstddef>
#include <cstdint>
enum TfLiteStatus { kTfLiteOk, kTfLiteError };
#define TF_LITE_ENSURE_STATUS(a) do { const TfLiteStatus s = (a); if (s != kTfLiteOk) return s; } while (0)
#define TFLITE_SCHEMA_VERSION 3
template <typename... T> void MicroPrintf(const char*, T...) {}
struct TfLiteTensor { struct { uint8_t* uint8; int8_t* int8; } data; size_t bytes; };
namespace tflite {
inline void InitializeTarget() {}
struct Model { int version() const { return 3; } };
inline const Model* GetModel(const void* buffer) { return static_cast<const Model*>(buffer); }
template <unsigned N> struct MicroMutableOpResolver { METHODS };
struct MicroInterpreter {
  template <typename R> MicroInterpreter(const Model*, const R&, uint8_t*, size_t) {}
  TfLiteStatus AllocateTensors() { return kTfLiteOk; }
  TfLiteStatus Invoke() { return kTfLiteOk; }
  size_t arena_used_bytes() const { return 0; }
  TfLiteTensor* input(size_t) { return &tensor; }
  TfLiteTensor* output(size_t) { return &tensor; }
  TfLiteTensor tensor{};
};
}
"""


@pytest.mark.backend_independent
@in_tflm
@in_cpp
def test_the_program_is_cpp(small, tmp_path):
    """Against declarations like those of TFLM: its sources are not at hand."""
    sources = write_micro_sources(small, tmp_path / "firmware")
    text = sources.program.read_text()
    for name in ("AddConv2D", "AddDecode", "AddDepthwiseConv2D", "AddFullyConnected", "AddReshape", "AddTransposeConv"):
        assert f"resolver.{name}()" in text
    assert f"MicroMutableOpResolver<{len(small.operators)}>" in text
    assert f"kArenaBytes = {small.arena_bytes};" in text
    assert "// 'image': int8, 1x8x8x3, q stands for" in text
    headers = [line.split('"')[1] for line in text.splitlines() if line.startswith('#include "tensorflow')]
    methods = " ".join(f"TfLiteStatus {_method(name, '')}() {{ return kTfLiteOk; }}" for name in small.operators)
    for header in headers:
        (tmp_path / header).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / header).write_text('#pragma once\n#include "stand_in.h"\n')
    (tmp_path / "stand_in.h").write_text("#pragma once\n" + _STANDS_FOR_TFLM.replace("METHODS", methods))
    options = ["-std=c++17", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-I", str(tmp_path)]
    subprocess.run([compiler, *options, "-I", str(sources.header.parent), str(sources.program)], check=True)


@pytest.mark.backend_independent
def test_operators_have_the_names_of_the_resolver():
    """As in `micro_mutable_op_resolver.h`; whatever the target has, has a name there."""
    known = {
        **{"CONV_2D": "AddConv2D", "L2_POOL_2D": "AddL2Pool2D", "AVERAGE_POOL_2D": "AddAveragePool2D"},
        **{"BATCH_MATMUL": "AddBatchMatMul", "PADV2": "AddPadV2", "CUMSUM": "AddCumSum", "RELU6": "AddRelu6"},
        **{"SPLIT_V": "AddSplitV", "SELECT_V2": "AddSelectV2", "GATHER_ND": "AddGatherNd", "ADD_N": "AddAddN"},
        **{"SPACE_TO_BATCH_ND": "AddSpaceToBatchNd", "TFLM_DECODE": "AddDecode", "LOGISTIC": "AddLogistic"},
    }
    assert {name: _method(name, "") for name in known} == known
    assert all(_method(name, "").startswith("Add") for name in MICRO.operators)
    with pytest.raises(ValueError, match="the file has the operator 'MyOwn', which TFLM's resolver does not know"):
        _method("MyOwn", "the file")


@pytest.mark.backend_independent
@in_tflm
@pytest.mark.parametrize(
    ("name", "error"),
    [("1model", ValueError), ("a-b", ValueError), ("", ValueError), ("a\n", ValueError), (3, TypeError)],
)
def test_names_that_c_does_not_take(name, error, small, tmp_path):
    with pytest.raises(error, match="`name` must be"):
        write_micro_sources(small, tmp_path / "firmware", name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.backend_independent
@in_tflm
def test_sources_of_no_file(small, tmp_path):
    with pytest.raises(ValueError, match="which is not a file"):
        write_micro_sources(tmp_path / "missing.tflite", tmp_path / "firmware")
    with pytest.raises(ValueError, match="expected a folder"):
        write_micro_sources(small, small.path)
    assert list(tmp_path.iterdir()) == []


@in_tflm
def test_the_command_line(tmp_path, capsys, quantized):
    model, path = tmp_path / "model.keras", tmp_path / "device 1.tflite"
    quantized.save(model)
    options = ["--compress-weights", "auto", "--arena-limit", "200000", "--c-sources", str(tmp_path / "firmware")]
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
