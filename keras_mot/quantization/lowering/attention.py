"""Breaks einsum, attention and masked softmax layers down into dense layers, matrix products and softmax."""

import math

import keras
import numpy as np
from keras import layers, ops

from keras_mot._keras import attention_axes, attention_projection
from keras_mot.layers.masked_softmax import MaskedScores, MaskedSoftmax, with_causal
from keras_mot.quantization.lowering.affine import affine
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


def multi_head(
    lowering,
    layer,
    query,
    value,
    key=None,
    query_mask=None,
    value_mask=None,
    key_mask=None,
    attention_mask=None,
    use_causal_mask=False,
):
    """`MultiHeadAttention` or `GroupQueryAttention` as matrix products, or `None`."""
    masks = [
        *((mask, axes) for mask, axes in ((query_mask, (1, 3)), (value_mask, (1, 2)), (key_mask, (1, 2)))),
        (attention_mask, (1,) if len(getattr(attention_mask, "shape", ())) == 3 else ()),
    ]
    masks = [(mask, axes) for mask, axes in masks if mask is not None]
    key = value if key is None else key
    tensors = (query, key, value)
    axes = tuple(attention_axes(layer) or (1,))
    if _has_extras(layer) or any(len(tensor.shape) != len(query.shape) for tensor in tensors):
        return None
    if any(None in tensor.shape[1:] for tensor in tensors):
        return None
    if len(query.shape) != 3 and (masks or use_causal_mask):  # of several axes
        return None
    heads, shape = [], query.shape[:-1]
    for part, tensor in zip(("query", "key", "value"), tensors, strict=True):
        head = _projected(lowering, layer, part, tensor)
        if part != "query" and isinstance(layer, layers.GroupQueryAttention):
            head = ops.repeat(head, layer.num_repeats, axis=2)
        heads.append(ops.transpose(_as_sequences(head, axes), _HEADS_FIRST))
    query, key, value = heads
    scores = ops.matmul(query * (1.0 / math.sqrt(query.shape[-1])), ops.transpose(key, (0, 1, 3, 2)))
    weights = _dropped(lowering, layer, _masked_softmax(lowering, layer, scores, masks, bool(use_causal_mask)))
    mixed = _from_sequences(ops.transpose(ops.matmul(weights, value), _HEADS_FIRST), axes, shape)
    return _projected(lowering, layer, "output", mixed)


def _as_sequences(heads, axes):
    """(batch, positions, heads, features) of heads with several axes of positions.

    The positions along the axes that are attended to become one sequence, the others part of the batch.
    """
    positions = range(1, len(heads.shape) - 2)
    if len(positions) == 1:
        return heads
    others = [axis for axis in positions if axis not in axes]
    heads = _reordered(heads, (0, *others, *axes, *range(len(heads.shape) - 2, len(heads.shape))))
    return ops.reshape(heads, (-1, math.prod(heads.shape[1 + len(others) : -2]), *heads.shape[-2:]))


def _from_sequences(heads, axes, shape):
    """The inverse of `_as_sequences`, for a batch and positions of this shape."""
    positions = range(1, len(shape))
    if len(positions) == 1:
        return heads
    order = (0, *(axis for axis in positions if axis not in axes), *axes)
    heads = ops.reshape(heads, (-1, *(shape[axis] for axis in order[1:]), *heads.shape[-2:]))
    order = (*order, *range(len(shape), len(shape) + 2))
    return _reordered(heads, np.argsort(order).tolist())


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


def attention(lowering, layer, inputs, mask=None, use_causal_mask=False):
    """`Attention` by dot products as matrix products, or `None`."""
    query, value, key = (*inputs, inputs[1])[:3]
    if layer.score_mode != "dot" or any(len(tensor.shape) != 3 for tensor in inputs):
        return None
    if layer.use_scale:
        scale = np.full(query.shape[-1], float(ops.convert_to_numpy(layer.scale)))
        query = affine(lowering, layer, query, -1, scale, np.zeros_like(scale), trained=layer.trainable)
        if query is None:
            return None
    scores = ops.matmul(query, ops.transpose(key, (0, 2, 1)))
    return _attended(lowering, layer, scores, value, mask, use_causal_mask)


