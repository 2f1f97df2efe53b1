"""Functions of tensors that TensorFlow traces, and JAX compiles, once for all the layers that call them.

A quantized model has dozens of quantizers, each of a dozen operations. TensorFlow would make them anew in Python in
every function that it traces, for training, evaluation and prediction, of every model; JAX would compile each by itself
whenever a model is called outside of a compiled function.
"""

import functools
from collections.abc import Callable
from typing import Any

import keras


def traced_once(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that returns what `function` does, but is traced once for each combination of settings.

    TensorFlow calls it as one operation then, which has no gradient. PyTorch, which traces nothing, gets the function
    as it is.

    Args:
        function: takes float32 tensors of any shape by position, of which the first may follow from trained variables,
            and settings, hashable Python values, by name. It returns a tensor, or a structure of them, and reads no
            variables.

    Returns:
        The function. On TensorFlow the shapes of what it returns are not known while something around it is traced; say
        them with `set_shape` where they are needed.
    """
    backend = keras.backend.backend()

    @functools.cache
    def with_settings(count, settings):
        def bound(*tensors):
            return function(*tensors, **dict(settings))

        if backend == "tensorflow":
            return _concrete(bound, count)
        if backend == "jax":
            import jax

            return jax.jit(bound)
        return bound

    @functools.wraps(function)
    def call(*tensors, **settings):
        return with_settings(len(tensors), tuple(sorted(settings.items())))(*tensors)

    return call


def _concrete(function, count):
    import tensorflow as tf

    with tf.init_scope():  # it belongs to no graph that may be traced around it
        specs = [tf.TensorSpec(None, tf.float32)] * count
        traced = tf.function(function, autograph=False).get_concrete_function(*specs)
    # A gradient would be traced for each call. Only the first argument follows from what is trained.
    return lambda first, *others: traced(tf.stop_gradient(first), *map(tf.convert_to_tensor, others))
