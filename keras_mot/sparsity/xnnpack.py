"""The policy for sparse inference with XNNPACK: prune only what its sparse kernels can use."""

from keras import layers

from keras_mot._keras import Functional, Sequential, producer_of
from keras_mot.graph.functional import kind_of
from keras_mot.sparsity.policies import PruningPolicy


class PruneForLatencyOnXNNPack(PruningPolicy):
    """Prunes only 1x1 convolutions, in models whose graph XNNPACK can run with sparse kernels.

    XNNPACK switches a part of a float32 graph to sparse kernels, on Arm and on x86 without AVX, if it begins with a
    3x3 convolution of stride 2 on 3 channels (after a `ZeroPadding2D(1)`, with "valid" padding), ends with
    global average pooling, holds only operations that it has in the required memory layout, and more than
    two thirds of the weights of its 1x1 convolutions are zero.

    Reference: Elsen et al., 2020, "Fast Sparse ConvNets" (arXiv:1911.09723).

    Example:

    ```python
    prune_low_magnitude(model, ConstantSparsity(0.75), pruning_policy=PruneForLatencyOnXNNPack())
    ```
    """

    def allow_pruning(self, layer):
        """Whether `layer` is a 1x1 convolution that the sparse kernels can run."""
        return isinstance(layer, layers.Conv2D) and _is_pointwise(layer)

    def ensure_model_supports_pruning(self, model):
        """Checks the graph.

        Args:
            model: a built sequential or functional model without nested models.

        Raises:
            ValueError: if the model has no suitable beginning or end, or has an operation in between that
                the sparse kernels cannot run; it names the layer.
        """
        if isinstance(model, Sequential):
            model = model._functional
        if not isinstance(model, Functional):
            raise ValueError(
                "`PruneForLatencyOnXNNPack` needs a built sequential or functional model, to see its graph; "
                f"received {type(model).__name__}."
            )
        consumers = _consumers(model)
        stems = [operation for operation in model.operations if _is_stem(operation, consumers)]
        for tensor in model.inputs:
            below = _reachable([producer_of(tensor)], consumers)
            if not any(stem in below for stem in stems):
                raise ValueError(
                    "Could not find a `Conv2D` 3x3 layer with stride 2x2, 3 input channels and padding 'valid' after "
                    f"`ZeroPadding2D(1)` in the branch of input '{tensor.name}': XNNPACK's sparse inference begins "
                    "there."
                )
        self._check_between(stems, consumers)

    def _check_between(self, stems, consumers):
        waiting, seen = [user for stem in stems for user in consumers[stem]], set()
        if any(not consumers[stem] for stem in stems):
            waiting.append(None)
        while waiting:
            operation = waiting.pop()
            if operation is None:
                raise ValueError(
                    "Could not find a `GlobalAveragePooling2D` layer in all output branches: XNNPACK's sparse "
                    "inference ends there."
                )
            if operation in seen or isinstance(operation, layers.GlobalAveragePooling2D):
                continue
            seen.add(operation)
            if not _is_supported(operation):
                raise ValueError(
                    f"Layer '{operation.name}' ({type(operation).__name__}) is not supported for "
                    "`PruneForLatencyOnXNNPack` between the first convolution and the global average pooling."
                )
            waiting.extend(consumers[operation] or [None])


def _consumers(model):
    consumers = {operation: [] for operation in model.operations}
    for nodes in model._nodes_by_depth.values():
        for node in nodes:
            for parent in node.parent_nodes:
                consumers[parent.operation].append(node.operation)
    return consumers


def _reachable(start, consumers):
    seen, waiting = set(), list(start)
    while waiting:
        operation = waiting.pop()
        if operation not in seen:
            seen.add(operation)
            waiting.extend(consumers[operation])
    return seen


def _is_stem(operation, consumers):
    if not isinstance(operation, layers.Conv2D) or _channels_last_problem(operation):
        return False
    shape = operation.kernel.shape
    padded = any(
        isinstance(parent, layers.ZeroPadding2D) and parent.padding == ((1, 1), (1, 1))
        for parent, users in consumers.items()
        if operation in users
    )
    return tuple(shape[:3]) == (3, 3, 3) and operation.strides == (2, 2) and operation.padding == "valid" and padded


def _is_pointwise(layer):
    return (
        tuple(layer.kernel_size) == (1, 1)
        and tuple(layer.strides) == (1, 1)
        and layer.groups == 1
        and not _channels_last_problem(layer)
    )


def _channels_last_problem(layer):
    return layer.data_format != "channels_last" or tuple(layer.dilation_rate) != (1, 1)


def _is_depthwise_supported(layer):
    kernel, strides = tuple(layer.kernel_size), tuple(layer.strides)
    if kernel not in ((3, 3), (5, 5)) or layer.depth_multiplier != 1 or _channels_last_problem(layer):
        return False
    return strides == (1, 1) if layer.padding == "same" else strides in ((1, 1), (2, 2))


_ACTIVATIONS = ("linear", "relu", "relu6", "leaky_relu", "elu", "sigmoid")


def _has_supported_activation(layer):
    return getattr(layer.activation, "__name__", "") in _ACTIVATIONS


# Operations that the sparse subgraph may hold, and what else must be true of each.
_SUPPORTED = {
    layers.Add: None,
    layers.Multiply: None,
    layers.Subtract: None,
    layers.ZeroPadding2D: None,
    layers.ReLU: None,
    layers.LeakyReLU: None,
    layers.ELU: None,
    layers.Dropout: None,
    layers.Identity: None,
    layers.Activation: _has_supported_activation,
    layers.BatchNormalization: lambda layer: layer.axis in (-1, 3),
    layers.UpSampling2D: lambda layer: layer.interpolation == "bilinear",
    layers.DepthwiseConv2D: lambda layer: _is_depthwise_supported(layer) and _has_supported_activation(layer),
    layers.Conv2D: lambda layer: _is_pointwise(layer) and _has_supported_activation(layer),
}
_SUPPORTED_OPERATIONS = ("Add", "Subtract", "Multiply")


def _is_supported(operation):
    for layer_class, condition in _SUPPORTED.items():
        if isinstance(operation, layer_class):
            return condition is None or condition(operation)
    return kind_of(operation) in _SUPPORTED_OPERATIONS
