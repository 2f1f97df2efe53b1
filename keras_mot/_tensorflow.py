"""Element-wise work on the TensorFlow backend in as few passes over memory as it takes.

TensorFlow runs each operation of a graph by itself, and the gradients of its fake quantization compute those of the
limits as well. Only eager and graph execution gain; XLA fuses either way.
"""


def rounded_weight(weight, rounded):
    """`rounded`, with the gradient of `weight`."""
    import tensorflow as tf

    return tf.grad_pass_through(lambda _: rounded)(weight)


def with_clipped_gradient(inputs, rounded, low, high):
    """`rounded`, with the gradient of `inputs`, but none outside of [low, high].

    Args:
        inputs: float32 tensor.
        rounded: tensor of the same shape.
        low: scalar tensor, the least number.
        high: scalar tensor, the greatest number.
    """
    import tensorflow as tf

    @tf.custom_gradient
    def passed(inputs):
        def gradient(upstream):
            # One kernel passes what lies between 0 and 6. The limits themselves are inside.
            margin = 1e-4 * (high - low)
            shares = (inputs - (low - margin)) * (6.0 / (high - low + 2.0 * margin))
            return tf.raw_ops.Relu6Grad(gradients=upstream, features=shares)

        return rounded, gradient

    return passed(inputs)


def one_of(flag, then, otherwise):
    """What one of two functions returns, by a scalar tensor of truth; the other is not run."""
    import tensorflow as tf

    return tf.cond(flag, then, lambda: tf.identity(otherwise()))


def nearest(inputs, low, high, bits, narrow):
    """Inputs rounded to a range, without a gradient of their own.

    Args:
        inputs: float32 tensor.
        low: scalar tensor, the least number.
        high: scalar tensor, the greatest number.
        bits: of an integer.
        narrow: whether the least integer is left out.
    """
    import tensorflow as tf

    return tf.quantization.fake_quant_with_min_max_vars(inputs, low, high, bits, narrow)
