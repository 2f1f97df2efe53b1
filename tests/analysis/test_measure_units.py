"""Counting zeros, bytes and correct answers, against plain NumPy and the standard library."""

import io
import zipfile
import zlib

import keras
import numpy as np
import pytest

import keras_mot
from keras_mot.analysis import measure, sparsity, tensor_stats, zipped_bytes
from keras_mot.analysis._accumulators import count_correct
from keras_mot.analysis._latency import median_latencies
from keras_mot.analysis._sizes import saved_content
from keras_mot.analysis.brotli import brotli_bytes
from keras_mot.analysis.metrics import make_metric


@pytest.fixture
def model():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(5, name="first"), keras.layers.Dense(3, name="second")]
    )
    kernel = np.arange(30, dtype="float32").reshape(6, 5)
    kernel[:, :2] = 0.0  # 12 of 30, together with the value 0 that arange begins with, which is among them
    model.layers[0].kernel.assign(kernel)
    return model


def test_zeros_are_counted_by_tensor_and_in_total(model):
    stats = {tensor.name.split("sequential")[-1].split("/", 1)[-1]: tensor for tensor in tensor_stats(model)}
    first = next(tensor for name, tensor in stats.items() if name.endswith("first/kernel"))
    assert (first.size, first.zeros, first.sparsity, first.shape) == (30, 12, 0.4, (6, 5))
    assert first.is_kernel
    assert sparsity(model) == pytest.approx(12 / 45)
    assert sparsity(model, kernels_only=False) == pytest.approx((12 + 8) / 53)  # the biases are zero


def test_sparsity_of_a_keras_file(model, tmp_path):
    model.save(tmp_path / "model.keras")
    assert sparsity(tmp_path / "model.keras") == pytest.approx(12 / 45)


def test_zipped_bytes_are_those_of_a_zip_archive(tmp_path):
    content = b"abc" * 1000 + np.random.default_rng(0).bytes(1000)
    path = tmp_path / "file"
    path.write_bytes(content)
    deflated = len(zlib.compress(content, 9)) - 6  # without the header and checksum of zlib
    assert deflated < zipped_bytes(content) < deflated + 150
    assert zipped_bytes(path) == zipped_bytes(content)
    with pytest.raises(ValueError, match="not a file"):
        zipped_bytes(tmp_path / "missing")
    with pytest.raises(TypeError, match="Expected a path or bytes"):
        zipped_bytes(3)


def test_sizes_by_brotli(model, monkeypatch):
    brotli = pytest.importorskip("brotli", reason="the extra 'pack'")
    repeated = np.random.default_rng(0).integers(0, 16, 40_000).astype("u1").tobytes()
    known = brotli_bytes(repeated, zipped_bytes(repeated))
    assert known == len(brotli.compress(repeated, quality=11, lgwin=24)) < zipped_bytes(repeated)
    row = measure({"model": model}, latency_runs=0, progress=False)["model"]
    assert 0 < row.brotli_bytes < row.bytes
    with monkeypatch.context() as changed:
        changed.setattr("keras_mot.analysis.brotli.require", None)  # it is remembered
        assert brotli_bytes(repeated, zipped_bytes(repeated)) == known
    monkeypatch.setattr("keras_mot.analysis.brotli.is_installed", lambda name: False)
    report = measure({"model": model}, latency_runs=0, progress=False)
    assert report["model"].brotli_bytes is None
    assert "brotli" not in str(report)


def test_size_of_a_compiled_model_is_without_its_optimizer(model, tmp_path):
    model.save(tmp_path / "plain.keras")
    model.compile("adam", "mse")
    model.fit(np.zeros((4, 6)), np.zeros((4, 3)), verbose=0)
    model.save(tmp_path / "compiled.keras")
    content = saved_content(model)
    plain, compiled = ((tmp_path / f"{name}.keras").stat().st_size for name in ("plain", "compiled"))
    assert len(content) < compiled
    assert len(content) == pytest.approx(plain, rel=0.25)
    path = tmp_path / "slim.keras"
    path.write_bytes(content)
    loaded = keras.models.load_model(path, compile=False)
    for expected, received in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(expected, received)
    assert zipfile.ZipFile(io.BytesIO(content)).testzip() is None


SCORES = np.array([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]])


@pytest.mark.parametrize(
    ("y_true", "y_pred", "expected"),
    [
        (np.array([1, 0, 0]), SCORES, (2, 3)),
        (np.array([[1], [0], [0]]), SCORES, (2, 3)),
        (np.array([[0, 1], [1, 0], [1, 0]]), SCORES, (2, 3)),
        (np.array([1, 1, 0]), np.array([[0.9], [0.2], [0.5]]), (2, 3)),
        (np.array([[1], [1], [0]]), np.array([0.9, 0.2, 0.5]), (2, 3)),
        (np.array([[1, 0], [0, 1]]), np.stack([SCORES[:2], SCORES[:2]]), (2, 4)),
    ],
    ids=["sparse", "sparse column", "one-hot", "binary", "binary column", "sequence"],
)
def test_correct_answers(y_true, y_pred, expected):
    assert count_correct(y_true, y_pred) == expected


