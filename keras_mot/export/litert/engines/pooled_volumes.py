"""Pooling of volumes in a graph, which LiteRT has no kernel for: within slices, and then over them."""

import numpy as np

from keras_mot.export.litert.engines.graph_nodes import added, constant, replace_by_last

_POOLING = {"MaxPool3D": "MaxPool", "AvgPool3D": "AvgPool"}


def known(graph):
    """Dictionary from the names of such operations of a graph to the shapes of what they read and return."""
    found = {}
    for operation in graph.get_operations():
        if operation.type not in _POOLING or operation.get_attr("data_format") != b"NDHWC":
            continue
        shapes = operation.inputs[0].shape, operation.outputs[0].shape
        if all(shape.rank == 5 and None not in shape[1:].as_list() for shape in shapes):
            found[operation.name] = tuple(tuple(shape[1:].as_list()) for shape in shapes)
    return found


def exchange(definition, volumes):
    """Exchanges them in a `GraphDef`.

    The largest of a block is the largest of its slices' largest; so with means, also at the edges.

    Args:
        definition: the `GraphDef`.
        volumes: what `known` says of its graph.
    """
    for node in [node for node in definition.node if node.name in volumes]:
        (depth, rows, columns, channels), (slices, high, wide, _) = volumes[node.name]
        (size, *window), (stride, *strides) = (
            list(node.attr["ksize"].list.i)[1:4],
            list(node.attr["strides"].list.i)[1:4],
        )
        x = _reshaped(definition, f"{node.name}/slices", node.input[0], (-1, rows, columns, channels), node)
        x = _pooled(definition, f"{node.name}/within", x, window, strides, node)
        x = _reshaped(definition, f"{node.name}/rows", x, (-1, depth, high * wide, channels), node)
        x = _pooled(definition, f"{node.name}/over", x, (size, 1), (stride, 1), node)
        _reshaped(definition, f"{node.name}/volume", x, (-1, slices, high, wide, channels), node)
        replace_by_last(definition, node)


def _pooled(definition, name, source, window, strides, node):
    pooling = definition.node.add(name=name, op=_POOLING[node.op], input=[source])
    for key in ("T", "padding"):
        pooling.attr[key].CopyFrom(node.attr[key])
    pooling.attr["ksize"].list.i[:] = [1, *window, 1]
    pooling.attr["strides"].list.i[:] = [1, *strides, 1]
    pooling.attr["data_format"].s = b"NHWC"
    return name


def _reshaped(definition, name, source, shape, node):
    import tensorflow as tf

    sizes = constant(definition, f"{name}/shape", np.array(shape, "int32"))
    return added(definition, name, "Reshape", [source, sizes], T=node.attr["T"].type, Tshape=tf.int32)
