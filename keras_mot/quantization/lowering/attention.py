"""Breaks einsum and attention layers down into dense layers, matrix products and softmax."""

import math

import numpy as np
from keras import layers, ops

from keras_mot._keras import attention_axes, attention_projection
from keras_mot.quantization.lowering.weighted import with_activation

_HEADS_FIRST = (0, 2, 1, 3)


def einsum_dense(lowering, layer, inputs):
    """An `EinsumDense` layer as a dense layer between reshapes or, if its equation is of another kind, as it is."""
    outputs = _as_dense(lowering, layer, inputs, layer.name)
    return with_activation(lowering, layer, inputs) if outputs is None else outputs


def _as_dense(lowering, layer, inputs, name):
    """An `EinsumDense` layer as a dense layer of this name between reshapes, or `None`."""
    left, output = layer.equation.replace(" ", "").split("->")
    letters, kernel_letters = left.split(",")
    summed = [letter for letter in letters if letter in kernel_letters]
    kept = [letter for letter in letters if letter not in summed]
    made = [letter for letter in kernel_letters if letter not in summed]
    bias_axes = set(layer.bias_axes or "")
    plain = "." not in layer.equation and kept[:1] == [letters[0]] and output[:1] == letters[0]
    plain = plain and set(output) == {*kept, *made}
    if not plain or set(summed) & set(output) or not bias_axes <= set(made) or None in inputs.shape[1:]:
        return None
    size = dict(zip(letters, inputs.shape, strict=True)) | dict(zip(kernel_letters, layer.kernel.shape, strict=True))
    widths = [size[letter] for letter in made]

    def as_matrix(kernel):
        kernel = kernel.transpose([kernel_letters.index(letter) for letter in (*summed, *made)])
        return kernel.reshape(-1, math.prod(widths))

    def as_vector(bias):
        bias = bias.reshape((1,) * (len(output) - bias.ndim) + bias.shape)
        bias = bias.transpose([output.index(letter) for letter in (*kept, *made)])[(0,) * len(kept)]
        return np.broadcast_to(bias, widths).reshape(-1)

    def build():
        dense = layers.Dense(
            math.prod(widths),
            activation=layer.activation,
            use_bias=layer.bias is not None,
            trainable=layer.trainable,
            name=name,
        )
        dense.build((None, math.prod(size[letter] for letter in summed)))
        lowering.move(layer.kernel, dense.kernel, as_matrix)
        if layer.bias is not None:
            lowering.move(layer.bias, dense.bias, as_vector)
        return dense

    rows = _transposed(inputs, letters, (*kept, *summed))
    rows = ops.reshape(rows, (-1, math.prod(size[letter] for letter in summed)))
    results = lowering.steps(lowering.make(layer, "dense", build), rows)
    results = ops.reshape(results, (-1, *(size[letter] for letter in kept[1:]), *widths))
    return _transposed(results, (*kept, *made), output)


def multi_head(lowering, layer, query, value, key=None):
    """`MultiHeadAttention` or `GroupQueryAttention` on sequences without masks as matrix products, or `None`."""
    key = value if key is None else key
    tensors = (query, key, value)
    if _has_extras(layer):
        return None
    if any(len(tensor.shape) != 3 or None in tensor.shape[1:] for tensor in tensors):
        return None
    heads = []
    for part, tensor in zip(("query", "key", "value"), tensors, strict=True):
        head = _projected(lowering, layer, part, tensor)
        if part != "query" and isinstance(layer, layers.GroupQueryAttention):
            head = ops.repeat(head, layer.num_repeats, axis=2)
        heads.append(ops.transpose(head, _HEADS_FIRST))
    query, key, value = heads
    scores = ops.matmul(query * (1.0 / math.sqrt(query.shape[-1])), ops.transpose(key, (0, 1, 3, 2)))
    weights = _dropped(lowering, layer, _softmax(lowering, layer, scores))
    mixed = ops.transpose(ops.matmul(weights, value), _HEADS_FIRST)
    return _projected(lowering, layer, "output", mixed)


def projections(layer):
    """The dense layers of an attention layer."""
    return [attention_projection(layer, part) for part in ("query", "key", "value", "output")]


def _projected(lowering, layer, part, inputs):
    """The result of one of the dense layers of an attention layer."""
    projection = attention_projection(layer, part)
    if lowering.selected(projection):
        outputs = _as_dense(lowering, projection, inputs, f"{layer.name}_{part}")
    else:
        outputs = projection(inputs)
    lowering.claim(projection, inputs, outputs)
    return outputs


def attention(lowering, layer, inputs):
    """`Attention` by dot products without masks as matrix products, or `None`."""
    query, value, key = (*inputs, inputs[1])[:3]
    dot = layer.score_mode == "dot" and not layer.use_scale
    if not dot or any(len(tensor.shape) != 3 for tensor in inputs):
        return None
    scores = ops.matmul(query, ops.transpose(key, (0, 2, 1)))
    return ops.matmul(_dropped(lowering, layer, _softmax(lowering, layer, scores)), value)


def _has_extras(layer):
    """Whether an attention layer does more than attend to all of a sequence."""
    config = layer.get_config()
    return bool(config.get("use_gate") or config.get("sliding_window")) or tuple(attention_axes(layer) or (1,)) != (1,)


def _softmax(lowering, layer, scores):
    return lowering.make(layer, "softmax", lambda: layers.Softmax(name=f"{layer.name}_softmax"))(scores)


def _transposed(tensor, letters, order):
    axes = [list(letters).index(letter) for letter in order]
    return tensor if axes == sorted(axes) else ops.transpose(tensor, axes)


def _dropped(lowering, layer, weights):
    rate = getattr(layer, "dropout", 0) or 0
    if not rate:
        return weights
    return lowering.make(layer, "dropout", lambda: layers.Dropout(rate, name=f"{layer.name}_dropout"))(weights)
