"""Breaks down encodings of categories, where all is to be in integers."""

import keras
import numpy as np
from keras import layers, ops

_LARGEST = 256  # categories; the table of rows grows by their square


def one_hot(lowering, layer, inputs):
    """`CategoryEncoding` of one category for each row as a lookup in a table of such rows, or `None`.

    The operator that makes these rows returns floats; a lookup returns integers, at the cost of the table. Categories
    that there are not have rows of zeros, as the layer has them.
    """
    count = layer.num_tokens
    if lowering.fast or layer.output_mode != "one_hot" or layer.sparse or count > _LARGEST:
        return None
    if not keras.utils.is_keras_tensor(inputs) or None in inputs.shape[1:]:
        return None

    def build():
        table = layers.Embedding(count + 2, count, trainable=False, name=layer.name)
        table.build()
        table.embeddings.assign(np.eye(count + 2, count, k=-1, dtype="float32"))
        return table

    shape = inputs.shape[1:-1] if len(inputs.shape) > 1 and inputs.shape[-1] == 1 else inputs.shape[1:]
    numbers = ops.clip(ops.reshape(ops.cast(inputs, "int32"), (-1, *shape)), -1, count) + 1
    return lowering.make(layer, "table", build)(numbers)
