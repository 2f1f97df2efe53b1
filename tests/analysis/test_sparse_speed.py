"""Whether zeros make a file faster on Arm, and what of that can be measured here."""

import json
import platform

import keras
import numpy as np
import pytest
from keras import layers

from keras_mot._arrays import numpy_value
from keras_mot.analysis import measure
from keras_mot.analysis._measure import _with_many_zeros
from keras_mot.analysis._tensors import TensorStats
from keras_mot.cli import main
from keras_mot.export import export_litert
from keras_mot.quantization import INT8, quantize_post_training

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="reads files, which are the same on every backend"
)


def network(zeros, stem=True):
    """1x1 convolutions behind a 3x3 one, as XNNPACK's sparse inference wants them, and an average over positions."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((16, 16, 3))
    x = layers.ZeroPadding2D(1)(inputs) if stem else inputs
    x = layers.Conv2D(16, 3, strides=2, padding="valid" if stem else "same", activation="relu")(x)
    x = layers.Conv2D(64, 1, activation="relu", name="wide")(x)
    x = layers.Conv2D(32, 1, activation="relu", name="narrow")(x)
    model = keras.Model(inputs, layers.Dense(4)(layers.GlobalAveragePooling2D()(x)))
    for name, share in zeros.items():
        kernel = model.get_layer(name).kernel
        values = np.array(numpy_value(kernel))
        values[np.abs(values) <= np.quantile(np.abs(values), share)] = 0.0
        kernel.assign(values)
    return model


def speed_of(model, path, **options):
    exported = export_litert(model, path, **options)
    return measure(exported, latency_runs=0, progress=False)[path.name].sparse_speed


def test_sparse_kernels_apply(tmp_path, monkeypatch):
    found = speed_of(network({"wide": 0.9, "narrow": 0.75}), tmp_path / "a.tflite")
    assert found.applies
    assert found.layers == ("wide/kernel", "narrow/kernel")
    assert found.zeros == pytest.approx((0.9 * 16 * 64 + 0.75 * 64 * 32) / (16 * 64 + 64 * 32), abs=0.01)
    for machine, measurable in (("x86_64", False), ("aarch64", True)):
        monkeypatch.setattr(platform, "machine", lambda machine=machine: machine)
        found = speed_of(network({"wide": 0.9, "narrow": 0.75}), tmp_path / "b.tflite")
        assert found.measurable is measurable
        assert "on Arm, XNNPACK's sparse kernels compute 2 1x1 convolutions, of whose weights 80% are zero" in str(
            found
        )
        assert ("cannot be measured here" in str(found)) is not measurable


def stats(name, size, zeros):
    return TensorStats(name, (1, size), "float32", size, zeros, 2, 1.0, 4 * size)


def test_zeros_of_other_constants_are_no_pruning():
    """States of recurrent layers begin with zeros, and small tables have many."""
    kernel, state, table = stats("kernel", 10_000, 20), stats("state", 4_000, 4_000), stats("table", 100, 90)
    assert _with_many_zeros((kernel, state, table)) == []
    pruned = stats("pruned", 1_000, 900)
    assert _with_many_zeros((kernel, state, pruned)) == [pruned]


def test_zeros_are_counted_over_all_kernels_of_the_part(tmp_path):
    found = speed_of(network({"wide": 0.9, "narrow": 0.4}), tmp_path / "a.tflite")
    assert not found.applies
    assert found.reason == "57% zeros in all 1x1 kernels behind the stem, and not more than 2/3"


def test_why_they_do_not_apply(tmp_path):
    found = speed_of(network({"wide": 0.9, "narrow": 0.9}, stem=False), tmp_path / "a.tflite")
    assert (found.applies, found.reason) == (False, "no stem that XNNPACK's sparse inference starts from")
    assert str(found).startswith("zeros make nothing faster, on Arm neither: no stem")
    sparse = network({"wide": 0.9, "narrow": 0.9})
    dense = speed_of(sparse, tmp_path / "b.tflite", sparse_encoding=False)
    assert "no weight is sparsely encoded" in dense.reason
    x = np.random.default_rng(0).standard_normal((16, 16, 16, 3)).astype("float32")
    integers = speed_of(quantize_post_training(sparse, INT8, x), tmp_path / "c.tflite")
    assert integers.reason == "XNNPACK's sparse kernels compute with floats, not with integers"
    assert speed_of(network({"wide": 0.5}), tmp_path / "d.tflite") is None
    assert measure(sparse, latency_runs=0, progress=False)[sparse.name].sparse_speed is None


def test_reports_say_so(tmp_path, capsys):
    exported = export_litert(network({"wide": 0.9, "narrow": 0.75}), tmp_path / "a.tflite")
    report = measure(exported, latency_runs=0, progress=False)
    text = "a.tflite: on Arm, XNNPACK's sparse kernels compute 2 1x1 convolutions"
    assert text in report.to_markdown()
    assert text in " ".join(str(report).split())
    assert main(["inspect", str(exported.path)]) == 0
    assert "Speed: on Arm, XNNPACK's sparse kernels compute 2" in " ".join(capsys.readouterr().out.split())
    assert main(["measure", str(exported.path), "--latency-runs", "0", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["measurements"]
    assert row["sparse_speed"]["layers"] == ["wide/kernel", "narrow/kernel"]
    assert row["sparse_speed"]["applies"]
