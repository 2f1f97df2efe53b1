"""Operations of a frozen graph that LiteRT has no kernel for, exchanged for others that it has."""

from keras_mot.export.litert.engines import (
    fourier,
    mask_operations,
    pooled_volumes,
    random_operations,
    smooth_resizing,
)


def with_kernels(function, names):
    """A frozen function whose operations have kernels, as far as is known how.

    Args:
        function: a concrete function of TensorFlow without variables.
        names: the names of its arguments.

    Returns:
        The graph, and a function of the same keyword arguments that returns a list of tensors: the given one where
        there is nothing to exchange.
    """
    graph = function.graph
    draws, volumes = random_operations.draws(graph), pooled_volumes.known(graph)
    numbers, transforms = mask_operations.known(graph), fourier.known(graph)
    resized = smooth_resizing.known(graph)
    if not any((draws, volumes, numbers, transforms, resized)):
        return graph, function
    import tensorflow as tf

    definition = graph.as_graph_def()
    if draws:
        random_operations.exchange(definition)
    pooled_volumes.exchange(definition, volumes)
    mask_operations.exchange(definition, numbers)
    fourier.exchange(definition, transforms)
    smooth_resizing.exchange(definition, resized)

    def imported():
        tf.graph_util.import_graph_def(definition, name="")

    wrapped = tf.compat.v1.wrap_function(imported, [])
    inputs = {tensor.op.name: wrapped.graph.get_tensor_by_name(tensor.name) for tensor in function.inputs}
    outputs = [wrapped.graph.get_tensor_by_name(tensor.name) for tensor in function.outputs]
    pruned = wrapped.prune([inputs[name] for name in names], outputs)
    return pruned.graph, lambda **tensors: pruned(*(tensors[name] for name in names))
