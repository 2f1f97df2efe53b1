"""Reports over models and files; the files are really run."""

import json
import zipfile

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from keras_mot.analysis import measure, sparsity, tensor_stats, zipped_bytes
from keras_mot.export import LiteRTExport, export_litert

SAMPLES = 23


def kernel_zeros(model):
    kernels = [w for w in model.get_weights() if w.ndim >= 2]
    return sum(int((kernel == 0).sum()) for kernel in kernels) / sum(kernel.size for kernel in kernels)


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((24,)),
            keras.layers.Dense(64, activation="relu", bias_initializer="ones"),
            keras.layers.Dense(4, activation="softmax", bias_initializer="ones"),
        ],
        name="small",
    )
    for layer in model.layers:
        kernel = np.array(keras.ops.convert_to_numpy(layer.kernel))
        kernel[np.random.default_rng(0).random(kernel.shape) < 0.9] = 0.0
        layer.kernel.assign(kernel)
    return model


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory) -> LiteRTExport:
    return export_litert(model, tmp_path_factory.mktemp("measure") / "small.tflite")


@pytest.fixture(scope="module")
def data():
    generator = np.random.default_rng(2)
    return generator.standard_normal((SAMPLES, 24)).astype("float32"), generator.integers(0, 4, SAMPLES)


@pytest.fixture(scope="module")
def report(model, exported, data):
    subjects = {"in memory": model, "exported": exported, "file": exported.path}
    return measure(subjects, data=data, batch_size=8, latency_runs=5, progress=False)


def test_accuracy_is_that_of_the_runtime(report, model, exported, data):
    x, y = data
    runner = Interpreter(model_path=str(exported.path)).get_signature_runner()
    scores = runner(**{exported.input_names[0]: x})[exported.output_names[0]]
    assert report["exported"].metric == report["file"].metric == pytest.approx((scores.argmax(1) == y).mean())
    predicted = keras.ops.convert_to_numpy(model(x)).argmax(1)
    assert report["in memory"].metric == pytest.approx((predicted == y).mean())
    assert (report.metric_name, report.samples) == ("accuracy", SAMPLES)


def test_sizes_and_sparsity(report, model, exported):
    file = report["file"]
    assert file.bytes == exported.path.stat().st_size == exported.bytes
    assert file.zipped_bytes == zipped_bytes(exported.path)
    assert file.parameters == report["in memory"].parameters == model.count_params()
    assert file.sparsity == report["in memory"].sparsity == pytest.approx(kernel_zeros(model))
    assert file.overall_sparsity == pytest.approx(kernel_zeros(model) * (24 + 4) * 64 / model.count_params())
    assert any(tensor.sparse_encoding for tensor in file.tensors)
    assert sparsity(exported) == file.sparsity
    assert tensor_stats(exported.path) == file.tensors


def test_numbers_for_each_channel_are_no_kernels(tmp_path):
    """A file has them with two axes; so it has the kernel of a layer with one output, which is one."""
    inputs = keras.Input((6,))
    kernels = [np.eye(6, dtype="float32"), np.repeat([[0.0], [1.0]], 3, axis=0)]
    hidden = keras.layers.Normalization(mean=np.arange(6.0), variance=np.ones(6))(inputs)
    for kernel in kernels:
        dense = keras.layers.Dense(kernel.shape[1], use_bias=False)
        hidden = dense(keras.layers.UnitNormalization()(hidden))
        dense.kernel.assign(kernel)
    exported = export_litert(keras.Model(inputs, hidden), tmp_path / "normalized.tflite")
    stats = tensor_stats(exported)
    assert sorted(tensor.size for tensor in stats if tensor.is_kernel) == [6, 36]
    assert any(tensor.of_channels and tensor.shape == (1, 6) for tensor in stats)
    assert sparsity(exported) == pytest.approx(33 / 42)


def test_latency_is_measured_where_there_is_a_runtime(report):
    assert report["in memory"].latency_ms is None
    assert 0 < report["file"].latency_ms < 100
    assert (report.latency_runs, report.num_threads) == (5, 1)


def test_report_is_json(report):
    values = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert [row["name"] for row in values["measurements"]] == ["in memory", "exported", "file"]
    assert values["measurements"][1]["bytes"] == report["exported"].bytes
    assert values["measurements"][0]["path"] is None
    assert values["measurements"][2]["tensors"][0]["shape"]


def test_report_is_readable(report):
    text, markdown = str(report), report.to_markdown()
    for rendering in (text, markdown):
        assert f"{report['file'].bytes:,}" in rendering
        assert "in memory" in rendering
        assert "accuracy" in rendering
        assert "DEFLATE level 9" in rendering
        assert ("brotli: quality 10" in " ".join(rendering.split())) == (report["file"].brotli_bytes is not None)
        assert "1 thread" in rendering
    lines = markdown.splitlines()
    assert len({line.count("|") for line in lines[:5]}) == 1
    assert lines[1].startswith("| --- | ---:")
    with pytest.raises(KeyError, match="in memory"):
        report["missing"]


def test_positional_subjects_are_named_after_what_they_are(model, exported):
    report = measure(model, exported.path, exported, latency_runs=0, progress=False)
    assert [row.name for row in report] == ["small", "small.tflite", "small.tflite (2)"]
    assert len(report) == 3
    assert all(row.metric is None and row.latency_ms is None for row in report)


def test_keras_file(model, tmp_path, data):
    path = tmp_path / "saved.keras"
    model.save(path)
    row = measure(path, data=data, progress=False)["saved.keras"]
    assert row.bytes == path.stat().st_size
    assert row.sparsity == pytest.approx(kernel_zeros(model))
    assert row.metric is not None


