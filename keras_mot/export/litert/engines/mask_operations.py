"""Operations in a graph, such as those of masks, that LiteRT has no kernels for with whole numbers or open sizes."""

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
        source, name = node.input[0], node.name
        if node.op == _SPACED:
            for number, axis in enumerate(names[name]):
                source = _expanded(definition, f"{name}/axis_{number}", source, axis, node)
        elif node.op == "Abs":
            negative = _added(definition, f"{name}/negative", "Neg", [source], node)
            source = _added(definition, f"{name}/larger", "Maximum", [source, negative], node)
        else:
            low, high = (
                _constant(definition, f"{name}/{end}", value, node) for end, value in (("low", -1), ("high", 1))
            )
            above = _added(definition, f"{name}/above", "Maximum", [source, low], node)
            source = _added(definition, f"{name}/between", "Minimum", [above, high], node)
        # The last one is called as the operation was, so that what reads it need not change.
        last = definition.node[-1]
        definition.node.remove(node)
        last.name = name


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


def _added(definition, name, kind, inputs, node):
    added = definition.node.add(name=name, op=kind, input=inputs)
    added.attr["T"].CopyFrom(node.attr["T"])
    return name


def _expanded(definition, name, source, axis, node):
    import tensorflow as tf

    place = definition.node.add(name=f"{name}/place", op="Const")
    place.attr["dtype"].type = tf.int32.as_datatype_enum
    place.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(axis, tf.int32))
    expanded = definition.node.add(name=name, op="ExpandDims", input=[source, place.name])
    expanded.attr["T"].CopyFrom(node.attr["T"])
    expanded.attr["Tdim"].type = tf.int32.as_datatype_enum
    return name


def _constant(definition, name, value, node):
    import tensorflow as tf

    kind = tf.as_dtype(node.attr["T"].type)
    constant = definition.node.add(name=name, op="Const")
    constant.attr["dtype"].type = kind.as_datatype_enum
    constant.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value, kind))
    return constant.name
