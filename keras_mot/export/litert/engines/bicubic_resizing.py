"""Bicubic resizing in a graph, which plain LiteRT has no kernel for: a product with a matrix for each axis.

It is linear, and treats rows and columns one after the other (Keys, 1981, "Cubic convolution interpolation for digital
image processing"): what it does to the rows of a unit matrix is its own matrix.
"""

import numpy as np

from keras_mot.export.litert.engines.graph_nodes import added, constant, replace_by_last


def known(graph):
    """Dictionary from the names of such operations on images of known sizes to the matrices of rows and columns."""
    from tensorflow.python.framework.tensor_util import constant_value

    found = {}
    for operation in graph.get_operations():
        if operation.type != "ResizeBicubic" or operation.inputs[0].dtype.name != "float32":
            continue
        lengths, shape = constant_value(operation.inputs[1]), operation.inputs[0].shape
        if lengths is None or shape.rank != 4 or None in shape.as_list()[1:3]:
            continue
        sizes = zip(lengths.tolist(), shape.as_list()[1:3], strict=True)
        found[operation.name] = tuple(
            _matrix(operation, length, axis, size) for axis, (length, size) in enumerate(sizes)
        )
    return found


def exchange(definition, resized):
    """Exchanges them in a `GraphDef`.

    Args:
        definition: the `GraphDef`.
        resized: what `known` says of its graph.
    """
    import tensorflow as tf

    for node in [node for node in definition.node if node.name in resized]:
        rows, columns = resized[node.name]
        parts = iter(range(8))

        def make(kind, *inputs, prefix=node.name, parts=parts, **types):
            return added(definition, f"{prefix}/part_{next(parts)}", kind, inputs, T=tf.float32, **types)

        def transposed(source, order, prefix=node.name, make=make):
            name = f"{prefix}/order_{''.join(map(str, order))}"
            return make("Transpose", source, constant(definition, name, np.array(order, "int32")), Tperm=tf.int32)

        # Images of (batch, channels, columns, rows), so that the matrices stand on the right.
        tall = make(
            "BatchMatMulV2",
            transposed(node.input[0], (0, 3, 2, 1)),
            constant(definition, f"{node.name}/rows", rows),
        )
        wide = make(
            "BatchMatMulV2",
            transposed(tall, (0, 1, 3, 2)),
            constant(definition, f"{node.name}/columns", columns),
        )
        transposed(wide, (0, 2, 3, 1))
        replace_by_last(definition, node)


def _matrix(operation, length, axis, size):
    """What an operation does along an axis: float32 array of shape (size, length), the sizes before and afterwards."""
    import tensorflow as tf

    unit = np.eye(size, dtype="float32").reshape((1, size, 1, size) if axis == 0 else (1, 1, size, size))
    sizes = np.array([length, 1] if axis == 0 else [1, length], "int32")
    options = {name: operation.get_attr(name) for name in ("align_corners", "half_pixel_centers")}
    result = tf.raw_ops.ResizeBicubic(images=unit, size=sizes, **options)
    return result.numpy().reshape(length, size).T.copy()
