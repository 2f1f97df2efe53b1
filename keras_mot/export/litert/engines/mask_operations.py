"""Operations in a graph, such as those of masks, that LiteRT has no kernels for with whole numbers or open sizes."""

import numpy as np

from keras_mot.export.litert.engines.graph_nodes import added, constant, replace_by_last

_SPACED = "StridedSlice"


def known(graph):
    """Dictionary from the names of such operations of a graph to what stands for them: the places of new axes, or none.

    New axes alone, as in `mask[:, None]`, are a matter of shape, which LiteRT's converter refuses with open sizes.
    """
    found = {}
    for operation in graph.get_operations():
        if operation.type not in ("Abs", "Sign", _SPACED):
            continue
        kind = operation.get_attr("T")
        if operation.type == _SPACED:
            axes = _new_axes(operation)
            shape = operation.outputs[0].shape
            if axes and shape.rank is not None and None in shape[1:].as_list():
                found[operation.name] = axes
        elif kind.is_integer:
            found[operation.name] = ()
    return found


def exchange(definition, names):
    """Exchanges them in a `GraphDef`.

    Args:
        definition: the `GraphDef`.
        names: what `known` says of its graph.
    """
    for node in [node for node in definition.node if node.name in names]:
        source, name, kind = node.input[0], node.name, node.attr["T"].type
        if node.op == _SPACED:
            for number, axis in enumerate(names[name]):
                source = _expanded(definition, f"{name}/axis_{number}", source, axis, kind)
        elif node.op == "Abs":
            negative = added(definition, f"{name}/negative", "Neg", [source], T=kind)
            added(definition, f"{name}/larger", "Maximum", [source, negative], T=kind)
        else:
            low, high = (_number(definition, f"{name}/{end}", value, kind) for end, value in (("low", -1), ("high", 1)))
            above = added(definition, f"{name}/above", "Maximum", [source, low], T=kind)
            added(definition, f"{name}/between", "Minimum", [above, high], T=kind)
        replace_by_last(definition, node)


def _new_axes(operation):
    """The axes to add one after the other, if a slice does nothing else; else an empty tuple."""
    import tensorflow as tf

    values = [tf.get_static_value(tensor) for tensor in operation.inputs[1:]]
    if any(value is None for value in values):
        return ()
    names = ("begin", "end", "ellipsis", "new_axis", "shrink_axis")
    masks = {name: operation.get_attr(f"{name}_mask") for name in names}
    if masks["shrink_axis"]:
        return ()
    begins, _, strides = values
    entries = range(len(strides))
    added = [place for place in entries if masks["new_axis"] & 1 << place]
    rest = [place for place in entries if place not in added and not masks["ellipsis"] & 1 << place]
    if any(not masks["end"] & 1 << place or strides[place] != 1 for place in rest):
        return ()
    if any(not masks["begin"] & 1 << place and begins[place] != 0 for place in rest):
        return ()
    middle = next((place for place in entries if masks["ellipsis"] & 1 << place), len(strides))
    # Behind what stands for all other axes, they are counted from the end, the last one first.
    behind = [place - len(strides) for place in reversed(added) if place > middle]
    return (*(place for place in added if place < middle), *behind)


def _expanded(definition, name, source, axis, kind):
    import tensorflow as tf

    place = constant(definition, f"{name}/place", np.array(axis, "int32"))
    return added(definition, name, "ExpandDims", [source, place], T=kind, Tdim=tf.int32)


def _number(definition, name, value, kind):
    import tensorflow as tf

    return constant(definition, name, np.array(value, tf.as_dtype(kind).as_numpy_dtype))
