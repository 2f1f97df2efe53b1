"""Files for microcontrollers as C++: an array that compiles to the file, and a program that runs it."""

import shutil
import subprocess

import pytest

from keras_mot._packages import is_installed
from keras_mot.clustering import cluster_weights
from keras_mot.export import export_litert, write_micro_sources
from keras_mot.export.litert.micro.sources import _method
from keras_mot.quantization import INT8, quantize_post_training
from keras_mot.targets import MICRO
from tests.export.test_micro_weights import X, network

pytestmark = pytest.mark.backend_independent
in_tflm = pytest.mark.skipif(not is_installed("tflite_micro"), reason="needs the extra 'micro' (tflite-micro)")
compiler = shutil.which("g++") or shutil.which("clang++")
in_cpp = pytest.mark.skipif(compiler is None, reason="needs a C++ compiler (g++ or clang++)")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A file with compressed weights."""
    quantized = quantize_post_training(cluster_weights(network(), 4, include_depthwise=True), INT8, X, target="micro")
    return export_litert(quantized, tmp_path_factory.mktemp("small") / "small.tflite", compress_weights="auto")


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


@in_tflm
@pytest.mark.parametrize(
    ("name", "error"),
    [("1model", ValueError), ("a-b", ValueError), ("", ValueError), ("a\n", ValueError), (3, TypeError)],
)
def test_names_that_c_does_not_take(name, error, small, tmp_path):
    with pytest.raises(error, match="`name` must be"):
        write_micro_sources(small, tmp_path / "firmware", name)
    assert list(tmp_path.iterdir()) == []


@in_tflm
def test_sources_of_no_file(small, tmp_path):
    with pytest.raises(ValueError, match="which is not a file"):
        write_micro_sources(tmp_path / "missing.tflite", tmp_path / "firmware")
    with pytest.raises(ValueError, match="expected a folder"):
        write_micro_sources(small, small.path)
    assert list(tmp_path.iterdir()) == []