def additive_attention(lowering, layer, inputs, mask=None, use_causal_mask=False):
    """`AdditiveAttention` as sums, tanh and a dense layer, or `None`."""
    query, value, key = (*inputs, inputs[1])[:3]
    if any(len(tensor.shape) != 3 or None in tensor.shape[1:] for tensor in inputs):
        return None

    def build():
        dense = layers.Dense(1, use_bias=False, trainable=layer.trainable, name=f"{layer.name}_scores")
        dense.build((None, None, None, query.shape[-1]))
        lowering.move(layer.scale, dense.kernel, lambda scale: scale.reshape(-1, 1))
        return dense

    pairs = ops.tanh(ops.expand_dims(query, 2) + ops.expand_dims(key, 1))
    if layer.use_scale:
        scores = ops.squeeze(lowering.make(layer, "scores", build)(pairs), -1)
    else:
        scores = ops.sum(pairs, axis=-1)
    return _attended(lowering, layer, scores, value, mask, use_causal_mask)


def _attended(lowering, layer, scores, value, mask, causal):
    """What a layer of one head attends to; `None` where a causal mask has no size."""
    if causal and None in scores.shape[1:]:
        return None
    of_query, of_value = (*mask, None)[:2] if mask else (None, None)
    masks = [] if of_value is None else [(of_value, (1,) if len(of_value.shape) == 2 else ())]
    weights = _masked_softmax(lowering, layer, scores, masks, bool(causal), zeros=False)
    mixed = ops.matmul(_dropped(lowering, layer, weights), value)
    if of_query is None:
        return mixed
    return ops.where(ops.expand_dims(ops.cast(of_query, "bool"), -1), mixed, 0.0)


