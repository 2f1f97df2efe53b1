"""The policy for sparse inference with XNNPACK: prune only what its sparse kernels can use."""

from keras import layers

from keras_mot.graph.functional import as_functional, is_a
from keras_mot.graph.kinds import kind_of, kind_of_function
from keras_mot.graph.model_graph import Graph
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
        if as_functional(model) is None:
            raise ValueError(
                "`PruneForLatencyOnXNNPack` needs a built sequential or functional model, to see its graph; "
                f"received {type(model).__name__}."
            )
        graph = Graph(model)
        stems = [call for call in graph.calls if _is_stem(graph, call)]
        for tensor in graph.inputs:
            below = _below(graph, tensor)
            if not any(id(stem) in below for stem in stems):
                raise ValueError(
                    "Could not find a `Conv2D` 3x3 layer with stride 2x2, 3 input channels and padding 'valid' after "
                    f"`ZeroPadding2D(1)` in the branch of input '{tensor.name}': XNNPACK's sparse inference begins "
                    "there."
                )
        _check_between(graph, stems)


def _check_between(graph, stems):
    waiting, seen = list(stems), set()
    while waiting:
        call = waiting.pop()
        readers = [reader for tensor in call.outputs for reader in graph.readers(tensor)]
        if not readers:
            raise ValueError(
                "Could not find a `GlobalAveragePooling2D` layer in all output branches: XNNPACK's sparse "
                "inference ends there."
            )
        for reader in readers:
            operation = reader.operation
            if id(reader) in seen or is_a(operation, layers.GlobalAveragePooling2D):
                continue
            seen.add(id(reader))
            if not _is_supported(operation):
                raise ValueError(
                    f"Layer '{operation.name}' ({type(operation).__name__}) is not supported for "
                    "`PruneForLatencyOnXNNPack` between the first convolution and the global average pooling."
                )
            waiting.append(reader)


def _below(graph, tensor):
    """Dictionary by id of the calls that depend on a tensor."""
    below, waiting = {}, list(graph.readers(tensor))
    while waiting:
        call = waiting.pop()
        if id(call) not in below:
            below[id(call)] = call
            waiting.extend(reader for output in call.outputs for reader in graph.readers(output))
    return below


def _is_stem(graph, call):
    layer, before = call.operation, graph.producer(call.inputs[0])
    if not isinstance(layer, layers.Conv2D) or _channels_last_problem(layer) or before is None:
        return False
    padded = is_a(before.operation, layers.ZeroPadding2D) and before.operation.padding == ((1, 1), (1, 1))
    plain = tuple(layer.kernel.shape[:3]) == (3, 3, 3) and layer.strides == (2, 2) and layer.padding == "valid"
    return padded and plain


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
    kind = kind_of_function(layer.activation)
    return kind is not None and kind.name in _ACTIVATIONS


# Kinds of operations that the sparse subgraph may hold, and what else must be true of each.
_SUPPORTED = {
    **dict.fromkeys((*_ACTIVATIONS, "add", "subtract", "multiply", "identity", "resize_bilinear")),
    "pad": lambda layer: is_a(layer, layers.ZeroPadding2D),
    "batch_normalization": lambda layer: layer.axis in (-1, 3),
    "depthwise_conv": lambda layer: _is_depthwise_supported(layer) and _has_supported_activation(layer),
    "conv": lambda layer: _is_pointwise(layer) and _has_supported_activation(layer),
}


def _is_supported(operation):
    if is_a(operation, layers.ReLU):  # in all its forms
        return True
    kind = kind_of(operation)
    if kind is None or kind.name not in _SUPPORTED:
        return False
    condition = _SUPPORTED[kind.name]
    return condition is None or condition(operation)
