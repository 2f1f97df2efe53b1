"""Tests of `measure_drift`: the inner values of a file beside those of the simulation."""

import keras
import numpy as np
import pytest

from keras_mot.analysis import measure_drift
from keras_mot.export import LiteRTRunner, export_litert
from keras_mot.layers import copy_model
from keras_mot.layers.activation_quantizer import activation_quantizers
from keras_mot.quantization import quantize_post_training
from tests.quantization.models import images, small_network
from tests.quantization.test_coverage import only_tensorflow


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    keras.utils.set_random_seed(7)
    quantized = quantize_post_training(small_network(), calibration_data=images())
    path = tmp_path_factory.mktemp("drift") / "model.tflite"
    export_litert(quantized, path)
    return quantized, path


def test_every_tensor_of_a_file_is_near_the_simulation(exported):
    quantized, path = exported
    report = measure_drift(quantized, path, images(20))
    names = {quantizer.name for quantizer in activation_quantizers(quantized)}
    assert {tensor.name for tensor in report.tensors} == names
    assert all(tensor.equal > 0.98 and tensor.within_one == 1 for tensor in report.tensors)
    assert report.tensors[0].largest == 0  # the input
    assert all(name in str(report) for name in names)


def test_a_tensor_that_differs_is_found(exported):
    quantized, path = exported
    changed = copy_model(quantized)
    changed.get_layer("head").bias.assign(quantized.get_layer("head").bias + 3.0)
    before, after = (measure_drift(model, path, images(4)) for model in (quantized, changed))
    assert {t.name for t in after.tensors if before[t.name] != t} == {"head_quantizer", "head_softmax_quantizer"}
    assert after.first_beyond(4).name == "head_quantizer"
    changed.get_layer("conv").bias.assign(quantized.get_layer("conv").bias + 3.0)
    first = measure_drift(changed, path, images(4)).first_beyond(4)
    assert first.name == activation_quantizers(quantized)[1].name  # behind the convolution


def test_samples_that_do_not_fill_a_batch_are_counted(exported):
    quantized, path = exported
    changed = copy_model(quantized)
    changed.get_layer("conv").bias.assign(quantized.get_layer("conv").bias + 0.1)
    equal = np.repeat(images(1), 16, axis=0)
    sixteen, seventeen = (measure_drift(changed, path, x) for x in (equal, np.concatenate([equal, images(2)[1:]])))
    assert [tensor.equal for tensor in sixteen.tensors] != [tensor.equal for tensor in seventeen.tensors]


def test_errors(exported, tmp_path):
    quantized, path = exported
    with pytest.raises(TypeError, match="Keras model"):
        measure_drift("model", path, images(2))
    with pytest.raises(ValueError, match="not quantized"):
        measure_drift(small_network(), path, images(2))
    other = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(2)])
    export_litert(other, tmp_path / "other.tflite")
    with pytest.raises(ValueError, match=r"inputs of|is it its file"):
        measure_drift(quantized, (tmp_path / "other.tflite").read_bytes(), images(2))


def test_only_reference_kernels_keep_inner_values(exported):
    _, path = exported
    fast, slow = LiteRTRunner(path), LiteRTRunner(path, kernels="reference")
    inputs = images(3)
    (first,), (second,) = fast.run(inputs).values(), slow.run(inputs).values()
    np.testing.assert_allclose(first, second, atol=2 / 256)
    with pytest.raises(ValueError, match="reference"):
        fast.inner_values()
    with pytest.raises(ValueError, match="kernels"):
        LiteRTRunner(path, kernels="fast")


@only_tensorflow
def test_a_quantized_model_within_a_sequential_one(tmp_path):
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(16, 8)).astype("float32")
    dense = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, activation="relu"), keras.layers.Dense(3)])
    around = keras.Sequential([keras.Input((8,)), quantize_post_training(dense, calibration_data=x)])
    path = export_litert(around, tmp_path / "model.tflite").path
    report = measure_drift(around, path, x)
    assert len(report.tensors) == 3
    assert report.first_beyond(0) is None
