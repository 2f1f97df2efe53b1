"""Quantizing what stands behind the layers that look things up, which stay as they are."""

import keras
import numpy as np
from keras import ops

from keras_mot._keras import no_gradients
from keras_mot.data.inputs import labelled_batches
from keras_mot.graph.preprocessing import split_preprocessing
from keras_mot.graph.rewrite import run_on
from keras_mot.layers.copying import copy_model, new_input
from keras_mot.quantization.simulation.kept_class import of_class_of
from keras_mot.quantization.simulation.sources import hand_on_sources


class LookedUp:
    """Calibration data as batches of what a model's preprocessing returns, with labels if there are some.

    It can be gone through once, and has a length if the data have.
    """

    def __init__(self, model, preprocessing, data, batch_size):
        self._count, self._batches = labelled_batches(model, data, batch_size, "calibration_data")
        self._preprocessing = preprocessing

    def __len__(self):
        if self._count is None:
            raise TypeError("The data do not tell how many batches there are.")
        return self._count

    def __iter__(self):
        for inputs, labels in self._batches:
            with no_gradients():
                outputs = self._preprocessing(keras.tree.map_structure(_tensor, inputs))
            outputs = keras.tree.map_structure(ops.convert_to_numpy, outputs)
            yield outputs if labels is None else (outputs, labels)


def _tensor(array):
    """A tensor, of texts too, which Keras makes no tensors of."""
    if isinstance(array, np.ndarray) and array.dtype.kind in "OSU":
        import tensorflow as tf

        return tf.constant(array.astype(str) if array.dtype.kind == "O" else array)
    return ops.convert_to_tensor(array)


def split(model):
    """The two models of `split_preprocessing`, and what `joined` needs of the first: a copy of it."""
    preprocessing, behind = split_preprocessing(model)
    return preprocessing, behind, copy_model(preprocessing)


def joined(preprocessing, quantized, user_model):
    """One model of what looks things up and of a quantized one behind it."""

    def call(operation, *args, **kwargs):
        return operation(*args, **kwargs)

    inputs = keras.tree.map_structure(new_input, preprocessing.input)
    outputs = run_on(quantized, run_on(preprocessing, inputs, call), call)
    result = of_class_of(user_model, keras.Model(inputs, outputs, name=user_model.name))
    hand_on_sources(quantized, result)
    return result