@pytest.mark.parametrize(
    ("y_true", "y_pred", "message"),
    [
        (np.array([1, 0]), SCORES, "labels do not fit the predictions"),
        (np.array([[1, 1], [1, 0], [0, 0]]), SCORES, "not one-hot"),
        (np.array([[0.5, 0.5]] * 3), SCORES, "not one-hot"),
    ],
)
def test_labels_that_do_not_fit(y_true, y_pred, message):
    with pytest.raises(ValueError, match=message):
        count_correct(y_true, y_pred)


def result_of(metric, batches):
    resolved = make_metric(metric)
    accumulator = resolved.start()
    for y_true, y_pred in batches:
        accumulator.add(y_true, y_pred)
    return resolved.name, accumulator.result()


def test_metrics_of_every_kind():
    y_true, y_pred = np.array([[1.0], [2.0], [4.0]]), np.array([[1.5], [2.0], [2.0]])
    batches = [(y_true[:2], y_pred[:2]), (y_true[2:], y_pred[2:])]
    expected = float(np.abs(y_true - y_pred).mean())

    def mean_absolute(y_true, y_pred):
        return np.abs(y_true - y_pred).mean()

    assert result_of(mean_absolute, batches) == ("mean_absolute", pytest.approx(expected))
    metric = keras.metrics.MeanAbsoluteError(name="mae")
    assert result_of(metric, batches) == ("mae", pytest.approx(expected))
    assert float(metric.result()) == 0.0  # left as it was found
    assert result_of("mean_absolute_error", batches) == ("mean_absolute_error", pytest.approx(expected))


def test_metrics_that_are_none():
    with pytest.raises(ValueError, match="`metric` should be 'accuracy'"):
        make_metric("precison")
    with pytest.raises(ValueError, match="should return a single number"):
        result_of(lambda y_true, y_pred: y_pred, [(np.zeros(2), np.zeros(2))])


def test_latency_is_the_median_of_interleaved_runs():
    seconds = iter([0.001, 0.010, 0.003, 0.020, 0.002, 0.030])
    order = []

    class Runner:
        def __init__(self, name, batch_size):
            self.name, self.batch_size = name, batch_size

        def invoke(self):
            order.append(self.name)

        def timed_invoke(self):
            self.invoke()
            return next(seconds)

    medians = median_latencies([Runner("a", None), Runner("b", 4)], runs=3)
    assert medians == [pytest.approx(2.0), pytest.approx(5.0)]  # b takes 20 ms for 4 samples
    assert order[-6:] == ["a", "b"] * 3


def test_repeated_values_are_counted():
    """Unique values, entropy and palette bytes of a tensor, against hand-made figures."""
    model = keras.Sequential([keras.layers.Input((8,)), keras.layers.Dense(8, use_bias=False)])
    kernel = np.zeros((8, 8), "float32")
    kernel[:4] = 1.0
    kernel[4:6] = 2.0  # shares 1/2, 1/4, 1/4: 1.5 bits
    model.layers[0].kernel.assign(kernel)
    (tensor,) = keras_mot.analysis.tensor_stats(model)
    assert (tensor.unique_values, tensor.zeros, tensor.bytes) == (3, 16, 256)
    assert tensor.entropy == pytest.approx(1.5)
    assert tensor.palette_bytes == 3 * 4 + 64 * 2 // 8
    row = keras_mot.analysis.measure(model, latency_runs=0, progress=False)[model.name]
    assert row.palette_bytes == 28
    assert row.has_palettes
    assert row.to_dict()["tensors"][0]["unique_values"] == 3
    random = keras.Sequential([keras.layers.Input((8,)), keras.layers.Dense(8, use_bias=False)])
    report = keras_mot.analysis.measure({"few": model, "many": random}, latency_runs=0, progress=False)
    assert "palettes" in str(report)
    assert report["many"].palette_bytes == 4 * 64
    assert not report["many"].has_palettes
    assert "palettes" not in str(keras_mot.analysis.measure(random, latency_runs=0, progress=False))


def test_columns_name_the_metric_of_each_output():
    inputs = keras.Input((3,))
    outputs = {name: keras.layers.Dense(units, name=name)(inputs) for name, units in (("kind", 4), ("age", 1))}
    x, labels = np.ones((8, 3), "float32"), {"kind": np.zeros(8, int), "age": np.ones(8)}
    report = measure(
        keras.Model(inputs, outputs), data=(x, labels), metric={"kind": "accuracy", "age": "mae"}, progress=False
    )
    assert report.metric_names == {"kind": "accuracy", "age": "mae"}
    head = next(line for line in report.to_markdown().splitlines() if "zipped" in line)
    assert [cell.strip() for cell in head.strip("|").split("|")][-2:] == ["accuracy of 'kind'", "mae of 'age'"]
