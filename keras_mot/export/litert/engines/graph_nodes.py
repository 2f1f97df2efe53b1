"""Nodes that are added to a `GraphDef`, in the place of others."""

import numpy as np


def added(definition, name, kind, inputs, **types):
    """Adds an operation, and returns its name.

    Args:
        definition: the `GraphDef`.
        name: of the operation.
        kind: what it is, such as "Reshape".
        inputs: list of the names of what it reads.
        **types: its attributes that are types of TensorFlow, such as `T=tf.float32`, or their numbers in a node.
    """
    node = definition.node.add(name=name, op=kind, input=inputs)
    for key, value in types.items():
        node.attr[key].type = getattr(value, "as_datatype_enum", value)
    return name


def constant(definition, name, values):
    """Adds a constant, and returns its name. Arguments as of `added`; the values are a NumPy array."""
    import tensorflow as tf

    values = np.asarray(values)
    added(definition, name, "Const", [], dtype=tf.as_dtype(values.dtype))
    definition.node[-1].attr["value"].tensor.CopyFrom(tf.make_tensor_proto(values))
    return name


def replace_by_last(definition, node):
    """Removes a node, and gives its name to the last one that was added, so that what reads it need not change."""
    last, name = definition.node[-1], node.name
    definition.node.remove(node)
    last.name = name