def test_batches_from_a_generator_are_used_once_for_all(report, model, exported, data):
    x, y = data
    generator = ((x[start : start + 5], y[start : start + 5]) for start in range(0, SAMPLES, 5))
    streamed = measure({"in memory": model, "file": exported}, data=generator, latency_runs=0, progress=False)
    assert streamed.samples == SAMPLES
    for name in ("in memory", "file"):
        assert streamed[name].metric == report[name].metric


def test_progress_goes_to_the_error_stream(model, data, capsys):
    measure(model, data=data, progress=True)
    assert capsys.readouterr() == ("", "")  # not a terminal, so not even an empty line


def test_tflite_file_with_appended_metadata(exported, tmp_path, data):
    path = tmp_path / "metadata.tflite"
    path.write_bytes(exported.path.read_bytes())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("labels.txt", "a\nb\n")
    assert zipfile.is_zipfile(path)
    row = measure(path, data=data, latency_runs=1, progress=False)["metadata.tflite"]
    assert row.kind == "litert"
    assert row.bytes == path.stat().st_size > exported.bytes
    assert row.tensors == tensor_stats(exported)
    assert row.metric == measure({"plain": exported}, data=data, latency_runs=0, progress=False)["plain"].metric


def test_prescribed_batch_size(model, data, monkeypatch):
    inputs = keras.Input(batch_shape=(4, 24))
    fixed = keras.Model(inputs, model(inputs), name="fixed")
    sizes, plain = [], fixed.predict_on_batch
    monkeypatch.setattr(fixed, "predict_on_batch", lambda x: sizes.append(len(x)) or plain(x))
    batches = [(data[0][:9], data[1][:9]), (data[0][9:], data[1][9:])]
    for given in (data, batches):
        sizes.clear()
        report = measure({"fixed": fixed, "open": model}, data=given, metric=_top_score, progress=False)
        assert set(sizes) == {4}
        assert report.samples == SAMPLES
        assert report["fixed"].metric == pytest.approx(report["open"].metric, rel=1e-6)


def _top_score(y_true, y_pred):
    assert len(y_true) == len(y_pred) == SAMPLES
    return float((y_pred.max(1) * np.arange(1, SAMPLES + 1)).sum())


def test_wrong_subjects(model, tmp_path):
    text = tmp_path / "text.tflite"
    text.write_text("not a model, though it is long enough to be taken for one")
    broken = tmp_path / "broken.keras"
    broken.write_text("not a zip archive")
    fresh = keras.Sequential([keras.layers.Dense(2)], name="fresh")
    for subject, error, message in [
        (3, TypeError, "Expected a Keras model"),
        (tmp_path / "missing.tflite", ValueError, r"missing\.tflite"),
        (text, ValueError, r"text\.tflite"),
        (broken, ValueError, r"broken\.keras' is damaged"),
        (fresh, ValueError, "'fresh' is not built"),
        ({}, ValueError, "Nothing to measure"),
    ]:
        with pytest.raises(error, match=message):
            measure(subject, progress=False)
    with pytest.raises(ValueError, match="Nothing to measure"):
        measure()


def test_truncated_files(exported, model, tmp_path):
    path = tmp_path / "cut.tflite"
    path.write_bytes(exported.path.read_bytes()[:-500])
    with pytest.raises(ValueError, match=r"cut\.tflite"):
        measure(path, progress=False)
    model.save(tmp_path / "whole.keras")
    path = tmp_path / "cut.keras"
    path.write_bytes((tmp_path / "whole.keras").read_bytes()[:-500])
    with pytest.raises(ValueError, match=r"cut\.keras"):
        measure(path, progress=False)


def test_model_that_still_carries_transforms():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="carrier")])
    model.layers[0].__class__ = type("Transformed", (keras.layers.Dense,), {"_keras_mot_transformed": True})
    with pytest.raises(ValueError, match="carrier' still carries weight transforms"):
        measure(model)


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (lambda x, y: (x[:3], y), ValueError, "same number of samples"),
        (lambda x, y: (x[:0], y[:0]), ValueError, "empty"),
        (lambda x, y: [], ValueError, "empty"),
        (lambda x, y: iter([]), ValueError, "empty"),
        (lambda x, y: (x * np.nan, y), ValueError, "NaN values in x"),
        (lambda x, y: [(x, y * np.nan)], ValueError, "NaN values in y"),
        (lambda x, y: x, TypeError, r"tuple \(x, y\)"),
        (lambda x, y: "data", TypeError, r"tuple \(x, y\)"),
        (lambda x, y: [x], ValueError, "should be pairs"),
        (lambda x, y: (x, 3), ValueError, "first dimension is the batch"),
        (lambda x, y: (x, np.stack([y, y, y], 1)), ValueError, "'small' cannot be evaluated.*do not fit"),
    ],
)
def test_wrong_data(wrong, error, message, model, data):
    with pytest.raises(error, match=message):
        measure(model, data=wrong(*data), progress=False)


def test_wrong_options(model, data):
    for options, error, message in [
        ({"metric": "precison"}, ValueError, "`metric` should be"),
        ({"metric": "mae"}, ValueError, r"`metric` 'mae' cannot be computed from labels of shape \(\d+,\)"),
        ({"batch_size": 0}, ValueError, "`batch_size` should be at least 1"),
        ({"latency_runs": -1}, ValueError, "`latency_runs` should be at least 0"),
        ({"num_threads": 1.5}, TypeError, "`num_threads` should be an integer"),
    ]:
        with pytest.raises(error, match=message):
            measure(model, data=data, progress=False, **options)


def test_input_of_another_shape_names_the_subject(exported, data):
    with pytest.raises(ValueError, match=r"'small\.tflite' cannot be evaluated"):
        measure(exported, data=(data[0][:, :5], data[1]), progress=False)
