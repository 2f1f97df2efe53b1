"""Resizing that plain LiteRT has no kernel for, bicubic, Lanczos or antialiased: a product with a matrix for each axis.

It is linear, and treats rows and columns one after the other (Keys, 1981, "Cubic convolution interpolation for digital
image processing"; Duchon, 1979, "Lanczos filtering in one and two dimensions"): what it does to the rows of a unit
matrix is its own matrix.
"""

import numpy as np

from keras_mot.export.litert.engines.graph_nodes import added, constant, replace_by_last


def known(graph):
    """Dictionary from the names of such operations on images of known sizes to the matrices of rows and columns."""
    from tensorflow.python.framework.tensor_util import constant_value

    found = {}
    for operation in graph.get_operations():
        if operation.type not in _RESIZERS or operation.inputs[0].dtype.name != "float32":
            continue
        lengths, shape = constant_value(operation.inputs[1]), operation.inputs[0].shape
        if lengths is None or shape.rank != 4 or None in shape.as_list()[1:3]:
            continue
        sizes = list(zip(lengths.tolist(), shape.as_list()[1:3], strict=True))
        resize = _RESIZERS[operation.type](operation, sizes)
        if resize is not None:
            found[operation.name] = tuple(
                _matrix(resize, length, axis, size) for axis, (length, size) in enumerate(sizes)
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


def _matrix(resize, length, axis, size):
    """What a function does along an axis: float32 array of shape (size, length), the sizes before and afterwards."""
    unit = np.eye(size, dtype="float32").reshape((1, size, 1, size) if axis == 0 else (1, 1, size, size))
    result = resize(unit, axis, np.array([length, 1] if axis == 0 else [1, length], "int32"))
    return result.numpy().reshape(length, size).T.copy()


def _bicubic(operation, sizes):
    """What such an operation does to images of its own: a function of these, the axis, and their new sizes."""
    import tensorflow as tf

    options = {name: operation.get_attr(name) for name in ("align_corners", "half_pixel_centers")}
    return lambda images, axis, lengths: tf.raw_ops.ResizeBicubic(images=images, size=lengths, **options)


def _scaled(operation, sizes):
    """As `_bicubic`; `None` where scales and offsets are not known."""
    import tensorflow as tf
    from tensorflow.python.framework.tensor_util import constant_value

    images, _, scale, offset = operation.inputs
    scales, offsets = constant_value(scale), constant_value(offset)
    if scales is None and _is_ratio(scale.op, images):
        scales = np.array([length / size for length, size in sizes], "float32")
    if scales is None or offsets is None:
        return None
    options = {"kernel_type": operation.get_attr("kernel_type"), "antialias": operation.get_attr("antialias")}

    def resize(images, axis, lengths):
        along = np.arange(2) == axis  # the other axis has one row, which stays
        return tf.raw_ops.ScaleAndTranslate(
            images=images,
            size=lengths,
            scale=np.where(along, scales, 1.0).astype("float32"),
            translation=np.where(along, offsets, 0.0).astype("float32"),
            **options,
        )

    return resize


def _is_ratio(operation, images):
    """Whether a tensor is the new sizes divided by those that images have, as `tf.image.resize` computes it."""
    if operation.type != "RealDiv":
        return False
    found, waiting = set(), [operation.inputs[1].op]
    while waiting:
        each = waiting.pop()
        found.add(each.type)
        if each.type == "Shape" and each.inputs[0].name != images.name:
            return False
        waiting += [] if each.type == "Shape" else [tensor.op for tensor in each.inputs]
    return found == {"Cast", "StridedSlice", "Shape", "Const"}


_RESIZERS = {"ResizeBicubic": _bicubic, "ScaleAndTranslate": _scaled}
