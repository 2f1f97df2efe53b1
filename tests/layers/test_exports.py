"""Keras's exports warn of a model that still has transforms."""

import warnings

import keras
import numpy as np
import pytest

from keras_mot.layers import transformed_weights
from keras_mot.sparsity import ConstantSparsity, prune_low_magnitude, strip_pruning, update_pruning_step


@pytest.fixture(scope="module")
def pruned():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="last")])
    pruned = prune_low_magnitude(model, ConstantSparsity(0.5))
    update_pruning_step(pruned, 0)
    return pruned


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow's archive")
def test_exporting_masks_is_warned_of(pruned):
    with pytest.warns(UserWarning, match=r"still has masks.*`strip_pruning`.*`keras_mot.export.export_litert"):
        keras.export.ExportArchive().track(pruned)
    stripped = strip_pruning(pruned)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*still has masks")
        keras.export.ExportArchive().track(stripped)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow's converter")
def test_the_converter_of_tensorflow_and_model_export_warn_once(pruned, tmp_path):
    import tensorflow as tf

    with pytest.warns(UserWarning, match="still has masks") as caught:
        pruned.export(tmp_path / "saved", verbose=False)
    assert sum("still has masks" in str(each.message) for each in caught) == 1
    with pytest.warns(UserWarning, match="still has masks"):
        tf.lite.TFLiteConverter.from_keras_model(pruned).convert()


def test_effective_values_before_stripping(pruned):
    """`get_weights` shows what is stored; `effective_value` what is computed with."""
    (weight,) = transformed_weights(pruned)
    effective = keras.ops.convert_to_numpy(weight.effective_value())
    assert np.mean(effective == 0) == 0.5
    assert np.mean(pruned.get_weights()[0] == 0) == 0
    np.testing.assert_array_equal(effective, strip_pruning(pruned).get_weights()[0])
