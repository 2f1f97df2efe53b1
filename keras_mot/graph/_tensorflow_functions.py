"""TensorFlow's own functions in the `call` of layers: those of `keras.ops` that compute the same, on symbolic tensors.

Layers that were written for the TensorFlow backend call `tf.gather` or `tf.nn.relu`, which know no symbolic tensors of
Keras. TensorFlow asks who else can do it before it gives up.
"""

import contextlib
import functools
import inspect
import threading

import keras
import numpy as np
from keras import ops

_WITHIN = threading.local()


@contextlib.contextmanager
def translated():
    """Context in which functions of TensorFlow take symbolic tensors, where `keras.ops` has one that does the same."""
    if keras.backend.backend() != "tensorflow":
        yield
        return
    _register()
    before = getattr(_WITHIN, "active", False)
    _WITHIN.active = True
    try:
        yield
    finally:
        _WITHIN.active = before


@functools.cache
def _register():
    import tensorflow as tf

    table = _table(tf)

    class Dispatcher(tf.__internal__.dispatch.GlobalOpDispatcher):
        """Translates calls with symbolic tensors; all others are none of its business."""

        def handle(self, op, args, kwargs):
            leaves = keras.tree.flatten((args, kwargs))
            if not getattr(_WITHIN, "active", False) or not any(isinstance(e, keras.KerasTensor) for e in leaves):
                return self.NOT_SUPPORTED
            function = table.get(inspect.unwrap(op))
            try:
                result = None if function is None else function(*args, **kwargs)
            except (TypeError, ValueError):  # an argument that has no counterpart
                return self.NOT_SUPPORTED
            return self.NOT_SUPPORTED if result is None else result

    Dispatcher().register()


def _table(tf):
    """Dictionary from functions of TensorFlow, without what they are wrapped in, to what takes their arguments."""
    renamed = {
        tf.reshape: lambda tensor, shape: ops.reshape(tensor, [int(length) for length in shape]),
        tf.transpose: lambda a, perm=None: ops.transpose(a, perm),
        tf.matmul: _matmul,
        tf.concat: lambda values, axis: ops.concatenate(values, axis=axis),
        tf.stack: lambda values, axis=0: ops.stack(values, axis=axis),
        tf.expand_dims: lambda input, axis: ops.expand_dims(input, axis),
        tf.squeeze: lambda input, axis=None: ops.squeeze(input, axis),
        tf.cast: lambda x, dtype: ops.cast(x, tf.as_dtype(dtype).name),
        tf.shape: _shape,
        tf.gather: _gather,
        tf.where: lambda condition, x=None, y=None: None if x is None else ops.where(condition, x, y),
        tf.nn.softmax: lambda logits, axis=-1: ops.softmax(logits, axis=-1 if axis is None else axis),
        tf.nn.gelu: lambda features, approximate=False: ops.gelu(features, approximate=approximate),
    }
    for name in ("sum", "mean", "max", "min"):
        renamed[getattr(tf, f"reduce_{name}")] = functools.partial(_reduced, getattr(ops, name))
    for name in ("sqrt", "square", "exp", "sigmoid", "tanh", "abs", "negative"):
        renamed[getattr(tf, name)] = functools.partial(_of_one, getattr(ops, name))
    for name in ("relu", "relu6", "silu", "elu", "softplus"):
        renamed[getattr(tf.nn, name)] = functools.partial(_of_one, getattr(ops, name))
    for name in ("add", "subtract", "multiply", "divide", "maximum", "minimum"):
        renamed[getattr(tf, name)] = functools.partial(_of_two, getattr(ops, name))
    return {inspect.unwrap(known): functools.partial(_without_name, function) for known, function in renamed.items()}


def _without_name(function, *args, name=None, **kwargs):
    return function(*args, **kwargs)


def _of_one(function, *args, **kwargs):
    given = (*args, *kwargs.values())
    return function(*given) if len(given) == 1 else None


def _of_two(function, x, y):
    return function(x, y)


def _reduced(function, input_tensor, axis=None, keepdims=False):
    whole = keras.backend.is_int_dtype(input_tensor.dtype)  # TensorFlow's mean of whole numbers is a whole number
    return None if whole and function is ops.mean else function(input_tensor, axis=axis, keepdims=keepdims)


def _matmul(a, b, transpose_a=False, transpose_b=False):
    return ops.matmul(*(ops.swapaxes(x, -1, -2) if turned else x for x, turned in ((a, transpose_a), (b, transpose_b))))


def _shape(input):
    """The sizes, if all are known, as an array to compute with; nothing stands for an open one."""
    return None if None in input.shape else np.array(input.shape, "int32")


def _gather(params, indices, validate_indices=None, axis=None, batch_dims=0):
    """Rows by their numbers, of all samples or of each; `None` for other forms."""
    rank = len(params.shape)
    axis = batch_dims if axis is None else axis
    if batch_dims == 0:
        return ops.take(params, indices, axis=axis)
    along = batch_dims % rank == axis % rank == rank - 1
    return ops.take_along_axis(params, indices, axis=axis) if along and _rank(indices) == rank else None


def _rank(array):
    return len(array.shape) if hasattr(array, "shape") else np.ndim(array)