def dot_product(lowering, operation, query, key, value, bias=None, mask=None, scale=None):
    """`keras.ops.dot_product_attention` as matrix products, or `None`; of keys and values, there may be fewer heads."""
    heads, groups = query.shape[2], key.shape[2]
    tensors = query, key, value
    if operation.attn_logits_soft_cap is not None or not all(map(keras.utils.is_keras_tensor, tensors)):
        return None
    if None in (heads, groups, query.shape[3]) or keras.utils.is_keras_tensor(scale) or np.size(scale) != 1:
        return None
    if operation.is_causal and None in (query.shape[1], key.shape[1]):
        return None
    if heads != groups:
        key, value = (ops.repeat(tensor, heads // groups, axis=2) for tensor in (key, value))
    query, key, value = (ops.transpose(tensor, _HEADS_FIRST) for tensor in (query, key, value))
    factor = 1.0 / math.sqrt(query.shape[-1]) if scale is None else float(np.max(ops.convert_to_numpy(scale)))
    scores = ops.matmul(query * factor, ops.transpose(key, (0, 1, 3, 2)))
    if bias is not None:
        scores = scores + bias
    masks = [] if mask is None else [(mask, ())]
    weights = _masked_softmax(lowering, operation, scores, masks, bool(operation.is_causal))
    return ops.transpose(ops.matmul(weights, value), _HEADS_FIRST)


def softmax(lowering, operation, inputs=None, x=None, mask=None):
    """Softmax of any axes, as layer and as operation, along the last one.

    Layers call it `inputs`, operations `x`. `None` for the last axis without a mask, or others with one.
    """
    inputs = x if inputs is None else inputs
    if mask is None:
        return _along_the_last(lowering, operation, inputs, layers.Softmax)
    if _axes_of(operation, inputs) != (len(inputs.shape) - 1,):
        return None
    return _softmax_with_mask(lowering, operation, inputs, mask)


def where(lowering, operation, condition, x1, x2):
    """Scores of which a mask leaves some out, in front of their softmax; `None` for all else."""
    if id(operation) not in lowering.scores:
        return None
    mask = ops.cast(condition, "bool")
    return lowering.make(operation, "left", lambda: MaskedScores(name=operation.name))(x1, mask=mask)


def log_softmax(lowering, operation, inputs=None, x=None):
    """The logarithm of the softmax of any axes, as layer and as operation, along the last one."""
    inputs = x if inputs is None else inputs
    return _along_the_last(lowering, operation, inputs, lambda name: layers.Activation("log_softmax", name=name))


def _along_the_last(lowering, operation, inputs, build):
    """What `build(name=)` makes, along the axes of an operation; `None` if it would be that operation itself."""
    rank, axes = len(inputs.shape), _axes_of(operation, inputs)
    if getattr(operation, "axis", -1) == -1 or any(inputs.shape[axis] is None for axis in axes):
        return None
    if len(axes) > 1 and (0 in axes or None in inputs.shape[1:]):
        return None
    step = lowering.make(operation, "last axis", lambda: build(name=operation.name))
    order = (*(axis for axis in range(rank) if axis not in axes), *axes)
    moved = _reordered(inputs, order)
    shape = moved.shape[1:]
    if len(axes) > 1:
        moved = ops.reshape(moved, (-1, *shape[: -len(axes)], math.prod(shape[-len(axes) :])))
    outputs = step(moved)
    if len(axes) > 1:
        outputs = ops.reshape(outputs, (-1, *shape))
    return _reordered(outputs, np.argsort(order).tolist())


def _axes_of(operation, inputs):
    """The axes of a softmax, counted from the front."""
    axis = getattr(operation, "axis", -1)
    axes = axis if isinstance(axis, (tuple, list)) else (axis,)
    return tuple(sorted(each % len(inputs.shape) for each in axes))


def _softmax_with_mask(lowering, layer, inputs, mask):
    if mask.dtype != "bool":
        mask = ops.greater(mask, 0.5 if "float" in str(mask.dtype) else 0)  # of integers, the same without floats
    if lowering.masks:
        return _softmax_of_left(lowering, layer, inputs, mask, layer.name)
    return lowering.make(layer, "softmax", lambda: MaskedSoftmax(name=layer.name))(inputs, mask=mask)


def _softmax_of_left(lowering, layer, scores, mask, name):
    """The softmax of the scores that a mask leaves, in two steps that there are kernels for."""
    scores = lowering.make(layer, "left", lambda: MaskedScores(name=f"{layer.name}_left"))(scores, mask=mask)
    return lowering.make(layer, "softmax", lambda: layers.Softmax(name=name))(scores)


def _has_extras(layer):
    """Whether an attention layer does more than attend to all of a sequence."""
    config = layer.get_config()
    return bool(config.get("use_gate") or config.get("sliding_window"))


def _softmax(lowering, layer, scores):
    return lowering.make(layer, "softmax", lambda: layers.Softmax(name=f"{layer.name}_softmax"))(scores)


def _masked_softmax(lowering, layer, scores, masks, causal, zeros=None):
    """The weights of attention with masks.

    Args:
        lowering: what makes and calls the steps.
        layer: the attention layer.
        scores: symbolic tensor of shape (batch, heads, positions, positions attended to).
        masks: pairs of a mask, a symbolic tensor or an array, and the axes of length 1 that it lacks.
        causal: whether positions attend only to those before them.
        zeros: whether the weights are 0 where everything is left out; by default, as `MultiHeadAttention` has it.
    """
    if not masks and not causal:
        return _softmax(lowering, layer, scores)
    # Where everything is left out, Keras's layer has weights of 0 if it drops some of them, and equal ones otherwise.
    zeros = bool(getattr(layer, "dropout", 0)) if zeros is None else zeros
    total = None
    for mask, axes in masks:
        mask = ops.expand_dims(ops.cast(mask, "bool"), axes) if axes else ops.cast(mask, "bool")
        total = mask if total is None else ops.logical_and(total, mask)
    if lowering.masks:
        total = with_causal(total, scores.shape) if causal else total
        weights = _softmax_of_left(lowering, layer, scores, total, f"{layer.name}_softmax")
        # A position is before itself: what is left out of a row by a causal mask alone is never all of it.
        return ops.where(total, weights, 0.0) if zeros and masks else weights
    apart = zeros and not lowering.fast and not causal  # for the fewest operators in floats
    settings = {"causal": causal, "zeros": zeros and not apart, "name": f"{layer.name}_softmax"}
    softmax = lowering.make(layer, ("softmax", causal), lambda: MaskedSoftmax(**settings))
    weights = softmax(scores) if total is None else softmax(scores, mask=total)
    return ops.where(total, weights, 0.0) if apart else weights


def _transposed(tensor, letters, order):
    return _reordered(tensor, [list(letters).index(letter) for letter in order])


def _reordered(tensor, axes):
    return tensor if list(axes) == sorted(axes) else ops.transpose(tensor, axes)


def _dropped(lowering, layer, weights):
    rate = getattr(layer, "dropout", 0) or 0
    if not rate:
        return weights
    return lowering.make(layer, "dropout", lambda: layers.Dropout(rate, name=f"{layer.name}_dropout"))(weights)
