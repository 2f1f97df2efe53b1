"""What is different of a layer with fewer channels: its configuration and its weights."""

import numpy as np
from keras import layers

from keras_mot._arrays import numpy_value
from keras_mot._keras import attention_projection
from keras_mot.graph.channel_rules import bias_values, sums_by_channel
from keras_mot.graph.functional import is_a
from keras_mot.graph.kinds import WEIGHTED, has_role, is_kind


def fewer_channels(layer, inputs, outputs, constants, axis=-1):
    """What is different of a layer with fewer channels.

    Args:
        layer: a layer or operation.
        inputs: boolean array: which of its input channels stay.
        outputs: the same for its output channels.
        constants: the values of the inputs that do not stay.
        axis: that of the output channels, of a tensor with its batch.

    Returns:
        Two dictionaries: changes of its configuration, and its weights; both are empty for what takes any number of
        channels.
    """
    if is_kind(layer, "batch_normalization"):
        names = ("gamma", "beta", "moving_mean", "moving_variance")
        found = {name: getattr(layer, name, None) for name in names}
        return {}, {name: numpy_value(weight)[outputs] for name, weight in found.items() if weight is not None}
    if is_kind(layer, "depthwise_conv"):
        weights = {"kernel": numpy_value(layer.kernel)[..., inputs, :]}
        return {}, weights | ({"bias": numpy_value(layer.bias)[outputs]} if layer.use_bias else {})
    if is_kind(layer, "prelu"):
        slopes = numpy_value(layer.alpha)
        axis -= axis > 0  # slopes have no batch
        return {}, {"alpha": slopes if slopes.shape[axis] == 1 else slopes.compress(outputs, axis)}
    if getattr(layer, "groups", 1) > 1:
        return _fewer_in_groups(layer, inputs, outputs, constants)
    if has_role(layer, WEIGHTED):
        sums, _ = sums_by_channel(layer)
        bias = bias_values(layer) + np.where(inputs | np.isnan(constants), 0.0, constants) @ sums
        use_bias, weights = layer.use_bias or bool(bias.any()), _kernels(layer, inputs, outputs)
        size = "units" if is_kind(layer, "dense") else "filters"
        return {size: int(outputs.sum()), "use_bias": use_bias}, weights | ({"bias": bias[outputs]} if use_bias else {})
    if is_a(layer, layers.Reshape):
        shape = list(layer.target_shape)
        place = axis - (axis > 0)
        shape[place] = -1 if shape[place] == -1 else int(outputs.sum())
        return {"target_shape": tuple(shape)}, {}
    return {}, {}


def fewer_heads(layer, heads):
    """What is different of an attention layer with fewer heads: a change of its configuration, and pairs.

    Args:
        layer: a `MultiHeadAttention`.
        heads: boolean array: which heads stay.

    Returns:
        A dictionary, and a function from the new layer to pairs of a variable and its value.
    """

    def weights(made):
        for part in ("query", "key", "value", "output"):
            old, new = (attention_projection(each, part) for each in (layer, made))
            kernel = numpy_value(old.kernel)
            yield new.kernel, kernel[heads] if part == "output" else kernel[:, heads]
            if old.bias is not None:
                yield new.bias, numpy_value(old.bias) if part == "output" else numpy_value(old.bias)[heads]

    return {"num_heads": int(heads.sum())}, weights


def _fewer_in_groups(layer, inputs, outputs, constants):
    """Of a convolution in groups, as `fewer_channels`: each group loses channels of the same numbers."""
    count, kernel = layer.groups, numpy_value(layer.kernel)
    within = inputs.reshape(count, -1)[0]
    gone = np.where(inputs | np.isnan(constants), 0.0, constants).reshape(count, -1)
    sums = kernel.astype("float64").reshape(-1, *kernel.shape[-2:]).sum(axis=0).reshape(len(within), count, -1)
    bias = bias_values(layer) + np.einsum("gi,igo->go", gone, sums).reshape(-1)
    use_bias = layer.use_bias or bool(bias.any())
    weights = {"kernel": kernel[..., within, :][..., outputs]} | ({"bias": bias[outputs]} if use_bias else {})
    return {"filters": int(outputs.sum()), "use_bias": use_bias}, weights


def _kernels(layer, inputs, outputs):
    """Dictionary from names to the kernels of a layer, without the inputs and outputs that do not stay."""
    if is_kind(layer, "separable_conv"):
        repeated = np.repeat(inputs, layer.depth_multiplier)
        return {
            "depthwise_kernel": numpy_value(layer.depthwise_kernel)[..., inputs, :],
            "pointwise_kernel": numpy_value(layer.pointwise_kernel)[..., repeated, :][..., outputs],
        }
    if is_kind(layer, "conv_transpose"):
        inputs, outputs = outputs, inputs
    return {"kernel": numpy_value(layer.kernel)[..., inputs, :][..., outputs]}
