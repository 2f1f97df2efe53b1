"""Two-dimensional Fourier transforms in a graph, which plain LiteRT has no kernel for: products with cosines and sines.

With F = C - iS, the matrix of the discrete transform of one axis, that of X is F X F.
"""

import numpy as np

from keras_mot.export.litert.engines.graph_nodes import added, constant, replace_by_last

_PARTS = ("Real", "Imag")


def known(graph):
    """Dictionary from the names of the parts of such transforms, their real and imaginary numbers, to what they are of.

    Returns:
        Pairs of the shape of the transformed, with sizes of the last two axes, and the names of its two parts.
    """
    found = {}
    for operation in graph.get_operations():
        if operation.type not in _PARTS or operation.inputs[0].op.type != "FFT2D":
            continue
        source = operation.inputs[0].op.inputs[0]
        if source.op.type != "Complex" or source.shape.rank is None or None in source.shape[-2:].as_list():
            continue
        found[operation.name] = source.shape.as_list(), tuple(tensor.name for tensor in source.op.inputs)
    return found


def exchange(definition, transforms):
    """Exchanges them in a `GraphDef`.

    Args:
        definition: the `GraphDef`.
        transforms: what `known` says of its graph.
    """
    for node in [node for node in definition.node if node.name in transforms]:
        shape, (real, imaginary) = transforms[node.name]
        make = _Maker(definition, node.name, len(shape))
        height, width = map(_matrices, shape[-2:])
        first = make("AddV2", make.right(real, width[0]), make.right(imaginary, width[1]))
        second = make("Sub", make.right(imaginary, width[0]), make.right(real, width[1]))
        if node.op == "Real":
            make("AddV2", make.left(height[0], first), make.left(height[1], second))
        else:
            make("Sub", make.left(height[0], second), make.left(height[1], first))
        replace_by_last(definition, node)


def _matrices(size):
    """The cosines and the sines of the transform of an axis, both symmetric: float32 arrays of shape (size, size)."""
    angles = 2 * np.pi * (np.outer(np.arange(size), np.arange(size)) % size) / size
    return np.cos(angles).astype("float32"), np.sin(angles).astype("float32")


class _Maker:
    """Adds operations to a `GraphDef`, and returns their names."""

    def __init__(self, definition, prefix, rank):
        self._definition, self._prefix, self._rank, self._count = definition, prefix, rank, 0

    def __call__(self, kind, *inputs, **types):
        import tensorflow as tf

        return added(self._definition, self._name(), kind, inputs, T=tf.float32, **types)

    def right(self, source, matrix):
        """A tensor times a matrix."""
        return self("BatchMatMulV2", source, self._constant(matrix))

    def left(self, matrix, source):
        """A symmetric matrix times a tensor: that of the transposed, so that the matrix stands on the right."""
        return self._transposed(self.right(self._transposed(source), matrix))

    def _transposed(self, source):
        import tensorflow as tf

        order = [*range(self._rank - 2), self._rank - 1, self._rank - 2]
        return self("Transpose", source, self._constant(np.array(order, "int32")), Tperm=tf.int32)

    def _constant(self, values):
        return constant(self._definition, self._name(), values)

    def _name(self):
        self._count += 1
        return f"{self._prefix}/part_{self._count}"
