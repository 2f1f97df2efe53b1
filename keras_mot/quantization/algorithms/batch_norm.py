"""Batch normalization in quantization-aware training: trained for a while, and folded then."""

import keras

from keras_mot.graph.functional import as_functional
from keras_mot.quantization.simulation.bias_rounding import round_biases
from keras_mot.quantization.simulation.checks import check_model
from keras_mot.quantization.simulation.sources import hand_on
from keras_mot.quantization.simulation.trained_batch_norm import fold_trained_batch_norm


def freeze_batch_norm(model: keras.Model) -> keras.Model:
    """A quantized model whose batch normalizations have become a part of its scales and biases.

    That is what the file will hold: the export does the same. Train on with it where statistics of batches do harm,
    or evaluate it to the last bit.

    Args:
        model: what `quantize_model` returned. It is not changed.

    Returns:
        A functional model, not compiled, that shares no variables with `model`. In inference it computes what `model`
        does, up to rounding.

    Raises:
        TypeError: if `model` is no Keras model.
        ValueError: if it has no graph to be read, or no batch normalization that is trained.

    Example:

    ```python
    quantized = quantize_model(model, calibration_data=x_train[:500])
    quantized.compile(keras.optimizers.Adam(1e-4), "sparse_categorical_crossentropy")
    quantized.fit(x_train, y_train, epochs=3)
    frozen = freeze_batch_norm(quantized)
    frozen.compile(keras.optimizers.Adam(1e-5), "sparse_categorical_crossentropy")
    frozen.fit(x_train, y_train)
    ```
    """
    check_model(model, "freeze_batch_norm")
    frozen = settled_fold(model)
    if frozen is model:
        raise ValueError(
            f"'{model.name}' has no batch normalization in training, which `quantize_model` with `batch_norm_steps` "
            "leaves behind the layers that take one over."
        )
    hand_on(model, frozen)
    return frozen


def settled_fold(model: keras.Model) -> keras.Model:
    """`model` with its batch normalizations folded, and biases rounded; itself, if there are none."""
    folded = fold_trained_batch_norm(model)
    if folded is not model:
        round_biases(as_functional(folded))
    return folded
